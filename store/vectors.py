"""The vectors of one space: one row per clip, one FixedSizeList column per layer and statistic.

One column per layer, because nearly every task reads one layer of all clips.  Vectors are stored as float16 (or float32 on
request) and returned as float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.store.clips import Clips
from tonelake.store.errors import InputError, SpaceMismatch
from tonelake.store.lance_pages import MappedColumn, map_column, read_column
from tonelake.store.space import STATS, Space
from tonelake.store.table import Table
from tonelake.store.table_reading import Snapshot

MAPPED_ROWS = 1_000                      # more are read from mapped files on a local disk: 10,000 in 20 ms instead of 450


class LayerVectors(NamedTuple):
    """One layer of some clips; row i of `vectors` belongs to `ids[i]`."""

    ids: pl.Series                                # clip ids
    vectors: np.ndarray                           # (clip, dim) float32, or the requested dtype


class Vectors:
    """The vectors of one space of a lake."""

    def __init__(self, connection: Any, space: Space, clips: Clips) -> None:
        element = pa.float16() if space.dtype == "float16" else pa.float32()
        columns = [
            pa.field(space.column(layer, stat), pa.list_(element, dim))
            for stat in STATS
            for layer, dim in enumerate(space.dims)
        ]
        schema = pa.schema([pa.field("clip_id", pa.string()), *columns, pa.field("n_frames", pa.int32())])
        self.space = space
        self.table = Table(connection, space.table_name, schema)
        self._clips = clips
        if set(schema.names) != set(self.table.schema.names):
            raise SpaceMismatch(
                f"table {space.table_name}: does not have the columns of space {space.name!r}. Restore either from a copy"
            )

    def count(self) -> int:
        return self.table.count()

    def ids(self) -> pl.Series:
        """Ids of the embedded clips, including those that are no longer clips of the lake."""
        return pl.Series("clip_id", self.table.snapshot().keys, dtype=pl.String)

    def missing(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Clips without vectors in this space."""
        clips = self._clips.read(columns)
        return clips.join(pl.DataFrame({"clip_id": self.ids()}), on="clip_id", how="anti", maintain_order="left")

    def count_missing(self) -> int:
        """Number of clips without vectors in this space."""
        clips, ids = self._clips.ids(), self.ids()
        return 0 if ids.equals(clips) else int((self.table.key_rows(self.table.snapshot()).of(clips) < 0).sum())

    def layer(self, layer: int | str | None = None, *, where: str | None = None, dtype: str = "float32") -> LayerVectors:
        """Mean vectors of one layer for all embedded clips, or those that match an SQL filter over clip columns.

        `dtype`: float16 takes a third of the time and half the memory, and is exact for a float16 space.
        """
        number = self.space.layer_index(layer)
        keep = None if where is None else self._clips.ids(where)
        snapshot = self.table.snapshot()
        ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
        vectors = self.read(snapshot, number, dtype=dtype)
        mask = self._clips.key_rows().of(ids) >= 0 if keep is None else ids.is_in(keep.implode()).to_numpy()
        if not mask.all():               # filtered, or the vectors of removed clips
            ids, vectors = ids.filter(pl.Series(mask)), vectors[mask]
        return LayerVectors(ids, vectors)

    def read(self, snapshot: Snapshot, layer: int, *, stat: str = "mean", dtype: str = "float32") -> np.ndarray:
        """One layer of every row of a snapshot, (row, dim) in table order, including rows that are no longer clips."""
        if snapshot.dataset is None:
            return np.empty((0, self.space.dims[layer]), dtype)
        column = self.space.column(layer, stat)
        try:
            return read_vectors(snapshot.dataset, column, dtype)
        except (OSError, pa.ArrowInvalid):       # its version has been removed; a stored vector never changes
            newer = self.table.snapshot()
            rows = self.table.rows_of(snapshot.keys, newer.keys)
            with self.table.reading():
                return read_vectors(newer.dataset, column, dtype)[rows]

    def mapped(self, snapshot: Snapshot, layer: int, *, stat: str = "mean") -> MappedColumn | np.ndarray:
        """One layer of every row of a snapshot as stored, read from the disk where it is indexed; in memory if it must be."""
        found = self._map(snapshot, self.space.column(layer, stat))
        return self.read(snapshot, layer, stat=stat, dtype=self.space.dtype) if found is None else found

    def _map(self, snapshot: Snapshot, column: str) -> MappedColumn | None:
        """A column mapped into memory; None if Lance has to read it."""
        with contextlib.suppress(OSError):           # its version has been removed
            return None if snapshot.dataset is None else map_column(snapshot.dataset, column)
        return None

    def read_rows(self, snapshot: Snapshot, rows: np.ndarray, layer: int, *, stat: str = "mean") -> np.ndarray:
        """One layer of some rows of a snapshot, by row number: (row, dim) float32 in the order of `rows`."""
        if not len(rows):
            return np.empty((0, self.space.dims[layer]), np.float32)
        column = self.space.column(layer, stat)
        if len(rows) > MAPPED_ROWS and (mapped := self._map(snapshot, column)) is not None:
            return mapped[rows].astype(np.float32, copy=False)
        unique, back = np.unique(rows, return_inverse=True)
        return to_matrix(self.table.take_rows(snapshot, unique, [column]).column(column))[back]

    def take(self, ids: Sequence[str], layer: int | str | None = None, *, stat: str = "mean") -> LayerVectors:
        """One layer of these clips, in the order of `ids`.  Raises InputError if one is not embedded in this space."""
        column = self.space.column(self.space.layer_index(layer), stat)
        found = self.table.take(list(dict.fromkeys(ids)), ["clip_id", column])
        row_of = {clip_id: row for row, clip_id in enumerate(found.column("clip_id").to_pylist())}
        absent = [clip_id for clip_id in ids if clip_id not in row_of]
        if absent:
            raise InputError(
                f"space {self.space.name!r}: {len(absent)} of {len(ids)} clips are not embedded, such as {absent[0]}. Run "
                f"`tonelake embed --space {self.space.name}`"
            )
        rows = np.array([row_of[clip_id] for clip_id in ids], dtype=np.int64)
        return LayerVectors(pl.Series("clip_id", ids, dtype=pl.String), to_matrix(found.column(column))[rows])

    def add(
        self, ids: Sequence[str], mean: Sequence[np.ndarray], maximum: Sequence[np.ndarray], n_frames: Sequence[int]
    ) -> int:
        """Store vectors of clips and return the number added; clips that already have vectors keep them.

        Shape: `mean` and `maximum` hold one (clip, dim) float32 array per layer, `n_frames` one count per clip.
        Raises InputError if a value is not finite, or too large for the stored precision.
        """
        return self.table.insert_new(self.rows(ids, mean, maximum, n_frames))

    def rows(
        self, ids: Sequence[str], mean: Sequence[np.ndarray], maximum: Sequence[np.ndarray], n_frames: Sequence[int]
    ) -> pa.Table:
        """Vectors as rows of the table, not stored; raises as `add` does."""
        arrays: dict[str, pa.Array] = {"clip_id": pa.array(ids, pa.string())}
        for stat, layers in zip(STATS, (mean, maximum), strict=True):
            for layer, values in enumerate(layers):
                arrays[self.space.column(layer, stat)] = self._column(layer, values, len(ids))
        arrays["n_frames"] = pa.array(n_frames, pa.int32())
        return pa.table(arrays)

    def _column(self, layer: int, values: np.ndarray, count: int) -> pa.Array:
        dim = self.space.dims[layer]
        if values.shape != (count, dim):
            raise SpaceMismatch(
                f"layer {self.space.layers[layer]} of space {self.space.name!r}: holds vectors of width {dim}, but {count} "
                f"clips have shape {values.shape}. Embed them with the encoder of the space"
            )
        check_storable(values, self.space.dtype, f"layer {self.space.layers[layer]} of space {self.space.name!r}")
        return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(self.space.dtype).ravel()), dim)


