"""Data that a gateway and its launcher exchange: settings, which pass into Envoy's process as JSON, and counts."""

import json
from dataclasses import asdict, dataclass
from typing import TypedDict

ENVIRONMENT_KEY = "INFSCALE_GATEWAY"
"""Name of the environment variable that holds the settings."""
APP = "infscale.servers.gateway.app:app"
"""The ASGI application, as ``module:name``."""


@dataclass(frozen=True)
class VersionQuery:
    """An HTTP request that asks a server which versions of a model it serves; the answer is JSON.

    Attributes:
        path: of the request; ``{model}`` is replaced by the model's name.
        entries: key of the list of versions; empty if the answer itself is the list.
        field: key of the version in each entry; empty if the entry itself is the version.
        state: an entry counts only if its key "state" has this value; empty for all entries.
        by_management: whether the request goes to the server's management address instead of its REST address.
    """

    path: str
    entries: str = ""
    field: str = ""
    state: str = ""
    by_management: bool = False


@dataclass(frozen=True)
class Settings:
    """One gateway's settings.

    Attributes:
        port: that it listens on.
        mode: "edge" or "cache".
        implementation: the server behind it; a part of a cache's keys.
        model: name of the served model.
        rest, grpc, management: the server's addresses, ``host:port``; empty for those that it has not.
        call: edge: ``/package.Service/Method`` that it calls.
        encode, decode: edge: functions (``module:name``) for the request and the answer of that call.
        predictions: cache: regular expression of the REST paths whose answers are kept.
        calls: cache: gRPC methods whose answers are kept.
        versions: cache: how the served versions are read; None where the server does not tell.
        store: cache: "memory" or the URL of a Redis.
        capacity_bytes: cache: of keys and values in memory.
        ttl_s: cache: longest life of an answer, seconds.
        by_version: cache: whether the served versions are a part of the keys.
        timeout_s: longest wait for the server, seconds.
    """

    port: int
    mode: str
    implementation: str
    model: str
    rest: str
    grpc: str
    management: str
    call: str = ""
    encode: str = ""
    decode: str = ""
    predictions: str = ""
    calls: tuple[str, ...] = ()
    versions: VersionQuery | None = None
    store: str = "memory"
    capacity_bytes: int = 0
    ttl_s: float = 0.0
    by_version: bool = True
    timeout_s: float = 30.0

    def to_json(self) -> str:
        """Return one line from which :func:`from_json` makes equal settings."""
        return json.dumps(asdict(self))


def from_json(text: str) -> Settings:
    """Return the settings of a line that ``to_json`` wrote."""
    fields = json.loads(text)
    versions = fields.pop("versions")
    calls = tuple(fields.pop("calls"))
    return Settings(**fields, calls=calls, versions=VersionQuery(**versions) if versions else None)


class Stats(TypedDict, total=False):
    """What a gateway has counted since its start, or since it was last cleared.

    A cache counts from ``hits`` on. With Redis the counts that may be None are Redis's own, of all its users, and None
    while it does not answer. ``version`` are the served versions of the model in a cache's keys. An edge counts
    ``requests`` and ``refused``. Both count ``upstream_errors``.
    """

    requests: int
    refused: int
    upstream_errors: int
    hits: int
    misses: int
    stored: int
    store_errors: int
    evicted: int | None
    expired: int | None
    bytes: int | None
    entries: int | None
    version: str
