"""Hold a lake at one state for many reads: what is looked up on disk to see whether it changed is then looked up once.

    hold = Hold()
    with hold.reading():                 # in any number of threads, at once or one after another
        lake.similar(clip)

Outside a hold every read finds the newest version of its table, which costs several looks at the disk for one search.  A
program that answers many questions a second takes the hold of `Holding.current`, which is a new one where the lake changed.
A write inside a hold ends it for what follows.  Old versions are kept for minutes (`store.compaction`), so a hold must not live
longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from tonelake.store.blobs import is_local

LONGEST_S = 0.5                          # times of folders are as coarse as the kernel's clock: a change can be missed by them
NESTED = ("indexes", "maps")             # folders with a folder for each space
LONGEST_AWAY_S = 2.0                     # on an object store, where each look is a request

Value = TypeVar("Value")

_current: ContextVar[Hold | None] = ContextVar("hold", default=None)


class Hold:
    """Values that were looked up since the hold began; shared by threads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within the block, lookups of this thread are answered from the hold."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def once(self, key: Hashable, look: Callable[[], Value]) -> Value:
        """The value of `key`, looked up the first time.  Errors are not kept."""
        try:
            return self._known[key]
        except KeyError:
            return self._known.setdefault(key, look())

    def forget(self) -> None:
        """Look everything up again."""
        self._known.clear()


@contextmanager
def writing() -> Iterator[None]:
    """Within the block this thread reads outside its hold, which looks everything up again afterwards."""
    hold = _current.get()
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
        if hold is not None:
            hold.forget()


def current_hold() -> Hold | None:
    """The hold that this thread reads in."""
    return _current.get()


def look_once(key: Hashable, look: Callable[[], Value]) -> Value:
    """`look()`, or what it returned before in the same hold."""
    hold = _current.get()
    return look() if hold is None else hold.once(key, look)


class Holding:
    """The hold for the questions of a program that runs for long.  Thread-safe."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._longest_s = LONGEST_S if is_local(uri) else LONGEST_AWAY_S
        self._last: tuple[Any, float, Hold] = (None, 0.0, Hold())

    def current(self) -> Hold:
        """The hold of the present state: the last one, unless the lake on this disk changed or the hold is too old."""
        stamp, begun, hold = self._last
        now, found = time.monotonic(), folder_times(self.uri) if is_local(self.uri) else ()
        if stamp != found or now - begun > self._longest_s:
            hold = Hold()
            self._last = (found, now, hold)
        return hold

    def renew(self) -> None:
        """Have the next question look everything up again."""
        self._last = (None, 0.0, Hold())


def folder_times(folder: str) -> tuple[tuple[str, int, int], ...]:
    """Return name, time and inode of a lake's folders of versions and small files, which every write on this disk changes."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            places = [entry.path]
            if entry.name.endswith(".lance"):
                places = [f"{entry.path}/_versions"]
            elif entry.name in NESTED:
                places += [str(path) for path in Path(entry.path).iterdir()]
            for place in places:
                with suppress(OSError):  # removed meanwhile
                    state = os.stat(place)  # noqa: PTH116  # a path object would double the cost
                    found.append((place, state.st_mtime_ns, state.st_ino))
    return tuple(found)
