"""Reading from a server which versions of its model it serves."""

from urllib.parse import quote

import orjson

from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.gateway.settings import Settings, VersionQuery
from infscale.servers.gateway.upstream import Upstream


async def read_version(settings: Settings, upstream: Upstream) -> str:
    """Return the served versions of the model, joined by commas; empty where the server has no address that tells them.

    Raises:
        StatusError: the server does not answer, or with something else.
    """
    query = settings.versions
    address = settings.management if query and query.by_management else settings.rest
    if not query or not address:
        return ""
    path = query.path.format(model=quote(settings.model, safe="+"))  # Triton takes an escaped one for another name
    reply = await upstream.request("GET", path, [], b"", address=address)
    try:
        return ",".join(sorted(_versions(query, reply.body)))
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StatusError(Code.UNKNOWN, f"{address} answered {reply.status} and no version ({reason})") from None


def _versions(query: VersionQuery, body: bytes) -> list[str]:
    answer = orjson.loads(body)
    entries = answer[query.entries] if query.entries else answer
    chosen = [entry for entry in entries if not query.state or entry["state"] == query.state]
    return [str(entry[query.field] if query.field else entry) for entry in chosen]
