"""What this process may use of the machine: a container or a batch job often grants a part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

# Linux's control groups.  Read here rather than by joblib, which takes 0.3 s to import and looks at the outermost group alone.
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@lru_cache(maxsize=1)
def cores() -> int:
    """Processors: those this process is bound to, or as many as its control groups grant the time of, at least one."""
    return max(1, min([bound_cores(), *(round(granted) for granted in _granted_cores())]))


def bound_cores() -> int:
    """Processors this process is bound to, which is what OpenMP counts too."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:               # not on this platform
        return os.cpu_count() or 1


def share_cores() -> None:
    """Let no library start more threads than its share of time feeds, where control groups grant less than the processors
    that it counts: 64 threads on the time of two wait for one another.  Who set OMP_NUM_THREADS has decided."""
    if cores() < bound_cores() and "OMP_NUM_THREADS" not in os.environ:
        from threadpoolctl import threadpool_limits

        os.environ["OMP_NUM_THREADS"] = str(cores())                 # for those yet to be loaded, here or by our processes
        threadpool_limits(cores())


@lru_cache(maxsize=1)
def memory_bytes() -> int:
    """Physical memory, or what the control groups grant of it; 8 GB where the machine does not say."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        physical = 8 << 30
    return min([physical, *_granted_bytes()])


def _granted_cores() -> Iterator[float]:
    for group in _groups("cpu"):
        quota = _numbers(group / "cpu.max") or _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:        # microseconds of a processor, in so many
            yield quota[0] / quota[1]


def _granted_bytes() -> Iterator[int]:
    for group in _groups("memory"):
        yield from (_numbers(group / "memory.max") or _numbers(group / "memory.limit_in_bytes"))[:1]


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups this process is in, from its own to the outermost, in version 2 or 1 of them."""
    try:
        lines = OWN_GROUP.read_text().splitlines()
    except OSError:
        return                           # not on this platform
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = GROUPS / controller if controllers else GROUPS
        inner = [part for part in path.split("/") if part not in ("", "..")]     # dots: seen from within a container
        for depth in range(len(inner), -1, -1):
            yield base.joinpath(*inner[:depth])


def _numbers(file: Path) -> list[int]:
    """The numbers of a file; none where there is no such file, or no limit (`max`)."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
