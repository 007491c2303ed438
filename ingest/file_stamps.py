"""Remember size and times of files that were read: a file whose stamp is unchanged has the same bytes and is not read again.

A stamp is the size, the time of the last write (mtime) and of the last change (ctime).  A program can set mtime back; only
the system sets ctime.  A file that changed within the last seconds is not trusted yet, because file systems store coarse times.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from tonelake.ingest.sources import to_path
from tonelake.store import Lake, LakeError

FOLDER, FILE = "sources", "looks.parquet"                    # the name in lakes that exist
COARSE_NS = 3_000_000_000                # FAT stores times in steps of two seconds
STAMP_SCHEMA = {"source": pl.String, "size": pl.Int64, "written_ns": pl.Int64, "changed_ns": pl.Int64}
SCHEMA = STAMP_SCHEMA | {"digest": pl.String}

Stamp = tuple[int, int, int]             # size in bytes, mtime and ctime in nanoseconds


def stamp_of(source: str) -> Stamp | None:
    """The current stamp of a file; None for a chorale or a file that does not exist."""
    if source.startswith("chorale:"):
        return None
    try:
        stat = to_path(source).stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class FileStamps:
    """Stamps and digests of the files that a lake has read.  Derived: if they are lost, every file is read once more."""

    def __init__(self, lake: Lake) -> None:
        self._files = lake.files(FOLDER)
        self._new: dict[str, tuple[Stamp, str]] = {}

    def unchanged(self, sources: Iterable[str]) -> dict[str, str]:
        """Digests of those sources whose stamp is the same as when they were read."""
        stored = self._stored()
        if stored.is_empty():
            return {}
        stamps = ((source, stamp_of(source)) for source in sources)
        now = pl.DataFrame([(source, *stamp) for source, stamp in stamps if stamp], schema=STAMP_SCHEMA, orient="row")
        return dict(now.join(stored, on=list(STAMP_SCHEMA)).select("source", "digest").iter_rows())

    def note(self, source: str, stamp: Stamp | None, digest: str) -> None:
        """Keep the digest of a file; `stamp`: from before it was read."""
        if stamp is not None and max(stamp[1:]) < time.time_ns() - COARSE_NS:
            self._new[source] = stamp, digest

    def save(self) -> None:
        """Merge the noted stamps into the stored ones.  If they cannot be written, files are read once more."""
        if not self._new:
            return
        new = pl.DataFrame(
            [(source, *stamp, digest) for source, (stamp, digest) in self._new.items()], schema=SCHEMA, orient="row"
        )
        self._put(pl.concat([self._stored().join(new, on="source", how="anti"), new]))

    def forget(self, sources: Sequence[str]) -> None:
        """Delete stamps of files whose bytes changed although their stamp did not: a failing disk."""
        stored = self._stored()
        kept = stored.filter(~pl.col("source").is_in(list(sources)))
        if len(kept) < len(stored):
            self._put(kept)

    def _put(self, table: pl.DataFrame) -> None:
        def write(path: Path) -> None:
            table.write_parquet(path)

        with contextlib.suppress(LakeError, OSError):
            self._files.put(FILE, write)

    def _stored(self) -> pl.DataFrame:
        try:
            with self._files.fetched(FILE) as path:
                table = pl.DataFrame(schema=SCHEMA) if path is None else pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError):
            table = pl.DataFrame()       # damaged
        return table if table.schema == SCHEMA else pl.DataFrame(schema=SCHEMA)
