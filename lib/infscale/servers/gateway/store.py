"""Where a cache keeps answers: in the gateway's memory, or in a Redis."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import cachetools

_PREFIX = b"infscale:gateway:"
_PAUSE_S = 1.0
"""How long a Redis that failed is left alone: requests must not each wait for it."""


KEY_BYTES = 32


class StoreError(Exception):
    """The store does not answer."""


class Store(Protocol):
    """Bytes by key; every method but ``info`` raises StoreError."""

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    async def put(self, key: bytes, value: bytes) -> bool:
        """Keep a value; False if it is larger than the store."""

    async def clear(self) -> None:
        """Forget all values and what was counted."""

    async def info(self) -> dict[str, int | None]:
        """What was ``evicted`` and ``expired``, and the ``bytes`` and ``entries`` that are there."""


class _Counted(cachetools.TTLCache[bytes, bytes]):
    """Counts what goes: by age (expired), and for room, the least recently used first (evicted)."""

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
    """At most ``capacity_bytes`` of keys (32 bytes each) and values, each at most ``ttl_s`` seconds old."""

    def __init__(self, capacity_bytes: int, ttl_s: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._cache = _Counted(capacity_bytes, ttl_s, timer)

    async def get(self, key: bytes) -> bytes | None:
        """The value, which is now the most recently used, or None."""
        with self._cache.timer as now:
            self._cache.expire(now)
            value: bytes | None = self._cache.get(key)
        return value

    async def put(self, key: bytes, value: bytes) -> bool:
        """Keep a value, in the place of the least recently used; False if it is larger than the store."""
        if len(value) + KEY_BYTES > self._cache.maxsize:
            return False
        self._cache[key] = value
        return True

    async def clear(self) -> None:
        """Forget all values and what was counted."""
        self._cache.clear()
        self._cache.counts = Counter(evicted=0, expired=0)

    async def info(self) -> dict[str, int | None]:
        """What is there, expired values excluded, and what went."""
        size, entries = int(self._cache.currsize), len(self._cache)  # these expire what is old
        return {**self._cache.counts, "bytes": size, "entries": entries}


class Redis:
    """A Redis at ``url``; its capacity is its own ``maxmemory``. It may be shared with other gateways."""

    def __init__(self, url: str, ttl_s: float) -> None:
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio import Redis as Client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        waits: dict[str, Any] = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
        # The default pool refuses its 101st connection, which would look like a Redis that failed.
        pool = BlockingConnectionPool.from_url(url, max_connections=64, timeout=None, **waits)
        self._client: Any = Client(connection_pool=pool)
        self._errors = (RedisError, OSError, TimeoutError)
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._silent_until = 0.0

    async def _ask(self, method: str, *given: Any, **options: Any) -> Any:
        if time.monotonic() < self._silent_until:
            raise StoreError("Redis failed a moment ago")
        try:
            return await getattr(self._client, method)(*given, **options)
        except self._errors as error:
            self._silent_until = time.monotonic() + _PAUSE_S
            raise StoreError(f"{type(error).__name__}: {error}") from error

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value: bytes | None = await self._ask("get", _PREFIX + key)
        return value

    async def put(self, key: bytes, value: bytes) -> bool:
        """Keep a value; an error is raised by a Redis that is full and may not evict."""
        return bool(await self._ask("set", _PREFIX + key, value, px=self._ttl_ms))

    async def clear(self) -> None:
        """Remove the entries of all gateways, and nothing else."""
        cursor = -1
        while cursor:
            cursor, keys = await self._ask("scan", max(cursor, 0), match=_PREFIX + b"*", count=1000)
            if keys:
                await self._ask("delete", *keys)

    async def info(self) -> dict[str, int | None]:
        """Redis's own counts, of all its users; None where it does not answer."""
        try:
            told, entries = await self._ask("info"), await self._ask("dbsize")
        except StoreError:
            return dict.fromkeys(("evicted", "expired", "bytes", "entries"))
        sizes = {"bytes": int(told["used_memory"]), "entries": int(entries)}
        return {"evicted": int(told["evicted_keys"]), "expired": int(told["expired_keys"]), **sizes}


def open_store(store: str, capacity_bytes: int, ttl_s: float) -> Store:
    """The store of a gateway's ``store``: "memory" or a ``redis://`` URL."""
    return Memory(capacity_bytes, ttl_s) if store == "memory" else Redis(store, ttl_s)
