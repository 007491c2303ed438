"""Parse a list of spaces and layers with weights: `A:0.7,B/3:0.3`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tonelake.store.errors import InputError
from tonelake.store.space import Space, Spaces

SpaceWeights = str | Mapping[str, float]             # `A:0.7,B/3:0.3`, or a mapping of `A` and `B/3` to weights


def parse_parts(
    spaces: Spaces, given: SpaceWeights, *, option: str, example: str
) -> tuple[str, list[tuple[Space, int, float]]]:
    """Return what was given as text, and the (space, number of the layer, weight) of each part, in order.

    Without a layer, a space's default layer is used; without any weights, each is 1.
    Raises InputError, naming `option` and with `example`, for a layer that is named twice, and for a weight that is missing,
    no number or not finite; SpaceNotFound for an unknown space.
    """
    if isinstance(given, Mapping):
        text = ",".join(f"{name}:{weight}" for name, weight in given.items())
        named = [(str(name), str(weight)) for name, weight in given.items()]
    else:
        text = given
        named = [split_weight(part.strip()) for part in given.split(",")]
    weighted = [bool(number) for _, number in named]
    if any(weighted) and not all(weighted):
        raise InputError(f"{option} {text}: some spaces have no weight. {example}")
    parts: list[tuple[Space, int, float]] = []
    for name, number in named:
        space_name, _, layer = name.partition("/")
        space = spaces.get(space_name)
        try:
            weight = float(number) if number else 1.0
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise InputError(f"{option} {text}: {number!r} is not a number. {example}")
        index = space.layer_index(layer or None)
        if any((space.name, index) == (known.name, other) for known, other, _ in parts):
            raise InputError(
                f"{option} {text}: {space.name}/{space.layers[index]} is named twice. Name each space or layer once"
            )
        parts.append((space, index, weight))
    return text, parts


def split_weight(part: str) -> tuple[str, str]:
    """Split `name:weight` at its last colon.

    >>> split_weight("musicnn/penultimate:0.7"), split_weight("spectral")
    (('musicnn/penultimate', '0.7'), ('spectral', ''))
    """
    name, _, number = part.rpartition(":") if ":" in part else (part, "", "")
    return name.strip(), number.strip()
