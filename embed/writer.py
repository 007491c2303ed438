"""Write vectors, frames and failures into the lake: collected, and committed together at intervals."""

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
COMMIT_SECONDS = 30.0                    # the most work that a kill costs, on any machine
FRAGMENTS_AT_THE_END = 3 * MANY_FRAGMENTS        # of vectors that are left for the next writer to compact
COMMIT_FRAME_BYTES = 128 << 20           # of frames that wait: 37 clips of 30 s at one layer


class OutcomeLog:
    """Outcomes of the clips that are due: counts, and failures for the lake's record."""

    def __init__(self, lake: Lake, space: Space) -> None:
        self._lake, self._space = lake, space
        self._due: dict[str, tuple[str, float]] = {}                 # source and seconds of clips not yet stored
        self._stage = f"embed:{space.name}"
        self._failures: list[Failure] = []
        self._last_commit = time.monotonic()
        self.stored = self.stored_elsewhere = self.framed = self.failed = 0
        self.seconds_of_audio = 0.0

    def expect(self, due: pl.DataFrame) -> None:
        """Add clips whose outcomes will follow."""
        self._due.update(zip(due["clip_id"], zip(due["source"], due["duration_s"], strict=True), strict=True))

    def add_failure(self, clip_id: str, problem: str) -> None:
        """Count a clip that cannot be embedded, and keep the reason for the next commit."""
        self.failed += 1
        self._failures.append(Failure(self._stage, self._due.pop(clip_id)[0], problem, clip_id))

    def add_encoded(self, clip_id: str) -> None:
        """Count the audio of a clip that is encoded and waits to be stored."""
        self.seconds_of_audio += self._due[clip_id][1]

    def commit_is_due(self) -> bool:
        """Whether the last commit is longer ago than `COMMIT_SECONDS`."""
        return time.monotonic() - self._last_commit > COMMIT_SECONDS

    def write_failures(self) -> None:
        """Record the failures in the lake; the first step of each commit."""
        failures, self._failures = self._failures, []
        self._last_commit = time.monotonic()
        self._lake.failures.record(failures)

    def add_stored(self, ids: Sequence[str], stored: int, framed: int) -> None:
        """Count clips that are in the lake, `stored` of them new, and clear their older failures."""
        self._lake.failures.clear([failure_id(self._stage, self._due.pop(i)[0], i) for i in ids])
        self.stored += stored
        self.stored_elsewhere += len(ids) - stored
        self.framed += framed


class Writer(OutcomeLog):
    """Stores the clips that this process encodes."""

    def __init__(
        self, lake: Lake, space: Space, frames: Sequence[int] = (), *, compact: bool = True, total: int | None = None
    ) -> None:
        """`frames`: the layers of the clips' frames, in their order.  `compact`: whether to compact the tables.  `total`: the
        number of clips that will come, if known."""
        super().__init__(lake, space)
        self._vectors, self._frames = lake.vectors(space), lake.frames(space)
        self._layers = tuple(frames)
        self._waiting: list[tuple[str, ClipVectors]] = []
        self._frame_bytes = 0
        self._compacts, self._commits = compact, 0
        self._commits_per_fragment = self._vectors.table.target_rows() // COMMIT_CLIPS + 1
        self._began, self._total = time.monotonic(), total
        self._compacted_at: float | None = None      # None once the replaced fragments are removed from the disk

    def add(self, clip_id: str, outcome: ClipVectors | Exception) -> None:
        """Take one clip's vectors or error; vectors that cannot be stored count as a failure."""
        problem = problem_of(clip_id, outcome, self._space)
        if problem or isinstance(outcome, Exception):
            self.add_failure(clip_id, problem)
        else:
            self.add_encoded(clip_id)
            self._waiting.append((clip_id, outcome))
            self._frame_bytes += sum(states.nbytes for states in outcome.frames)
        if len(self._waiting) >= COMMIT_CLIPS or self._frame_bytes > COMMIT_FRAME_BYTES or self.commit_is_due():
            self.flush()

    def flush(self) -> None:
        """Commit the waiting clips: frames first, so that a clip with its vector has its frames."""
        waiting, self._waiting, self._frame_bytes = self._waiting, [], 0
        self.write_failures()
        if not waiting:
            return
        ids = [clip_id for clip_id, _ in waiting]
        if self._layers:
            self._frames.add(frame_rows(waiting, self._layers))
        self.add_stored(ids, self._vectors.add(ids, *stack_vectors(waiting)), len(ids) if self._layers else 0)
        self._commits += 1
        if self._commits >= self._commits_per_fragment and not self.ends_soon():
            self.compact()
        elif self._compacted_at is not None and time.monotonic() - self._compacted_at > 60 * SHORT_MINUTES:
            self._compacted_at = None
            for table in self._tables():
                release_versions_quietly(table)
        release_memory()

    def compact(self) -> None:
        """Merge the fragments that the commits left behind, and remove those of older versions: each fragment costs every
        later reader and writer time and memory, and a week of them would fill the disk."""
        if self._compacts and self._commits:
            for table in self._tables():
                trim_quietly(table, FRAGMENTS_AT_THE_END if self.ends_soon() else MANY_FRAGMENTS)
            self._compacted_at = time.monotonic()
        self._commits = 0

    def ends_soon(self) -> bool:
        """Whether the run ends before the fragments that a compaction replaces may be removed: they would stay on the disk."""
        done = self.stored + self.stored_elsewhere + self.failed
        left = (self._total - done) / max(done, 1) * (time.monotonic() - self._began) if self._total else np.inf
        return left < 60 * SHORT_MINUTES

    def _tables(self) -> list[Table]:
        return [self._vectors.table, self._frames.table] if self._layers else [self._vectors.table]


def problem_of(clip_id: str, outcome: ClipVectors | Exception, space: Space) -> str:
    """The reason why an outcome cannot be stored; empty if it can."""
    if isinstance(outcome, Exception):
        return str(outcome)
    if not all(fits(v, space.dtype).all() for v in (*outcome.mean, *outcome.max)):
        return f"clip {clip_id}: the encoder returned NaN or values beyond {space.dtype}"
    if not all(np.isfinite(states).all() for states in outcome.frames):
        return f"clip {clip_id}: the encoder returned frames with NaN or values beyond float16"
    return ""


def stack_vectors(clips: Sequence[tuple[str, ClipVectors]]) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Means and maxima, one (clip, dim) array per layer, and the numbers of frames, as `Vectors.add` takes them."""
    layers = range(len(clips[0][1].mean))
    return (
        [np.stack([v.mean[layer] for _, v in clips]) for layer in layers],
        [np.stack([v.max[layer] for _, v in clips]) for layer in layers],
        [v.n_frames for _, v in clips],
    )


def frame_rows(clips: Sequence[tuple[str, ClipVectors]], layers: Sequence[int]) -> list[FrameStates]:
    """Rows of frames, as `Frames.add` takes them."""
    return [
        FrameStates(clip_id, layer, vectors.frame_s, states)
        for clip_id, vectors in clips
        for layer, states in zip(layers, vectors.frames, strict=True)
    ]
