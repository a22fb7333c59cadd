"""Inputs of real pixels, cut from Matplotlib's sample photograph: small and grey, in colour, or as JPEG files."""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from infscale.errors import ConfigError

SIDE = 224
"""Width and height of a cut in colour, pixels."""
QUALITY = 90
"""Quality of the JPEG files, on PIL's scale up to 95."""

Bytes = npt.NDArray[np.uint8]


def _photograph() -> Any:
    """Return Matplotlib's "grace_hopper.jpg", 512×600 pixels."""
    from matplotlib import cbook
    from PIL import Image

    with Image.open(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))) as file:
        return file.convert("RGB")


def _cuts(photo: Any, side: int, count: int, scaled: Callable[[Any], Any]) -> Bytes:
    """Return ``count`` distinct overlapping squares in a fixed order, without any that equals an earlier one."""
    corners = [(x, y) for y in range(0, photo.height - side, 9) for x in range(0, photo.width - side, 7)]
    cuts: dict[bytes, Bytes] = {}
    for x, y in (corners[i] for i in np.random.default_rng(28).permutation(len(corners))):
        cut = np.asarray(scaled(photo.crop((x, y, x + side, y + side))))
        cuts.setdefault(cut.tobytes(), cut)
        if len(cuts) == count:
            return np.stack(list(cuts.values()))
    raise ConfigError(f"count={count}: the photograph has not so many distinct cuts; accepted: 1 to {len(cuts)}")


@lru_cache
def grey(count: int = 256) -> npt.NDArray[np.float32]:
    """Return grey squares of 112 pixels, scaled down by four: (count, 28, 28), multiples of 1/255 in [0, 1].

    Raises:
        ConfigError: ``count`` is more than the photograph has (about 3,000).
    """
    cuts = _cuts(_photograph().convert("L"), 112, count, lambda cut: cut.reduce(4))
    return (cuts / np.float32(255)).astype(np.float32)


@lru_cache
def pixels(count: int = 256) -> Bytes:
    """Return squares in colour: (count, 224, 224, 3), uint8.

    Raises:
        ConfigError: ``count`` is more than the photograph has (about 1,700).
    """
    return _cuts(_photograph(), SIDE, count, lambda cut: cut)


@lru_cache
def files(count: int = 256) -> npt.NDArray[np.bytes_]:
    """Return the squares of :func:`pixels` as JPEG files: (count,) of numpy's fixed-length bytes.

    numpy strips zero bytes from their ends; a JPEG ends in FF D9 and so loses none.

    Raises:
        ConfigError: as :func:`pixels`.
    """
    from PIL import Image

    encoded = []
    for cut in pixels(count):
        file = io.BytesIO()
        Image.fromarray(cut).save(file, "JPEG", quality=QUALITY)
        encoded.append(file.getvalue())
    return np.array(encoded)


def decoded(rows: npt.NDArray[np.bytes_]) -> Bytes:
    """Decode JPEG files (n,) to pixels (n, 224, 224, 3)."""
    from PIL import Image

    decoded_rows = []
    for row in rows:
        with Image.open(io.BytesIO(row.item())) as image:
            decoded_rows.append(np.asarray(image.convert("RGB")))
    return np.stack(decoded_rows)
