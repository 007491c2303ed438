"""Keeping a lake small: fragments that many small writes leave are merged, versions that nobody reads any more go.

Lance writes each change as a new version beside the old ones.  A version is kept for a while, since a reader may be in the
middle of it; what is older goes, and with it the files that only it needs.  Where old versions take more than a share of the
disk, the while is shorter: whoever reads for longer (an embedding, a training) goes on by keys once its version has gone.
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

MANY_FRAGMENTS = 48                         # read 5 % slower than whole: 24,576 rows in so many, warm
FEW_ROWS = 0.2                           # of a table's rows in pieces, whose merging soon leaves little behind
VERSIONS_BETWEEN = 50                    # commits between two looks at old versions
KEPT_MINUTES = 60.0                      # no answer takes as long to read
SHORT_MINUTES = 2.0                      # few take as long as this, and what does goes on by keys
SPARE_SHARE = 0.3                        # of the live data, what old versions may take of the disk for the longer while
TEMPORARY_HOURS = 24.0                   # a file that was being written so long ago will not be finished


SCHEMA = {
    "table": pl.String, "fragments": pl.Int64, "fragments_before": pl.Int64, "versions_removed": pl.Int64,
    "bytes_removed": pl.Int64,
}


@dataclass(frozen=True)
class Trimmed:
    """What became of one table."""

    table: str
    fragments: int
    fragments_before: int
    versions_removed: int
    bytes_removed: int


def tables_of(lake: Lake) -> Iterator[Table]:
    """Every table of a lake that is there, clips first."""
    tables = [lake.clips.table, lake.failures.table]
    for space in lake.spaces.all():
        tables += [lake.vectors(space).table, lake.frames(space).table, lake.tokens(space).table]
    yield from (table for table in tables if table.version)


def optimize(lake: Lake, *, keep_minutes: float = KEPT_MINUTES) -> pl.DataFrame:
    """Merge small fragments and remove old versions of every table.

    Returns a row a table: table, fragments, fragments_before, versions_removed, bytes_removed.

    Harmless beside readers and writers: a version younger than `keep_minutes` stays, and a commit that comes between wins.
    Raises LakeError where a table cannot be read or the disk is full; what was there stays.
    """
    names = list(tables_of(lake))
    done = [trim(table, keep_minutes) for table in lake.progress(names, len(names), "optimizing")]
    return pl.DataFrame([vars(one) for one in done], schema=SCHEMA)


def trim(table: Table, keep_minutes: float = KEPT_MINUTES) -> Trimmed:
    before = fragments_of(table)
    with upkeep_of(table):
        table.compact()
    removed = release_versions(table, keep_minutes)
    return Trimmed(table.name, fragments_of(table), before, int(removed.old_versions), int(removed.bytes_removed))


def release_versions(table: Table, keep_minutes: float = KEPT_MINUTES) -> Any:
    """Remove versions older than this; Lance's count of them and their bytes."""
    with upkeep_of(table):
        return table.dataset().cleanup_old_versions(
            older_than=timedelta(minutes=keep_minutes), error_if_tagged_old_versions=False
        )


@contextlib.contextmanager
def upkeep_of(table: Table) -> Iterator[None]:
    """What goes wrong in it as a LakeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = str(error).split(", /")[0]
        raise LakeError(f"table {table.name!r} cannot be optimized ({reason}): nothing of it is lost; try again") from error


def tidy(table: Table) -> None:
    """After a write: see to what it left in pieces and to old versions, where there may be much of either."""
    if table.version and (len(table.pieces()) > MANY_FRAGMENTS or table.version % VERSIONS_BETWEEN == 0):
        trim_quietly(table)


def trim_quietly(table: Table, many: int = MANY_FRAGMENTS) -> None:
    """Merge pieces where that is worth it, and let go of old versions.  Never an error: what was written is stored, and
    `tonelake optimize` says what is wrong."""
    if table.version:
        with contextlib.suppress(LakeError):
            if is_worth_merging(table.pieces(), table.count(), many):
                with upkeep_of(table):
                    table.compact()
            release_versions_quietly(table)


def release_versions_quietly(table: Table) -> None:
    """Remove versions older than an hour, or than two minutes where they take much of the disk.  Never an error."""
    if table.version:
        with contextlib.suppress(LakeError):
            release_versions(table)
            if spare_share(table) > SPARE_SHARE:
                release_versions(table, SHORT_MINUTES)


def is_worth_merging(pieces: Sequence[int], rows: int, many: int = MANY_FRAGMENTS) -> bool:
    """Whether fragments of so many rows, of a table of `rows`, should be merged now.

    Merging writes their rows a second time, and the first copies stay until their version may go: after the last commit of a
    run perhaps for months.  So pieces that hold much of the table wait until they are many.

    >>> is_worth_merging([512] * 12, rows=6_144), is_worth_merging([512] * 12, rows=100_000), is_worth_merging([9] * 49, 441)
    (False, True, True)
    """
    return len(pieces) > many or (len(pieces) > 1 and sum(pieces) <= FEW_ROWS * rows)


def spare_share(table: Table) -> float:
    """What a table takes of the disk beyond its newest version, as a share of that; 0 on an object store."""
    dataset = table.dataset()
    if not is_local(dataset.uri):
        return 0.0
    home = Path(dataset.uri)
    paths = [home / "data" / file.path for fragment in dataset.get_fragments() for file in fragment.data_files()]
    try:
        live = sum(path.stat().st_size for path in paths)
        held = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    except OSError:                      # another writer let go of a file in between
        return 0.0
    return held / live - 1 if live else 0.0


def fragments_of(table: Table) -> int:
    return len(table.dataset().get_fragments())


def temporary_files(lake: Lake) -> list[Path]:
    """Files that a writer which died left half written: `.NAME.PID-….tmp`, older than a day.  None on object stores."""
    import time

    if not is_local(lake.uri):
        return []
    found = []
    for path in Path(lake.uri).rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > TEMPORARY_HOURS * 3600:
                found.append(path)
    return sorted(found)
