"""``infscale summary``: percentiles of files of rows, however many, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING

from infscale.cli.options import Argument, Command, Number, option

if TYPE_CHECKING:
    from infscale.analysis.merging.rows import Percentile, Summary


def _run(files: tuple[str, ...], warmup: float, counts: str, json: bool) -> None:
    """Print the percentiles of every trial in some files.

    Raises:
        InfscaleError: a file that cannot be read, or has rows twice; DuckDB is not installed.
    """
    from infscale.analysis.merging.rows import files_of, summarise

    paths = [path for file in files for path in files_of(Path(file))]
    found = summarise(paths, warmup_s=warmup, counts=Path(counts) if counts else None)
    if json:
        import msgspec

        from infscale.cli import printed

        printed.emit(printed.Summary(trials=msgspec.convert(found, list[printed.TrialSummary], from_attributes=True)))
    else:
        print("\n".join(line for trial in found for line in _lines(trial)))


def _lines(trial: "Summary") -> list[str]:
    """Return what one trial's rows say, as lines."""
    failed = f"{trial.timeouts:,} timed out, {trial.failed:,} failed otherwise"
    precise = "exact" if trial.exact else "from counts in bins of 1 µs: at most 1 µs too long"
    head = f"{trial.trial_id}: {trial.requests:,} requests, {failed}; response time from the schedule, {precise}"
    return [head, *(f"  {_text(one)}" for one in trial.percentiles)]


def _text(one: "Percentile") -> str:
    """Return a percentile in words: "p99 12.345 ms [12.1, 12.6], as of 9,120 independent requests"."""
    sign = "> " if one.bound else ""
    known = one.low_ms == one.low_ms or one.high_ms == one.high_ms
    low, high = (f"{end:.3f}" if end == end else "?" for end in (one.low_ms, one.high_ms))
    interval = f" [{low}, {high}], as of {one.n_eff:,.0f} independent requests" if known else ""
    why = f" ({one.why})" if one.why else ""
    return f"{f'p{100 * one.level:g}':5} {sign}{one.value_ms:.3f} ms{interval}{why}"


command = Command(
    "summary",
    _run,
    [
        Argument(
            ["files"],
            nargs=-1,
            required=True,
            metavar="FILE|RUN...",
            help="Parquet files of rows (load --out) or of counts (--counts), and folders of runs.",
        ),
        option(
            "--warmup", section="Rows", default="0", type=Number(), note="Here: rows scheduled earlier are left out."
        ),
        option("--counts", section="Output", default=""),
        option("--json", section="Output"),
    ],
    help="Say the percentiles of the response time of every trial in some files, with 95 % intervals: of 100 million "
    "rows in bounded memory. Needs DuckDB.",
    notes="Rows of one trial may lie in several files. Failures count, as longer than any success. Counts in bins of "
    "1 µs can be added up where rows cannot be brought together; they give no intervals.",
    examples=(
        "infscale summary rows.parquet --warmup 2",
        "infscale summary shard-1.parquet shard-2.parquet --counts monday.parquet",
        "infscale summary monday.parquet tuesday.parquet --json",
    ),
)
