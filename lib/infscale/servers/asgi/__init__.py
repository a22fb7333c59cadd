"""What the ASGI servers share: messages, framing, statuses, Envoy."""
