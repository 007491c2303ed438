"""Answers that are computed once: requests for an answer that is being computed wait for it, later ones find it.

An error is raised to all who wait for it, and not kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Once:
    """A cache of at most `kept` answers by key; those used least recently are dropped."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """Return the answer of a key, computed by `make` unless it is known or being computed."""
        with self._lock:
            future = self._answers.get(key)
            if future is None:
                future, mine = Future[Any](), True
                self._answers[key] = future
                while len(self._answers) > self._kept:
                    self._answers.popitem(last=False)
            else:
                mine = False
                self._answers.move_to_end(key)
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._answers.get(key) is future:
                        del self._answers[key]
                future.set_exception(error)
                raise
        return future.result()

    def clear(self) -> None:
        """Drop all answers; those being computed still reach the requests that wait for them."""
        with self._lock:
            self._answers.clear()
