"""Tasks and actors of a Ray cluster: read clips, encode them, and write fragments that belong to no version of a table yet.

Without GPUs an actor reads its own clips, ahead of encoding; with GPUs, processes on any node read for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.embed.encoders.base import Encoder, check_frames
from tonelake.embed.errors import EncoderError
from tonelake.embed.settings import EmbedSettings, encoder_of, find_or_describe
from tonelake.embed.work import encode_read, model_threads, object_by_qualified_name, prepare_encoder
from tonelake.embed.writer import frame_rows, problem_of, stack_vectors
from tonelake.store import Lake, prepare_process, write_fragment

if TYPE_CHECKING:
    from tonelake.embed.windows import ClipVectors

READ = pa.schema([                       # a row is a unit: Ray would join rows of several units, more than memory holds
    pa.field("clip_id", pa.list_(pa.string())), pa.field("samples", pa.large_list(pa.large_binary())),
    pa.field("error", pa.list_(pa.string())),
])
WRITTEN = pa.schema([
    pa.field("clips", pa.list_(pa.string())), pa.field("vectors", pa.string()), pa.field("frames", pa.string()),
    pa.field("failed", pa.string()),
])


def open_space_json(lake: str, settings: EmbedSettings, frames: Sequence[str | int]) -> str:
    """Open a space, made if new, and return it as JSON.  Runs on a node like those that will encode.

    Raises InputError if frames are requested from an encoder that has none.
    """
    opened = Lake(lake, create=False)
    space, encoder = find_or_describe(opened, settings)
    check_frames(encoder, frames)
    return opened.spaces.make(space).to_json()


def read_unit(unit: pa.Table, *, rate: int, read: str) -> pa.Table:
    """Read clips: their samples, or the error.  Runs on any node."""
    rows: list[tuple[str, bytes | None, str | None]] = []
    for clip_id, wave in object_by_qualified_name(read)(pl.DataFrame(unit), rate, 1):
        if isinstance(wave, Exception):
            rows.append((clip_id, None, str(wave)))
        else:
            rows.append((clip_id, wave.astype("<f4").tobytes(), None))
    return pa.table([[column] for column in zip(*rows, strict=True)], schema=READ)


class Attempts:
    """Counts keys that were begun and not ended, which shows what a dead process was working on."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, keys: Sequence[str]) -> list[int]:
        """Begin these keys; returns how often each was begun before without being ended."""
        before = [self._open[key] for key in keys]
        self._open.update(keys)
        return before

    def end(self, keys: Sequence[str]) -> None:
        """Forget these keys."""
        for key in keys:
            del self._open[key]


class SharedAttempts:
    """`Attempts` held by one actor for all processes of a run; if that actor is lost, every count is 0."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, keys: Sequence[str]) -> list[int]:
        import ray

        try:
            return ray.get(self._actor.begin.remote(list(keys)))
        except ray.exceptions.RayActorError:
            return [0] * len(keys)

    def end(self, keys: Sequence[str]) -> None:
        self._actor.end.remote(list(keys))


class EncodeUnit:
    """Actor that encodes samples and writes vectors as fragments of the lake's tables that are not appended yet.

    Ray repeats a unit whose process died.  Its clips are then encoded one by one, and a clip whose process dies a second time
    counts as a failure, so it cannot hold up the others for ever.
    """

    def __init__(
        self, lake: str, space: str, device: str, frames: tuple[int, ...], attempts: Attempts | SharedAttempts
    ) -> None:
        prepare_process()
        opened = Lake(lake, create=False)
        self._space = opened.spaces.get(space)
        self._vectors, self._frames = opened.vectors(self._space), opened.frames(self._space)
        self._encoder: Encoder = encoder_of(self._space, device=device, home=lake)
        prepare_encoder(self._encoder, self._space)
        self._threads = ExitStack()
        self._model = self._threads.enter_context(model_threads(self._encoder))      # for the life of the actor
        self._layers = frames
        self._attempts = attempts

    def __call__(self, unit: pa.Table) -> pa.Table:
        """Encode and write a unit of samples, as `read_unit` returns it."""
        read, = unit.to_pylist()
        clips = (
            (clip_id, np.frombuffer(samples, "<f4") if error is None else EncoderError(error))
            for clip_id, samples, error in zip(read["clip_id"], read["samples"], read["error"], strict=True)
        )
        return self.write(read["clip_id"], clips)

    def write(self, ids: Sequence[str], clips: Iterable[tuple[str, np.ndarray | Exception]]) -> pa.Table:
        """Encode the clips of a unit as they arrive, and write one fragment per table."""
        failed: dict[str, str] = {}
        good: list[tuple[str, ClipVectors]] = []
        units = [f"unit {clip_id}" for clip_id in ids]
        encode = self._encode_one_by_one if any(self._attempts.begin(units)) else self._encode
        for clip_id, outcome in encode(clips):
            problem = problem_of(clip_id, outcome, self._space)
            if problem or isinstance(outcome, Exception):
                failed[clip_id] = problem
            else:
                good.append((clip_id, outcome))
        vectors_json = frames_json = ""
        stored = [clip_id for clip_id, _ in good]
        if good:
            vectors_json = write_fragment(self._vectors.table, self._vectors.rows(stored, *stack_vectors(good))).to_json()
            if self._layers:
                rows = self._frames.rows(frame_rows(good, self._layers))
                frames_json = write_fragment(self._frames.table, rows).to_json()
        self._attempts.end(units)
        return pa.table([[stored], [vectors_json], [frames_json], [json.dumps(failed)]], schema=WRITTEN)

    def _encode(self, clips: Iterable[tuple[str, np.ndarray | Exception]]) -> Iterator[tuple[str, ClipVectors | Exception]]:
        """Encode clips as the local engine does: several at once where that is faster, the next ones read meanwhile."""
        return encode_read(clips, self._space, self._encoder, self._model, self._layers)

    def _encode_one_by_one(
        self, clips: Iterable[tuple[str, np.ndarray | Exception]]
    ) -> Iterator[tuple[str, ClipVectors | Exception]]:
        """Encode one clip at a time, each counted as begun; one that was begun before is an error."""
        for clip_id, wave in clips:
            if any(self._attempts.begin([clip_id])):
                yield clip_id, EncoderError(f"clip {clip_id}: the process that encoded it died twice")
            else:
                yield from self._encode([(clip_id, wave)])
                self._attempts.end([clip_id])


class ReadAndEncodeUnit(EncodeUnit):
    """Actor that also reads its clips: the next ones are decoded while one is encoded."""

    def __init__(self, *, rate: int, read: str, workers: int | None, **options: Any) -> None:
        super().__init__(**options)
        self._read, self._rate, self._workers = object_by_qualified_name(read), rate, workers or 1

    def __call__(self, unit: pa.Table) -> pa.Table:
        """Read, encode and write a unit of rows of the table of clips."""
        clips = self._read(pl.DataFrame(unit), self._rate, self._workers)
        try:
            return self.write(unit.column("clip_id").to_pylist(), clips)
        finally:
            clips.close()                # ends the processes that decode
