"""What a cluster's processes do: read clips, encode them, and write fragments that belong to no version of a table yet.

Without GPUs an actor reads its clips itself, ahead of what it encodes; else processes anywhere read for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.errors import EncoderError
from tonelake.embed.settings import EmbedSettings, encoder_of, open_space
from tonelake.embed.windows import encode_clips
from tonelake.embed.work import clumps, found_again
from tonelake.embed.writer import frame_rows, problem_of, stack
from tonelake.store import Lake, prepare_process, write_fragment

if TYPE_CHECKING:
    from tonelake.embed.windows import ClipVectors

READ = pa.schema([                       # a row is a unit: Ray would put rows of several together, which memory is not made for
    pa.field("clip_id", pa.list_(pa.string())), pa.field("samples", pa.large_list(pa.large_binary())),
    pa.field("error", pa.list_(pa.string())),
])
WRITTEN = pa.schema([
    pa.field("clips", pa.list_(pa.string())), pa.field("vectors", pa.string()), pa.field("frames", pa.string()),
    pa.field("failed", pa.string()),
])


def open_space_json(lake: str, settings: EmbedSettings) -> str:
    """A space, made where it is new, as JSON.  Runs on a node like those that will encode."""
    return open_space(Lake(lake, create=False), settings)[0].to_json()


def read_unit(unit: pa.Table, *, rate: int, read: str) -> pa.Table:
    """Clips -> their samples, or why there are none.  Runs on any node."""
    rows: list[tuple[str, bytes | None, str | None]] = []
    for clip_id, wave in found_again(read)(pl.DataFrame(unit), rate, 1):
        if isinstance(wave, Exception):
            rows.append((clip_id, None, str(wave)))
        else:
            rows.append((clip_id, wave.astype("<f4").tobytes(), None))
    return pa.table([[column] for column in zip(*rows, strict=True)], schema=READ)


class Attempts:
    """What was begun and not ended: of a process that died, what it died on."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, keys: Sequence[str]) -> list[int]:
        """How often each was begun before without being ended."""
        before = [self._open[key] for key in keys]
        self._open.update(keys)
        return before

    def end(self, keys: Sequence[str]) -> None:
        for key in keys:
            del self._open[key]


class SharedAttempts:
    """The same, kept by an actor for all processes of a run; where that one is lost, as if nothing was begun."""

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
    """An actor: samples -> vectors, written as fragments of the lake's tables that are not appended yet.

    Ray does a unit again where its process died.  Then clips go one by one, and one that has a process die a second time is
    a failure, so that it cannot hold up the others for ever.
    """

    def __init__(
        self, lake: str, space: str, device: str, frames: tuple[int, ...], attempts: Attempts | SharedAttempts
    ) -> None:
        prepare_process()
        opened = Lake(lake, create=False)
        self._space = opened.spaces.get(space)
        self._vectors, self._frames = opened.vectors(self._space), opened.frames(self._space)
        self._encoder: Encoder = encoder_of(self._space, device=device, home=lake)
        self._encoder.prepare(round(self._space.window_s * self._space.sample_rate))
        self._layers = frames
        self._attempts = attempts

    def __call__(self, unit: pa.Table) -> pa.Table:
        """Samples as `read_unit` gives them -> what was written."""
        read, = unit.to_pylist()
        waves = (
            (clip_id, np.frombuffer(samples, "<f4") if error is None else EncoderError(error))
            for clip_id, samples, error in zip(read["clip_id"], read["samples"], read["error"], strict=True)
        )
        return self.write(read["clip_id"], waves)

    def write(self, ids: Sequence[str], waves: Iterable[tuple[str, np.ndarray | Exception]]) -> pa.Table:
        """The clips of a unit, encoded as they come, written as one fragment a table."""
        failed: dict[str, str] = {}
        good: list[tuple[str, ClipVectors]] = []
        units = [f"unit {clip_id}" for clip_id in ids]
        one_by_one = any(self._attempts.begin(units))
        for batch in clumps(waves, 1 if one_by_one else self._encoder.clips_at_once):
            failed |= {clip_id: str(wave) for clip_id, wave in batch if isinstance(wave, Exception)}
            heard = [(clip_id, wave) for clip_id, wave in batch if not isinstance(wave, Exception)]
            if not heard:
                continue
            heard_ids, samples = zip(*heard, strict=True)
            if one_by_one and any(self._attempts.begin(heard_ids)):
                failed[heard_ids[0]] = f"clip {heard_ids[0]}: the process that encoded it died, twice"
                continue
            found = encode_clips(self._encoder, samples, self._space.window_s, self._space.hop_s, self._layers)
            for clip_id, vectors in zip(heard_ids, found, strict=True):
                problem = problem_of(clip_id, vectors, self._space)
                if problem:
                    failed[clip_id] = problem
                else:
                    good.append((clip_id, vectors))
            if one_by_one:
                self._attempts.end(heard_ids)
        vectors_json = frames_json = ""
        stored = [clip_id for clip_id, _ in good]
        if good:
            vectors_json = write_fragment(self._vectors.table, self._vectors.rows(stored, *stack(good))).to_json()
            if self._layers:
                rows = self._frames.rows(frame_rows(good, self._layers))
                frames_json = write_fragment(self._frames.table, rows).to_json()
        self._attempts.end(units)
        return pa.table([[stored], [vectors_json], [frames_json], [json.dumps(failed)]], schema=WRITTEN)


class ReadAndEncodeUnit(EncodeUnit):
    """The same of clips that it reads itself: the next ones are decoded while one is encoded."""

    def __init__(self, *, rate: int, read: str, workers: int | None, **how: Any) -> None:
        super().__init__(**how)
        self._read, self._rate, self._workers = found_again(read), rate, workers or 1

    def __call__(self, unit: pa.Table) -> pa.Table:
        """Rows of the table of clips -> what was written."""
        waves = self._read(pl.DataFrame(unit), self._rate, self._workers)
        try:
            return self.write(unit.column("clip_id").to_pylist(), waves)
        finally:
            waves.close()                # ends the processes that decode
