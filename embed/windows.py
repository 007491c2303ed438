"""Clips to windows and back: long clips are encoded in windows, and the windows' statistics put together.

The mean over a clip is the mean over all its frames (for windows of one length: the mean of means), its maximum the
maximum of maxima.  Windows of one length go through the encoder together; none is ever padded, because group norm and
attention would see the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embed.encoder import Encoder

MIN_TAIL_S = 1.0                         # what is left at the end of a clip joins the window before it below this


class ClipVectors(NamedTuple):
    """One clip, pooled: one (dim,) float32 array a layer and statistic."""

    mean: list[np.ndarray]
    max: list[np.ndarray]
    n_frames: int


def bounds(samples: int, window: int, min_tail: int) -> list[tuple[int, int]]:
    """Where the windows of a clip begin and end, in samples; together they cover it once.

    >>> bounds(100, 40, 10), bounds(85, 40, 10), bounds(30, 40, 10)
    ([(0, 40), (40, 80), (80, 100)], [(0, 40), (40, 85)], [(0, 30)])
    """
    starts = list(range(0, samples, window))
    if len(starts) > 1 and samples - starts[-1] < min_tail:
        starts.pop()
    return list(zip(starts, [*starts[1:], samples], strict=True))


def encode_clips(encoder: Encoder, waves: Sequence[np.ndarray], window_s: float) -> list[ClipVectors]:
    """Encode clips, each (samples,) float32 at the encoder's rate, whatever their lengths."""
    window, tail = round(window_s * encoder.sample_rate), round(MIN_TAIL_S * encoder.sample_rate)
    by_length: dict[int, list[tuple[int, int]]] = {}
    for clip, wave in enumerate(waves):
        for begin, end in bounds(len(wave), window, tail):
            by_length.setdefault(end - begin, []).append((clip, begin))

    shape = [(len(waves), dim) for dim in encoder.dims]
    total = [np.zeros(s, np.float64) for s in shape]                 # sums over frames: long clips need the digits
    peak = [np.full(s, -np.inf, np.float32) for s in shape]
    frames = np.zeros(len(waves), np.int64)
    for length, places in by_length.items():
        pooled = encoder.encode(np.stack([waves[clip][begin : begin + length] for clip, begin in places]))
        owners = np.array([clip for clip, _ in places])
        np.add.at(frames, owners, pooled.n_frames)
        for layer in range(len(encoder.dims)):
            np.add.at(total[layer], owners, pooled.mean[layer].astype(np.float64) * pooled.n_frames)
            np.maximum.at(peak[layer], owners, pooled.max[layer])
    return [
        ClipVectors(
            [(t[clip] / frames[clip]).astype(np.float32) for t in total], [p[clip] for p in peak], int(frames[clip])
        )
        for clip in range(len(waves))
    ]
