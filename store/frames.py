"""Frame-level states of chosen layers, for questions about time such as where in a clip a match lies.

One row per clip and layer, because layers are chosen one by one and clips are large: 30 s of one layer of MERT-v1-95M take
3.5 MB.  Frames are float16, in order of time; where windows overlap, each moment is stored once.
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
from tonelake.store.table import Table
from tonelake.store.table_reading import in_list, to_frame

SCHEMA = pa.schema([
    pa.field("frames_id", pa.string()),                              # clip and layer: each pair is unique
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
        """Numbers of the layers that have stored frames."""
        return to_frame(self.table.read(["layer"]))["layer"].unique().sort().to_list()

    def complete(self, layers: Sequence[int]) -> pl.Series:
        """Ids of clips that have stored frames for every one of `layers`."""
        stored = to_frame(self.table.read(["clip_id", "layer"])).filter(pl.col("layer").is_in(list(layers)))
        counts = stored.group_by("clip_id").agg(pl.col("layer").n_unique())
        return counts.filter(pl.col("layer") == len(set(layers)))["clip_id"]

    def add(self, frames: Sequence[FrameStates]) -> int:
        """Store frames and return the number of rows added; a clip's layer that is already stored is kept."""
        return self.table.insert_new(self.rows(frames))

    def rows(self, frames: Sequence[FrameStates]) -> pa.Table:
        """Frames as rows of the table, not stored.  Raises LakeError if a shape does not match its layer."""
        for one in frames:
            expected = (len(one.frame_s), self.space.dims[one.layer])
            if one.states.shape != expected:
                raise LakeError(f"clip {one.clip_id}: frames of shape {one.states.shape} instead of {expected}. Embed it again")
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
        """Read one layer of one clip over time.  Raises InputError if its frames are not stored."""
        number = self.space.layer_index(layer)
        found = next(self.each([clip_id], number), None)
        if found is None:
            raise InputError(
                f"clip {clip_id}: has no stored frames of layer {self.space.layers[number]}. Run "
                f"`tonelake embed --space {self.space.name} --frames {self.space.layers[number]}`"
            )
        return found

    def reader(self, clip_ids: Sequence[str], layer: int | str | None = None) -> Callable[[Sequence[int]], list[np.ndarray]]:
        """A function that reads the (frame, dim) float16 states of some of these clips, given by index into `clip_ids`.

        For repeated reads in any order: row numbers are looked up once.  Raises InputError if frames of one of the clips are
        not stored.
        """
        number = self.space.layer_index(layer)
        snapshot = self.table.snapshot()
        keys = pa.array([f"{clip}-{number:02d}" for clip in clip_ids], pa.string())
        rows = pc.index_in(keys, value_set=snapshot.keys)
        if rows.null_count:
            name = self.space.layers[number]
            raise InputError(
                f"layer {name}: {rows.null_count:,} of {len(keys):,} clips have no stored frames. Run "
                f"`tonelake embed --space {self.space.name} --frames {name}`"
            )
        row_numbers, dim = rows.to_numpy(), self.space.dims[number]

        def read(wanted: Sequence[int]) -> list[np.ndarray]:
            taken = self.table.take_rows(snapshot, row_numbers[list(wanted)], ["states"])
            states = taken.column("states").combine_chunks()
            return [states[i].values.to_numpy(zero_copy_only=True).reshape(-1, dim) for i in range(len(states))]

        return read

    def each(self, clip_ids: Sequence[str] | None = None, layer: int | str | None = None) -> Iterator[FrameStates]:
        """Yield the stored frames of one layer, of these clips or of all, one clip at a time in table order.

        Only a few clips are in memory at a time.
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
    """Convert arrays of different lengths to an Arrow column of lists."""
    large = pa.types.is_large_list(kind)
    ends = np.cumsum([0, *map(len, arrays)], dtype=np.int64 if large else np.int32)
    values = pa.array(np.concatenate(arrays) if len(arrays) else np.empty(0, kind.value_type.to_pandas_dtype()))
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(pa.array(ends), values)


def layer_with_frames(frames: Frames, space: Space, layer: int | str | None) -> int:
    """`layer` if given, else the default layer if it has stored frames, else the first layer that has.

    Raises InputError if no layer has.
    """
    if layer is not None:
        return space.layer_index(layer)
    stored = frames.layers()
    if not stored:
        name = space.layers[space.default_layer]
        raise InputError(
            f"space {space.name!r}: has no stored frames. Run `tonelake embed --space {space.name} --frames {name}`"
        )
    return space.default_layer if space.default_layer in stored else stored[0]
