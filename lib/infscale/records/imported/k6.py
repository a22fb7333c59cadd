"""k6's JSON output (``k6 run --out json=FILE``): a line for each point of each metric.

Of a request k6 writes a point of each of its metrics, all with the time of its end and the same tags. Its parts reckon
the other times back from there: the end − ``http_req_duration`` is when sending began (a connection was there), that −
``http_req_blocked`` when a connection was asked for; sending and waiting lead to the first byte. Nothing says when the
request was scheduled, so that the time at which a connection was asked for stands for it, as in a closed loop. An
iteration that k6 dropped (``dropped_iterations``: no user was free) is a row that was not sent.

Source: https://grafana.com/docs/k6/latest/results-output/real-time/json/ and .../using-k6/metrics/reference/.
"""

import calendar
import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from infscale.errors import DataError
from infscale.records.imported.source import TEXT_MOST, Load, length_s, limit_s, opened, rows_of
from infscale.records.manifest import Reason, Reported
from infscale.records.samples import NEVER, TIMES

TIMEOUT_S = 60.0
"""k6's own time limit of a request, s."""

LINE_MOST = 1_000_000
"""Most bytes of a line; a point has a few hundred."""

MOST_MS = 1e12
"""Longest time that is believed, ms: thirty years."""

PARTS = ("http_req_duration", "http_req_blocked", "http_req_sending", "http_req_waiting")
"""The metrics of a request that are used; others are passed over."""

DROPPED = "dropped_iterations"

DROPPED_MOST = 10_000_000
"""Most dropped iterations that are read."""

CODES = {"1050": "timeout", "1211": "timeout", "1212": "refused", "1201": "reset", "1220": "reset"}
"""k6's error codes as statuses: a request's or a dial's timeout, a refused connection, a broken pipe, a reset."""


class Data(msgspec.Struct):
    """What a line says: of a point its time, value and tags; of a metric nothing that is used."""

    time: str = ""
    value: float = math.nan
    tags: dict[str, object] | None = None


class Line(msgspec.Struct):
    """A line of the file."""

    type: str
    metric: str = ""
    data: Data | None = None


@dataclass
class Points:
    """The points of all requests that ended at one time with the same tags: by metric their values, in their order."""

    end_ns: int
    tags: Mapping[str, object]
    values: dict[str, list[float]] = field(default_factory=dict)


def read(path: Path) -> list[Load]:
    """Return the load that a file of k6 holds.

    Raises:
        DataError: it cannot be read, is no such file, or holds no HTTP request.
    """
    with opened(path) as file:
        return [of_lines(iter(lambda: file.readline(LINE_MOST), b""), str(path))]


def of_lines(lines: Iterable[bytes], source: str) -> Load:
    """Return the load that lines of k6's JSON output hold.

    Args:
        lines: each with a point, or a metric's declaration.
        source: the file, for messages.

    Raises:
        DataError: a line is none of k6's, or there is no HTTP request.
    """
    decoder = msgspec.json.Decoder(Line)
    points: dict[tuple[int, str], Points] = {}
    dropped: list[int] = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        where = f"{source}, line {number}"
        try:
            line = decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"{where} is no line of k6's JSON output: {error}") from error
        if line.type != "Point" or line.data is None or line.metric not in (*PARTS, DROPPED):
            continue
        at, value = _time_ns(line.data.time, where), line.data.value
        if not 0 <= value <= MOST_MS:
            raise DataError(f"{where}: {line.metric} is {value:g}; accepted: 0 or more ms")
        if line.metric == DROPPED:
            if len(dropped) + value > DROPPED_MOST:
                raise DataError(f"{where}: more than {DROPPED_MOST:,} dropped iterations; accepted: fewer")
            dropped += [at] * int(value)
        else:
            tags = line.data.tags or {}
            own = points.setdefault((at, repr(sorted(tags.items()))), Points(at, tags))
            own.values.setdefault(line.metric, []).append(value)
    return _load(list(points.values()), dropped, source)


def _load(points: Iterable[Points], dropped: Sequence[int], source: str) -> Load:
    columns: dict[str, list[int]] = {name: [] for name in TIMES}
    statuses: list[str] = []
    reasons: Counter[tuple[str, str]] = Counter()
    for one in points:
        status, why = _status(one.tags)
        for k, duration in enumerate(one.values.get(PARTS[0], [])):
            blocked, sending, waiting = (_nth(one.values.get(name, []), k) for name in PARTS[1:])
            end = one.end_ns
            sent = end - _ns(duration)
            asked = sent - _ns(blocked)
            first = min(end, sent + _ns(sending + waiting)) if status == "ok" or status.startswith("http_") else NEVER
            for name, at in zip(columns, (asked, asked, sent, first, end), strict=True):
                columns[name].append(at)
            statuses.append(status)
            reasons[status, why] += why != ""
    for at in dropped:
        for name in columns:
            columns[name].append(at if name == "scheduled_ns" else NEVER)
        statuses.append("unsent")
    rows, began = rows_of(columns, statuses, f"{source}, which has no point of {PARTS[0]}," if not statuses else source)
    return Load(
        client="k6",
        connections=0,
        rate_per_s=None,
        rows=rows,
        duration_s=length_s(rows),
        timeout_s=limit_s(rows, TIMEOUT_S),
        started_at=_utc(began),
        reported=Reported(tool="k6", requests=len(statuses) - len(dropped)),
        reasons=[Reason(status, why, count) for (status, why), count in reasons.most_common() if count],
    )


def _nth(values: list[float], k: int) -> float:
    return values[k] if k < len(values) else 0.0


def _ns(ms: float) -> int:
    return round(ms * 1e6)


def _status(tags: Mapping[str, object]) -> tuple[str, str]:
    """Return a request's status, and why it failed."""
    code, error, http = (str(tags.get(name, "")) for name in ("error_code", "error", "status"))
    expected = str(tags.get("expected_response", "")).lower()
    answered = re.fullmatch(r"[1-5][0-9]{2}", http)
    if expected == "true" or (not expected and not code and answered and http < "400"):
        return "ok", ""
    why = " ".join((error or (f"error code {code}" if code else f"HTTP status {http}")).split())[:TEXT_MOST]
    if answered and code not in CODES:
        return f"http_{http}", why
    return CODES.get(code, "bad_response"), why


def _time_ns(text: str, where: str) -> int:
    """Return a time such as ``2026-11-28T01:02:03.456789012+01:00`` in ns since 1970.

    Raises:
        DataError: it is no such time.
    """
    form = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)"
    known = re.fullmatch(form, text, re.ASCII)
    try:
        if known is None:
            raise ValueError("another form")
        whole = dt.datetime.fromisoformat(f"{known[1]}{'+00:00' if known[3] == 'Z' else known[3]}").utctimetuple()
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: {text[:60]!r} is no time; accepted: as 2026-11-28T01:02:03.456+01:00") from error
    return calendar.timegm(whole) * 10**9 + int((known[2] or "").ljust(9, "0"))


def _utc(ns: int) -> str:
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=ns // 10**9)).isoformat()
