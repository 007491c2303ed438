"""Find processes that a test started."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def descendants(pid: int | None = None) -> list[int]:
    """Ids of a process (default: this one), of the processes that it started, and so on."""
    pid = pid or os.getpid()
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):          # the process may have ended meanwhile
            found += [deeper for child in children.read_text().split() for deeper in descendants(int(child))]
    return found


def running(words: str) -> list[int]:
    """Ids of processes started by this one, directly or not, that have `words` in their command line."""
    found = []
    for pid in descendants():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if words in command and pid != os.getpid():
            found.append(pid)
    return found
