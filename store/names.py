"""The table of names: one row a song, with its text, folded and as it is shown, and its grams, which Lance indexes.

Derived from clips by `tonelake.index`: it can be deleted at any time and is then made again.  Facts that the code relies on
(LanceDB 0.40, measured): a text index finds rows that were added after it was built; compaction removes rows from it, until
`optimize` adds them again; it is read in full by no query.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pyarrow as pa

from tonelake.store.compaction import MANY_FRAGMENTS
from tonelake.store.connection import Connection
from tonelake.store.errors import InputError, LakeError
from tonelake.store.lake import Lake
from tonelake.store.table import Table, release_memory
from tonelake.store.table_reading import IDS_PER_FILTER, chunks, in_list, to_frame

NAME = "names"
KEY = "song"                             # id of the song's first clip
TEXT = "text"                            # as it is compared and shown, in one column: reading several takes longer
ROWS_PER_WRITE = 25_000
MOST_UNINDEXED = 2_000                   # rows without index are scanned: 1,000 take 10 ms
KEPT = timedelta(hours=1)                # of old versions: longer than any query reads


class Names:
    """The table of names of a lake, or a temporary one."""

    def __init__(self, connection: Connection, version: int, *, stored: bool = True) -> None:
        """`version`: of the grams, which are in a column of their own name; `stored`: in a lake."""
        self.grams = f"grams_{version}"
        self.is_stored = stored
        self._connection = connection
        self._open()

    @classmethod
    def of(cls, lake: Lake, version: int) -> Names:
        return cls(lake._connection, version)

    @classmethod
    def temporary(cls, version: int) -> Names:
        """A table in a folder for temporary files, which is deleted with this object."""
        folder = tempfile.mkdtemp(prefix="tonelake-names-")
        names = cls(Connection(folder), version, stored=False)
        weakref.finalize(names, shutil.rmtree, folder, ignore_errors=True)
        return names

    def _open(self) -> None:
        schema = pa.schema([pa.field(name, pa.string()) for name in (KEY, TEXT, self.grams)])
        self.table = Table(self._connection, NAME, schema)

    @property
    def version(self) -> int:
        """Lance's version of the table; 0 if it does not exist.  Raises LakeError if it cannot be opened."""
        try:
            return self.table.version
        except LakeError as error:
            cause = error.__cause__ or error
            raise LakeError(f"table {NAME!r}: cannot be opened ({cause}). Delete {NAME}.lance, it is made again") from error

    def is_outdated(self) -> bool:
        """Whether the table has grams of another version."""
        return self.grams not in self.table.schema.names

    def drop(self) -> None:
        """Delete the table.  Raises LakeError if that fails."""
        try:
            self._connection.database.drop_table(NAME, ignore_missing=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise LakeError(f"table {NAME!r}: cannot be deleted ({error}). Check the permissions of the lake") from error
        self._open()

    def read(self) -> pl.DataFrame:
        """Every song with its text."""
        return to_frame(self.table.read([KEY, TEXT]))

    def replace(self, rows: pl.DataFrame, gone: Sequence[str], before: int) -> bool:
        """Insert or replace songs, and delete those with the keys `gone`.

        Returns whether this was a single commit on version `before`, so that the table holds nothing of another writer's.
        Raises InputError where Lance would hang, LakeError if the table cannot be written.
        """
        refuse_one_thread()
        single = len(rows) <= ROWS_PER_WRITE and len(gone) <= IDS_PER_FILTER
        for keys in chunks(gone, IDS_PER_FILTER) if not (single and len(rows)) else ():
            self.table.delete(in_list(KEY, keys))
        for part in chunks(rows, ROWS_PER_WRITE):
            self._merge(part.to_arrow(), gone if single else ())
        release_memory()
        return single and self.version == before + 1

    def _merge(self, rows: pa.Table, gone: Sequence[str]) -> None:
        def write() -> None:
            merge = self.table._merge().when_matched_update_all().when_not_matched_insert_all()
            if gone:
                merge = merge.when_not_matched_by_source_delete(in_list(KEY, gone))
            merge.execute(self.table.conform(rows))

        self.table.commit(write)

    # -- the index

    def is_indexed(self) -> bool:
        return bool(self.version) and self._index_name() is not None

    def needs_care(self) -> bool:
        """Whether many rows are not in the index, or the table has many small fragments."""
        name = self._index_name()
        if name is None:
            return True
        unindexed = self.table.latest().stats.index_stats(name)["num_unindexed_rows"]
        return unindexed > MOST_UNINDEXED or len(self.table.small_fragments()) > MANY_FRAGMENTS

    def care(self) -> None:
        """Build the index or add new rows to it, merge fragments, and remove old versions.

        Raises InputError where Lance would hang, LakeError if the table cannot be written.
        """
        from lancedb.index import FTS

        refuse_one_thread()
        words = FTS(
            base_tokenizer="whitespace", lower_case=False, stem=False, remove_stop_words=False, ascii_folding=False,
            max_token_length=None,
        )

        def write() -> None:
            if self._index_name() is None:
                self.table.handle().create_index(self.grams, config=words, replace=True)
            else:
                self.table.handle().optimize(cleanup_older_than=KEPT)

        self.table.dataset()             # creates the table
        self.table.commit(write)
        release_memory()

    def match(self, grams: Sequence[str], limit: int) -> list[str]:
        """The texts of the songs that share most grams, rare ones counting more (BM25): at most `limit`, best first.

        Raises LakeError if the index is missing or damaged.
        """
        from lance.query import MatchQuery

        if not grams:
            return []
        try:
            found = self.table.latest().to_table(
                [TEXT, "_score"], full_text_query=MatchQuery(" ".join(grams), self.grams), limit=limit
            )
            return list(found[TEXT].to_pylist())
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).split(", /")[0]
            raise LakeError(f"table {NAME!r}: cannot be searched ({reason}). Delete {NAME}.lance, it is made again") from error

    def _index_name(self) -> str | None:
        indices = self.table.latest().describe_indices() if self.version else ()
        return next((index.name for index in indices if self.grams in index.field_names), None)


def refuse_one_thread() -> None:
    """Raise InputError where Lance would wait for ever: it writes text indexes with two threads or more."""
    if os.environ.get("LANCE_IO_THREADS") == "1":
        raise InputError("LANCE_IO_THREADS=1: Lance cannot build a text index with one thread. Unset it, or set 2 or more")
