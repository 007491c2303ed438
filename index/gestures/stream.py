"""Cut a stream of samples into gestures, with features and tokens; clips and live audio take the same path.

    stream = GestureStream()
    stream.push(samples, frame_s, tokens)    # rows of gestures that are complete: dicts with the columns of the table
    stream.finish()

A gesture begins at an onset and ends at the next one.  Sound before the first onset is a gesture of its own, silence there is
none, and a gesture longer than LONGEST_S is cut.  Its token is the most frequent one of the frames whose middle is in it (the
lower of two equally frequent ones), or that of the nearest frame if there is none.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from tonelake.index.gestures.features import features_of
from tonelake.index.gestures.onsets import LATENCY_S, RATE, OnsetFinder
from tonelake.index.ratios import small_ratios
from tonelake.store import InputError

LONGEST_S = 8.0
SHORTEST_S = 0.05                        # of a fixed grid, and of sound before the first onset or after the last
SILENT = 1e-3                            # amplitude (-60 dB) that sound before the first onset exceeds


class GestureStream:
    """Gestures of one stream at RATE; memory is that of LONGEST_S."""

    def __init__(self, *, grid_s: float | None = None) -> None:
        """`grid_s`: length of gestures on a fixed grid, in place of onsets.  Raises InputError if it is out of range."""
        if grid_s is not None and not SHORTEST_S <= grid_s <= LONGEST_S:
            raise InputError(f"grid of {grid_s:g} s: out of range. Choose {SHORTEST_S:g} to {LONGEST_S:g} s")
        self._grid = None if grid_s is None else round(grid_s * RATE)
        self._finder = OnsetFinder() if grid_s is None else None
        self._kept: list[np.ndarray] = []                            # samples from `_begin`
        self._begin = self._count = 0                                # first kept sample, number of samples
        self._start = 0                                              # of the gesture that has not ended
        self._bounds: deque[int] = deque()                           # ends of gestures that wait for their frames
        self._frame_s = np.empty(0)
        self._tokens = np.empty(0, np.int64)
        self._heard_s = 0.0                                          # middle of the last frame
        self._number = 0
        self._previous_s: float | None = None                        # inter-onset interval of the gesture before

    @property
    def latency_s(self) -> float:
        """The longest time between the end of a gesture and the samples that make its end certain."""
        return LATENCY_S if self._grid is None else 0.0

    def push(self, samples: np.ndarray, frame_s: np.ndarray, tokens: np.ndarray) -> list[dict[str, Any]]:
        """Take (samples,) at RATE, and the middles in seconds and tokens of frames; return the gestures that are complete."""
        self._add_frames(frame_s, tokens)
        samples = np.asarray(samples, np.float32)
        self._kept.append(samples)
        self._count += len(samples)
        if self._finder is None:
            for end in range(self._next_bound() + self._grid_samples(), self._count + 1, self._grid_samples()):
                self._bounds.append(end)
        else:
            self._add_onsets(self._finder.push(samples), self._count - round(LATENCY_S * RATE))
        return self._complete(self._heard_s)

    def finish(self) -> list[dict[str, Any]]:
        """End the stream; return the remaining gestures.  The last one has no inter-onset interval."""
        if self._finder is not None:
            self._add_onsets(self._finder.finish(), self._count)
        done = self._complete(np.inf)
        if self._count > self._start and (self._number == 0 or self._count - self._start >= SHORTEST_S * RATE):
            done.append(self._row(self._count, last=True))
        self._start = self._count
        return done

    def _grid_samples(self) -> int:
        assert self._grid is not None
        return self._grid

    def _next_bound(self) -> int:
        return self._bounds[-1] if self._bounds else self._start

    def _add_frames(self, frame_s: np.ndarray, tokens: np.ndarray) -> None:
        self._frame_s = np.append(self._frame_s, np.asarray(frame_s, np.float64))
        self._tokens = np.append(self._tokens, np.asarray(tokens, np.int64))
        if len(frame_s):
            self._heard_s = float(frame_s[-1])

    def _add_onsets(self, onsets_s: list[float], certain: int) -> None:
        """Add the bounds at onsets, and at LONGEST_S of a gesture in which no onset can come any more."""
        longest = round(LONGEST_S * RATE)
        for onset in [*(round(one * RATE) for one in onsets_s), None]:
            until = certain if onset is None else onset
            while until - self._next_bound() > longest:
                self._bounds.append(self._next_bound() + longest)
            if onset is not None and onset > self._next_bound():
                self._bounds.append(onset)

    def _complete(self, heard_s: float) -> list[dict[str, Any]]:
        done = []
        while self._bounds and self._bounds[0] / RATE <= heard_s:
            end = self._bounds.popleft()
            if self._number or not self._is_lead_in(end):
                done.append(self._row(end))
            self._advance(end)
        return done

    def _is_lead_in(self, end: int) -> bool:
        """Whether the sound before the first onset is silent or too short for a gesture."""
        if self._grid is not None:
            return False
        sound = self._samples(end)[: -round(SHORTEST_S * RATE)]       # without the beginning of the sound that follows
        return bool(np.abs(sound).max(initial=0) < SILENT)

    def _samples(self, end: int) -> np.ndarray:
        self._kept = [np.concatenate(self._kept)]
        return self._kept[0][self._start - self._begin : end - self._begin]

    def _advance(self, end: int) -> None:
        """Begin the next gesture, and drop samples and frames before it."""
        self._start = end
        self._kept = [self._kept[0][end - self._begin :]]
        self._begin = end
        later = max(0, int(np.searchsorted(self._frame_s, end / RATE)) - 1)          # the frame before may be the nearest
        self._frame_s, self._tokens = self._frame_s[later:], self._tokens[later:]

    def _row(self, end: int, last: bool = False) -> dict[str, Any]:
        start_s, end_s = self._start / RATE, end / RATE
        found = features_of(self._samples(end))
        token, share = self._token(start_s, end_s)
        ioi_s = None if last else end_s - start_s
        quotient = np.nan if ioi_s is None or self._previous_s is None else ioi_s / self._previous_s
        numerator, denominator = (int(part[0]) for part in small_ratios(np.array([quotient])))
        row = {
            "number": self._number, "start_s": start_s, "end_s": end_s, "token": token, "token_share": share,
            **found._asdict(), "ioi_s": ioi_s, "ratio": f"{numerator}:{denominator}" if numerator else None,
            "ratio_numerator": numerator or None, "ratio_denominator": denominator or None,
        }
        self._number, self._previous_s = self._number + 1, ioi_s
        return row

    def _token(self, start_s: float, end_s: float) -> tuple[int | None, float | None]:
        """Return the most frequent token of a span, and the share of its frames that have it; None and None without frames."""
        if not len(self._tokens):
            return None, None
        inside = self._tokens[(self._frame_s >= start_s) & (self._frame_s < end_s)]
        if not len(inside):
            return int(self._tokens[np.abs(self._frame_s - (start_s + end_s) / 2).argmin()]), 0.0
        tokens, counts = np.unique(inside, return_counts=True)
        return int(tokens[counts.argmax()]), float(counts.max() / len(inside))
