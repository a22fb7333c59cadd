"""What our ASGI servers share: messages, gRPC framing, statuses, and Envoy as their server."""
