"""Gestures of a live stream: those of `GestureStream`, with the tokens of a live encoder, or of each vocabulary of a session.

    heard = LiveGestures(LiveEncoder(lake, rate=44_100, vocabulary=""))
    for chunk in microphone:
        step = heard.push(chunk)         # that of the live encoder
        rows = heard.take()              # gestures that are complete: dicts with the columns of `store.Gestures`
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tonelake.embed import LiveSpaces
from tonelake.index.gestures.onsets import RATE, filters
from tonelake.index.gestures.stream import GestureStream
from tonelake.index.tokens.live import LiveEncoder, LiveStep
from tonelake.index.tokens.live_session import LiveSession
from tonelake.store import InputError

Step = TypeVar("Step", LiveStep, list[LiveStep], covariant=True)


class Live(Protocol[Step]):
    """A `LiveEncoder`, whose step is a LiveStep, or a `LiveSession`, whose step is one for each vocabulary."""

    frames: LiveSpaces

    def push(self, samples: np.ndarray) -> Step: ...
    def finish(self) -> Step: ...


class LiveGestures(Generic[Step]):
    """A live encoder or session that also cuts its stream into gestures, at onsets or every `grid_s` seconds.

    A gesture is complete `latency_s` after its end at the latest, plus the time to compute frames.
    Raises InputError for a live encoder without a vocabulary, and for a grid out of range.
    """

    def __init__(self, live: Live[Step], *, grid_s: float | None = None) -> None:
        assert isinstance(live, LiveEncoder | LiveSession)
        layers = live.layers if isinstance(live, LiveSession) else [live]
        if any(one.vocabulary is None for one in layers):
            raise InputError("gestures: have tokens, and this stream has no vocabulary. Name one with --vocabulary")
        self.live: Live[Step] = live
        self.frames = live.frames
        self._streams = {one.name: GestureStream(grid_s=grid_s) for one in layers}
        filters()                        # loads librosa, which takes a second: before the first sound
        self._rows: list[dict[str, Any]] = []
        self._resampler = None
        if self.frames.rate != RATE:
            import soxr

            self._resampler = soxr.ResampleStream(self.frames.rate, RATE, 1, dtype="float32", quality="HQ")

    @property
    def latency_s(self) -> float:
        """The longest time between the end of a gesture and the sample that completes it."""
        return max(self.frames.latency_s, *(stream.latency_s for stream in self._streams.values()))

    def push(self, samples: np.ndarray) -> Step:
        """Add (samples,) or (samples, channel) in [-1, 1] at the stream's rate; return the step of the encoder or session."""
        step = self.live.push(samples)
        self._add(samples, step)
        return step

    def finish(self) -> Step:
        """End the stream; return the last step of the encoder or session."""
        step = self.live.finish()
        self._add(np.empty(0, np.float32), step, last=True)
        for name, stream in self._streams.items():
            self._rows += [row | {"vocabulary": name} for row in stream.finish()]
        return step

    def take(self) -> list[dict[str, Any]]:
        """Return the gestures completed since the last call, with the columns of `store.Gestures` and `vocabulary`."""
        rows, self._rows = self._rows, []
        return rows

    def _add(self, samples: np.ndarray, step: LiveStep | list[LiveStep], last: bool = False) -> None:
        samples = np.asarray(samples, np.float32)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        for one in step if isinstance(step, list) else [step]:
            assert one.tokens is not None
            rows = self._streams[one.vocabulary].push(samples, one.time_s, one.tokens)
            self._rows += [row | {"vocabulary": one.vocabulary} for row in rows]
