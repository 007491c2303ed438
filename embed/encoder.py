"""What an encoder is: windows of samples in, every layer's pooled vectors out.

An encoder knows nothing of lakes, files or clips.  Adding one means writing a class with these attributes and naming it
in `embed.registry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

PRECISIONS = ("float32", "bfloat16", "float16")

Keep = tuple[int, int | None]            # the frames of a window that count: from, to; None for the end
WHOLE: Keep = (0, None)


class Pooled(NamedTuple):
    """A batch pooled over time: one (batch, dim) float32 array a layer and statistic, and how many frames of each window
    they were taken over; `frames` has one (batch, frame, dim) float16 array for each layer whose frames were asked for."""

    mean: list[np.ndarray]
    max: list[np.ndarray]
    n_frames: int
    frames: Sequence[np.ndarray] = ()


class Encoder(Protocol):
    """One way to turn audio into vectors."""

    name: str                            # as a person calls it
    revision: str                        # digest of weights and settings, or the version of our own code
    location: str                        # what `load_encoder` takes to load it again
    sample_rate: int                     # Hz
    layers: tuple[str, ...]
    dims: tuple[int, ...]                # width of each layer
    default_layer: int
    precision: str
    device: str
    clips_at_once: int                   # clips whose windows may share a batch
    frame_samples: int                   # from the centre of one frame to that of the next
    frame_offset: int                    # from the start of a window to the centre of its first frame, in samples

    def prepare(self, samples: int) -> None:
        """Get ready for many windows of this length: measure, compile, whatever pays."""
        ...

    def encode(self, windows: np.ndarray, keep: Keep = WHOLE, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) float32 of one length, never padded -> every layer, pooled over the frames to keep."""
        ...
