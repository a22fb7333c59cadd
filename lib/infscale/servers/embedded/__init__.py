"""A server of our own that keeps TensorFlow Serving's REST and gRPC contract, on the TensorFlow runtime.

It is not TensorFlow Serving; it exists because no package registry carries the real binary. Its answers and error texts
follow the contract to the byte; what it costs says nothing about the real server.

It is one process: :mod:`~infscale.servers.embedded.__main__` checks flags, paths and ports, and then *becomes* Envoy,
which carries HTTP/1.1 and HTTP/2 and runs :mod:`~infscale.servers.embedded.app` inside itself.
"""
