"""What an encoder is: windows of samples in, every layer's pooled vectors out.

An encoder knows nothing of lakes, files or clips.  Adding one means writing a class with these attributes and naming it
in `embed.encoders.registry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

PRECISIONS = ("float32", "bfloat16", "float16")

Keep = tuple[int, int | None]            # the frames of a window that count: from, to; None for the end


class Pooled(NamedTuple):
    """A batch pooled over time: one (batch, dim) float32 array a layer and statistic."""

    mean: list[np.ndarray]
    max: list[np.ndarray]
    n_frames: np.ndarray                             # (batch,) int: over how many frames
    frames: Sequence[Sequence[np.ndarray]] = ()      # [layer asked for][window]: (frame, dim) float16


class Encoder(Protocol):
    """One way to turn audio into vectors."""

    name: str                            # as a person calls it
    revision: str                        # digest of weights and settings, or the version of our own code
    location: str                        # what `load_encoder` takes to load it again
    adapter: str                         # digest of a LoRA adapter; empty for none
    adapter_location: str
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

    def encode(self, windows: np.ndarray, keep: Sequence[Keep] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) float32 of one length, never padded -> every layer, pooled.

        `keep`: for each window the frames to pool over, by default all; `frames`: numbers of the layers whose frames to
        return as well.
        """
        ...
