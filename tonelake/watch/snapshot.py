"""The files of an ingest at one moment: equal snapshots mean that nothing changed, two that follow show what is being written.

    before, now = take_snapshot(listing), take_snapshot(listing)
    now.digest != before.digest          # something changed
    now.unlike(before)                   # paths of the files that did
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from tonelake.ingest import sources_below, to_source
from tonelake.store import Lake

Stamp = tuple[int, int, int]             # size in bytes, mtime and ctime in nanoseconds
FEWEST_LOST = 10                         # files
SHARE_LOST = 0.2                         # of the known files: an album is deleted in one go, not a fifth of a library


@dataclass(frozen=True)
class Snapshot:
    """Stamps of audio files, and of the files that list or label them."""

    files: dict[Path, Stamp | None]      # None: listed, but not there
    others: tuple[Stamp | None, ...] = ()

    @cached_property
    def digest(self) -> str:
        """A text that differs if a file appeared, vanished or changed."""
        found = hashlib.blake2b(repr(self.others).encode(), digest_size=16)
        for path, stamp in self.files.items():
            found.update(os.fsencode(path) + repr(stamp).encode() + b"\0")
        return found.hexdigest()

    @property
    def here(self) -> int:
        """Number of files that exist."""
        return sum(stamp is not None for stamp in self.files.values())

    def changed_since(self, time_ns: int) -> bool:
        """Whether a file changed after a time, by its own stamp."""
        stamps = (*self.files.values(), *self.others)
        return any(stamp is not None and max(stamp[1:]) > time_ns for stamp in stamps)

    def unlike(self, before: Snapshot) -> frozenset[Path]:
        """Paths of files that are new or that changed since another snapshot."""
        return frozenset(path for path, stamp in self.files.items() if before.files.get(path) != stamp)


def take_snapshot(listing: Iterable[Path], others: Sequence[Path] = ()) -> Snapshot:
    return Snapshot({path: stamp_of(path) for path in listing}, tuple(stamp_of(path) for path in others))


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None if it does not exist or cannot be examined."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def lost_files(lake: Lake, snapshot: Snapshot, root: Path | None) -> tuple[int, int]:
    """(lost, known): the number of files that are not there although the lake has them as present, and of all that it has.

    A file that was moved is not lost: a new one has its size and time, or the lake has a present copy of its recording.
    `root`: the folder that all files are below; None: the files of the snapshot are meant.
    """
    now = {to_source(path): stamp for path, stamp in snapshot.files.items()}
    here = {source for source, stamp in now.items() if stamp is not None}
    rows = lake.paths.read(["source", "recording", "size", "mtime_ns"], where="missing_since IS NULL")
    if root is None:
        known = rows.filter(pl.col("source").is_in(list(now)))
    else:
        known = rows.filter(pl.any_horizontal(
            pl.col("source").str.starts_with(f"{prefix.rstrip('/')}/") for prefix in sources_below(root)
        ))
    gone = known.filter(~pl.col("source").is_in(list(here)))
    if gone.is_empty():
        return 0, len(known)
    elsewhere = rows.join(gone, on="source", how="anti")["recording"].drop_nulls()
    gone = gone.filter(~pl.col("recording").is_in(elsewhere.implode()).fill_null(False))
    unknown = here - set(known["source"])
    free = Counter(stamp[:2] for source in unknown if (stamp := now[source]) is not None)
    lost = Counter(zip(gone["size"], gone["mtime_ns"], strict=True))
    return (lost - free).total(), len(known)


def is_alarming(lost: int, known: int) -> bool:
    """Whether so large a part of the files went at once that a drive is more likely to be away than files to be deleted.

    >>> is_alarming(9, 9), is_alarming(10, 50), is_alarming(11, 50)
    (False, False, True)
    """
    return lost >= FEWEST_LOST and lost > SHARE_LOST * known


