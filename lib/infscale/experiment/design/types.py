"""Checking the types of a design's fields where they are typed by hand, in a notebook."""

from functools import cache
from typing import get_type_hints

import msgspec
import numpy as np

from infscale.errors import ConfigError


def check_types(struct: msgspec.Struct) -> None:
    """Convert the fields of ``struct`` to their declared types, in place: lists to tuples, whole numbers to floats.

    A design that was typed is then equal to the same design read from a file.

    Raises:
        ConfigError: a field has another type.
    """
    for name, kind in _types(type(struct)).items():
        value = getattr(struct, name)
        try:
            typed = msgspec.convert(value.item() if isinstance(value, np.generic) else value, kind)
        except msgspec.ValidationError as error:
            expected = str(error).replace("Expected", "expected").replace(" - at `$", ", at `")
            raise ConfigError(f"{name}={value!r} has another type: {expected}") from error
        if typed is not value:
            msgspec.structs.force_setattr(struct, name, typed)


@cache
def _types(struct: type[msgspec.Struct]) -> dict[str, object]:
    return get_type_hints(struct)
