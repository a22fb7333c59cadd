"""The JSON Schemas of what is stored, and of what commands print with ``--json``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infscale.errors import ConfigError, one_of

if TYPE_CHECKING:
    import msgspec

DRAFT = "https://json-schema.org/draft/2020-12/schema"
"""The version of JSON Schema."""


def kinds() -> "dict[str, type[msgspec.Struct]]":
    """Return the types that are stored, and those that commands print, by the names of their schemas."""
    from infscale.cli import printed
    from infscale.cli.load_report import LoadResult
    from infscale.records import manifest
    from infscale.report.results import FindingResult

    return {
        "manifest-run": manifest.RunManifest,
        "manifest-trial": manifest.TrialManifest,
        "manifest-load": manifest.LoadManifest,
        "finding": FindingResult,
        "advice": printed.Advice,
        "audit": printed.Audit,
        "capacity": printed.Capacity,
        "compare": printed.Comparison,
        "doctor": printed.Doctor,
        "import": printed.Imported,
        "load": LoadResult,
        "merge": printed.MergedRuns,
        "plan": printed.Plan,
        "plan-capacity": printed.PlannedCapacity,
        "runs": printed.Runs,
        "show": printed.ShownRun,
        "show-two": printed.TwoRuns,
        "summary": printed.Summary,
    }


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one of :func:`kinds`, by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    import msgspec

    from infscale.records.manifest import VERSION

    known = kinds()
    one_of("schema", name, known)
    head = {"$schema": DRAFT, "$id": f"urn:infscale:{VERSION}:{name}"}
    return head | msgspec.json.schema(known[name], schema_hook=_any)


def _any(kind: type) -> dict[str, Any]:
    """Return the schema of a field that takes any value.

    Raises:
        NotImplementedError: it takes values of another type that JSON does not have.
    """
    if kind is not object:
        raise NotImplementedError
    return {"description": "Any value."}


def encoded(name: str) -> bytes:
    """Return the JSON Schema of one of :func:`kinds` as the text of its file."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(schema(name)), indent=1) + b"\n"


def write(folder: Path) -> list[Path]:
    """Write every schema to a folder, as NAME.schema.json; return the files.

    Raises:
        ConfigError: the folder cannot be written.
    """
    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in kinds():
            files.append(folder / f"{name}.schema.json")
            files[-1].write_bytes(encoded(name))
    except OSError as error:
        raise ConfigError(f"--into {str(folder)!r} cannot be written: {error.strerror}") from error
    return files
