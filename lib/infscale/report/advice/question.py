"""What a user asks of the stored trials, and which run would answer what they do not."""

from collections.abc import Iterable
from dataclasses import dataclass

from infscale.analysis.tables.trials import QUANTILES
from infscale.errors import ConfigError, is_number, one_of

PAYLOADS = {
    "row": ("mlp", 1, "one row of 784 fp32 (3 kB)"),
    "rows": ("mlp", 16, "16 rows of 784 fp32 (50 kB)"),
    "grey image": ("cnn", 1, "one 28×28 image as fp32 (3 kB), a costlier model"),
    "pixels": ("image", 1, "224×224×3 pixels as uint8 (150 kB)"),
    "photograph": ("photo", 1, "a JPEG file of 224×224 pixels (about 12 kB)"),
}
"""Name → reference model, rows of a request, and what it is."""

CHOICES = ("protocol", "encoding", "framework", "replicas", "cache")
WOULD = {
    "row": "make paper",
    "rows": "make finding F=encodings",
    "grey image": "make finding F=load-balancing (and make finding F=caching)",
    "pixels": "make finding F=encodings PROFILE=full",
    "photograph": "make finding F=encodings PROFILE=full",
}
"""Payload → the command whose run would answer for it."""
WOULD_CHOOSE = {
    ("framework", "rows"): "make finding F=encodings PROFILE=full",
    ("framework", "grey image"): "make finding F=porting PROFILE=full",
    ("protocol", "grey image"): "make finding F=caching PROFILE=full",
    ("encoding", "grey image"): "make finding F=porting PROFILE=full",
    ("replicas", "grey image"): "make finding F=load-balancing",
    ("cache", "grey image"): "make finding F=caching",
    ("cache", "row"): "make finding F=caching PROFILE=full",
}
"""Choice and payload → the command whose run would decide that choice, where it is not the one in :data:`WOULD`."""
FULL = " PROFILE=full"
"""What the command of a run in full ends in."""
CACHED_REPEATS = {"": (0.0, 0.5, 0.75), FULL: (0.0, 0.25, 0.5, 0.75, 0.95)}
"""The fractions of repeating requests that the finding on caching measures, in its quick and in its full profile."""
REPEAT_WITHIN = 0.05
"""Trials at one fraction of repeats are used for questions about fractions that differ from it by at most this much."""


@dataclass(frozen=True)
class Question:
    """What a user wants to serve.

    Attributes:
        payload: a key of :data:`PAYLOADS`.
        rate_per_s: λ, requests/s.
        slo_ms: the limit of a percentile of the response time, ms.
        repeat: the fraction of requests that repeat (decides about a cache).
        quantile: the percentile: "p50", "p95", or "p99", which needs longer trials than those of the quick profile.
    """

    payload: str
    rate_per_s: float
    slo_ms: float
    repeat: float = 0.0
    quantile: str = "p95"

    def __post_init__(self) -> None:
        one_of("payload", self.payload, PAYLOADS)
        one_of("quantile", self.quantile, QUANTILES)
        for name in ("rate_per_s", "slo_ms"):
            value = getattr(self, name)
            if not is_number(value) or value <= 0:
                raise ConfigError(f"{name}={value!r} cannot be used; accepted: a number above 0")
        if not is_number(self.repeat) or not 0 <= self.repeat <= 1:
            raise ConfigError(f"repeat={self.repeat!r} is not a fraction; accepted: 0 to 1")

    @property
    def text(self) -> str:
        """The question in words, with its units."""
        repeats = f", {100 * self.repeat:.0f} % of the requests repeat" if self.repeat else ""
        limit = f"{self.quantile} of at most {self.slo_ms:,.12g} ms"
        return f"{PAYLOADS[self.payload][2]}, λ = {self.rate_per_s:,.12g} requests/s, {limit}{repeats}"


STANDARD = (
    Question("row", 100, 20),
    Question("row", 1000, 20),
    Question("rows", 200, 20),
    Question("rows", 1000, 50),
    Question("grey image", 100, 50),
    Question("grey image", 100, 50, repeat=0.5),
    Question("grey image", 100, 50, repeat=0.75),
)
"""What the report answers."""


def would(question: Question, choice: str) -> str:
    """Return the command whose run would decide ``choice``; empty if none would."""
    default = "" if choice in ("replicas", "cache") else WOULD[question.payload]
    command = WOULD_CHOOSE.get((choice, question.payload), default)
    if choice != "cache" or not command or _near(question.repeat, CACHED_REPEATS[""]):
        return command
    return f"{command.removesuffix(FULL)}{FULL}" if _near(question.repeat, CACHED_REPEATS[FULL]) else ""


def _near(repeat: float, measured: Iterable[float]) -> bool:
    return any(abs(repeat - one) <= REPEAT_WITHIN for one in measured)
