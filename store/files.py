"""The table of files: one row a path that was ingested, with its recording, its stamp and its tags as read.

A path whose stamp (size and times) is unchanged has the same bytes and is not read again.  The state of every recording follows
from this table: live if a present file has it, missing if only files have it that are gone, else superseded.

A chorale has a row too: its source is `chorale:NAME`, it has no stamp, and it is present unless its soundfont is gone.  So has
a song that only a music server has: its source is `subsonic:SERVER/ID`, and it is present while the server lists it.

`served` links a file to the songs of music servers: one text `"SERVER ID"` for each server that has it, where SERVER is the
server's address without a slash at its end, and ID is the server's own id, which may contain anything.  Older lakes
lack the column; it reads as null, and the first write adds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from tonelake.store.table import Table
from tonelake.store.table_reading import IDS_PER_FILTER, chunks, in_list, to_frame

FILE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),         # as in clips: a path, a file: URI, chorale:… or subsonic:…
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
        pa.field("served", pa.list_(pa.string())),           # "SERVER ID" for each music server that has it
    ]
)
SERVED = "served"                        # the only column that was added after tables of files were first made
STAMP = ("size", "mtime_ns", "ctime_ns")
FILE_TAGS = ("title", "artists", "album", "album_artist", "track_number", "year", "genre")


class Files:
    """The files of a lake, present and missing ones."""

    def __init__(self, connection: Any) -> None:
        self.table = Table(connection, "files", FILE_SCHEMA)
        self._served: tuple[int, pl.DataFrame] | None = None         # by version of the table

    def count(self, where: str | None = None) -> int:
        return self.table.count(where)

    def read(self, columns: Sequence[str] | None = None, *, where: str | None = None) -> pl.DataFrame:
        """Files as a data frame; `where` is SQL over its columns."""
        names = list(columns) if columns is not None else FILE_SCHEMA.names
        stored = [name for name in names if name != SERVED or self.has_served]
        found = to_frame(self.table.read(stored, where=where))
        return found.with_columns(pl.lit(None, pl.List(pl.String)).alias(SERVED)).select(names) if stored != names else found

    @property
    def has_served(self) -> bool:
        """Whether the table has the column `served`; False for a lake that an older release made."""
        return SERVED in self.table.schema.names

    def put(self, rows: pl.DataFrame) -> None:
        """Store rows with all columns; a row of a known source replaces the stored one."""
        if len(rows):
            if not self.has_served:
                self.table.add_columns([FILE_SCHEMA.field(SERVED)])
            self.table.upsert(rows.select(FILE_SCHEMA.names).to_arrow())

    def served(self, server: str | None = None) -> pl.DataFrame:
        """Songs of music servers that files of the lake are: source, server and id, sorted by server and source.

        `server`: the address of one; None: of all.  Files that are missing are included.
        """
        version = self.table.version
        if self._served is None or self._served[0] != version:
            self._served = (version, self._read_served())
        found = self._served[1]
        return found if server is None else found.filter(pl.col("server") == server)

    def _read_served(self) -> pl.DataFrame:
        if not self.has_served:
            return pl.DataFrame(schema={"source": pl.String, "server": pl.String, "id": pl.String})
        rows = self.read(["source", SERVED], where=f"{SERVED} IS NOT NULL").explode(SERVED).drop_nulls(SERVED)
        parts = pl.col(SERVED).str.splitn(" ", 2).struct
        return rows.select(
            "source", server=parts.field("field_0"), id=parts.field("field_1"),
        ).drop_nulls().sort("server", "source", "id")

    def set_served(self, server: str, ids: Mapping[str, str]) -> int:
        """Store the id of each source on one server, remove ids that sources had on it before; returns how many rows changed.

        Sources that the table lacks are left out.
        """
        before = dict(self.served(server).select("source", "id").iter_rows())
        due = sorted(source for source in before.keys() | ids.keys() if before.get(source) != ids.get(source))
        changed = 0
        for part in chunks(due, IDS_PER_FILTER):
            rows = self.read(where=in_list("source", part))
            own = f"{server} "
            values = [
                sorted([one for one in row[SERVED] or () if not one.startswith(own)]
                       + ([own + ids[row["source"]]] if row["source"] in ids else [])) or None
                for row in rows.select("source", SERVED).iter_rows(named=True)
            ]
            self.put(rows.with_columns(pl.Series(SERVED, values, pl.List(pl.String))))
            changed += len(rows)
        return changed

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
