"""``python -m infscale.servers.buffer SETTINGS``: a proxy of bytes that collects before it passes on.

It knows no protocol, so that HTTP/1.1 and gRPC are held up alike: of each connection, what the server sends is kept for
``hold_ms`` after the first byte that is kept, or until it is ``hold_bytes``, and then goes on in one write. What the
client sends goes on at once. When the server ends or resets a connection, it is ended behind what was kept.

``SETTINGS`` is JSON: ``{"doors": [[port, "host:port"], …], "host": …, "hold_ms": …, "hold_bytes": …}``.
"""

import asyncio
import contextlib
import json
import sys
from asyncio import StreamReader, StreamWriter
from functools import partial
from typing import Any

READ_BYTES = 65_536
"""Most bytes of one read."""


async def _collected(reader: StreamReader, hold_s: float, most: int) -> tuple[bytes, bool]:
    """Return what comes within ``hold_s`` of the first byte, or until it is ``most`` bytes, and whether it ended."""
    data = await reader.read(READ_BYTES)
    kept, size, ended = [data], len(data), not data
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(hold_s):
            while not ended and size < most:
                data = await reader.read(READ_BYTES)
                kept.append(data)
                size, ended = size + len(data), not data
    return b"".join(kept), ended


async def _hold(server: StreamReader, to_client: StreamWriter, hold_s: float, most: int) -> None:
    """Pass on what the server sends until its end."""
    ended = False
    with contextlib.suppress(OSError):
        while not ended:
            data, ended = await _collected(server, hold_s, most)
            to_client.write(data)
            await to_client.drain()


async def _ask(client: StreamReader, to_server: StreamWriter) -> None:
    """Pass on what the client sends until its end."""
    try:
        while data := await client.read(READ_BYTES):
            to_server.write(data)
            await to_server.drain()
        to_server.write_eof()
    except OSError:
        to_server.close()


async def _serve(address: str, hold_s: float, most: int, client: StreamReader, to_client: StreamWriter) -> None:
    host, _, port = address.rpartition(":")
    writers = [to_client]
    with contextlib.suppress(OSError):
        server, to_server = await asyncio.open_connection(host, int(port))
        writers.append(to_server)
        asking = asyncio.create_task(_ask(client, to_server))
        await _hold(server, to_client, hold_s, most)
        asking.cancel()
    for writer in writers:
        writer.close()


async def _run(settings: dict[str, Any]) -> None:
    hold_s, most = settings["hold_ms"] / 1e3, settings["hold_bytes"]
    for port, address in settings["doors"]:
        handler = partial(_serve, address, hold_s, most)
        await asyncio.start_server(handler, settings["host"], port, backlog=4096)
    await asyncio.Event().wait()


def main() -> None:
    """Run the proxy until the process is ended."""
    asyncio.run(_run(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
