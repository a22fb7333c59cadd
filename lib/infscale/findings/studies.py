"""The findings that can be measured by name: their question, their cases, and their sizes by profile."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infscale.errors import one_of
from infscale.experiment.design.grid import Grid
from infscale.findings import cases


@dataclass(frozen=True)
class Study:
    """A finding of the project.

    Attributes:
        question: what it answers, for the report.
        notebook: that measures and shows it.
        cases: its arms, by profile.
        sizes: where they differ from :data:`SIZES`, by profile.
    """

    question: str
    notebook: str
    cases: Callable[[str], cases.Cases]
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"replicates": 1, "trial_s": 0.5, "bisections": 1},
    "quick": {"replicates": 4, "trial_s": 1.25, "bisections": 3},
    "full": {"replicates": 6, "trial_s": 6.0, "bisections": 4, "timeout_s": 5.0},
}


STUDIES = {
    "encodings": Study(
        "What does the encoding of a tensor cost, over REST and over gRPC: bytes on the wire, capacity, response time?",
        "11-encodings",
        cases.encodings,
    ),
    "hybrid": Study(
        "Can a REST edge that speaks gRPC to the model server have the merits of both, and what does the edge cost?",
        "12-hybrid",
        cases.hybrid,
    ),
    "caching": Study(
        "What does a cache gain where requests repeat, and what does it cost where they do not?",
        "13-caching",
        cases.caching,
        {"quick": {"bisections": 2}},  # hits are answered at 10,000/s: the rows of a third search would be many
    ),
    "utilisation": Study(
        "What CPU and memory does a request cost the client and the server, by protocol?",
        "14-utilisation",
        cases.utilisation,
        {
            "quick": {"fractions": (0.25, 0.5, 0.75, 0.95), "bisections": 2, "replicates": 3},
            "full": {"fractions": (0.1, 0.25, 0.5, 0.75, 0.95)},
        },
    ),
    "load-balancing": Study(
        "Who gets the requests: which balancer shares them evenly, over how many connections, and what does it gain?",
        "15-load-balancing",
        cases.load_balancing,
    ),
    "porting": Study(
        "What changes when the same weights are served by another framework, and so by another runtime?",
        "16-porting",
        cases.porting,
    ),
    "client-stacks": Study(
        "How much of the difference between REST and gRPC is the client library's?",
        "17-client-stacks",
        cases.client_stacks,
    ),
    "network": Study(
        "When do the bytes on the wire decide: on which link, and with TLS?",
        "18-network",
        cases.network,
    ),
}


def grid_of(name: str, profile: str = "quick", **given: Any) -> Grid:
    """The grid of a finding; values that are None keep the profile's.

    Raises:
        ConfigError: an unknown finding or profile, or a value that a grid cannot have.
    """
    one_of("finding", name, STUDIES)
    one_of("profile", profile, SIZES)
    study = STUDIES[name]
    chosen = study.cases(profile)
    sizes = {"fractions": (0.4,), **SIZES[profile], **study.sizes.get(profile, {})}
    return Grid(
        frameworks=tuple(dict.fromkeys(case.framework for case in chosen)),
        protocols=tuple(dict.fromkeys(case.arm.protocol for case in chosen)),
        sensitivity=False,
        profile=profile,
        experiment=name,
        cases=chosen,
        **{**sizes, **{key: value for key, value in given.items() if value is not None}},
    )
