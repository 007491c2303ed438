"""The table of clips: one row a clip, with fixed columns and the user's label columns (`store.columns`).

Rows are matched by `clip_id`, so adding them again changes nothing.  `Clips.add` replaces a stored value only by a new,
non-empty one; `Clips.update` sets values as they are given, empty ones too.

Clips of superseded recordings, whose files now have other audio, are left out of every answer: `read`, `ids` and `count` leave
them out unless `superseded` is True, `take` and `find` return any clip that is named by its id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.store.columns import (
    CLIP_SCHEMA,
    FIXED_COLUMNS,
    SUPERSEDED,
    can_group,
    element_kind,
    group_columns,
    is_list,
    kind_of,
    label_columns,
    stored_type,
)
from tonelake.store.errors import ClipNotFound, InputError
from tonelake.store.key_rows import KeyRows
from tonelake.store.table import Table
from tonelake.store.table_reading import IDS_PER_FILTER, ROW_ID, Snapshot, chunks, in_list, to_frame

LABEL_NAME = re.compile(r"[^\W\d]\w{0,63}")              # and in lower case: SQL folds unquoted names
ROWS_PER_UPDATE = 10_000


@dataclass(frozen=True, kw_only=True)
class Added:
    """Counts returned by `Clips.add`."""

    new: int = 0
    changed: int = 0
    known: int = 0
    copies: int = 0                              # the same audio under another path, while the first path also still exists

    def __add__(self, other: Added) -> Added:
        return Added(**{name: count + getattr(other, name) for name, count in asdict(self).items()})


class Clips:
    """The clips of a lake."""

    def __init__(self, connection: Any) -> None:
        self.table = Table(connection, "clips", CLIP_SCHEMA)
        self.has_states = True           # False in a lake of format 1, which has `flag = 'superseded'` instead
        self._superseded: tuple[int, pl.Series] | None = None        # version of the table; ids at that version
        self._ids: tuple[pa.Array, pl.Series] | None = None          # keys of a snapshot; ids in the order they were added
        self._rows: tuple[pl.Series, KeyRows] | None = None          # ids; their row numbers

    def count(self, where: str | None = None, *, superseded: bool = False) -> int:
        if superseded:
            return self.table.count(where)
        return self.table.count() - len(self.superseded()) if where is None else len(self.read(["clip_id"], where=where))

    def superseded(self) -> pl.Series:
        """Ids of the clips of superseded recordings."""
        version, known = self.table.version, self._superseded
        if known is None or known[0] != version:
            column = "state" if self.has_states else "flag"
            found = self.table.read(["clip_id"], where=f"{column} = '{SUPERSEDED}'")
            known = self._superseded = version, to_frame(found)["clip_id"]
        return known[1]

    def without_audio(self) -> pl.Series:
        """Ids of the clips whose audio no file has now: superseded and missing ones."""
        return self.ids("state IS NOT NULL", superseded=True) if self.has_states else self.superseded()

    def label_columns(self) -> list[str]:
        """The columns that the user brought."""
        return label_columns(self.table.schema.names)

    def group_columns(self) -> list[str]:
        """The columns that clips can be grouped by and that have values, fixed ones first."""
        columns = group_columns(self.table.schema.names)
        return [name for name in columns if can_group(self._stored_type(name)) and self._has_values(name)]

    def _has_values(self, column: str) -> bool:
        """Whether a clip that is not superseded has a value in this column."""
        where = f"`{column}` IS NOT NULL"
        return bool(self.count(where)) if len(self.superseded()) else self.table.holds(where)

    def columns(self) -> list[str]:
        """Names of the columns; those that a lake of an older format lacks read as nulls."""
        return list(dict.fromkeys([*self.table.schema.names, *FIXED_COLUMNS]))

    def check_column(self, column: str) -> None:
        """Raise InputError unless clips have this column."""
        if column not in self.columns():
            raise InputError(f"clips: no column {column!r}. Choose one of {', '.join(self.columns())}")

    def read(
        self, columns: Sequence[str] | None = None, *, where: str | None = None, superseded: bool = False
    ) -> pl.DataFrame:
        """Clips as a data frame, in the order they were added, whatever was updated since; `where` is SQL over clip columns."""
        for column in columns or ():
            self.check_column(column)
        left_out = None if superseded else self.superseded()
        if left_out is None or not len(left_out):
            return self._frame(columns, lambda names: self.table.read(names, where=where, with_row_id=True))
        wanted = None if columns is None else list(dict.fromkeys(["clip_id", *columns]))
        found = self._frame(wanted, lambda names: self.table.read(names, where=where, with_row_id=True))
        found = found.filter(~pl.col("clip_id").is_in(left_out.implode()))
        return found if columns is None else found.select(columns)

    def _frame(self, columns: Sequence[str] | None, read: Callable[[list[str] | None], pa.Table]) -> pl.DataFrame:
        """Rows read with the stored ones of `columns`, and nulls in fixed columns that are not stored."""
        stored = self.table.schema.names
        if columns is None or set(columns) <= set(stored):
            return in_order(to_frame(read(None if columns is None else list(columns))))
        found = in_order(to_frame(read([name for name in columns if name in stored] or ["clip_id"])))
        types = to_frame(CLIP_SCHEMA.empty_table()).schema
        absent = [pl.lit(None, types[name]).alias(name) for name in columns if name not in stored]
        return found.with_columns(absent).select(columns)

    def ids(self, where: str | None = None, *, superseded: bool = False) -> pl.Series:
        """Ids of all clips, or of those that match a filter, in the order they were added."""
        if where is not None:
            return self.read(["clip_id"], where=where, superseded=superseded)["clip_id"]
        found = self._ids_in_order()
        left_out = None if superseded else self.superseded()
        return found if left_out is None or not len(left_out) else found.filter(~found.is_in(left_out.implode()))

    def _ids_in_order(self) -> pl.Series:
        """Ids of all clips in the order they were added, sorted once for each version of the table."""
        snapshot, known = self.table.snapshot(), self._ids
        if known is None or known[0] is not snapshot.keys:
            ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
            known = self._ids = snapshot.keys, in_order(pl.DataFrame({"clip_id": ids, ROW_ID: snapshot.row_ids}))["clip_id"]
        return known[1]

    def key_rows(self) -> KeyRows:
        """Row numbers of the clips of `ids()`: hashed once for each version of the table, for lookups of many ids."""
        ids, known = self.ids(), self._rows
        if known is None or not (known[0] is ids or known[0].equals(ids)):
            snapshot = self.table.snapshot()
            in_table = ids.equals(pl.Series("clip_id", snapshot.keys, dtype=pl.String))
            known = self._rows = ids, self.table.key_rows(snapshot) if in_table else KeyRows(ids)
        return known[1]

    def take(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Clips by id, in the order of `ids`; unknown ids are left out."""
        wanted = None if columns is None else list(dict.fromkeys(["clip_id", *columns]))
        found = self._frame(wanted, lambda names: self.table.take(list(dict.fromkeys(ids)), names))
        return pl.DataFrame({"clip_id": list(ids)}, schema={"clip_id": pl.String}).join(
            found, on="clip_id", how="inner", maintain_order="left"
        )

    def read_rows(self, snapshot: Snapshot, rows: np.ndarray, columns: Sequence[str]) -> pl.DataFrame:
        """Clips by their row numbers in one version of the table, in the order of `rows`."""
        return self._frame(columns, lambda names: self.table.take_rows(snapshot, rows, names or columns))

    def find(self, clip: str) -> dict[str, Any]:
        """The clip whose id is `clip` or begins with it.  Raises ClipNotFound unless there is exactly one."""
        if not re.fullmatch(r"[0-9a-f]{4,64}", clip):
            raise ClipNotFound(f"{clip!r}: neither a file nor a clip id (hex digits). List ids with `tonelake clips`")
        found = to_frame(self.table.take([clip])).to_dicts()         # a complete id, as programs give it
        if not found:
            found = self.read(where=f"clip_id LIKE '{clip}%'").to_dicts()
        if len(found) == 1:
            return found[0]
        if not found:
            raise ClipNotFound(f"clip {clip!r}: not in this lake. List ids with `tonelake clips`")
        raise ClipNotFound(f"clip {clip!r}: {len(found)} ids begin with it. Give more digits")

    def add(self, rows: pl.DataFrame) -> Added:
        """Add clips; `rows` needs clip_id, track, source, digest, start_s and duration_s, and may bring label columns.

        New rows are stored in one commit: if the process is killed, either all of them are stored or none.
        Raises InputError, before anything is written, if a label column cannot be stored.
        """
        check_rows(rows)
        check_names(rows.columns)
        return self._upsert(self.conform(rows))

    def set_labels(self, values: pl.DataFrame) -> Added:
        """Write label columns of clips in the lake: `values` has clip_id and the columns.

        A null keeps the stored value.  Clips that are no longer in the lake are left out.  Raises InputError if a column cannot
        be stored.
        """
        rows = self.take(values["clip_id"].to_list(), ["clip_id", "track", "source", "digest", "start_s", "duration_s"])
        return self.add(rows.join(values, on="clip_id", how="left", maintain_order="left")) if len(rows) else Added()

    def update(self, values: pl.DataFrame) -> pl.Series:
        """Set columns of stored clips, nulls included; returns the ids of the clips that changed.

        `values` has clip_id and the columns.  Unknown clips are left out.  Raises InputError if a column cannot be stored.
        """
        check_names(values.columns)
        values = self.conform(values)
        names = [name for name in values.columns if name != "clip_id"]
        changed: list[pl.Series] = []
        for part in values.iter_slices(ROWS_PER_UPDATE):
            stored = to_frame(self.table.take(part["clip_id"].to_list()))
            after = stored.drop(names).join(part, on="clip_id", how="inner").select(stored.columns).sort("clip_id")
            before = stored.sort("clip_id")
            rows = after.filter(pl.any_horizontal(after[name].ne_missing(before[name]) for name in names))
            if len(rows):
                self.table.upsert(rows.to_arrow())
            changed.append(rows["clip_id"])
        return pl.concat(changed) if changed else pl.Series("clip_id", [], pl.String)

    def set_flag(self, ids: Sequence[str], flag: str) -> None:
        """Set the `flag` of these clips, which names a problem with their audio."""
        self.update(pl.DataFrame({"clip_id": ids, "flag": [flag] * len(ids)}))

    def remove(self, ids: Sequence[str]) -> None:
        """Delete clips; their vectors and frames are not touched (`store.forgetting`)."""
        for part in chunks(list(ids), IDS_PER_FILTER):
            self.table.delete(in_list("clip_id", part))

    def _upsert(self, rows: pl.DataFrame) -> Added:
        stored = to_frame(self.table.take(rows["clip_id"].unique(maintain_order=True).to_list()))
        schema = stored.schema
        rows, repeated = one_row_each(rows, stored)
        fresh = rows.join(stored.select("clip_id"), on="clip_id", how="anti", maintain_order="left")
        before, changed, copies = stored, stored, rows.clear()
        if len(stored):
            again = rows.join(stored.select("clip_id", was="source"), on="clip_id", how="inner", maintain_order="left")
            elsewhere = {s for s in again.filter(pl.col("was") != pl.col("source"))["was"].unique() if source_exists(s)}
            copies = again.filter((pl.col("was") != pl.col("source")) & pl.col("was").is_in(elsewhere))
            again = again.join(copies.select("clip_id"), on="clip_id", how="anti", maintain_order="left").drop("was")
            before = stored.join(again.select("clip_id"), on="clip_id", how="semi").sort("clip_id")
            names = [c for c in again.columns if c not in ("clip_id", "added_at", "cut")]      # the first cut is kept
            after = before.join(again, on="clip_id", how="left", suffix=" new", maintain_order="left").with_columns(
                pl.coalesce(f"{name} new", name).alias(name) for name in names
            ).select(before.columns)
            changed = after.filter(pl.any_horizontal(after[c].ne_missing(before[c]) for c in after.columns))

        now = datetime.now(UTC)
        fresh = fresh.with_columns(pl.lit(now).cast(pl.Datetime("us", "UTC")).alias("added_at"))
        inserted = self.table.insert_new(fresh.to_arrow()) if len(fresh) else 0
        if len(changed):
            self.table.upsert(changed.select(schema.names()).to_arrow())
        known = len(before) - len(changed) + len(fresh) - inserted
        return Added(new=inserted, changed=len(changed), known=known, copies=len(copies) + repeated)

    def check_labels(self, labels: pl.DataFrame) -> None:
        """Raise InputError if label columns do not fit those already stored.  Call it before any long work."""
        check_names(labels.columns)
        for name in labels.columns:
            if name in self.table.schema.names:
                cast_to_stored(labels[name], self._stored_type(name))

    def _stored_type(self, name: str) -> Any:
        """The polars type of a column of the table."""
        return to_frame(self.table.schema.empty_table().select([name])).schema[name]

    def conform(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Cast rows to the types of the stored columns; columns that are new to the lake are added to the table.

        NaN becomes null, and leaves lists: in filters and sorting it would be above every number.
        """
        rows = rows.with_columns(without_nan(rows[name]) for name in rows.columns)
        schema, arrow = self.table.schema, rows.to_arrow()
        stored = to_frame(schema.empty_table()).schema
        new: list[pa.Field] = []
        cast: list[pl.Series] = []
        for name in rows.columns:
            if name in stored:
                cast.append(cast_to_stored(rows[name], stored[name]))
                continue
            kind = stored_type(arrow.schema.field(name).type)
            if pa.types.is_null(kind):
                rows = rows.drop(name)
            else:
                new.append(pa.field(name, kind))
        rows = rows.with_columns(cast)
        self.table.add_columns(new)
        return rows


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order they were inserted, without ROW_ID: an update moves a row to the end of its table and keeps its id."""
    if ROW_ID not in rows.columns:
        return rows
    return (rows if rows[ROW_ID].is_sorted() else rows.sort(ROW_ID)).drop(ROW_ID)


def one_row_each(rows: pl.DataFrame, stored: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows without repeated clips, and how many of those left out have another source: copies.

    The row with the stored source is kept, else the first one, so that a copy never replaces the labels of its original.
    """
    ranked = rows.join(stored.select("clip_id", stored_source="source"), on="clip_id", how="left", maintain_order="left")
    first = pl.col("source").ne_missing(pl.col("stored_source"))
    kept = ranked.sort(first, maintain_order=True).unique("clip_id", keep="first", maintain_order=True).drop("stored_source")
    others = rows.join(kept.select("clip_id", kept_source="source"), on="clip_id")
    return kept, len(others.filter(pl.col("source") != pl.col("kept_source")))


def check_rows(rows: pl.DataFrame) -> None:
    """Raise InputError unless the rows can be stored as clips."""
    missing = {"clip_id", "track", "source", "digest", "start_s", "duration_s"} - set(rows.columns)
    if missing:
        raise InputError(f"clips: columns {', '.join(sorted(missing))} are missing. Add them")
    positive = (rows["duration_s"] > 0) & rows["duration_s"].is_finite()
    if rows["clip_id"].null_count() or not positive.fill_null(False).all():
        raise InputError("clips: a row has no clip_id or no positive duration_s. Give every clip both")


def check_names(columns: Sequence[str]) -> None:
    """Raise InputError unless these names are valid for columns of clips."""
    for name in columns:
        if name not in FIXED_COLUMNS and not (LABEL_NAME.fullmatch(name) and name == name.lower()):
            raise InputError(f"label column {name!r}: not a valid name. Use lower-case letters, digits and '_'")


def without_nan(values: pl.Series) -> pl.Series:
    """Values with null for NaN; a list of decimal numbers without its NaNs.

    >>> without_nan(pl.Series([1.5, float("nan")])).to_list(), without_nan(pl.Series([[2.0, float("nan")]])).to_list()
    ([1.5, None], [[2.0]])
    """
    if element_kind(values.dtype) != "decimal":
        return values
    return values.list.eval(pl.element().drop_nans()) if is_list(values.dtype) else values.fill_nan(None)


def cast_to_stored(values: pl.Series, stored: Any) -> pl.Series:
    """Cast values to the type of the stored column.  Raises InputError if that would change a value."""
    if values.dtype == stored or values.dtype == pl.Null:
        return values.cast(stored)
    try:
        cast = values.cast(stored, strict=True)
    except pl.exceptions.PolarsError:
        cast = None
    may_round = cast is not None and kind_of(values.dtype) == "decimal" and kind_of(stored) == "integer"
    if cast is None or (may_round and (cast.cast(values.dtype) != values).any()):
        raise InputError(
            f"label column {values.name!r}: stored as {stored}, but some new values ({values.dtype}, such as "
            f"{values.drop_nulls()[0]!r}) do not fit. Correct them, or use another column name"
        )
    return cast


def source_exists(source: str) -> bool:
    """Whether a source is a file that still exists; sources other than files (chorale:…) always exist."""
    try:
        return ":" in source.split("/")[0] or Path(source).exists()
    except OSError:
        return False
