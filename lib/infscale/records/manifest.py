"""Manifests: what is known of a run and of each of its trials."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infscale.errors import DataError
from infscale.records.samples import SCHEMA_VERSION


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a manifest atomically, keys in the order given."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
    ) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        DataError: absent, not JSON, or of another schema version.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if value.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {value.get('schema_version')}; this program reads version {SCHEMA_VERSION}"
        )
    return value
