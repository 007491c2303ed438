"""Clips to windows and back: a long clip is encoded in windows, whose statistics are combined.

The mean over a clip is the mean over all its frames (for windows of one length: the mean of means), its maximum the
maximum of maxima.  Where windows overlap, each contributes its middle: two neighbours meet at the middle of their overlap, so
every frame has context on both sides and none counts twice.  Windows of one length go through the encoder together;
none is ever padded, because group norm and attention would see the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tonelake.embed.encoders.base import Encoder, FrameSpan

MIN_TAIL_S = 1.0                         # a shorter rest at the end of a clip joins the window before it


class Window(NamedTuple):
    """Part of a clip that goes through the encoder, and the part of it that counts; in samples of the clip."""

    begin: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class ClipVectors:
    """One clip, pooled: one (dim,) float32 array per layer and statistic.

    If frames were requested: (frame, dim) float16 of each requested layer, and the (frame,) centres of the frames in seconds.
    """

    mean: list[np.ndarray]
    max: list[np.ndarray]
    n_frames: int
    frames: list[np.ndarray]
    frame_s: np.ndarray


def place_windows(samples: int, window: int, hop: int, min_tail: int) -> list[Window]:
    """The windows of a clip; the parts that count cover the clip once.

    Without overlap the last window is shorter, or longer by less than `min_tail`; with overlap all have one length, and the
    last one ends with the clip.

    >>> [w[:2] for w in place_windows(100, 40, 40, 10)], [w[:2] for w in place_windows(85, 40, 40, 10)]
    ([(0, 40), (40, 80), (80, 100)], [(0, 40), (40, 85)])
    >>> place_windows(70, 40, 20, 10)
    [Window(begin=0, end=40, first=0, last=30), Window(begin=20, end=60, first=30, last=45), \
Window(begin=30, end=70, first=45, last=70)]
    """
    if hop < window < samples:
        starts = [*range(0, samples - window, hop), samples - window]
        ends = [start + window for start in starts]
    else:
        starts = list(range(0, samples, window))
        if len(starts) > 1 and samples - starts[-1] < min_tail:
            starts.pop()
        ends = [*starts[1:], samples]
    meet = [0, *((start + end) // 2 for start, end in zip(starts[1:], ends, strict=False)), samples]
    return [Window(*bounds) for bounds in zip(starts, ends, meet, meet[1:], strict=False)]


def frames_to_keep(window: Window, encoder: Encoder) -> FrameSpan:
    """The frames whose centres lie in the part of a window that counts."""
    step, offset = encoder.frame_samples, encoder.frame_offset
    first = 0 if window.first == window.begin else -(-(window.first - window.begin - offset) // step)
    last = None if window.last == window.end else -(-(window.last - window.begin - offset) // step)
    return max(first, 0), last


def encode_clips(
    encoder: Encoder, waves: Sequence[np.ndarray], window_s: float, hop_s: float | None = None, frames: Sequence[int] = ()
) -> list[ClipVectors]:
    """Encode clips of any length, each (samples,) float32 at the encoder's rate.

    `hop_s`: from one window's start to the next, by default the window's length.  `frames`: indices of the layers whose
    frames are returned as well.
    """
    rate = encoder.sample_rate
    window, hop, tail = round(window_s * rate), round((hop_s or window_s) * rate), round(MIN_TAIL_S * rate)
    groups: dict[tuple[int, bool], list[tuple[int, int, FrameSpan]]] = {}       # (clip, begin, span) of windows to batch
    for clip, wave in enumerate(waves):
        for bounds in place_windows(len(wave), window, hop, tail):
            span = frames_to_keep(bounds, encoder)
            groups.setdefault((bounds.end - bounds.begin, span == (0, None)), []).append((clip, bounds.begin, span))

    shape = [(len(waves), dim) for dim in encoder.dims]
    total = [np.zeros(s, np.float64) for s in shape]                 # sums over frames: long clips need the digits
    peak = [np.full(s, -np.inf, np.float32) for s in shape]
    counts = np.zeros(len(waves), np.int64)
    pieces: list[list[tuple[int, int, list[np.ndarray]]]] = [[] for _ in waves]          # begin, first frame, states
    for (length, whole), group in groups.items():
        pooled = encoder.encode(
            np.stack([waves[clip][begin : begin + length] for clip, begin, _ in group]),
            None if whole else [span for _, _, span in group], frames,
        )
        owners = np.array([clip for clip, _, _ in group])
        np.add.at(counts, owners, pooled.n_frames)
        for layer in range(len(encoder.dims)):
            np.add.at(total[layer], owners, pooled.mean[layer].astype(np.float64) * pooled.n_frames[:, None])
            np.maximum.at(peak[layer], owners, pooled.max[layer])
        for row, (clip, begin, span) in enumerate(group):
            pieces[clip].append((begin, span[0], [states[row] for states in pooled.frames]))
    found = []
    for clip in range(len(waves)):
        states, frame_s = join_frames(pieces[clip], encoder) if frames else ([], np.empty(0, np.float32))
        found.append(ClipVectors(
            mean=[(t[clip] / counts[clip]).astype(np.float32) for t in total], max=[p[clip] for p in peak],
            n_frames=int(counts[clip]), frames=states, frame_s=frame_s,
        ))
    return found


def join_frames(
    pieces: list[tuple[int, int, list[np.ndarray]]], encoder: Encoder
) -> tuple[list[np.ndarray], np.ndarray]:
    """Concatenate the frames of a clip's windows in order of time: each layer's (frame, dim), and their centres in seconds."""
    pieces = sorted(pieces, key=lambda piece: piece[0])
    centres = [
        begin + encoder.frame_offset + encoder.frame_samples * np.arange(first, first + len(states[0]))
        for begin, first, states in pieces
    ]
    layers = [np.concatenate(layer) for layer in zip(*(states for _, _, states in pieces), strict=True)]
    return layers, (np.concatenate(centres) / encoder.sample_rate).astype(np.float32)
