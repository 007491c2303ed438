"""Read one table of the lake, keyed by a text column, by Lance alone: as Arrow, at its newest version or at that of a hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tonelake.store.added_fragments import added_fragments
from tonelake.store.errors import FilterError, LakeError
from tonelake.store.filters import checked_filter, explain_filter, is_filter_error, quote
from tonelake.store.hold import current_hold
from tonelake.store.key_rows import KeyRows

IDS_PER_FILTER = 10_000              # rows looked up by an IN list; for more, reading the whole column is faster
FEW_KEYS = 1_000                     # rows taken one by one where their row numbers are known
TAKEN_SHARE = 0.02                   # of a table's rows, taken one by one; for more, reading whole columns is faster
ROW_ID = "_rowid"                    # Lance's name of the column of row ids


class Snapshot(NamedTuple):
    """A table at one version; without a table, `dataset` is None and there are no rows."""

    dataset: Any                         # Lance's
    keys: pa.Array                       # in table order
    row_ids: np.ndarray                  # (row,) int64, rising in order of insertion; kept through updates and compaction


class State(NamedTuple):
    """Version and schema of a table; without a table, `dataset` is None."""

    version: int
    schema: pa.Schema
    dataset: Any                         # Lance's


class ReadTable:
    """A table as its readers see it.  Reading one that does not exist gives no rows."""

    def __init__(self, connection: Any, name: str, schema: pa.Schema) -> None:
        """`schema`: the columns that a new table is created with; the first one is the key."""
        key = schema.field(0)
        keyed = key.with_nullable(False).with_metadata({"lance-schema:unenforced-primary-key": "true"})
        self.name = name
        self.key = key.name
        self._connection = connection
        self._initial_schema = schema.set(0, keyed)
        self._seen: Any = None           # the newest dataset that was seen; never changed
        self._known: tuple[Snapshot, KeyRows] | None = None           # one tuple: threads never see parts of two versions

    @property
    def schema(self) -> pa.Schema:
        if (held := self._held()) is not None:
            return held.schema
        dataset = self.latest()
        return self._initial_schema if dataset is None else dataset.schema

    @property
    def version(self) -> int:
        """Lance's version number; 0 if the table does not exist yet."""
        if (held := self._held()) is not None:
            return held.version
        dataset = self.latest()
        return 0 if dataset is None else dataset.version

    def written_at(self) -> float | None:
        """When the newest version was written, in seconds since the epoch; None without a table."""
        dataset = self.latest()
        return None if dataset is None else max(version["timestamp"].timestamp() for version in dataset.versions())

    def count(self, where: str | None = None) -> int:
        if where is not None:
            return self.read([self.key], where=where).num_rows
        dataset = self._newest()
        return 0 if dataset is None else dataset.count_rows()

    def read(
        self, columns: Sequence[str] | None = None, *, where: str | None = None, with_row_id: bool = False
    ) -> pa.Table:
        """Rows as Arrow, in table order, which an update changes; `with_row_id` adds ROW_ID, which rises in order of insertion.

        Raises FilterError if the filter is invalid.
        """
        dataset = self._newest()
        names = list(columns) if columns is not None else self.schema.names
        condition = None if where is None else checked_filter(where, self.schema.names)
        if dataset is None:
            return self._initial_schema.empty_table().select(names)
        try:
            with self.reading():
                return dataset.to_table(columns=names, filter=condition, with_row_id=with_row_id)
        except (ValueError, RuntimeError, LakeError) as error:
            cause = error.__cause__ if isinstance(error, LakeError) else error
            if where is None or not (isinstance(cause, ValueError) or is_filter_error(str(cause))):
                raise
            raise FilterError(explain_filter(where, str(cause), dataset.schema.names)) from error

    def holds(self, where: str) -> bool:
        """Whether a row matches a valid filter; reads until the first one is found."""
        dataset = self._newest()
        if dataset is None:
            return False
        with self.reading():
            return dataset.to_table(columns=[self.key], filter=where, limit=1).num_rows > 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Raise LakeError where a file of the table is missing or damaged."""
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            if isinstance(error, pa.ArrowInvalid) and not str(error).startswith("External error"):
                raise                    # an invalid filter
            reason = str(error).removeprefix("External error: ").split(", /")[0]
            raise LakeError(
                f"table {self.name!r}: cannot be read ({reason}). If old versions were removed during a long read, run it "
                "again; if a file was lost or damaged, restore it from a copy"
            ) from error

    def snapshot(self) -> Snapshot:
        """The table at its newest version with every row's key and id; of rows that were only added, these alone are read."""
        dataset = self._newest()
        if dataset is None:
            return Snapshot(None, pa.array([], pa.string()), np.empty(0, np.int64))
        known = self._known
        if known is None or known[0].dataset.version != dataset.version:
            with self.reading():
                added = None if known is None else added_fragments(known[0].dataset, dataset)
                rows = dataset.scanner(columns=[self.key], with_row_id=True, fragments=added).to_table()
            keys, ids = rows.column(self.key).combine_chunks(), rows.column(ROW_ID).to_numpy().astype(np.int64)
            if known is not None and added is not None:
                keys, ids = pa.concat_arrays([known[0].keys, keys]), np.concatenate([known[0].row_ids, ids])
            snapshot = Snapshot(dataset, keys, ids)
            known = self._known = (snapshot, KeyRows(pl.Series(snapshot.keys, dtype=pl.String)))
        return known[0]

    def key_rows(self, snapshot: Snapshot) -> KeyRows:
        """Row numbers of a snapshot's keys; of the newest snapshot as `take` has them, hashed once."""
        known = self._known
        if known is not None and known[0] is snapshot:
            return known[1]
        return KeyRows(pl.Series(snapshot.keys, dtype=pl.String))

    def batches(
        self, columns: Sequence[str], *, where: str | None = None, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read rows in batches of at most `rows`, for data larger than memory.  Raises LakeError if a file is missing."""
        dataset = self._newest()
        if dataset is not None:
            scan = dataset.scanner(columns=list(columns), filter=where, batch_size=rows, batch_readahead=2)
            with self.reading():
                yield from scan.to_batches()

    def take(self, keys: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows with these keys, in unspecified order; unknown keys are left out."""
        names = list(columns) if columns is not None else self.schema.names
        if not keys:
            return self.schema.empty_table().select(names)
        known = self._known
        if known is not None and len(keys) <= FEW_KEYS and known[0].dataset.version == self.version:
            rows = known[1].of(keys)
            return known[0].dataset.take(rows[rows >= 0].tolist(), columns=names)
        if len(keys) <= IDS_PER_FILTER:
            return self.read(names, where=in_list(self.key, keys))
        dataset = self._newest()
        if dataset is None:
            return self._initial_schema.empty_table().select(names)
        with self.reading():
            stored = dataset.to_table(columns=[self.key]).column(self.key)
            wanted = pc.is_in(stored, value_set=pa.array(keys, pa.string()))
            found = pc.sum(wanted).as_py() or 0
            if found <= TAKEN_SHARE * len(stored):
                return dataset.take(np.flatnonzero(wanted.to_numpy()).tolist(), columns=names)
            return dataset.to_table(columns=names).filter(wanted)

    def take_rows(self, snapshot: Snapshot, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Rows of a snapshot by their row numbers, in the order of `rows`.

        If the snapshot's version has been removed since (`store.compaction`), the rows are looked up by key in the newest
        version.  Raises LakeError if they were deleted there too.
        """
        try:
            return snapshot.dataset.take(rows.tolist(), columns=list(columns))
        except (OSError, ValueError):
            keys = snapshot.keys.take(pa.array(rows))
            found = self.take(keys.unique().to_pylist(), list(dict.fromkeys([self.key, *columns])))
            return found.take(self.rows_of(keys, found.column(self.key).combine_chunks())).select(list(columns))

    def rows_of(self, keys: pa.Array, newer: pa.Array) -> np.ndarray:
        """Row numbers of an older version's keys among the keys of a newer one.  Raises LakeError if one was deleted."""
        rows = pc.index_in(keys, value_set=newer)
        if rows.null_count:
            raise LakeError(f"table {self.name!r}: {rows.null_count:,} rows were deleted while being read. Run it again")
        return rows.to_numpy()

    # -- versions

    def _newest(self) -> Any:
        """The table as a Lance dataset at its newest version, or at that of the hold; None if it does not exist."""
        return held.dataset if (held := self._held()) is not None else self._open()

    def _held(self) -> State | None:
        """The table's state, looked up once in the hold that this thread reads in, if there is one."""
        hold = current_hold()
        return None if hold is None else hold.once((self._connection.uri, self.name), self._state)

    def _state(self) -> State:
        dataset = self._open()
        return State(0, self._initial_schema, None) if dataset is None else State(dataset.version, dataset.schema, dataset)

    def latest(self) -> Any:
        """The table at its newest version, for its version, schema and indexes; None if it does not exist.

        The dataset is shared and keeps what was read of the indexes, so nothing may be written through it.
        """
        seen = self._seen
        if seen is None:
            self._seen = self._open(small_cache=True)
        else:
            with self.reading():
                version = seen.latest_version
                if version != seen.version:
                    self._seen = seen.checkout_version(version)
        return self._seen

    def _open(self, *, small_cache: bool = False) -> Any:
        """The table as a Lance dataset of its own at its newest version; None if it does not exist."""
        dataset = self._connection.dataset(self.name, small_cache=small_cache)
        if dataset is None and self._seen is not None:
            raise LakeError(f"table {self.name!r}: its files were removed. Restore them from a copy")
        return dataset


def in_list(column: str, values: Sequence[str]) -> str:
    """The SQL expression `column IN ('a', 'b')`."""
    return f"{column} IN ({', '.join(quote(value) for value in values)})"


def chunks(items: Any, size: int) -> Iterator[Any]:
    """Consecutive slices of `size` items; the last one may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def to_frame(table: pa.Table) -> pl.DataFrame:
    """Arrow to polars; also correct for a table without rows."""
    result = pl.from_arrow(table)
    assert isinstance(result, pl.DataFrame)
    return result
