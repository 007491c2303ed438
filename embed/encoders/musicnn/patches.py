"""Where a window is cut into the patches of 3 s that the networks take, and which frames of the window each one answers for.

Patches follow each other without overlap, as in musicnn's own default.  A rest at the end of at least half a second gets a
patch of its own that ends with the window; it and the patch before meet in the middle of their overlap, so that each frame
counts once.  A shorter rest is left out: in windows of 30 s, five frames of 1,875.  A window shorter than a patch is repeated
until it fills one, as in the networks' training; its own frames count.  Nothing is padded with silence.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from tonelake.embed.encoders.musicnn.mel import HOP
from tonelake.embed.encoders.musicnn.network import PATCH

LEAST_REST = 31                          # frames: half a second


class Patch(NamedTuple):
    """187 frames of a window, and the frames it answers for; in frames of the window."""

    begin: int
    first: int
    last: int


def place_patches(samples: int, least_rest: int = LEAST_REST) -> list[Patch]:
    """The patches of a window.  `least_rest`: the shortest rest, in frames, that gets a patch of its own.

    >>> place_patches(100), place_patches(3 * 16_000)
    ([Patch(begin=0, first=0, last=1)], [Patch(begin=0, first=0, last=187)])
    >>> place_patches(5 * 16_000)
    [Patch(begin=0, first=0, last=156), Patch(begin=125, first=156, last=312)]
    >>> len(place_patches(30 * 16_000)), place_patches(30 * 16_000)[-1]
    (10, Patch(begin=1683, first=1683, last=1870))
    """
    frames = max(1, samples // HOP)
    whole, rest = divmod(frames, PATCH)
    if not whole:
        return [Patch(0, 0, frames)]
    begins = [PATCH * number for number in range(whole)]
    if rest >= least_rest:
        begins.append(frames - PATCH)
    meet = [0, *((begin + PATCH + after) // 2 for begin, after in itertools.pairwise(begins)), begins[-1] + PATCH]
    return [Patch(*bounds) for bounds in zip(begins, meet, meet[1:], strict=False)]
