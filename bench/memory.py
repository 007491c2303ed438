"""Peak memory of a process and its child processes, from /proc (Linux).

`getrusage` is unsuitable: a new process inherits the peak that its parent had when it forked.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class PeakMemory:
    """Watch the child processes; `mb` is this process's peak plus the largest sum of theirs.

    Peaks are read, so sampling misses only memory that a child allocates just before it ends; a sample of a hundred threads
    takes a millisecond or two.
    """

    def __init__(self, every_s: float = 0.25) -> None:
        self._children = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(every_s,), daemon=True)
        self._thread.start()

    def _watch(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            own = command_of(os.getpid())
            # Between fork and exec a child has its parent's memory and must not be counted.
            others = [pid for pid in children_of(os.getpid()) if command_of(pid) not in (own, b"")]
            self._children = max(self._children, sum(peak_mb(pid) for pid in others))

    @property
    def mb(self) -> float:
        return peak_mb(os.getpid()) + self._children


def peak_mb(pid: int) -> float:
    """Return the peak resident memory of a process in MB; 0 if it has ended."""
    return status_mb(pid, "VmHWM:")


def resident_mb(pid: int) -> float:
    """Return the current resident memory of a process in MB; 0 if it has ended."""
    return status_mb(pid, "VmRSS:")


def status_mb(pid: int, name: str) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def command_of(pid: int) -> bytes:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children_of(pid: int) -> list[int]:
    """Return all descendants of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return [*found, *(deeper for child in found for deeper in children_of(child))]
