"""How alike requests are: a fraction that repeats, or popularity after Zipf, over request bodies that differ.

A cache is only as good as its requests are alike, so that a pool of 256 bodies would make it look perfect. Here every
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
"""Bodies that repeat."""
CATALOGUE = 10_000
"""Bodies that Zipf's law draws from."""
MARKS = (0.111111, 0.122222)
"""What the first two numbers of a row are before they are changed."""
_TEXT = [f"{mark}".encode() for mark in MARKS]
_BINARY = [struct.pack("<f", mark) for mark in MARKS]

Choice = npt.NDArray[np.int32]


def check(repeat: float | None, zipf: float | None) -> None:
    """Whether the two can be: a fraction, an exponent, not both.

    Raises:
        ConfigError: they cannot.
    """
    if repeat is not None and zipf is not None:
        raise ConfigError(f"repeat={repeat} and zipf={zipf} exclude each other")
    if repeat is not None and not 0 <= repeat <= 1:
        raise ConfigError(f"repeat={repeat} is not a fraction; accepted: 0 to 1")
    if zipf is not None and not 0 < zipf < 10:
        raise ConfigError(f"zipf={zipf} is not an exponent; accepted: above 0, below 10")


def marked(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """``rows`` (n, …) of floats with the marks as their first two numbers."""
    flat = np.array(rows, dtype=np.float32).reshape(len(rows), -1)
    flat[:, :2] = MARKS
    return flat.reshape(rows.shape)


def distinct(bodies: Sequence[bytes], count: int, token: int) -> list[bytes]:
    """``count`` bodies made from marked ones in turn, each unlike all others of any token.

    Raises:
        ConfigError: the marks are not found in a body once each (compressed, base64, or several rows).
    """
    places = [_places(body) for body in bodies]
    made = []
    for i in range(count):
        body, (offsets, text) = bodies[i % len(bodies)], places[i % len(bodies)]
        new = bytearray(body)
        for offset, value in zip(offsets, (token % 1_000_000, i), strict=True):
            code = f"0.{value:06d}".encode() if text else struct.pack("<f", (value + 1) / 2**21)
            new[offset : offset + len(code)] = code
        made.append(bytes(new))
    return made


def _places(body: bytes) -> tuple[list[int], bool]:
    """Where the two marks are, and whether as text."""
    for codes, text in ((_TEXT, True), (_BINARY, False)):
        if all(body.count(code) == 1 for code in codes):
            return [body.index(code) for code in codes], text
    raise ConfigError("repeat and zipf need an encoding whose numbers can be changed in place: JSON or binary, batch 1")


def repeating(bodies: Sequence[bytes], fraction: float, count: int, seed: np.random.SeedSequence, name: str) -> Any:
    """(bodies, choice) for ``count`` requests: each is one of ``HOT`` bodies with probability ``fraction``, else new.

    ``seed`` draws; together with ``name`` it makes the new bodies unlike those of every other trial.
    """
    rng = np.random.default_rng(seed)
    again = rng.random(count) < fraction
    hot = distinct(bodies, HOT, 0)
    new = distinct(bodies, int((~again).sum()), _token(seed, name))
    choice = np.empty(count, np.int32)
    choice[again] = rng.integers(0, HOT, int(again.sum()))
    choice[~again] = HOT + np.arange(len(new))
    return [*hot, *new], choice


def popular(bodies: Sequence[bytes], exponent: float, count: int, seed: np.random.SeedSequence, name: str) -> Any:
    """(bodies, choice) for ``count`` requests to a catalogue of ``CATALOGUE`` bodies, the k-th with weight k^−exponent.

    Every trial has a catalogue of its own (by ``seed`` and ``name``), which no cache has seen: else the hit ratio would
    grow from trial to trial.

    Source of the law for requests to caches: Breslau et al. 1999, "Web caching and Zipf-like distributions".
    """
    weights = np.arange(1, CATALOGUE + 1, dtype=np.float64) ** -exponent
    choice = np.random.default_rng(seed).choice(CATALOGUE, size=count, p=weights / weights.sum())
    used, places = np.unique(choice, return_inverse=True)
    every = distinct(bodies, CATALOGUE, _token(seed, name))
    return [every[i] for i in used], places.astype(np.int32)


def _token(seed: np.random.SeedSequence, name: str) -> int:
    """1 to 999,999, from what tells a trial apart."""
    return 1 + zlib.crc32(repr((seed.entropy, seed.spawn_key, name)).encode()) % 999_999
