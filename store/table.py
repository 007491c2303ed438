"""One LanceDB table keyed by a text column: created by its first write, read as Arrow, never left half written.

Reasons for these settings (measured, kill -9 and concurrent writers included):
- the key is declared in the schema as Lance's unenforced primary key: without it two concurrent `merge_insert`s
  both insert, which duplicates rows;
- stable row ids, so that an index can keep them through upserts and compaction;
- `read_consistency_interval=0` on the connection, so that an open table never serves an old version.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tonelake.store.errors import FilterError, LakeError
from tonelake.store.filters import checked_filter, explain_filter, is_filter_error, quote
from tonelake.store.hold import current_hold, writing
from tonelake.store.key_rows import KeyRows

ROWS_PER_FRAGMENT = 25_000           # large enough to scan at full speed
BYTES_PER_FRAGMENT = 256 << 20       # of vectors: 6,700 clips of MERT-v1-95M; pages that cannot be copied are in memory twice
BYTES_OF_LONG_ROWS = 64 << 20        # of frames, 1 MB or more a row: read row by row, which is no faster in larger files
TRIES = 8                            # attempts at a commit that conflicts with other writers, over about ten seconds
IDS_PER_FILTER = 10_000              # rows looked up by an IN list; for more, reading the whole column is faster
FEW_KEYS = 1_000                     # rows taken one by one where their row numbers are known
ROW_ID = "_rowid"                    # Lance's name of the column of row ids

Result = TypeVar("Result")


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


class Table:
    """A table of the lake.  Absent until the first row is written; reading an absent table gives no rows."""

    def __init__(self, connection: Any, name: str, schema: pa.Schema) -> None:
        """`schema`: the columns that a new table is created with; the first one is the key."""
        key = schema.field(0)
        keyed = key.with_nullable(False).with_metadata({"lance-schema:unenforced-primary-key": "true"})
        self.name = name
        self.key = key.name
        self._connection = connection
        self._initial_schema = schema.set(0, keyed)
        self.refusal = ""                # why nothing may be written, if that is so
        self._handle: Any = None
        self._known: tuple[Snapshot, KeyRows] | None = None           # one tuple: threads never see parts of two versions

    # -- reading

    @property
    def schema(self) -> pa.Schema:
        if (held := self._held()) is not None:
            return held.schema
        handle = self._open()
        return self._initial_schema if handle is None else handle.schema

    @property
    def version(self) -> int:
        """Lance's version number; 0 if the table does not exist yet."""
        if (held := self._held()) is not None:
            return held.version
        handle = self._open()
        return 0 if handle is None else handle.version

    def written_at(self) -> float | None:
        """When the newest version was written, in seconds since the epoch; None without a table."""
        handle = self._open()
        return None if handle is None else max(version["timestamp"].timestamp() for version in handle.to_lance().versions())

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
        """The table at its newest version with every row's key and id, which are read once per version."""
        dataset = self._newest()
        if dataset is None:
            return Snapshot(None, pa.array([], pa.string()), np.empty(0, np.int64))
        known = self._known
        if known is None or known[0].dataset.version != dataset.version:
            with self.reading():
                rows = dataset.to_table(columns=[self.key], with_row_id=True)
            ids = rows.column(ROW_ID).to_numpy().astype(np.int64)
            snapshot = Snapshot(dataset, rows.column(self.key).combine_chunks(), ids)
            known = self._known = (snapshot, KeyRows(pl.Series(snapshot.keys, dtype=pl.String)))
        return known[0]

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
        everything = self.read(list(dict.fromkeys([self.key, *names])))
        wanted = pc.is_in(everything.column(self.key), value_set=pa.array(keys, pa.string()))
        return everything.filter(wanted).select(names)

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

    # -- writing

    def insert_new(self, rows: pa.Table) -> int:
        """Insert rows with new keys and return their number.  Safe beside other writers."""

        before = self.version

        def write() -> Any:
            return self._merge().when_not_matched_insert_all().execute(self.conform(rows))

        done = self.commit(write)
        # A merge notices concurrent merges but not concurrent appends (`store.fragments`).
        concurrent = done.version > max(before, 1) + 1 and done.num_inserted_rows
        return done.num_inserted_rows - (self.drop_duplicates(rows.column(self.key).to_pylist()) if concurrent else 0)

    def upsert(self, rows: pa.Table) -> None:
        """Insert rows; a row with a stored key replaces the stored one."""

        def write() -> None:
            self._merge().when_matched_update_all().when_not_matched_insert_all().execute(self.conform(rows))

        self.commit(write)

    def replace_where(self, where: str, rows: pa.Table) -> None:
        """Delete the rows that match `where` and are not among `rows`, and insert those that are new, in one commit."""

        def write() -> None:
            merge = self._merge().when_not_matched_insert_all().when_not_matched_by_source_delete(where)
            merge.execute(self.conform(rows))

        self.commit(write)

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        """Add columns of nulls; changes only metadata, so the table's size does not matter."""

        def write() -> None:
            self._create()
            present = set(self.schema.names)
            missing = [field for field in fields if field.name not in present]
            if missing:
                try:
                    self._handle.add_columns(pa.schema(missing))
                except ValueError as error:
                    if "already exists" not in str(error):
                        raise
                    raise RuntimeError(f"conflict: another writer added a column ({error})") from error

        self.commit(write)

    def rename_column(self, name: str, other: str) -> None:
        """Rename a column, unless that is done already."""

        def write() -> None:
            if name in self.schema.names and other not in self.schema.names:
                self._handle.alter_columns({"path": name, "rename": other})

        self.commit(write)

    def delete(self, where: str) -> None:
        handle = self._open()
        if handle is not None:
            self.commit(lambda: handle.delete(where))

    def drop_duplicates(self, keys: Sequence[str]) -> int:
        """Delete all but the first of rows that share one of these keys; return the number deleted."""
        extra: list[int] = []
        for some in chunks(list(dict.fromkeys(keys)), IDS_PER_FILTER):
            scan = self.dataset().to_table(columns=[self.key], filter=in_list(self.key, some), with_row_id=True)
            seen: set[str] = set()
            for row in sorted(scan.to_pylist(), key=lambda row: row["_rowid"]):
                if row[self.key] in seen:
                    extra.append(row["_rowid"])
                seen.add(row[self.key])
        for some in chunks(extra, IDS_PER_FILTER):
            self.delete(f"_rowid IN ({', '.join(map(str, some))})")
        return len(extra)

    def dataset(self) -> Any:
        """The table as a Lance dataset at its newest version; created if it does not exist."""
        self._create()
        return self._handle.to_lance()

    def target_rows(self) -> int:
        """Number of rows that a merged fragment has."""
        handle = self._open()
        fragments = handle.to_lance().get_fragments() if handle is not None else []
        size = sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.data_files())
        return rows_per_fragment(self.schema, size / max(sum(fragment.physical_rows for fragment in fragments), 1))

    def small_fragments(self) -> list[int]:
        """Number of rows of each fragment that is smaller than a merged one."""
        target = self.target_rows()
        sizes = [fragment.physical_rows for fragment in self.dataset().get_fragments()]
        return [rows for rows in sizes if rows < target]

    def compact(self) -> None:
        """Merge the small fragments that appending every few hundred clips creates.  Safe beside writers."""
        handle = self._open()
        if handle is None:
            return
        try:
            # Copying encoded pages takes half the time of decoding them, and 6 MB of memory instead of 500.
            handle.to_lance().optimize.compact_files(
                target_rows_per_fragment=self.target_rows(), compaction_mode="try_binary_copy"
            )
        except OSError as error:
            if "conflict" not in str(error):     # a concurrent writer compacts when it has finished
                raise
        release_memory()

    def commit(self, write: Callable[[], Result]) -> Result:
        """Call `write`, again after a conflict: another writer's commit may have changed the schema or the rows.

        Raises LakeError if nothing may be written, or if writing fails.
        """
        if self.refusal:
            raise LakeError(self.refusal)
        with writing():
            return self._commit(write)

    def _commit(self, write: Callable[[], Result]) -> Result:
        for attempt in range(TRIES):
            try:
                return write()
            except (RuntimeError, OSError) as error:
                if "conflict" not in str(error).lower() or attempt == TRIES - 1:
                    reason = str(error).split(", /")[0].removeprefix("lance error: ")
                    full = "No space left" in reason or "os error 28" in reason
                    remedy = "Free some space and run it again" if full else "Nothing of this write was stored; run it again"
                    raise LakeError(f"table {self.name!r}: cannot be written ({reason}). {remedy}") from error
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
                self._handle.checkout_latest()
        raise AssertionError("unreachable")

    def _merge(self) -> Any:
        self._create()
        return self._handle.merge_insert(self.key)

    def conform(self, rows: pa.Table) -> pa.Table:
        """Rows with the table's columns, types and nullability; a missing column becomes nulls.

        Needed because `merge_insert` refuses a nullable key.  Raises LakeError for a column that the table does not have.
        """
        schema = self._handle.schema
        unknown = set(rows.column_names) - set(schema.names)
        if unknown:
            raise LakeError(f"table {self.name!r}: no column {', '.join(sorted(unknown))}. Leave it out")
        columns = [
            rows.column(field.name).cast(field.type)
            if field.name in rows.column_names
            else pa.nulls(rows.num_rows, field.type)
            for field in schema
        ]
        return pa.table(columns, schema=schema)

    def _newest(self) -> Any:
        """The table as a Lance dataset at its newest version, or at that of the hold; None if it does not exist."""
        if (held := self._held()) is not None:
            return held.dataset
        handle = self._open()
        return None if handle is None else handle.to_lance()

    def _held(self) -> State | None:
        """The table's state, looked up once in the hold that this thread reads in, if there is one."""
        hold = current_hold()
        return None if hold is None else hold.once((self._connection.uri, self.name), self._state)

    def _state(self) -> State:
        handle = self._open()
        if handle is None:
            return State(0, self._initial_schema, None)
        dataset = handle.to_lance()
        return State(dataset.version, dataset.schema, dataset)

    def _open(self) -> Any:
        if self._handle is None:
            try:
                self._handle = self._connection.open_table(self.name)
            except (ValueError, FileNotFoundError) as error:
                if "not found" not in str(error):
                    raise LakeError(f"table {self.name!r}: cannot be opened ({error}). Restore it from a copy") from error
        return self._handle

    def _create(self) -> None:
        if self._open() is not None:
            return
        try:
            self._handle = self._connection.create_table(
                self.name, schema=self._initial_schema, storage_options={"new_table_enable_stable_row_ids": "true"}
            )
        except ValueError as error:
            if "already exists" not in str(error):
                raise
            self._handle = self._connection.open_table(self.name)


def release_memory() -> None:
    """Make glibc return freed memory to the system.

    After a merge it would keep 100 MB or more, fragmented, for the life of the process, and a little more after each commit.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):    # another C library
        ctypes.CDLL(None).malloc_trim(0)


def rows_per_fragment(schema: pa.Schema, bytes_per_row: float = 0.0) -> int:
    """Number of rows that a merged fragment has; `bytes_per_row`: as measured, used for rows without vectors.

    >>> rows_per_fragment(pa.schema([pa.field(f"mean_{i:02d}", pa.list_(pa.float16(), 768)) for i in range(26)]))
    6721
    >>> rows_per_fragment(pa.schema([pa.field("states", pa.large_list(pa.float16()))]), bytes_per_row=3.5e6)
    19
    """
    vectors = [field.type for field in schema if pa.types.is_fixed_size_list(field.type)]
    row = sum(kind.list_size * kind.value_type.bit_width // 8 for kind in vectors)
    long = not vectors and any(pa.types.is_large_list(field.type) for field in schema)
    most = BYTES_OF_LONG_ROWS // max(bytes_per_row, 1) if long else BYTES_PER_FRAGMENT // max(row, 1)
    return int(min(ROWS_PER_FRAGMENT, most)) or 1


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
