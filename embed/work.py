"""What there is to do, and the doing of it: clips that lack vectors or frames -> each clip's vectors, or what went wrong.

Every engine is built of these two: the local one runs `encoded` once, several devices and a cluster run it in many places.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.windows import ClipVectors, encode_clips
from tonelake.store import Clips, InputError, Lake, Snapshot, Space, chunks

CLIP_COLUMNS = ("clip_id", "source", "digest", "start_s", "duration_s")
CLIPS_A_SLICE = 8192                     # whose paths are held in memory at once

# Clips and a sample rate in Hz -> (clip id, (samples,) float32 or what went wrong).  `ingest.read_clips` is one.
ReadClips = Callable[[pl.DataFrame, int, int | None], Generator[tuple[str, np.ndarray | Exception], None, None]]


def qualified_name(read: ReadClips) -> str:
    """`module:name` of a function at the top of a module: what travels to other processes instead of a pickle."""
    return f"{read.__module__}:{read.__qualname__}"


def found_again(told: str) -> ReadClips:
    """The function that `qualified_name` told."""
    module, _, name = told.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Work:
    """The clips that are due, as rows of one version of the table of clips, and how many are done.

    A row is eight bytes where a clip, with the path of its source, is some 250.
    """

    clips: Clips
    snapshot: Snapshot
    rows: np.ndarray                     # (due,) int64
    known: int

    def __len__(self) -> int:
        return len(self.rows)

    def slices(self) -> Iterator[pl.DataFrame]:
        """The clips that are due, in the order they were added, a few thousand at a time."""
        for rows in chunks(self.rows, CLIPS_A_SLICE):
            yield self.clips.read_rows(self.snapshot, rows, CLIP_COLUMNS)

    def due(self) -> pl.DataFrame:
        """All of them at once."""
        return self.clips.read_rows(self.snapshot, self.rows, CLIP_COLUMNS)

    def only(self, ids: Iterable[str]) -> Work:
        """Of these clips, those that have one of these ids."""
        wanted = pc.is_in(self.snapshot.keys.take(pa.array(self.rows)), value_set=pa.array(list(ids), pa.string()))
        return replace(self, rows=self.rows[wanted.to_numpy(zero_copy_only=False)], known=0)


def find_work(lake: Lake, space: Space, frames: Sequence[int] = ()) -> Work:
    """Clips that have no vector in `space`, or lack the frames of one of these layers.

    Raises InputError where the lake has no clips.
    """
    check_clips(lake)
    snapshot = lake.clips.table.snapshot()
    ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
    missing = ~ids.is_in(lake.vectors(space).ids().implode())
    if frames:
        missing |= ~ids.is_in(lake.frames(space).complete(frames).implode())
    gone = ids.is_in(lake.clips.ids("flag = 'superseded'").implode())        # their audio is
    return Work(lake.clips, snapshot, (missing & ~gone).arg_true().to_numpy().astype(np.int64), int((~missing).sum()))


def check_clips(lake: Lake) -> int:
    """How many clips there are.  Raises InputError where there are none."""
    total = lake.clips.count()
    if not total:
        raise InputError("the lake has no clips yet: run `tonelake ingest` first")
    return total


def encoded(
    due: pl.DataFrame, space: Space, encoder: Encoder, read: ReadClips, *, frames: Sequence[int] = (),
    workers: int | None = None,
) -> Generator[tuple[str, ClipVectors | Exception], None, None]:
    """(clip id, vectors or what went wrong) for each clip.

    The model runs in a thread of its own: while it computes, the next clips are read, and the last ones stored by whoever
    takes them from here.  Interrupted, it still hands over what was under way.
    """
    waves = read(due, encoder.sample_rate, workers)
    ahead: deque[tuple[list[str], Future[list[ClipVectors]]]] = deque()

    def finished(leave: int) -> Iterator[tuple[str, ClipVectors]]:
        while len(ahead) > leave:
            ids, vectors = ahead.popleft()
            yield from zip(ids, vectors.result(), strict=True)

    try:
        with ThreadPoolExecutor(1, thread_name_prefix="encode") as model:
            if len(due):
                model.submit(encoder.prepare, round(space.window_s * encoder.sample_rate)).result()
            try:
                for batch in clumps(waves, encoder.clips_at_once):
                    good = [(clip_id, wave) for clip_id, wave in batch if not isinstance(wave, Exception)]
                    yield from ((clip_id, wave) for clip_id, wave in batch if isinstance(wave, Exception))
                    if good:
                        ids, samples = [clip_id for clip_id, _ in good], [wave for _, wave in good]
                        ahead.append((ids, model.submit(
                            encode_clips, encoder, samples, space.window_s, space.hop_s, tuple(frames)
                        )))
                    yield from finished(leave=1)
            except (Exception, KeyboardInterrupt):
                yield from finished(leave=0)
                raise
            yield from finished(leave=0)
    finally:
        waves.close()                    # ends the processes that decode


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
