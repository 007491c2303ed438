"""What files looked like when their bytes were read: one that still looks so holds the same bytes, and is not read again.

A look is the size, the time of the last write and that of the last change.  A program may set the former time back, the
latter is the system's own.  A file that changed only seconds ago is not trusted yet: clocks of disks are coarse.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from tonelake.ingest.sources import to_path
from tonelake.store import Lake, LakeError

FOLDER, FILE = "sources", "looks.parquet"
COARSE_NS = 3_000_000_000                # FAT has two seconds
LOOK = {"source": pl.String, "size": pl.Int64, "written_ns": pl.Int64, "changed_ns": pl.Int64}
SCHEMA = LOOK | {"digest": pl.String}

Look = tuple[int, int, int]              # size in bytes, times of the last write and change in nanoseconds


def stamp_of(source: str) -> Look | None:
    """What a file looks like; None for what is no file, or not there."""
    if source.startswith("chorale:"):
        return None
    try:
        stat = to_path(source).stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class FileStamps:
    """Of the files that a lake has read.  Derived: lost, every file is read once more."""

    def __init__(self, lake: Lake) -> None:
        self._files = lake.files(FOLDER)
        self._new: dict[str, tuple[Look, str]] = {}

    def unchanged(self, sources: Iterable[str]) -> dict[str, str]:
        """The digests of those files that look as they did when they were read."""
        stored = self._stored()
        if stored.is_empty():
            return {}
        looks = ((source, stamp_of(source)) for source in sources)
        now = pl.DataFrame([(source, *look) for source, look in looks if look], schema=LOOK, orient="row")
        return dict(now.join(stored, on=list(LOOK)).select("source", "digest").iter_rows())

    def note(self, source: str, look: Look | None, digest: str) -> None:
        """Keep the digest of a file that looked so before it was read."""
        if look is not None and max(look[1:]) < time.time_ns() - COARSE_NS:
            self._new[source] = look, digest

    def save(self) -> None:
        """Beside what others have noted since.  Where it cannot be written, files are read once more, no worse."""
        if not self._new:
            return
        new = pl.DataFrame(
            [(source, *look, digest) for source, (look, digest) in self._new.items()], schema=SCHEMA, orient="row"
        )
        self._put(pl.concat([self._stored().join(new, on="source", how="anti"), new]))

    def forget(self, sources: Sequence[str]) -> None:
        """Files whose bytes are others though they look the same: a disk that fails."""
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
