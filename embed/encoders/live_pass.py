"""Run an encoder over the rolling window of one stream: what it computed for the window before can be used again.

`LivePass` is the plain way: one offline pass over each window.  Encoders with a cheaper way return a subclass of it from
`Encoder.live_pass`, whose frames equal those of the plain way within a stated bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tonelake.embed.encoders.base import Encoder


class LivePass:
    """Frames of some layers of one stream, one window after the other."""

    def __init__(self, encoder: Encoder, layers: Sequence[int]) -> None:
        self.encoder, self.layers = encoder, tuple(layers)

    def states(self, window: np.ndarray, begin: int, wanted: slice) -> list[np.ndarray]:
        """(samples,) of the window that begins with frame `begin` of the stream -> (frame, dim) float32 of the frames `wanted`
        of the window, for each layer.

        Windows come in the order of the stream: none begins or ends before the one that came before it.
        """
        return [of_layer[wanted] for of_layer in self.encoder.states_of(window, self.layers)]


class LocalPass(LivePass):
    """The pass of an encoder whose frames depend on no more than `reach` frames before them: the rest is not computed."""

    def __init__(self, encoder: Encoder, layers: Sequence[int], reach: int) -> None:
        super().__init__(encoder, layers)
        self.reach = reach

    def states(self, window: np.ndarray, begin: int, wanted: slice) -> list[np.ndarray]:
        left_out = max(0, wanted.start - self.reach)
        part = window[left_out * self.encoder.frame_samples :]
        return super().states(part, begin + left_out, slice(wanted.start - left_out, wanted.stop - left_out))
