"""Stamps of files: a file whose stamp is unchanged since it was read has the same bytes and is not read again.

A stamp is the size, the time of the last write (mtime) and of the last change (ctime).  A program can set mtime back; only
the system sets ctime.  A file that changed within the last seconds is not trusted yet, because file systems store coarse times.
Stamps are stored in the lake's table of files (`store.files`).  The stamp of a song of a music server is made from what its
server says about it (`subsonic.sync`).
"""

from __future__ import annotations

import time

from tonelake.ingest.chorale_sources import is_chorale, soundfont_of
from tonelake.ingest.sources import is_file_source, to_path

COARSE_NS = 3_000_000_000                # FAT stores times in steps of two seconds

Stamp = tuple[int, int, int]             # size in bytes, mtime and ctime in nanoseconds


def stamp_of(source: str) -> Stamp | None:
    """The current stamp of a file; None for a source that names no file, and for a file that cannot be examined."""
    if not is_file_source(source):
        return None
    try:
        stat = to_path(source).stat()
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def is_trusted(stamp: Stamp | None) -> bool:
    """Whether a stamp is old enough that a later change of the file would change it."""
    return stamp is not None and max(stamp[1:]) < time.time_ns() - COARSE_NS


def is_gone(source: str) -> bool:
    """Whether the file does not exist; False if that cannot be decided, as for a folder that may not be read.

    A chorale is gone if its soundfont is; only its server knows whether a song is gone.
    """
    try:
        path = soundfont_of(source) if is_chorale(source) else to_path(source) if is_file_source(source) else None
        if path is not None:             # None: the built-in organ, or a server
            path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False
