"""What an encoder is: windows of samples in, every layer's pooled vectors out.

An encoder knows nothing of lakes, files or clips.  Adding one means writing a class with these attributes and naming it
in `embed.registry`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

PRECISIONS = ("float32", "bfloat16", "float16")


class Pooled(NamedTuple):
    """A batch pooled over time: one (batch, dim) float32 array a layer and statistic, and the frames of each window."""

    mean: list[np.ndarray]
    max: list[np.ndarray]
    n_frames: int


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

    def encode(self, windows: np.ndarray) -> Pooled:
        """(batch, samples) float32 of one length, never padded -> every layer, pooled."""
        ...
