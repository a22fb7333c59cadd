"""Lines as ``k6 run --out json=FILE`` writes them, by k6's documentation: no k6 was at hand.

Sources: https://grafana.com/docs/k6/latest/results-output/real-time/json/ (lines, tags),
https://grafana.com/docs/k6/latest/using-k6/metrics/reference/ (the parts of a request), and
https://grafana.com/docs/k6/latest/javascript-api/error-codes/.
"""

import datetime as dt
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

BEGAN = dt.datetime(2026, 11, 28, 1, 0, tzinfo=dt.timezone(dt.timedelta(hours=1)))
FAILURES: dict[str, dict[str, str]] = {
    "http_500": {"status": "500", "error_code": "1500"},
    "timeout": {"status": "0", "error_code": "1050", "error": "request timeout"},
    "refused": {"status": "0", "error_code": "1212", "error": "dial: connection refused"},
}
"""Tags of failed requests by what our status of them is."""


def moment(ns: int) -> str:
    """Return a time, ns since the test began, as k6 writes it."""
    whole = BEGAN + dt.timedelta(seconds=ns // 10**9)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}+01:00"


def requests(users: int, each: int, median_ms: float, seed: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the end, ns, and the parts, ms, of requests of users who send again after an answer."""
    rng = random.Random(seed)
    for user in range(users):
        at = user * 2_000_000
        for k in range(each):
            parts = {
                "blocked": 0.35 if k == 0 else rng.uniform(0.001, 0.006),
                "sending": rng.uniform(0.01, 0.03),
                "waiting": median_ms * rng.lognormvariate(0, 0.2),
                "receiving": rng.uniform(0.02, 0.08),
            }
            end = at + round(1e6 * sum(parts.values()))
            yield end, parts
            at = end + round(1e6 * rng.uniform(0.05, 0.4))


def lines(
    users: int = 8,
    each: int = 30,
    median_ms: float = 20.0,
    *,
    failures: Mapping[int, str] | None = None,
    dropped: int = 0,
    seed: int = 1,
) -> bytes:
    """Return a file's lines.

    Args:
        users, each: so many users, each with so many requests.
        median_ms: of the time in which the server answers, ms.
        failures: which requests fail, by their number in the order of their ends, and how (:data:`FAILURES`).
        dropped: iterations that k6 dropped.
        seed: of the times.
    """
    text: list[dict[str, Any]] = [
        {
            "type": "Metric",
            "data": {"name": "http_req_duration", "type": "trend", "contains": "time", "thresholds": ["p(95)<500"]},
            "metric": "http_req_duration",
        }
    ]
    usual = {"expected_response": "true", "group": "", "method": "POST", "scenario": "default", "status": "200"}
    for number, (end, parts) in enumerate(sorted(requests(users, each, median_ms, seed), key=lambda one: one[0])):
        fault = (failures or {}).get(number)
        tags = usual | ({"expected_response": "false"} | FAILURES[fault] if fault else {})
        values = {f"http_req_{name}": value for name, value in parts.items()}
        values |= {"http_req_duration": sum(parts.values()) - parts["blocked"], "http_reqs": 1}
        values |= {"http_req_failed": int(fault is not None)}
        text += [_point(name, end, value, tags) for name, value in values.items()]
    text += [_point("dropped_iterations", 10_000_000 * k, 1, {"scenario": "default"}) for k in range(dropped)]
    text += [_point("vus", 0, users, None)]
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in text)


def _point(metric: str, ns: int, value: float, tags: Mapping[str, str] | None) -> dict[str, Any]:
    return {"metric": metric, "type": "Point", "data": {"time": moment(ns), "value": value, "tags": tags}}
