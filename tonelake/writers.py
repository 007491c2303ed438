"""One job at a time writes to a lake: jobs of the app and of `tonelake watch` exclude each other, and wait for other writers.

    with writing(lake):                  # InputError while another process of this machine writes to the lake
        lake.ingest_folder(...)

Several writers are safe (`store.table`); one at a time is a courtesy that saves their disks and processors.  A job holds a lock
in the cache folder, since a lake can be on an object store.  A command in a terminal holds none: it is noticed by its writes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tonelake.store import InputError, Lake, exclusive_lock, is_local, lock_of_module

OTHERS_S = 45.0                          # a command that embeds writes every 30 s
BUSY = "the lake: another process runs a job of it, an app or `tonelake watch`. Wait until it ends"


def lock_file(uri: str, name: str) -> Path:
    """The lock file of one kind of work on a lake; on this machine only."""
    return lock_of_module((Path(uri) if is_local(uri) else Path("/", uri.replace("://", "/"))) / name)


@contextmanager
def writing(lake: Lake, others_s: float = OTHERS_S) -> Iterator[None]:
    """Hold the lake's lock for a job.

    Raises InputError at once while another process or thread holds it, or if another process wrote to the lake within
    `others_s`, so that it may be in the middle of its work.
    """
    lock = lock_file(lake.uri, "jobs")
    started, ended = lock.with_suffix(".started"), lock.with_suffix(".ended")
    with exclusive_lock(lock, BUSY):
        with contextlib.suppress(OSError):
            if started.exists():         # its process was killed, and so does not write any more
                ended.touch()
        check_no_other_writer(lake, others_s)
        with contextlib.suppress(OSError):
            started.touch()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                ended.touch()
                started.unlink()


def seconds_since_foreign_write(lake: Lake) -> float | None:
    """The age of the newest write to the lake after the last job ended; None without one."""
    newest = max(write_times(lake), default=None)
    try:
        ended = lock_file(lake.uri, "jobs").with_suffix(".ended").stat().st_mtime
    except OSError:
        ended = 0.0
    return None if newest is None or newest <= ended else max(time.time() - newest, 0.0)


def write_times(lake: Lake) -> Iterator[float]:
    """Yield when clips, files and each space's vectors were last written, in seconds since the epoch."""
    for table in (lake.clips.table, lake.paths.table, *(lake.vectors(space).table for space in lake.spaces.all())):
        written = table.written_at()
        if written is not None:
            yield written


def check_no_other_writer(lake: Lake, others_s: float) -> None:
    """Raise InputError if another process wrote to the lake within `others_s`."""
    age_s = seconds_since_foreign_write(lake)
    if age_s is not None and age_s < others_s:
        raise InputError(
            f"the lake: another process wrote to it {age_s:.0f} s ago. Wait until it ends; if it has, try again in "
            f"{others_s - age_s:.0f} s"
        )
