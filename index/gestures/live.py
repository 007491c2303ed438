"""Gestures of a live stream: those of `GestureStream`, with the tokens of a live encoder.

    heard = LiveGestures(LiveEncoder(lake, rate=44_100, vocabulary=""))
    for chunk in microphone:
        step = heard.push(chunk)         # that of the live encoder
        rows = heard.take()              # gestures that are complete: dicts with the columns of `store.Gestures`
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tonelake.index.gestures.onsets import RATE
from tonelake.index.gestures.stream import GestureStream
from tonelake.index.tokens.live import LiveEncoder, LiveStep
from tonelake.store import InputError


class LiveGestures:
    """A live encoder that also cuts its stream into gestures, at onsets or every `grid_s` seconds.

    A gesture is complete `latency_s` after its end at the latest, plus the time to compute frames.
    Raises InputError for a live encoder without a vocabulary, and for a grid out of range.
    """

    def __init__(self, live: LiveEncoder, *, grid_s: float | None = None) -> None:
        if live.vocabulary is None:
            raise InputError("gestures: have tokens, and this stream has no vocabulary. Name one with --vocabulary")
        self.live, self.frames = live, live.frames
        self._stream = GestureStream(grid_s=grid_s)
        self._rows: list[dict[str, Any]] = []
        self._resampler = None
        if live.frames.rate != RATE:
            import soxr

            self._resampler = soxr.ResampleStream(live.frames.rate, RATE, 1, dtype="float32", quality="HQ")

    @property
    def latency_s(self) -> float:
        """The longest time between the end of a gesture and the sample that completes it."""
        return max(self._stream.latency_s, self.frames.latency_s)

    def push(self, samples: np.ndarray) -> LiveStep:
        """Add (samples,) or (samples, channel) in [-1, 1] at the stream's rate; return the live encoder's step."""
        step = self.live.push(samples)
        self._add(samples, step)
        return step

    def finish(self) -> LiveStep:
        """End the stream; return the live encoder's last step."""
        step = self.live.finish()
        self._add(np.empty(0, np.float32), step, last=True)
        self._rows += self._stream.finish()
        return step

    def take(self) -> list[dict[str, Any]]:
        """Return the gestures completed since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def _add(self, samples: np.ndarray, step: LiveStep, last: bool = False) -> None:
        samples = np.asarray(samples, np.float32)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        assert step.tokens is not None
        self._rows += self._stream.push(samples, step.time_s, step.tokens)
