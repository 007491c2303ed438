"""Frames of a stream as it comes: samples of any rate in any pieces in, frames of one layer out, each once.

The encoder hears a rolling window: what came last, `window_s` seconds of it (less at the beginning).  Each `hop_s` it is
run over the window, and the frames that are new are handed out; with `ahead_s` they wait until so much has come after them,
which gives them context on both sides for so much more latency.  Windows begin and end on the grid of frames counted from
the stream's first sample, so frames have no gaps and no overlaps however long it lasts, and do not depend on the pieces.

A frame is what one offline pass over the same window gives for it.  What lies before the window, or comes later than
`ahead_s`, is not heard: in that a frame differs from that of a pass over a whole recording.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tonelake.embed.encoders.base import Encoder
from tonelake.store import InputError

LIVE_WINDOW_S, LIVE_HOP_S = 5.0, 0.1               # MERT was trained on windows of 5 s
SLICE_S = 0.5                            # of a long piece, taken in at a time
RATES = (4_000, 384_000)                 # Hz, of what comes in


class FrameBatch(NamedTuple):
    """Consecutive frames of a stream."""

    time_s: np.ndarray                   # (frame,) float64: middle of each frame, seconds from the stream's first sample
    states: np.ndarray                   # (frame, dim) float32


class LiveFrames:
    """One stream.  Memory: the window's samples, whatever was pushed before."""

    def __init__(
        self, encoder: Encoder, layer: int, rate: int, *, window_s: float = LIVE_WINDOW_S, hop_s: float = LIVE_HOP_S, ahead_s: float = 0.0
    ) -> None:
        """`rate`: of the samples that will be pushed, Hz.  Raises InputError for times that cannot be."""
        if not RATES[0] <= rate <= RATES[1]:
            raise InputError(f"{rate} Hz: a stream has {RATES[0]:,} to {RATES[1]:,} samples a second")
        if not 0 <= layer < len(encoder.layers):
            raise InputError(f"{encoder.name} has no layer {layer}: choose 0 to {len(encoder.layers) - 1}")
        self.encoder, self.layer, self.rate = encoder, layer, rate
        self._step = encoder.frame_samples
        self._field = getattr(encoder, "frame_field", 2 * encoder.frame_offset)      # samples that one frame needs
        frames_s = encoder.sample_rate / self._step
        self._hop, self._ahead, self._window = (round(s * frames_s) for s in (hop_s, ahead_s, window_s))
        if self._hop < 1 or self._ahead < 0 or self._window < self._hop + self._ahead:
            raise InputError(
                f"a window of {window_s:g} s holds no hop of {hop_s:g} s and {ahead_s:g} s ahead: a hop takes "
                f"{1 / frames_s:.3f} s or more, and the window both"
            )
        self._resampler = None
        if rate != encoder.sample_rate:
            import soxr

            self._resampler = soxr.ResampleStream(rate, encoder.sample_rate, 1, dtype="float32", quality="HQ")
        slice_samples = math.ceil(SLICE_S * encoder.sample_rate) + 4096
        self._buffer = np.empty(2 * ((self._window + self._hop + 1) * self._step + self._field + slice_samples), np.float32)
        self._begin = self._end = 0      # of what is kept, in the buffer
        self._origin = 0                 # the stream's sample at `_begin`
        self._emitted = 0                # frames handed out
        self._ended = False

    @property
    def latency_s(self) -> float:
        """The most time between a sample and the frames that it is in, computing aside."""
        return (self._hop + self._ahead) * self._step / self.encoder.sample_rate + self._field / self.encoder.sample_rate

    def push(self, samples: np.ndarray) -> FrameBatch:
        """(samples,) or (samples, channel) in [-1, 1] -> the frames that became due.

        Raises InputError for samples that are not finite, and after `finish`.
        """
        if self._ended:
            raise InputError("the stream has ended: begin another one")
        samples = np.asarray(samples, np.float32)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise InputError(f"samples of shape {samples.shape}, or not finite: push finite (samples,) or (samples, channel)")
        size = max(1, round(SLICE_S * self.rate))
        return joined([self._take(samples[i : i + size]) for i in range(0, len(samples), size)], self._dim)

    def finish(self) -> FrameBatch:
        """The frames that are left, with what has come after them, however little."""
        parts = []
        if not self._ended and self._resampler is not None:
            parts.append(self._take(np.empty(0, np.float32), last=True))
        self._ended = True
        total = self._frames_so_far()
        if total > self._emitted:
            parts.append(self._run(total, total))
        return joined(parts, self._dim)

    @property
    def _dim(self) -> int:
        return self.encoder.dims[self.layer]

    def _take(self, samples: np.ndarray, last: bool = False) -> FrameBatch:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        if self._end + len(samples) > len(self._buffer):             # move what is kept to the front
            kept = self._end - self._begin
            self._buffer[:kept] = self._buffer[self._begin : self._end].copy()
            self._begin, self._end = 0, kept
        self._buffer[self._end : self._end + len(samples)] = samples
        self._end += len(samples)
        parts = []
        while self._frames_so_far() >= self._emitted + self._hop + self._ahead:
            parts.append(self._run(self._emitted + self._hop + self._ahead, self._emitted + self._hop))
        return joined(parts, self._dim)

    def _frames_so_far(self) -> int:
        return max(0, (self._origin + self._end - self._begin - self._field) // self._step + 1)

    def _run(self, end: int, until: int) -> FrameBatch:
        """Run over the window that ends with frame `end`, and hand out those up to `until`."""
        first = max(0, end - self._window)
        begin = self._begin + first * self._step - self._origin
        window = self._buffer[begin : begin + (end - 1 - first) * self._step + self._field]
        states = states_of(self.encoder, window, self.layer)[self._emitted - first : until - first]
        times = (np.arange(self._emitted, until) * self._step + self.encoder.frame_offset) / self.encoder.sample_rate
        self._emitted = until
        # The next window begins here at the earliest.
        keep = max(0, until + self._ahead - self._window) * self._step
        if keep > self._origin:
            self._begin += keep - self._origin
            self._origin = keep
        return FrameBatch(times, states)


def states_of(encoder: Encoder, window: np.ndarray, layer: int) -> np.ndarray:
    """(samples,) -> (frame, dim) float32 of one layer; by encoders that can, without the layers above it."""
    only = getattr(encoder, "states", None)
    if only is not None:
        return only(window, layer)
    return encoder.encode(window[None], frames=(layer,)).frames[0][0].astype(np.float32)


def joined(parts: list[FrameBatch], dim: int) -> FrameBatch:
    """Several as one."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return FrameBatch(np.empty(0), np.empty((0, dim), np.float32))
    return FrameBatch(np.concatenate([part.time_s for part in parts]), np.concatenate([part.states for part in parts]))
