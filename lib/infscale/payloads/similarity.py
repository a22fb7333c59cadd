"""Traffic in which requests repeat: a fraction that does, or popularity by Zipf's law, over bodies that differ.

How well a cache does depends on how alike its requests are; a pool of 256 bodies would make it look perfect. Here every
body that is not meant to repeat is one that no other trial sends: its first two numbers are changed in place, in the
encoded body, which keeps its length.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError

HOT = 16
"""Number of distinct bodies among the requests that repeat."""
CATALOGUE = 10_000
"""Number of distinct bodies from which Zipf's law draws."""
MARKS = (0.111111, 0.122222)
"""First two numbers of every row before they are changed; encoded, they mark the places to change."""
_TEXT = [f"{mark}".encode() for mark in MARKS]
_BINARY = [struct.pack("<f", mark) for mark in MARKS]

Requests = tuple[list[bytes], npt.NDArray[np.int32]]
"""Distinct bodies, and for each request of a trial the index of its body."""


def check(repeat: float | None, zipf: float | None) -> None:
    """Check a fraction of repeats and an exponent of Zipf's law, of which one at most may be set.

    Raises:
        ConfigError: both are set, or a value is out of range.
    """
    if repeat is not None and zipf is not None:
        raise ConfigError(f"repeat={repeat} and zipf={zipf} exclude each other")
    if repeat is not None and not 0 <= repeat <= 1:
        raise ConfigError(f"repeat={repeat} is not a fraction; accepted: 0 to 1")
    if zipf is not None and not 0 < zipf < 10:
        raise ConfigError(f"zipf={zipf} is not an exponent; accepted: above 0, below 10")


def marked(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return ``rows`` of shape (n, …) as float32, with :data:`MARKS` as the first two numbers of each."""
    flat = np.array(rows, dtype=np.float32).reshape(len(rows), -1)
    flat[:, :2] = MARKS
    return flat.reshape(rows.shape)


def distinct(bodies: Sequence[bytes], count: int, token: int) -> list[bytes]:
    """Return ``count`` bodies made from marked ones in turn; each differs from all others, whatever their tokens.

    Raises:
        ConfigError: a body does not hold each mark exactly once (it is compressed, base64, or has several rows).
    """
    places = [_places(body) for body in bodies]
    changed = []
    for i in range(count):
        body, (offsets, text) = bodies[i % len(bodies)], places[i % len(bodies)]
        new = bytearray(body)
        for offset, value in zip(offsets, (token % 1_000_000, i), strict=True):
            code = f"0.{value:06d}".encode() if text else struct.pack("<f", (value + 1) / 2**21)
            new[offset : offset + len(code)] = code
        changed.append(bytes(new))
    return changed


def _places(body: bytes) -> tuple[list[int], bool]:
    """Return the offsets of the two marks in a body, and whether they are text."""
    for codes, text in ((_TEXT, True), (_BINARY, False)):
        if all(body.count(code) == 1 for code in codes):
            return [body.index(code) for code in codes], text
    raise ConfigError("repeat and zipf need an encoding whose numbers can be changed in place: JSON or binary, batch 1")


def repeating(
    bodies: Sequence[bytes], fraction: float, count: int, seed: np.random.SeedSequence, name: str
) -> Requests:
    """Return ``count`` requests of which each repeats one of :data:`HOT` bodies with probability ``fraction``.

    All others are new. ``seed`` draws; together with ``name`` it makes the new bodies unlike those of other trials.
    """
    rng = np.random.default_rng(seed)
    again = rng.random(count) < fraction
    hot = distinct(bodies, HOT, 0)
    new = distinct(bodies, int((~again).sum()), _token(seed, name))
    choice = np.empty(count, np.int32)
    choice[again] = rng.integers(0, HOT, int(again.sum()))
    choice[~again] = HOT + np.arange(len(new))
    return [*hot, *new], choice


def popular(bodies: Sequence[bytes], exponent: float, count: int, seed: np.random.SeedSequence, name: str) -> Requests:
    """Return ``count`` requests for :data:`CATALOGUE` bodies; the k-th is drawn with a weight of k^−exponent.

    Every trial has a catalogue of its own (by ``seed`` and ``name``) that no cache has seen: otherwise the hit ratio
    would grow from trial to trial.

    Source of the law for requests to caches: Breslau et al. 1999, "Web caching and Zipf-like distributions".
    """
    weights = np.arange(1, CATALOGUE + 1, dtype=np.float64) ** -exponent
    drawn = np.random.default_rng(seed).choice(CATALOGUE, size=count, p=weights / weights.sum())
    used, choice = np.unique(drawn, return_inverse=True)
    catalogue = distinct(bodies, CATALOGUE, _token(seed, name))
    return [catalogue[i] for i in used], choice.astype(np.int32)


def _token(seed: np.random.SeedSequence, name: str) -> int:
    """Return 1 to 999,999, derived from what tells a trial apart."""
    return 1 + zlib.crc32(repr((seed.entropy, seed.spawn_key, name)).encode()) % 999_999
