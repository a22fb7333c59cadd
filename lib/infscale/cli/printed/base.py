"""What commands print with ``--json``: one JSON object, encoded from a typed record, and nothing else on that stream.

Keys carry their units (``_ms``, ``_s``, ``_per_s``, ``_bytes``). They are added to, and neither renamed nor removed,
while :data:`infscale.records.manifest.VERSION` stays. A number that is unknown or infinite is null: JSON holds neither.
The result of ``infscale load`` is in :mod:`infscale.cli.load_report`, that of what
draws is a :class:`infscale.report.results.FindingResult`. ``infscale schema`` prints the schemas.
"""

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    import pandas as pd


class Result(msgspec.Struct, kw_only=True):
    """Base of what a command prints, and of its parts."""


R = TypeVar("R", bound=Result)


def emit(result: msgspec.Struct) -> None:
    """Print a result as JSON on standard output, also where everything else that is printed goes to standard error."""
    ctx = click.get_current_context(silent=True)
    stream = sys.stdout if ctx is None else ctx.meta.get(STDOUT, sys.stdout)
    print(text(result), file=stream, flush=True)


def text(result: msgspec.Struct) -> str:
    """Return a result as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(result, enc_hook=_plain), indent=1).decode()


def _plain(value: Any) -> object:
    """Return a number of NumPy as one of Python."""
    return value.item()


STDOUT = "infscale.stdout"
"""The name under which a context of click keeps standard output; see :class:`infscale.cli.options.Command`."""


def rows(table: "pd.DataFrame", kind: type[R]) -> list[R]:
    """Return the rows of a table as records, NaN as None; columns that the record does not have are left out."""
    kept = table[[name for name in table.columns if name in kind.__struct_fields__]].astype(object)
    return msgspec.convert(kept.where(kept.notna(), None).to_dict("records"), list[kind])  # type: ignore[valid-type]
