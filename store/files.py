"""The table of files: one row a path that was ingested, with its recording, its stamp and its tags as read.

A path whose stamp (size and times) is unchanged has the same bytes and is not read again.  The state of every recording follows
from this table: live if a present file has it, missing if only files have it that are gone, else superseded.

A chorale has a row too: its source is `chorale:NAME`, it has no stamp, and it is present unless its soundfont is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from tonelake.store.table import IDS_PER_FILTER, Table, chunks, in_list, to_frame

FILE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),         # as in clips: a path, a file: URI, or chorale:…
        pa.field("recording", pa.string()),      # identity of its audio; null if that is not known yet
        pa.field("digest", pa.string()),         # blake2b of its bytes
        pa.field("size", pa.int64()),            # bytes; with the two times the stamp, null if the file has to be read again
        pa.field("mtime_ns", pa.int64()),        # last write
        pa.field("ctime_ns", pa.int64()),        # last change: only the system sets it
        pa.field("cuts", pa.list_(pa.string())),             # rules by which all its clips were stored
        pa.field("title", pa.string()),          # tags as read
        pa.field("artists", pa.list_(pa.string())),
        pa.field("album", pa.string()),
        pa.field("album_artist", pa.string()),
        pa.field("track_number", pa.int64()),
        pa.field("year", pa.int64()),
        pa.field("genre", pa.string()),
        pa.field("name", pa.string()),           # its path below the ingested folder, from which the name of its track is made
        pa.field("seen", pa.timestamp("us", tz="UTC")),      # when its content was last read
        pa.field("missing_since", pa.timestamp("us", tz="UTC")),         # null while it is present
    ]
)
STAMP = ("size", "mtime_ns", "ctime_ns")
FILE_TAGS = ("title", "artists", "album", "album_artist", "track_number", "year", "genre")


class Files:
    """The files of a lake, present and missing ones."""

    def __init__(self, connection: Any) -> None:
        self.table = Table(connection, "files", FILE_SCHEMA)

    def count(self, where: str | None = None) -> int:
        return self.table.count(where)

    def read(self, columns: Sequence[str] | None = None, *, where: str | None = None) -> pl.DataFrame:
        """Files as a data frame; `where` is SQL over its columns."""
        return to_frame(self.table.read(columns, where=where))

    def put(self, rows: pl.DataFrame) -> None:
        """Store rows with all columns; a row of a known source replaces the stored one."""
        if len(rows):
            self.table.upsert(rows.select(FILE_SCHEMA.names).to_arrow())

    def remove(self, sources: Sequence[str]) -> None:
        """Delete the rows of these sources."""
        for part in chunks(list(sources), IDS_PER_FILTER):
            self.table.delete(in_list("source", part))

    def forget_stamps(self, sources: Sequence[str]) -> None:
        """Have these files read again by the next ingest, although their stamps are unchanged: a failing disk."""
        rows = self.read(where=in_list("source", sources)) if sources else self.read(where="false")
        self.put(rows.with_columns(pl.lit(None, pl.Int64).alias(name) for name in STAMP))


def file_rows(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Rows of the table from dictionaries; a missing value is null."""
    empty = to_frame(FILE_SCHEMA.empty_table())
    names = FILE_SCHEMA.names
    return pl.DataFrame([{name: row.get(name) for name in names} for row in rows], schema=empty.schema)
