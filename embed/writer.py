"""Vectors, frames and failures on their way into the lake: gathered, and committed together every so often."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.embed.windows import ClipVectors
from tonelake.store import (
    MANY_FRAGMENTS,
    SHORT_MINUTES,
    Failure,
    FrameStates,
    Lake,
    Space,
    Table,
    failure_id,
    fits,
    release_memory,
    release_versions_quietly,
    trim_quietly,
)

COMMIT_CLIPS = 512
COMMIT_SECONDS = 30.0                    # what a kill costs at the most, on a machine however slow
PIECES_AT_THE_END = 3 * MANY_FRAGMENTS      # of vectors, that are left to the next who writes
COMMIT_FRAME_BYTES = 128 << 20           # of frames that wait: 37 clips of 30 s at one layer


class CommitLog:
    """What becomes of the clips that are due: failures on record, and counts."""

    def __init__(self, lake: Lake, space: Space) -> None:
        self._lake, self._space = lake, space
        self._due: dict[str, tuple[str, float]] = {}                 # source and seconds of clips not yet stored
        self._stage = f"embed:{space.name}"
        self._failures: list[Failure] = []
        self._last = time.monotonic()
        self.stored = self.beaten = self.framed = self.failed = 0
        self.seconds_of_audio = 0.0

    def expect(self, due: pl.DataFrame) -> None:
        """Clips that will come."""
        self._due.update(zip(due["clip_id"], zip(due["source"], due["duration_s"], strict=True), strict=True))

    def fail(self, clip_id: str, problem: str) -> None:
        """A clip that cannot be embedded."""
        self.failed += 1
        self._failures.append(Failure(self._stage, self._due.pop(clip_id)[0], problem, clip_id))

    def encoded(self, clip_id: str) -> None:
        """A clip that was, and waits to be stored."""
        self.seconds_of_audio += self._due[clip_id][1]

    def is_late(self) -> bool:
        """Whether what waits has waited long enough."""
        return time.monotonic() - self._last > COMMIT_SECONDS

    def record_failures(self) -> None:
        """Write the failures down; the beginning of each commit."""
        failures, self._failures = self._failures, []
        self._last = time.monotonic()
        self._lake.failures.record(failures)

    def count(self, ids: Sequence[str], stored: int, framed: int) -> None:
        """Clips that are in the lake now, of which `stored` were not there yet; older failures of theirs are forgotten."""
        self._lake.failures.clear([failure_id(self._stage, self._due.pop(i)[0], i) for i in ids])
        self.stored += stored
        self.beaten += len(ids) - stored
        self.framed += framed


class Writer(CommitLog):
    """Takes what was encoded in this process."""

    def __init__(
        self, lake: Lake, space: Space, frames: Sequence[int] = (), *, compact: bool = True, total: int | None = None
    ) -> None:
        """`frames`: the layers that the clips' frames are of, in their order.  `compact`: whether to merge the pieces.
        `total`: how many clips will come, where that is known."""
        super().__init__(lake, space)
        self._vectors, self._frames = lake.vectors(space), lake.frames(space)
        self._layers = tuple(frames)
        self._waiting: list[tuple[str, ClipVectors]] = []
        self._frame_bytes = 0
        self._compact, self._commits = compact, 0
        self._a_fragment = self._vectors.table.whole_rows() // COMMIT_CLIPS + 1      # commits that make one
        self._began, self._total = time.monotonic(), total
        self._merged: float | None = None            # when, while the pieces of that merge are still on the disk

    def take(self, clip_id: str, outcome: ClipVectors | Exception) -> None:
        """One clip's vectors, or what went wrong; a failure where the vectors cannot be stored."""
        problem = problem_of(clip_id, outcome, self._space)
        if problem or isinstance(outcome, Exception):
            self.fail(clip_id, problem)
        else:
            self.encoded(clip_id)
            self._waiting.append((clip_id, outcome))
            self._frame_bytes += sum(states.nbytes for states in outcome.frames)
        if len(self._waiting) >= COMMIT_CLIPS or self._frame_bytes > COMMIT_FRAME_BYTES or self.is_late():
            self.flush()

    def flush(self) -> None:
        """Commit what is waiting: frames first, so that a clip with its vector has its frames."""
        waiting, self._waiting, self._frame_bytes = self._waiting, [], 0
        self.record_failures()
        if not waiting:
            return
        ids = [clip_id for clip_id, _ in waiting]
        if self._layers:
            self._frames.add(frame_rows(waiting, self._layers))
        self.count(ids, self._vectors.add(ids, *stack(waiting)), len(ids) if self._layers else 0)
        self._commits += 1
        if self._commits >= self._a_fragment and not self.ends_soon():
            self.tidy()
        elif self._merged is not None and time.monotonic() - self._merged > 60 * SHORT_MINUTES:
            self._merged = None
            for table in self._tables():
                release_versions_quietly(table)
        release_memory()

    def tidy(self) -> None:
        """Merge the pieces that the commits left behind, and let go of those of long ago: each one costs every later reader
        and writer time and memory, and a week of them would fill the disk."""
        if self._compact and self._commits:
            for table in self._tables():
                trim_quietly(table, PIECES_AT_THE_END if self.ends_soon() else MANY_FRAGMENTS)
            self._merged = time.monotonic()
        self._commits = 0

    def ends_soon(self) -> bool:
        """Whether the end is nearer than the time for which what a merge leaves behind stays: nobody would remove it."""
        done = self.stored + self.beaten + self.failed
        left = (self._total - done) / max(done, 1) * (time.monotonic() - self._began) if self._total else np.inf
        return left < 60 * SHORT_MINUTES

    def _tables(self) -> list[Table]:
        return [self._vectors.table, self._frames.table] if self._layers else [self._vectors.table]


def problem_of(clip_id: str, outcome: ClipVectors | Exception, space: Space) -> str:
    """Why this cannot be stored; empty where it can."""
    if isinstance(outcome, Exception):
        return str(outcome)
    if not all(fits(v, space.dtype).all() for v in (*outcome.mean, *outcome.max)):
        return f"clip {clip_id}: the encoder gave NaN or values beyond {space.dtype}"
    if not all(np.isfinite(states).all() for states in outcome.frames):
        return f"clip {clip_id}: the encoder gave frames with NaN or values beyond float16"
    return ""


def stack(clips: Sequence[tuple[str, ClipVectors]]) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Means and maxima, one (clip, dim) array a layer, and the numbers of frames: what `Vectors.add` takes."""
    layers = range(len(clips[0][1].mean))
    return (
        [np.stack([v.mean[layer] for _, v in clips]) for layer in layers],
        [np.stack([v.max[layer] for _, v in clips]) for layer in layers],
        [v.n_frames for _, v in clips],
    )


def frame_rows(clips: Sequence[tuple[str, ClipVectors]], layers: Sequence[int]) -> list[FrameStates]:
    """What `Frames.add` takes."""
    return [
        FrameStates(clip_id, layer, vectors.frame_s, states)
        for clip_id, vectors in clips
        for layer, states in zip(layers, vectors.frames, strict=True)
    ]
