"""What a gateway is started with; it crosses the exec into Envoy in an environment variable, as JSON."""

import json
from dataclasses import asdict, dataclass

ENVIRONMENT_KEY = "INFSCALE_GATEWAY"
APP = "infscale.servers.gateway.app:app"


@dataclass(frozen=True)
class Settings:
    """Of one gateway: its own port, what it does, and the server behind it (addresses are ``host:port``, or empty)."""

    port: int
    mode: str
    framework: str
    implementation: str
    model: str
    rest: str
    grpc: str
    management: str
    store: str
    capacity_bytes: int
    ttl_s: float
    by_version: bool
    timeout_s: float

    def to_json(self) -> str:
        """One line, from which :func:`from_json` makes equal settings."""
        return json.dumps(asdict(self))


def from_json(text: str) -> Settings:
    """The settings of a line that ``to_json`` wrote."""
    return Settings(**json.loads(text))
