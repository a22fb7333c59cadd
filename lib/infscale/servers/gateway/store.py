"""Stores in which a cache keeps answers: the gateway's memory, or a Redis."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import cachetools

from infscale.servers.gateway.settings import Stats

_PREFIX = b"infscale:gateway:"
_PAUSE_S = 1.0
"""Time in which a Redis that failed is left alone, seconds: requests must not each wait for it."""
KEY_BYTES = 32
"""Size of a key, bytes."""


class StoreError(Exception):
    """The store does not answer."""


class Store(Protocol):
    """Keeps bytes by key. Every method but ``info`` raises StoreError."""

    async def get(self, key: bytes) -> bytes | None:
        """Return the value, or None if there is none."""

    async def put(self, key: bytes, value: bytes) -> bool:
        """Keep a value; return False if it is larger than the store."""

    async def clear(self) -> None:
        """Remove all values and set the counts to 0."""

    async def info(self) -> Stats:
        """Return how many entries were evicted and expired, and the bytes and entries that are there."""


class _Counted(cachetools.TTLCache[bytes, bytes]):
    """Counts the entries that go: by age (expired), and for room, the least recently used first (evicted)."""

    def __init__(self, capacity_bytes: int, ttl_s: float, timer: Callable[[], float]) -> None:
        super().__init__(capacity_bytes, ttl_s, timer, getsizeof=lambda value: len(value) + KEY_BYTES)
        self.counts: Counter[str] = Counter(evicted=0, expired=0)

    def expire(self, time: float | None = None) -> Any:
        gone = super().expire(time)
        self.counts["expired"] += len(gone)
        return gone

    def popitem(self) -> tuple[bytes, bytes]:
        item: tuple[bytes, bytes] = super().popitem()
        self.counts["evicted"] += 1
        return item


class Memory:
    """Keeps at most ``capacity_bytes`` of keys (32 bytes each) and values, each for at most ``ttl_s`` seconds."""

    def __init__(self, capacity_bytes: int, ttl_s: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._cache = _Counted(capacity_bytes, ttl_s, timer)

    async def get(self, key: bytes) -> bytes | None:
        """Return the value, which is now the most recently used, or None."""
        with self._cache.timer as now:
            self._cache.expire(now)
            value: bytes | None = self._cache.get(key)
        return value

    async def put(self, key: bytes, value: bytes) -> bool:
        """Keep a value, in place of the least recently used ones; return False if it is larger than the store."""
        if len(value) + KEY_BYTES > self._cache.maxsize:
            return False
        self._cache[key] = value
        return True

    async def clear(self) -> None:
        """Remove all values and set the counts to 0."""
        self._cache.clear()
        self._cache.counts = Counter(evicted=0, expired=0)

    async def info(self) -> Stats:
        """Return what is there, without expired values, and how many entries have gone."""
        size, entries = int(self._cache.currsize), len(self._cache)  # these remove what has expired
        gone = self._cache.counts
        return {"evicted": gone["evicted"], "expired": gone["expired"], "bytes": size, "entries": entries}


class Redis:
    """Keeps values in the Redis at ``url``, which other gateways may share; its capacity is its own ``maxmemory``."""

    def __init__(self, url: str, ttl_s: float) -> None:
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio import Redis as Client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        # The default pool refuses its 101st connection, which would look like a Redis that failed.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=64,
            timeout=None,
            socket_timeout=0.5,
            socket_connect_timeout=0.5,
            retry=Retry(NoBackoff(), 0),
        )
        self._client: Any = Client(connection_pool=pool)
        self._errors = (RedisError, OSError, TimeoutError)
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._silent_until = 0.0

    async def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() < self._silent_until:
            raise StoreError("Redis failed a moment ago")
        try:
            return await getattr(self._client, method)(*args, **kwargs)
        except self._errors as error:
            self._silent_until = time.monotonic() + _PAUSE_S
            raise StoreError(f"{type(error).__name__}: {error}") from error

    async def get(self, key: bytes) -> bytes | None:
        """Return the value, or None if there is none."""
        value: bytes | None = await self._ask("get", _PREFIX + key)
        return value

    async def put(self, key: bytes, value: bytes) -> bool:
        """Keep a value; StoreError for a Redis that is full and may not evict."""
        return bool(await self._ask("set", _PREFIX + key, value, px=self._ttl_ms))

    async def clear(self) -> None:
        """Remove the entries of all gateways, but nothing else."""
        cursor = -1
        while cursor:
            cursor, keys = await self._ask("scan", max(cursor, 0), match=_PREFIX + b"*", count=1000)
            if keys:
                await self._ask("delete", *keys)

    async def info(self) -> Stats:
        """Return Redis's own counts, of all its users; None where it does not answer."""
        try:
            info, entries = await self._ask("info"), await self._ask("dbsize")
        except StoreError:
            return {"evicted": None, "expired": None, "bytes": None, "entries": None}
        return {
            "evicted": int(info["evicted_keys"]),
            "expired": int(info["expired_keys"]),
            "bytes": int(info["used_memory"]),
            "entries": int(entries),
        }


def open_store(store: str, capacity_bytes: int, ttl_s: float) -> Store:
    """Return the store that a gateway's setting names: "memory" or a ``redis://`` URL."""
    return Memory(capacity_bytes, ttl_s) if store == "memory" else Redis(store, ttl_s)
