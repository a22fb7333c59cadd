"""The embedded server's transport alone: the same Envoy and ASGI calls, a constant answer, no decoding and no model."""

from infscale.servers.asgi import messages as asgi
from infscale.servers.asgi.framing import frame
from infscale.servers.asgi.messages import Receive, Scope, Send

ANSWER = b"[" + b"0.125, " * 19 + b"0.125]"
"""About as many bytes as an answer of ``mlp`` in JSON; gRPC sends the same ones."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as ``App`` does, over both protocols."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        return
    assert await asgi.body(receive) is not None
    if dict(scope["headers"]).get(b"content-type") == b"application/grpc":
        await asgi.answer(send, frame(ANSWER))
    else:
        await asgi.reply(send, 200, [(b"content-type", b"application/json")], ANSWER)
