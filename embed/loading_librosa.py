"""librosa, loaded so that what it compiles is compiled by one process at a time.

librosa has numba compile some of itself when it is first imported, half a minute of work that numba keeps on disk.  Where
two processes do that at once, files can be left there that do not fit each other, and from then on every process that
calls what they hold dies (numba issue 10128).  So whoever is first compiles all of that kind, and others wait.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

GENERALIZED = ("util.utils", "core.audio", "core.pitch")     # librosa's modules that are compiled so at their import


@cache
def load_librosa() -> Any:
    """The module librosa.  The first call on a machine takes half a minute."""
    import librosa

    with alone(Path(librosa.__file__)):
        for name in GENERALIZED:
            importlib.import_module(f"librosa.{name}")
    return librosa


@contextmanager
def alone(file: Path) -> Iterator[None]:
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
