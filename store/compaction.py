"""Compaction: merge the fragments of many small writes, and remove old versions of tables.

Lance writes each change as a new version beside the old ones.  A version is retained for a while, since a reader may be using
it; older ones are removed together with the files that only they need.  If old versions take more than a share of the disk,
retention is shortened; a longer reader (embedding, training) falls back to lookups by key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tonelake.store.blobs import is_local
from tonelake.store.errors import LakeError
from tonelake.store.lake import Lake
from tonelake.store.table import Table

MANY_FRAGMENTS = 48                      # are read 5 % slower than one: 24,576 rows, warm
FEW_ROWS = 0.2                           # share of a table's rows in small fragments; merging these leaves few old bytes
VERSIONS_BETWEEN = 50                    # commits between two removals of old versions
KEPT_MINUTES = 60.0                      # longer than any query reads
SHORT_MINUTES = 2.0                      # few readers take longer, and those fall back to lookups by key
SPARE_SHARE = 0.3                        # old versions above this share of the live data are retained for SHORT_MINUTES only
TEMPORARY_HOURS = 24.0                   # a temporary file older than this will not be finished


SCHEMA = {
    "table": pl.String, "fragments": pl.Int64, "fragments_before": pl.Int64, "versions_removed": pl.Int64,
    "bytes_removed": pl.Int64,
}


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """Result of compacting one table."""

    table: str
    fragments: int
    fragments_before: int
    versions_removed: int
    bytes_removed: int


def tables_of(lake: Lake) -> Iterator[Table]:
    """Yield the existing tables of a lake, clips first."""
    tables = [lake.clips.table, lake.paths.table, lake.failures.table, lake.events.table]
    for space in lake.spaces.all():
        tables += [lake.vectors(space).table, lake.frames(space).table, lake.tokens(space).table, lake.gestures(space).table]
    yield from (table for table in tables if table.version)


def optimize(lake: Lake, *, keep_minutes: float = KEPT_MINUTES) -> pl.DataFrame:
    """Merge small fragments and remove old versions of every table.

    Returns one row per table: table, fragments, fragments_before, versions_removed, bytes_removed.

    Safe beside readers and writers: a version younger than `keep_minutes` is retained, and a concurrent commit takes
    precedence.  Raises LakeError if a table cannot be read or the disk is full; the data stay as they were.
    """
    tables = list(tables_of(lake))
    done = [trim(table, keep_minutes) for table in lake.progress(tables, len(tables), "optimizing")]
    return pl.DataFrame([vars(one) for one in done], schema=SCHEMA)


def trim(table: Table, keep_minutes: float = KEPT_MINUTES) -> Trimmed:
    """Merge a table's small fragments and remove its versions older than `keep_minutes`."""
    before = count_fragments(table)
    with compaction_errors(table):
        table.compact()
    removed = release_versions(table, keep_minutes)
    return Trimmed(
        table=table.name, fragments=count_fragments(table), fragments_before=before,
        versions_removed=int(removed.old_versions), bytes_removed=int(removed.bytes_removed),
    )


def release_versions(table: Table, keep_minutes: float = KEPT_MINUTES) -> Any:
    """Remove versions older than `keep_minutes`; return Lance's statistics (old_versions, bytes_removed)."""
    with compaction_errors(table):
        return table.dataset().cleanup_old_versions(
            older_than=timedelta(minutes=keep_minutes), error_if_tagged_old_versions=False
        )


@contextlib.contextmanager
def compaction_errors(table: Table) -> Iterator[None]:
    """Raise errors of Lance as LakeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = str(error).split(", /")[0]
        raise LakeError(f"table {table.name!r}: cannot be optimized ({reason}). Nothing was lost; try again") from error


def tidy(table: Table) -> None:
    """Call after a write: compact the table if it has many small fragments or many old versions."""
    if table.version and (len(table.small_fragments()) > MANY_FRAGMENTS or table.version % VERSIONS_BETWEEN == 0):
        trim_quietly(table)


def trim_quietly(table: Table, limit: int = MANY_FRAGMENTS) -> None:
    """Merge small fragments where it is worthwhile, and remove old versions.

    Raises nothing: the data are stored, and `tonelake optimize` reports the error.
    """
    if table.version:
        with contextlib.suppress(LakeError):
            if is_worth_merging(table.small_fragments(), table.count(), limit):
                with compaction_errors(table):
                    table.compact()
            release_versions_quietly(table)


def release_versions_quietly(table: Table) -> None:
    """Remove versions older than an hour, or than two minutes if they take much of the disk.  Raises nothing."""
    if table.version:
        with contextlib.suppress(LakeError):
            release_versions(table)
            if spare_share(table) > SPARE_SHARE:
                release_versions(table, SHORT_MINUTES)


def is_worth_merging(fragments: Sequence[int], rows: int, limit: int = MANY_FRAGMENTS) -> bool:
    """Whether small fragments (given by their numbers of rows) of a table of `rows` rows should be merged now.

    Merging writes their rows a second time, and the first copies stay until their version is removed: after the last commit of
    a run perhaps for months.  So fragments that hold much of the table are merged only when there are more than `limit`.

    >>> is_worth_merging([512] * 12, rows=6_144), is_worth_merging([512] * 12, rows=100_000), is_worth_merging([9] * 49, 441)
    (False, True, True)
    """
    return len(fragments) > limit or (len(fragments) > 1 and sum(fragments) <= FEW_ROWS * rows)


def spare_share(table: Table) -> float:
    """Disk space of a table beyond its newest version, as a share of that; 0 on an object store."""
    dataset = table.dataset()
    if not is_local(dataset.uri):
        return 0.0
    home = Path(dataset.uri)
    paths = [home / "data" / file.path for fragment in dataset.get_fragments() for file in fragment.data_files()]
    try:
        live = sum(path.stat().st_size for path in paths)
        total = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    except OSError:                      # another process removed a file in the meantime
        return 0.0
    return total / live - 1 if live else 0.0


def count_fragments(table: Table) -> int:
    """Number of fragments in the newest version of a table."""
    return len(table.dataset().get_fragments())


def temporary_files(lake: Lake) -> list[Path]:
    """Unfinished files of writers that died: `.NAME.PID-….tmp`, older than a day.  Empty on object stores."""
    import time

    if not is_local(lake.uri):
        return []
    found = []
    for path in Path(lake.uri).rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > TEMPORARY_HOURS * 3600:
                found.append(path)
    return sorted(found)
