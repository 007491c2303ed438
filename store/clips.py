"""The table of clips: one row a clip, the fixed columns below and whatever label columns the user brings.

Rows are matched by `clip_id`, a hash of content, so adding them again changes nothing.  A value that is there stays
unless a new, non-empty one comes for it; so ingesting without labels never wipes labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.store.errors import ClipNotFound, InputError
from tonelake.store.table import Snapshot, Table, chunks

CLIP_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string()),        # blake2b of file digest, start, length, decode version
        pa.field("track", pa.string()),          # the recording or piece it belongs to
        pa.field("source", pa.string()),         # a path, a file: URI where the path is not valid UTF-8, or chorale:…
        pa.field("digest", pa.string()),         # blake2b of the source's bytes when it was ingested
        pa.field("start_s", pa.float64()),
        pa.field("duration_s", pa.float64()),
        pa.field("cut", pa.string()),            # how the source was cut: whole, 30s, 30s/15s, manifest, 4bars/2
        pa.field("title", pa.string()),
        pa.field("artist", pa.string()),
        pa.field("album", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("stem", pa.string()),
        pa.field("split", pa.string()),
        pa.field("flag", pa.string()),           # what is odd about it: silent, truncated, damaged, …; null for nothing
        pa.field("added_at", pa.timestamp("us", tz="UTC")),
    ]
)
FIXED_COLUMNS = tuple(CLIP_SCHEMA.names)
LABEL_NAME = re.compile(r"[^\W\d]\w{0,63}")              # and in lower case: SQL folds a name without quotes
ROWS_PER_WRITE = 2_000


@dataclass(frozen=True)
class Added:
    """What became of rows given to `Clips.add`."""

    new: int = 0
    changed: int = 0
    known: int = 0
    copies: int = 0                              # the same audio under another path that also still exists

    def __add__(self, other: Added) -> Added:
        return Added(*(getattr(self, f) + getattr(other, f) for f in ("new", "changed", "known", "copies")))


class Clips:
    """The clips of a lake."""

    def __init__(self, connection: Any) -> None:
        self.table = Table(connection, "clips", CLIP_SCHEMA)

    def count(self, where: str | None = None) -> int:
        return self.table.count(where)

    def label_columns(self) -> list[str]:
        """The columns a user brought."""
        return [name for name in self.table.schema.names if name not in FIXED_COLUMNS]

    def columns(self) -> list[str]:
        return list(self.table.schema.names)

    def check_column(self, column: str) -> None:
        """Raise InputError unless clips have this column."""
        if column not in self.table.schema.names:
            raise InputError(f"clips have no column {column!r}: they have {', '.join(self.columns())}")

    def read(self, columns: Sequence[str] | None = None, *, where: str | None = None) -> pl.DataFrame:
        """Clips as a frame, in the order they were added; `where` is SQL over clip columns."""
        for column in columns or ():
            self.check_column(column)
        return frame(self.table.read(columns, where=where))

    def ids(self, where: str | None = None) -> pl.Series:
        """Ids of the clips, or of those that a filter keeps, in the order they were added."""
        if where is not None:
            return self.read(["clip_id"], where=where)["clip_id"]
        return pl.Series("clip_id", self.table.snapshot().keys, dtype=pl.String)

    def take(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Clips by id, in the order asked; unknown ids are left out."""
        wanted = None if columns is None else list(dict.fromkeys(["clip_id", *columns]))
        found = frame(self.table.take(list(dict.fromkeys(ids)), wanted))
        return pl.DataFrame({"clip_id": list(ids)}, schema={"clip_id": pl.String}).join(
            found, on="clip_id", how="inner", maintain_order="left"
        )

    def read_rows(self, snapshot: Snapshot, rows: np.ndarray, columns: Sequence[str]) -> pl.DataFrame:
        """Clips by their places in one version of the table, in the order asked."""
        return frame(self.table.take_rows(snapshot, rows, columns))

    def find(self, clip: str) -> dict[str, Any]:
        """The one clip whose id is, or begins with, `clip`.  Raises ClipNotFound."""
        if not re.fullmatch(r"[0-9a-f]{4,64}", clip):
            raise ClipNotFound(f"{clip!r} is neither a file nor a clip id: ids are hex digits; `tonelake clips` lists them")
        found = frame(self.table.take([clip])).to_dicts()            # a whole id, as programs give it
        if not found:
            found = self.read(where=f"clip_id LIKE '{clip}%'").to_dicts()
        if len(found) == 1:
            return found[0]
        if not found:
            raise ClipNotFound(f"no clip {clip!r} in this lake: `tonelake clips` lists them")
        raise ClipNotFound(f"{len(found)} clips begin with {clip!r}: give more digits")

    def add(self, rows: pl.DataFrame) -> Added:
        """Add clips; `rows` needs clip_id, track, source, digest, start_s and duration_s, and may bring label columns.

        What is new is stored in one commit: killed at any point, all of it is there or none.
        Raises InputError, before anything is written, where a label column cannot be stored.
        """
        check_rows(rows)
        check_names(rows.columns)
        rows = rows.unique("clip_id", keep="first", maintain_order=True)
        rows = self._fit(rows)
        return self._upsert(rows)

    def set_labels(self, values: pl.DataFrame) -> Added:
        """Write label columns of clips that are in the lake: `values` has clip_id and the columns.

        A null leaves what is there.  Raises InputError where a column cannot be stored; clips that are gone are left out.
        """
        rows = self.take(values["clip_id"].to_list(), ["clip_id", "track", "source", "digest", "start_s", "duration_s"])
        return self.add(rows.join(values, on="clip_id", how="left", maintain_order="left")) if len(rows) else Added()

    def set_flag(self, ids: Sequence[str], flag: str) -> None:
        """Say what is odd about these clips."""
        for part in chunks(ids, ROWS_PER_WRITE):
            self.table.upsert(frame(self.table.take(part)).with_columns(flag=pl.lit(flag)).to_arrow())

    def _upsert(self, rows: pl.DataFrame) -> Added:
        stored = frame(self.table.take(rows["clip_id"].to_list()))
        schema = stored.schema
        fresh = rows.join(stored.select("clip_id"), on="clip_id", how="anti", maintain_order="left")
        again = rows.join(stored.select("clip_id", was="source"), on="clip_id", how="inner", maintain_order="left")
        elsewhere = {s for s in again.filter(pl.col("was") != pl.col("source"))["was"].unique() if source_exists(s)}
        copies = again.filter((pl.col("was") != pl.col("source")) & pl.col("was").is_in(elsewhere))
        again = again.join(copies.select("clip_id"), on="clip_id", how="anti", maintain_order="left").drop("was")

        before = stored.join(again.select("clip_id"), on="clip_id", how="semi").sort("clip_id")
        names = [c for c in again.columns if c not in ("clip_id", "added_at", "cut")]      # the first rule that cut it stays
        after = before.join(again, on="clip_id", how="left", suffix=" new", maintain_order="left").with_columns(
            pl.coalesce(f"{name} new", name).alias(name) for name in names
        ).select(before.columns)
        changed = after.filter(pl.any_horizontal(after[c].ne_missing(before[c]) for c in after.columns))

        now = datetime.now(UTC)
        fresh = fresh.with_columns(pl.lit(now).cast(pl.Datetime("us", "UTC")).alias("added_at"))
        inserted = self.table.insert_new(fresh.to_arrow()) if len(fresh) else 0
        if len(changed):
            self.table.upsert(changed.select(schema.names()).to_arrow())
        return Added(inserted, len(changed), len(before) - len(changed) + len(fresh) - inserted, len(copies))

    def check_labels(self, labels: pl.DataFrame) -> None:
        """Raise InputError where label columns cannot be stored beside those there are; before any long work."""
        check_names(labels.columns)
        for name in labels.columns:
            if name in self.table.schema.names:
                fitted(labels[name], self._stored_type(name))

    def _stored_type(self, name: str) -> Any:
        """The polars type of a column of the table."""
        return frame(self.table.schema.empty_table().select([name])).schema[name]

    def _fit(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows in the types of the stored columns, the columns that are new to the lake added to it."""
        schema, arrow = self.table.schema, rows.to_arrow()
        new = []
        for name in rows.columns:
            if name not in schema.names:
                kind = plain_type(arrow.schema.field(name).type)
                if pa.types.is_null(kind):
                    rows = rows.drop(name)
                else:
                    new.append(pa.field(name, kind))
                continue
            rows = rows.with_columns(fitted(rows[name], self._stored_type(name)))
        self.table.add_columns(new)
        return rows


def check_rows(rows: pl.DataFrame) -> None:
    """Raise InputError unless these columns can be clips."""
    missing = {"clip_id", "track", "source", "digest", "start_s", "duration_s"} - set(rows.columns)
    if missing:
        raise InputError(f"clips need the columns {', '.join(sorted(missing))}")
    if rows["clip_id"].null_count() or (rows["duration_s"] <= 0).any():
        raise InputError("every clip needs an id and a positive duration")


def check_names(columns: Sequence[str]) -> None:
    """Raise InputError unless these can name columns of clips."""
    for name in columns:
        if name not in FIXED_COLUMNS and not (LABEL_NAME.fullmatch(name) and name == name.lower()):
            raise InputError(f"{name!r} cannot name a label column: use lower-case letters, digits and '_'")


def frame(table: pa.Table) -> pl.DataFrame:
    """Arrow to polars; also right for a table without rows."""
    result = pl.from_arrow(table)
    assert isinstance(result, pl.DataFrame)
    return result


def fitted(values: pl.Series, stored: Any) -> pl.Series:
    """Values in the type of the stored column.  Raises InputError where one of them would change by it."""
    if values.dtype == stored or values.dtype == pl.Null:
        return values.cast(stored)
    try:
        cast = values.cast(stored, strict=True)
    except pl.exceptions.PolarsError:
        cast = None
    rounded = cast is not None and values.dtype.is_float() and stored.is_integer() and (cast.cast(values.dtype) != values).any()
    if cast is None or rounded:
        raise InputError(
            f"label column {values.name!r} is stored as {stored}, and some new values ({values.dtype}, such as "
            f"{values.drop_nulls()[0]!r}) do not fit it: mend them, or use another column name"
        )
    return cast


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type a label column is stored in: polars' view and large types become Arrow's plain ones."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    return kind


def source_exists(source: str) -> bool:
    """Whether a source is a file that is still there; sources that are no files (chorale:…) always are."""
    try:
        return ":" in source.split("/")[0] or Path(source).exists()
    except OSError:
        return False
