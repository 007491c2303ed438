"""Find clips that lack vectors or frames, and encode them.

Every engine is built of these two steps: the local one runs `read_and_encode` once, the others in several processes.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.kernels.threads import single_threads
from tonelake.embed.windows import ClipVectors, encode_clips
from tonelake.store import Clips, InputError, Lake, Snapshot, Space, chunks

CLIP_COLUMNS = ("clip_id", "source", "digest", "start_s", "duration_s")
CLIPS_A_SLICE = 8192                     # number of clips whose paths are in memory at once

# Clips and a sample rate in Hz -> (clip id, (samples,) float32 or the error).  `ingest.read_clips` is one.
ReadClips = Callable[[pl.DataFrame, int, int | None], Generator[tuple[str, np.ndarray | Exception], None, None]]


def qualified_name(read: ReadClips) -> str:
    """`module:name` of a function at the top of a module: sent to other processes instead of a pickle."""
    return f"{read.__module__}:{read.__qualname__}"


def object_by_qualified_name(name: str) -> ReadClips:
    """The function that `qualified_name` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_path() -> list[str]:
    """Folders of the import path beyond the interpreter's own, for processes that must import what this one can."""
    paths = sysconfig.get_paths()
    own = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found = [str(Path(folder).absolute()) for folder in sys.path]    # "" is the current folder
    return [
        folder for folder in dict.fromkeys(found)
        if folder not in own and not folder.endswith((".zip", "lib-dynload")) and Path(folder).exists()
    ]


@dataclass(frozen=True)
class Work:
    """Clips that are due, as rows of one version of the table of clips, and the number of clips that are done.

    A row takes eight bytes; a clip, with the path of its source, some 250.
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
        """All clips that are due."""
        return self.clips.read_rows(self.snapshot, self.rows, CLIP_COLUMNS)

    def only(self, ids: Iterable[str]) -> Work:
        """Restrict the work to clips with these ids."""
        wanted = pc.is_in(self.snapshot.keys.take(pa.array(self.rows)), value_set=pa.array(list(ids), pa.string()))
        return replace(self, rows=self.rows[wanted.to_numpy(zero_copy_only=False)], known=0)


def find_work(lake: Lake, space: Space, frames: Sequence[int] = ()) -> Work:
    """Find clips that have no vector in `space`, or lack frames of one of these layers.

    Clips whose audio no file has now are left out.  Raises InputError if the lake has no clips.
    """
    check_clips(lake)
    snapshot = lake.clips.table.snapshot()
    ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
    missing = ~ids.is_in(lake.vectors(space).ids().implode())
    if frames:
        missing |= ~ids.is_in(lake.frames(space).complete(frames).implode())
    silent = ids.is_in(lake.clips.without_audio().implode())
    return Work(lake.clips, snapshot, (missing & ~silent).arg_true().to_numpy().astype(np.int64), int((~missing).sum()))


def check_clips(lake: Lake) -> int:
    """The number of clips.  Raises InputError if there are none."""
    total = lake.clips.count()
    if not total:
        raise InputError("the lake has no clips yet. Run `tonelake ingest` first")
    return total


def read_and_encode(
    due: pl.DataFrame, space: Space, encoder: Encoder, read: ReadClips, *, frames: Sequence[int] = (),
    workers: int | None = None,
) -> Generator[tuple[str, ClipVectors | Exception], None, None]:
    """Yield (clip id, vectors or the error) for each clip.

    The model runs in threads of its own: while it computes, the next clips are read, and the caller stores the previous
    ones.  When interrupted, it still yields the clips that are being encoded.
    """
    clips = read(due, encoder.sample_rate, workers)
    try:
        if len(due):
            prepare_encoder(encoder, space)
        with model_threads(encoder) as model:
            yield from encode_read(clips, space, encoder, model, frames)
    finally:
        clips.close()                    # ends the processes that decode


def prepare_encoder(encoder: Encoder, space: Space) -> None:
    """Prepare the encoder for windows of the space's length, in a thread of its own."""
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as alone:
        alone.submit(encoder.prepare, round(space.window_s * encoder.sample_rate)).result()


def encode_read(
    clips: Iterable[tuple[str, np.ndarray | Exception]], space: Space, encoder: Encoder, model: ThreadPoolExecutor,
    frames: Sequence[int] = (),
) -> Generator[tuple[str, ClipVectors | Exception], None, None]:
    """Yield (clip id, vectors or the error) for each clip that was read; `model`: the threads of `model_threads`."""
    pending: deque[tuple[list[str], Future[list[ClipVectors]]]] = deque()

    def finished(leave: int) -> Iterator[tuple[str, ClipVectors]]:
        while len(pending) > leave:
            ids, vectors = pending.popleft()
            yield from zip(ids, vectors.result(), strict=True)

    try:
        for batch in batched(clips, encoder.clips_at_once):
            good = [(clip_id, wave) for clip_id, wave in batch if not isinstance(wave, Exception)]
            yield from ((clip_id, wave) for clip_id, wave in batch if isinstance(wave, Exception))
            if good:
                ids, samples = [clip_id for clip_id, _ in good], [wave for _, wave in good]
                pending.append((ids, model.submit(encode_clips, encoder, samples, space.window_s, space.hop_s, tuple(frames))))
            yield from finished(leave=encoder.clips_in_parallel)
    except (Exception, KeyboardInterrupt):
        yield from finished(leave=0)
        raise
    yield from finished(leave=0)


def model_threads(encoder: Encoder) -> AbstractContextManager[ThreadPoolExecutor]:
    """The threads that run the model: one, or as many as may encode a clip each."""
    if encoder.clips_in_parallel == 1:
        return ThreadPoolExecutor(1, thread_name_prefix="encode")
    return single_threads(encoder.clips_in_parallel, "encode")


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter.  (`itertools.batched` needs Python 3.12.)"""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
