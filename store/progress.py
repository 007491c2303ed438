"""How long work reports its progress: a callable that wraps an iterable, such as a progress bar.

`progress(items, total, label)` yields the same items.  Rooms call it; what it shows is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]        # items, number of items, what is done to them


def silent_progress(items: Iterable[Any], total: int, label: str) -> Iterable[Any]:
    """Show nothing.

    >>> list(silent_progress([1, 2], 2, "reading"))
    [1, 2]
    """
    return items
