"""Version folders of a model's base path, and which of them a policy serves. This imports no TensorFlow."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

MAX_INT64 = 2**63 - 1


def versions_at(base: Path) -> dict[int, Path]:
    """Return the folders whose name is a version, by version.

    Raises:
        OSError: the base path cannot be read now.
    """
    folders = {}
    for child in base.iterdir():
        numeric = child.name.isascii() and child.name.isdigit() and len(child.name) <= 19
        if numeric and int(child.name) <= MAX_INT64:
            folders[int(child.name)] = child
    return folders


def has_model(folder: Path) -> bool:
    """Return whether a version folder holds a SavedModel; one without is still being copied."""
    return (folder / "saved_model.pb").is_file() or (folder / "saved_model.pbtxt").is_file()


def chosen(policy: Any, present: Collection[int]) -> set[int]:
    """Return the versions that a ``ServableVersionPolicy`` serves, of those present; without a choice, the newest."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(present)
    if choice == "specific":
        return set(policy.specific.versions) & set(present)
    return set(sorted(present, reverse=True)[: max(policy.latest.num_versions, 1)])


def report_missing(name: str, base: Path, policy: Any, serve: Collection[int]) -> None:
    """Print to standard error which versions a policy asks for and the base path does not hold."""
    for version in sorted(set(policy.specific.versions) - set(serve)):
        print(f"Version {version} of servable {name}, which was requested, was not found under {base}", file=sys.stderr)
    if not serve:
        print(f"No versions of servable {name} found under base path {base}", file=sys.stderr)
    sys.stderr.flush()
