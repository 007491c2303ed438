"""Frame-level states of chosen layers: what needs time, such as where in a clip a match lies.

One row a clip and layer, because layers are chosen one by one and clips are large: 30 s of one layer of MERT-v1-95M are
3.5 MB.  Frames are float16, in order of time; where windows overlap, each moment stands once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tonelake.store.errors import InputError, LakeError
from tonelake.store.space import Space
from tonelake.store.table import Table, in_list, to_frame

SCHEMA = pa.schema([
    pa.field("frames_id", pa.string()),                              # clip and layer: one clip's layer stands once
    pa.field("clip_id", pa.string()),
    pa.field("layer", pa.int32()),                                   # number of the layer in the space
    pa.field("n_frames", pa.int32()),
    pa.field("frame_s", pa.list_(pa.float32())),                     # centre of each frame, seconds from the clip's start
    pa.field("states", pa.large_list(pa.float16())),                 # (frame, dim), row after row
])


class FrameStates(NamedTuple):
    """One layer of one clip over time."""

    clip_id: str
    layer: int
    frame_s: np.ndarray                           # (frame,) float32, seconds from the clip's start
    states: np.ndarray                            # (frame, dim) float16


class Frames:
    """The stored frames of one space of a lake."""

    def __init__(self, connection: Any, space: Space) -> None:
        self.space = space
        self.table = Table(connection, f"frames_{space.name}", SCHEMA)

    def layers(self) -> list[int]:
        """Numbers of the layers of which there are frames."""
        return to_frame(self.table.read(["layer"]))["layer"].unique().sort().to_list()

    def complete(self, layers: Sequence[int]) -> pl.Series:
        """Ids of the clips of which the frames of all of these layers are stored."""
        stored = to_frame(self.table.read(["clip_id", "layer"])).filter(pl.col("layer").is_in(list(layers)))
        counts = stored.group_by("clip_id").agg(pl.col("layer").n_unique())
        return counts.filter(pl.col("layer") == len(set(layers)))["clip_id"]

    def add(self, frames: Sequence[FrameStates]) -> int:
        """Store frames; a clip's layer that is stored already stays as it is.  The number stored."""
        return self.table.insert_new(self.rows(frames))

    def rows(self, frames: Sequence[FrameStates]) -> pa.Table:
        """The same as rows of the table, not stored.  Raises LakeError where a shape is not that of its layer."""
        for one in frames:
            expected = (len(one.frame_s), self.space.dims[one.layer])
            if one.states.shape != expected:
                raise LakeError(f"clip {one.clip_id}: frames of shape {one.states.shape} instead of {expected}")
        rows = {
            "frames_id": [f"{one.clip_id}-{one.layer:02d}" for one in frames],
            "clip_id": [one.clip_id for one in frames],
            "layer": [one.layer for one in frames],
            "n_frames": [len(one.frame_s) for one in frames],
            "frame_s": lists([one.frame_s for one in frames], pa.list_(pa.float32())),
            "states": lists([one.states.reshape(-1) for one in frames], pa.large_list(pa.float16())),
        }
        return pa.table(rows, schema=SCHEMA)

    def read(self, clip_id: str, layer: int | str | None = None) -> FrameStates:
        """One layer of one clip over time.  Raises InputError where its frames are not stored."""
        number = self.space.layer_index(layer)
        found = next(self.each([clip_id], number), None)
        if found is None:
            raise InputError(
                f"no frames of layer {self.space.layers[number]} of clip {clip_id} are stored: run "
                f"`tonelake embed --space {self.space.name} --frames {self.space.layers[number]}`"
            )
        return found

    def reader(self, clip_ids: Sequence[str], layer: int | str | None = None) -> Callable[[Sequence[int]], list[np.ndarray]]:
        """A function that reads the (frame, dim) float16 states of some of these clips, by their places in `clip_ids`.

        For reading again and again in any order: where the rows lie is looked up once.  Raises InputError where the frames
        of one of the clips are not stored.
        """
        number = self.space.layer_index(layer)
        snapshot = self.table.snapshot()
        keys = pa.array([f"{clip}-{number:02d}" for clip in clip_ids], pa.string())
        rows = pc.index_in(keys, value_set=snapshot.keys)
        if rows.null_count:
            name = self.space.layers[number]
            raise InputError(
                f"{rows.null_count:,} of {len(keys):,} clips have no stored frames of layer {name}: run "
                f"`tonelake embed --space {self.space.name} --frames {name}`"
            )
        places, dim = rows.to_numpy(), self.space.dims[number]

        def read(wanted: Sequence[int]) -> list[np.ndarray]:
            states = self.table.take_rows(snapshot, places[list(wanted)], ["states"]).column("states").combine_chunks()
            return [states[i].values.to_numpy(zero_copy_only=True).reshape(-1, dim) for i in range(len(states))]

        return read

    def each(self, clip_ids: Sequence[str] | None = None, layer: int | str | None = None) -> Iterator[FrameStates]:
        """The stored frames of one layer, of these clips or of all, a clip at a time and in the table's order.

        Memory holds a few clips, however many there are.
        """
        number = self.space.layer_index(layer)
        where = f"layer = {number}"
        if clip_ids is not None:
            where += f" AND {in_list('clip_id', clip_ids)}"
        for batch in self.table.batches(["clip_id", "frame_s", "states"], where=where, rows=8):
            for row in range(batch.num_rows):
                states = batch.column("states")[row].values.to_numpy(zero_copy_only=True)
                yield FrameStates(
                    batch.column("clip_id")[row].as_py(), number,
                    batch.column("frame_s")[row].values.to_numpy(zero_copy_only=True),
                    states.reshape(-1, self.space.dims[number]),
                )


def lists(arrays: Sequence[np.ndarray], kind: Any) -> pa.Array:
    """Arrays of different lengths as a column of lists."""
    large = pa.types.is_large_list(kind)
    ends = np.cumsum([0, *map(len, arrays)], dtype=np.int64 if large else np.int32)
    values = pa.array(np.concatenate(arrays) if len(arrays) else np.empty(0, kind.value_type.to_pandas_dtype()))
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(pa.array(ends), values)


def layer_with_frames(frames: Frames, space: Space, layer: int | str | None) -> int:
    """The layer asked for, else the default one where its frames are stored, else the first that has any."""
    if layer is not None:
        return space.layer_index(layer)
    stored = frames.layers()
    if not stored:
        name = space.layers[space.default_layer]
        raise InputError(
            f"no frames are stored in space {space.name!r}: run `tonelake embed --space {space.name} --frames {name}`"
        )
    return space.default_layer if space.default_layer in stored else stored[0]