def read_vectors(dataset: Any, column: str, dtype: str) -> np.ndarray:
    """One column of all rows as (row, dim)."""
    vectors = read_column(dataset, column, dtype)
    return vectors if vectors is not None else to_matrix(dataset.to_table(columns=[column]).column(column), dtype)


def check_storable(values: np.ndarray, dtype: str, what: str) -> None:
    """Raise InputError unless every value is finite and stays finite in `dtype`: Lance checks neither."""
    bad = ~fits(values, dtype).all(axis=1)
    if bad.any():
        raise InputError(
            f"{what}: {int(bad.sum())} of {len(values)} vectors hold NaN or values beyond {dtype}. Embed in float32, or leave "
            "them out"
        )


def fits(values: np.ndarray, dtype: str) -> np.ndarray:
    """Which values are finite and stay finite in `dtype`: bool of the same shape."""
    return np.abs(values) <= float(np.finfo(dtype).max)              # False for NaN as well


def to_matrix(column: pa.ChunkedArray, dtype: str = "float32") -> np.ndarray:
    """A FixedSizeList column as (row, dim)."""
    if column.null_count:                         # flatten() would drop these rows and shift the rest
        raise InputError(
            f"stored vectors: {column.null_count} are empty, so another program wrote the table. Delete these rows"
        )
    dim = column.type.list_size
    out = np.empty((len(column), dim), dtype)
    row = 0
    for chunk in column.chunks:
        out[row : row + len(chunk)] = chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, dim)
        row += len(chunk)
    return out
