"""The interface of an encoder: windows of samples in, pooled vectors of every layer out.

An encoder knows nothing of lakes, files or clips.  A new one is a subclass of `Encoder`; `embed.encoders.registry` loads it as
`module:Class`, or by name if an installed package declares it as an entry point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

PRECISIONS = ("float32", "bfloat16", "float16")

FrameSpan = tuple[int, int | None]       # the frames of a window that count: first, and one past the last; None for the end


class Pooled(NamedTuple):
    """A batch pooled over time: one (batch, dim) float32 array per layer and statistic."""

    mean: list[np.ndarray]
    max: list[np.ndarray]
    n_frames: np.ndarray                             # (batch,) int: number of frames pooled
    frames: Sequence[Sequence[np.ndarray]] = ()      # [requested layer][window]: (frame, dim) float16


class Encoder(Protocol):
    """One way to turn audio into vectors.  A subclass inherits the defaults given here."""

    name: str                            # shown to users
    revision: str                        # digest of weights and settings, or the version of the encoder's own code
    location: str = ""                   # the name under which `load_encoder` finds it again
    adapter: str = ""                    # digest of a LoRA adapter; empty for none
    adapter_location: str = ""
    sample_rate: int                     # Hz
    layers: tuple[str, ...]
    dims: tuple[int, ...]                # width of each layer
    default_layer: int = 0
    precision: str = "float32"
    device: str = "cpu"
    clips_at_once: int = 1               # number of clips whose windows may share a batch
    clips_in_parallel: int = 1           # number of threads that may call `encode` at the same time
    frame_samples: int                   # from the centre of one frame to that of the next
    frame_offset: int                    # from the start of a window to the centre of its first frame, in samples

    def prepare(self, samples: int) -> None:
        """Prepare for many windows of this length: measure batch sizes, compile.  Does nothing by default."""

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) float32 windows of one length, never padded -> every layer, pooled.

        `keep`: the frames of each window to pool over, by default all; `frames`: indices of the layers whose frames are
        returned as well.
        """
        ...


def pool_states(
    states: Sequence[np.ndarray], keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()
) -> Pooled:
    """Pool the states of each layer, (batch, frame, dim), as `Encoder.encode` returns them.

    >>> pooled = pool_states([np.arange(6.0).reshape(1, 3, 2)], keep=[(1, None)], frames=[0])
    >>> pooled.mean[0].tolist(), pooled.max[0].tolist(), pooled.n_frames.tolist(), pooled.frames[0][0].shape
    ([[3.0, 4.0]], [[4.0, 5.0]], [2], (2, 2))
    """
    spans = [slice(*span) for span in keep or [(0, None)] * len(states[0])]
    kept = [[window[span] for window, span in zip(layer, spans, strict=True)] for layer in states]
    return Pooled(
        [np.stack([window.mean(axis=0) for window in layer]).astype(np.float32) for layer in kept],
        [np.stack([window.max(axis=0) for window in layer]).astype(np.float32) for layer in kept],
        np.array([len(window) for window in kept[0]]),
        [[window.astype(np.float16) for window in kept[layer]] for layer in frames],
    )
