"""Which version of its model a server serves, by its own word."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import orjson

from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.gateway.settings import Settings
from infscale.servers.gateway.upstream import Upstream

# Path, and the versions in the answer. Triton tells a number that stays when a model is loaded anew under it.
_ASK: dict[str, tuple[str, Callable[[Any], list[str]]]] = {
    "tfserving": (
        "/v1/models/{model}",
        lambda told: [one["version"] for one in told["model_version_status"] if one["state"] == "AVAILABLE"],
    ),
    "torchserve": ("/models/{model}", lambda told: [one["modelVersion"] for one in told]),
    "triton": ("/v2/models/{model}", lambda told: told["versions"]),
}


async def read_version(settings: Settings, upstream: Upstream) -> str:
    """The served versions of the model, joined by commas; empty where the server has no address that tells it.

    Raises:
        StatusError: the server does not answer, or with something else.
    """
    address = settings.management if settings.framework == "torchserve" else settings.rest
    if not address:
        return ""
    path, read = _ASK[settings.framework]
    reply = await upstream.request("GET", path.format(model=quote(settings.model, safe="")), [], b"", address=address)
    try:
        return ",".join(sorted(map(str, read(orjson.loads(reply.body)))))
    except (ValueError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise StatusError(Code.UNKNOWN, f"{address} answered {reply.status} and no version ({said})") from None
