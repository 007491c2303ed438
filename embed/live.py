"""Encode a stream in real time: samples of any rate in pieces of any size in, frames of one or more layers out, each once.

The encoder runs over a rolling window, the last `window_s` seconds (fewer at the beginning).  Every `hop_s` it is
run over the window, and the new frames are returned; `ahead_s` delays them until that much audio has followed,
which gives them context on both sides at the price of latency.  Windows begin and end on the grid of frames counted from
the stream's first sample, so frames have no gaps and no overlaps however long the stream is, and do not depend on the pieces.

With `drift=0` a frame equals the result of one offline pass over its window.  Otherwise encoders may use again what they
computed for earlier windows, within a bound that they state (`embed.encoders.hubert_live`).  Audio before the window, or later
than `ahead_s`, has no other influence; in this a frame differs from that of a pass over a whole recording.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tonelake.embed.encoders.base import Encoder
from tonelake.store import InputError

LIVE_WINDOW_S, LIVE_HOP_S = 5.0, 0.1               # MERT was trained on windows of 5 s
LIVE_DRIFT = 0.1                         # errors of about bfloat16's; see `embed.encoders.hubert_live`
SLICE_S = 0.5                            # processed at a time of a long piece
RATES = (4_000, 384_000)                 # Hz, of the input


class FrameBatch(NamedTuple):
    """Consecutive frames of one layer of a stream."""

    time_s: np.ndarray                   # (frame,) float64: middle of each frame, seconds from the stream's first sample
    states: np.ndarray                   # (frame, dim) float32


class LayerBatch(NamedTuple):
    """Consecutive frames of several layers of a stream."""

    time_s: np.ndarray                   # (frame,) float64, as in FrameBatch
    states: list[np.ndarray]             # of each layer: (frame, dim) float32

    def of(self, number: int) -> FrameBatch:
        """The frames of one of the layers, by its place among them."""
        return FrameBatch(self.time_s, self.states[number])


class LiveLayers:
    """Several layers of one stream, by one pass of the encoder a hop.

    Memory is constant: the samples of the window, and what the encoder keeps of its frames.
    """

    def __init__(
        self, encoder: Encoder, layers: Sequence[int], rate: int, *, window_s: float = LIVE_WINDOW_S, hop_s: float = LIVE_HOP_S,
        ahead_s: float = 0.0, drift: float = LIVE_DRIFT,
    ) -> None:
        """`rate`: of the samples that will be pushed, Hz.  `drift`: of `Encoder.live_pass`; 0 for the frames of offline passes.

        Raises InputError if the rate, a layer, times or the drift are out of range.
        """
        if not RATES[0] <= rate <= RATES[1]:
            raise InputError(f"rate of {rate} Hz: out of range. Choose from {RATES[0]:,} to {RATES[1]:,} Hz")
        if not encoder.has_frames:
            raise InputError(f"{encoder.name}: has no frames, which live audio needs. Choose a space of another encoder")
        for layer in layers:
            if not 0 <= layer < len(encoder.layers):
                raise InputError(f"{encoder.name}: no layer {layer}. Choose 0 to {len(encoder.layers) - 1}")
        if not drift >= 0:
            raise InputError(f"drift of {drift:g}: out of range. Choose 0 for exact frames, or a number such as {LIVE_DRIFT:g}")
        self.encoder, self.layers, self.rate = encoder, tuple(layers), rate
        self._step = encoder.frame_samples
        self._field = encoder.frame_field
        frames_s = encoder.sample_rate / self._step
        self._hop, self._ahead, self._window = (round(s * frames_s) for s in (hop_s, ahead_s, window_s))
        if self._hop < 1 or self._ahead < 0 or self._window < self._hop + self._ahead:
            raise InputError(
                f"window of {window_s:g} s: holds no hop of {hop_s:g} s and {ahead_s:g} s ahead. Choose a hop of "
                f"{1 / frames_s:.3f} s or more, and a window as long as both together"
            )
        self._resampler = None
        if rate != encoder.sample_rate:
            import soxr

            self._resampler = soxr.ResampleStream(rate, encoder.sample_rate, 1, dtype="float32", quality="HQ")
        slice_samples = math.ceil(SLICE_S * encoder.sample_rate) + 4096
        self._buffer = np.empty(2 * ((self._window + self._hop + 1) * self._step + self._field + slice_samples), np.float32)
        self._begin = self._end = 0      # bounds of the kept samples in the buffer
        self._origin = 0                 # the stream's sample at `_begin`
        self._emitted = 0                # number of frames returned
        self._ended = False
        if encoder.device == "cpu":      # for the full window: the first ones are shorter, but soon over
            encoder.prepare((self._window - 1) * self._step + self._field)
        self._pass = encoder.live_pass(self.layers, drift)

    @property
    def latency_s(self) -> float:
        """The longest time between a sample and the frames that contain it, without computation."""
        return (self._hop + self._ahead) * self._step / self.encoder.sample_rate + self._field / self.encoder.sample_rate

    @property
    def spacing_s(self) -> float:
        """Seconds from frame to frame."""
        return self._step / self.encoder.sample_rate

    def push(self, samples: np.ndarray) -> LayerBatch:
        """Take (samples,) or (samples, channel) in [-1, 1]; returns the frames that are due.

        Raises InputError for samples that are not finite, and after `finish`.
        """
        if self._ended:
            raise InputError("the stream has ended. Begin another one")
        samples = np.asarray(samples, np.float32)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise InputError(f"samples of shape {samples.shape}: unusable. Push finite (samples,) or (samples, channel)")
        size = max(1, round(SLICE_S * self.rate))
        return self._joined([self._take(samples[i : i + size]) for i in range(0, len(samples), size)])

    def finish(self) -> LayerBatch:
        """End the stream; returns the remaining frames, with whatever context follows them."""
        parts = []
        if not self._ended and self._resampler is not None:
            parts.append(self._take(np.empty(0, np.float32), last=True))
        self._ended = True
        total = self._frames_so_far()
        if total > self._emitted:
            parts.append(self._run(total, total))
        return self._joined(parts)

    def _joined(self, parts: list[LayerBatch]) -> LayerBatch:
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return LayerBatch(np.empty(0), [np.empty((0, self.encoder.dims[layer]), np.float32) for layer in self.layers])
        return LayerBatch(
            np.concatenate([part.time_s for part in parts]),
            [np.concatenate(states) for states in zip(*(part.states for part in parts), strict=True)],
        )

    def _take(self, samples: np.ndarray, last: bool = False) -> LayerBatch:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        if self._end + len(samples) > len(self._buffer):             # move the kept samples to the front
            kept = self._end - self._begin
            self._buffer[:kept] = self._buffer[self._begin : self._end].copy()
            self._begin, self._end = 0, kept
        self._buffer[self._end : self._end + len(samples)] = samples
        self._end += len(samples)
        parts = []
        while self._frames_so_far() >= self._emitted + self._hop + self._ahead:
            parts.append(self._run(self._emitted + self._hop + self._ahead, self._emitted + self._hop))
        return self._joined(parts)

    def _frames_so_far(self) -> int:
        return max(0, (self._origin + self._end - self._begin - self._field) // self._step + 1)

    def _run(self, end: int, until: int) -> LayerBatch:
        """Run the encoder over the window that ends with frame `end`; returns new frames up to `until`."""
        first = max(0, end - self._window)
        begin = self._begin + first * self._step - self._origin
        window = self._buffer[begin : begin + (end - 1 - first) * self._step + self._field]
        states = self._pass.states(window, first, slice(self._emitted - first, until - first))
        times = (np.arange(self._emitted, until) * self._step + self.encoder.frame_offset) / self.encoder.sample_rate
        self._emitted = until
        # The next window begins here at the earliest.
        keep = max(0, until + self._ahead - self._window) * self._step
        if keep > self._origin:
            self._begin += keep - self._origin
            self._origin = keep
        return LayerBatch(times, states)


class LiveFrames:
    """One layer of one stream, as `LiveLayers`."""

    def __init__(
        self, encoder: Encoder, layer: int, rate: int, *, window_s: float = LIVE_WINDOW_S, hop_s: float = LIVE_HOP_S,
        ahead_s: float = 0.0, drift: float = LIVE_DRIFT,
    ) -> None:
        """Raises InputError as `LiveLayers`."""
        self.stream = LiveLayers(encoder, (layer,), rate, window_s=window_s, hop_s=hop_s, ahead_s=ahead_s, drift=drift)
        self.encoder, self.layer, self.rate = encoder, layer, rate

    @property
    def latency_s(self) -> float:
        """The longest time between a sample and the frames that contain it, without computation."""
        return self.stream.latency_s

    def push(self, samples: np.ndarray) -> FrameBatch:
        """Take (samples,) or (samples, channel) in [-1, 1]; returns the frames that are due.  Raises InputError for others."""
        return self.stream.push(samples).of(0)

    def finish(self) -> FrameBatch:
        """End the stream; returns the remaining frames."""
        return self.stream.finish().of(0)
