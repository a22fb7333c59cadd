"""A gateway in front of an endpoint: a REST edge that asks over gRPC, or a cache for both protocols."""
