"""The embedded server's transport alone: the same Envoy and ASGI calls, a constant answer, no decoding and no model."""

from infscale.tfserving.app import _GRPC, _JSON, _OK, Receive, Scope, Send, _body, _reply

ANSWER = b"[" + b"0.125, " * 19 + b"0.125]"
"""About as many bytes as an answer of ``mlp`` in JSON; gRPC sends the same ones."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as ``App`` does, over both protocols."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        return
    assert await _body(receive) is not None
    if dict(scope["headers"]).get(b"content-type") == b"application/grpc":
        await send({"type": "http.response.start", "status": 200, "headers": _GRPC, "trailers": True})
        await send({"type": "http.response.body", "body": b"\0" + len(ANSWER).to_bytes(4, "big") + ANSWER})
        await send({"type": "http.response.trailers", "headers": _OK})
    else:
        await _reply(send, 200, _JSON, ANSWER)
