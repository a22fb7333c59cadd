"""A gateway in front of a server: a REST edge that asks over gRPC, or a cache for both protocols."""
