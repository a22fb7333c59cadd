"""A gateway in front of an endpoint: a REST edge that asks over gRPC (hybrid), or a cache for both protocols."""

from infscale.gateway.serving import MODES, clear, refresh, serve, stats

__all__ = ["MODES", "clear", "refresh", "serve", "stats"]
