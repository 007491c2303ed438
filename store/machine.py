"""Processors and memory that this process may use: a container or a batch job often grants only a part of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

# Linux's control groups.  Not read by joblib, which takes 0.3 s to import and considers the outermost group only.
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
CPU_INFO = Path("/proc/cpuinfo")


@lru_cache(maxsize=1)
def cores() -> int:
    """Number of processors: those this process is bound to or, if fewer, those its control groups grant; at least 1."""
    return max(1, min([bound_cores(), *(round(granted) for granted in _granted_cores())]))


def bound_cores() -> int:
    """Number of processors this process is bound to, which OpenMP counts too."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:               # not on this platform
        return os.cpu_count() or 1


def share_cores() -> None:
    """Limit the threads of libraries to the granted processors, where control groups grant fewer than the libraries count.

    64 threads on the time of two processors would wait for one another.  An explicit OMP_NUM_THREADS is respected.
    """
    if cores() < bound_cores() and "OMP_NUM_THREADS" not in os.environ:
        from threadpoolctl import threadpool_limits

        os.environ["OMP_NUM_THREADS"] = str(cores())                 # for libraries loaded later, here or in child processes
        threadpool_limits(cores())


@lru_cache(maxsize=1)
def processor_name() -> str:
    """The model name of the processor, or its architecture where the system reports no name."""
    try:
        lines = CPU_INFO.read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def memory_bytes() -> int:
    """Physical memory or, if less, what the control groups grant; 8 GB if the system does not report it."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        physical = 8 << 30
    return min([physical, *_granted_bytes()])


def _granted_cores() -> Iterator[float]:
    for group in _groups("cpu"):
        quota = _numbers(group / "cpu.max") or _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:        # granted microseconds per period of microseconds
            yield quota[0] / quota[1]


def _granted_bytes() -> Iterator[int]:
    for group in _groups("memory"):
        yield from (_numbers(group / "memory.max") or _numbers(group / "memory.limit_in_bytes"))[:1]


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups of this process, from its own to the outermost, of cgroup version 2 or 1."""
    try:
        lines = OWN_GROUP.read_text().splitlines()
    except OSError:
        return                           # not on this platform
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = GROUPS / controller if controllers else GROUPS
        inner = [part for part in path.split("/") if part not in ("", "..")]     # dots occur inside a container
        for depth in range(len(inner), -1, -1):
            yield base.joinpath(*inner[:depth])


def _numbers(file: Path) -> list[int]:
    """The numbers in a file; empty if the file does not exist or says `max` (no limit)."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
