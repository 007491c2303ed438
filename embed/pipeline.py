"""Clips without a vector -> vectors in the lake.  Killed at any point and run again, it goes on where it stood.

Clips are stored every half minute or 512, in one commit with all their layers; what is stored is never encoded again,
and a clip that another run stored meanwhile keeps that run's vector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from embed.encoder import Encoder
from embed.windows import ClipVectors, encode_clips
from store import Failure, InputError, Lake, Space, failure_id, fits

COMMIT_CLIPS = 512
COMMIT_SECONDS = 30.0                    # what a kill costs at the most, on a machine however slow
CLIP_COLUMNS = ("clip_id", "source", "digest", "start_s", "duration_s", "flag")

# Clips and a sample rate in Hz -> (clip id, (samples,) float32 or what went wrong).  `ingest.read_clips` is one.
ReadClips = Callable[[pl.DataFrame, int, int | None], Generator[tuple[str, np.ndarray | Exception], None, None]]
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True)
class EmbedReport:
    """What an embed did."""

    space: str
    new: int
    known: int
    failed: int
    seconds_of_audio: float = 0.0
    seconds_taken: float = 0.0
    precision: str = ""                  # with the reason for it

    def __str__(self) -> str:
        counts = f"space {self.space}: {self.new} clips embedded, {self.known} known"
        if self.failed:
            counts += f", {self.failed} failed (see `tonelake failures`)"
        if self.new:
            counts += f"; {self.seconds_of_audio / max(self.seconds_taken, 1e-9):.1f} s of audio a second"
            counts += f"\n{self.precision}" if self.precision else ""
        return counts


def embed_clips(
    lake: Lake, space: Space, encoder: Encoder, read: ReadClips, *, workers: int | None = None,
    progress: Progress = lambda items, total, label: items,
) -> EmbedReport:
    """Embed every clip of the lake that has no vector in `space`."""
    total = check_clips(lake)
    todo = lake.vectors(space).missing(CLIP_COLUMNS)
    known = total - len(todo)
    todo = todo.filter(pl.col("flag").ne_missing("superseded")).drop("flag")      # their audio is gone
    writer = Writer(lake, space, todo)
    started = time.monotonic()
    waves = read(todo, encoder.sample_rate, workers)
    try:
        for batch in clumps(progress(waves, len(todo), f"embedding into {space.name}"), encoder.clips_at_once):
            good = [(clip_id, wave) for clip_id, wave in batch if not isinstance(wave, Exception)]
            for clip_id, error in batch:
                if isinstance(error, Exception):
                    writer.fail(clip_id, str(error))
            vectors = encode_clips(encoder, [wave for _, wave in good], space.window_s) if good else []
            for (clip_id, _), pooled in zip(good, vectors, strict=True):
                writer.add(clip_id, pooled)
    finally:
        try:
            writer.flush()               # also when interrupted: what is encoded is stored
        finally:
            waves.close()                # and the processes that decode are ended, also when storing fails
    if writer.commits > 1:
        lake.vectors(space).table.compact()
    return EmbedReport(
        space.name, writer.stored, known + writer.beaten, writer.failed, writer.seconds_of_audio, time.monotonic() - started,
        space.precision_reason,
    )


def check_clips(lake: Lake) -> int:
    """How many clips there are.  Raises InputError where there are none."""
    total = lake.clips.count()
    if not total:
        raise InputError("the lake has no clips yet: run `tonelake ingest` first")
    return total


def clumps(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class Writer:
    """Gathers vectors and failures, and commits them together every so often."""

    def __init__(self, lake: Lake, space: Space, todo: pl.DataFrame) -> None:
        self._lake, self._space = lake, space
        self._table = lake.vectors(space)
        self._clip = {row["clip_id"]: row for row in todo.iter_rows(named=True)}
        self._stage = f"embed:{space.name}"
        self._waiting: list[tuple[str, ClipVectors]] = []
        self._failures: list[Failure] = []
        self._last = time.monotonic()
        self.stored = self.beaten = self.failed = self.commits = 0
        self.seconds_of_audio = 0.0

    def add(self, clip_id: str, vectors: ClipVectors) -> None:
        """Take one clip's vectors; a failure where they cannot be stored."""
        if not all(fits(v, self._space.dtype).all() for v in (*vectors.mean, *vectors.max)):
            self.fail(clip_id, f"clip {clip_id}: the encoder gave NaN or values beyond {self._space.dtype}")
            return
        self.seconds_of_audio += self._clip[clip_id]["duration_s"]
        self._waiting.append((clip_id, vectors))
        if len(self._waiting) >= COMMIT_CLIPS or time.monotonic() - self._last > COMMIT_SECONDS:
            self.flush()

    def fail(self, clip_id: str, error: str) -> None:
        self.failed += 1
        self._failures.append(Failure(self._stage, self._clip[clip_id]["source"], error, clip_id))

    def flush(self) -> None:
        """Commit what is waiting."""
        waiting, self._waiting = self._waiting, []
        failures, self._failures = self._failures, []
        self._last = time.monotonic()
        self._lake.failures.record(failures)
        if not waiting:
            return
        ids = [clip_id for clip_id, _ in waiting]
        layers = range(len(self._space.dims))
        stored = self._table.add(
            ids,
            [np.stack([v.mean[layer] for _, v in waiting]) for layer in layers],
            [np.stack([v.max[layer] for _, v in waiting]) for layer in layers],
            [v.n_frames for _, v in waiting],
        )
        self._lake.failures.clear([failure_id(self._stage, self._clip[i]["source"], i) for i in ids])
        self.stored += stored
        self.beaten += len(ids) - stored
        self.commits += 1
