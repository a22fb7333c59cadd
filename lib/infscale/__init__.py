"""Inference Scaling: how protocol, payload and deployment change a served model's performance.

Importing the package is cheap and pulls in no serving framework; every heavy module is imported by
the function that needs it.
"""

__version__ = "0.1.0"
