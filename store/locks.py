"""Locks between processes of this machine, on files that are others' and are not written to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Let no other process in that asks with the same file; where the system knows no locks, all."""
    try:
        import fcntl
    except ImportError:                  # not on Windows
        yield
        return
    with file.open("rb") as opened:
        with suppress(OSError):          # of network disks that know no locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
