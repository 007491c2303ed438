"""One table keyed by a text column: created by its first write, read by Lance, written by LanceDB, never half.

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
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from tonelake.store.errors import LakeError
from tonelake.store.hold import writing
from tonelake.store.table_reading import IDS_PER_FILTER, ReadTable, chunks, in_list

ROWS_PER_FRAGMENT = 25_000           # large enough to scan at full speed
BYTES_PER_FRAGMENT = 256 << 20       # of vectors: 6,700 clips of MERT-v1-95M; pages that cannot be copied are in memory twice
BYTES_OF_LONG_ROWS = 64 << 20        # of frames, 1 MB or more a row: read row by row, which is no faster in larger files
TRIES = 8                            # attempts at a commit that conflicts with other writers, over about ten seconds

Result = TypeVar("Result")


class Table(ReadTable):
    """A table of the lake.  It exists from the first row that is written."""

    def __init__(self, connection: Any, name: str, schema: pa.Schema) -> None:
        """`schema`: the columns that a new table is created with; the first one is the key."""
        super().__init__(connection, name, schema)
        self.refusal = ""                # why nothing may be written, if that is so
        self._handle: Any = None         # LanceDB's, for writing

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
            present = set(self.handle().schema.names)
            missing = [field for field in fields if field.name not in present]
            if missing:
                try:
                    self.handle().add_columns(pa.schema(missing))
                except ValueError as error:
                    if "already exists" not in str(error):
                        raise
                    raise RuntimeError(f"conflict: another writer added a column ({error})") from error

        self.commit(write)

    def rename_column(self, name: str, other: str) -> None:
        """Rename a column, unless that is done already."""

        def write() -> None:
            if name in self.schema.names and other not in self.schema.names:
                self.handle().alter_columns({"path": name, "rename": other})

        self.commit(write)

    def delete(self, where: str) -> None:
        if self.latest() is not None:
            self.commit(lambda: self.handle().delete(where))

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
        return self._open()

    def target_rows(self) -> int:
        """Number of rows that a merged fragment has."""
        dataset = self._open()
        fragments = [] if dataset is None else dataset.get_fragments()
        size = sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.data_files())
        return rows_per_fragment(self.schema, size / max(sum(fragment.physical_rows for fragment in fragments), 1))

    def small_fragments(self) -> list[int]:
        """Number of rows of each fragment that is smaller than a merged one."""
        target = self.target_rows()
        sizes = [fragment.physical_rows for fragment in self.dataset().get_fragments()]
        return [rows for rows in sizes if rows < target]

    def compact(self) -> None:
        """Merge the small fragments that appending every few hundred clips creates.  Safe beside writers."""
        dataset = self._open()
        if dataset is None:
            return
        try:
            # Copying encoded pages takes half the time of decoding them, and 6 MB of memory instead of 500.
            dataset.optimize.compact_files(target_rows_per_fragment=self.target_rows(), compaction_mode="try_binary_copy")
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
                if self._handle is not None:
                    self._handle.checkout_latest()
        raise AssertionError("unreachable")

    def _merge(self) -> Any:
        return self.handle().merge_insert(self.key)

    def conform(self, rows: pa.Table) -> pa.Table:
        """Rows with the table's columns, types and nullability; a missing column becomes nulls.

        Needed because `merge_insert` refuses a nullable key.  Raises LakeError for a column that the table does not have.
        """
        schema = self.handle().schema
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

    def handle(self) -> Any:
        """LanceDB's table, for writing; created if it does not exist."""
        self._create()
        return self._handle

    def _create(self) -> None:
        if self._handle is not None:
            return
        exists, database = self._open() is not None, self._connection.database
        if not exists:
            try:
                self._handle = database.create_table(
                    self.name, schema=self._initial_schema, storage_options={"new_table_enable_stable_row_ids": "true"}
                )
                return
            except ValueError as error:
                if "already exists" not in str(error):
                    raise
        self._handle = database.open_table(self.name)


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
