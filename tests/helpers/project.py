"""Where the project lies, for the tests that read its files or run its commands."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Folder of the checkout that is tested."""
