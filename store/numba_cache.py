"""What libraries have numba compile, and keep on disk: by one process at a time, and somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tonelake.store.errors import TonelakeError


@contextmanager
def one_compiler(file: Path) -> Iterator[None]:
    """Let no other process in that asks with the same file, which is not written to; where the system knows no locks, all."""
    try:
        import fcntl
    except ImportError:                  # not on Windows
        yield
        return
    with file.open("rb") as opened:
        with suppress(OSError):          # of network disks that know no locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield


@contextmanager
def explain_unwritable_cache() -> Iterator[None]:
    """Raise TonelakeError with the remedy where numba finds no folder: a read-only installation of a user without a home."""
    try:
        yield
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        raise TonelakeError(
            "numba can keep what it compiles nowhere, neither beside the installed packages nor in a home folder: set "
            "NUMBA_CACHE_DIR to a folder that you alone can write to"
        ) from error
