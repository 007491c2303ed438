"""How long work reports its progress: a callable that wraps an iterable, such as a progress bar.

`progress(items, total, label)` yields the same items.  Rooms call it; what it shows is the caller's choice.
A program that runs a command sets TONELAKE_PROGRESS=lines, and reads records of progress among the lines of standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

PROGRESS_VARIABLE = "TONELAKE_PROGRESS"
AS_LINES = "lines"                       # its value
BETWEEN_LINES_S = 0.25
MARK = '{"progress": '                   # the beginning of a record
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]        # items, number of items, what is done to them


def silent_progress(items: Iterable[Any], total: int, label: str) -> Iterable[Any]:
    """Show nothing.

    >>> list(silent_progress([1, 2], 2, "reading"))
    [1, 2]
    """
    return items


class ProgressRecord(NamedTuple):
    """How far a job is: `done` of `total` items, and what is done to them."""

    label: str
    done: int
    total: int


def wants_lines() -> bool:
    """Whether the environment asks for records of progress instead of a bar."""
    return os.environ.get(PROGRESS_VARIABLE) == AS_LINES


def progress_lines(items: Iterable[Any], total: int, label: str) -> Iterable[Any]:
    """Yield items, and write records of progress to standard error: the first, the last and four a second between them."""
    written_at = -BETWEEN_LINES_S
    for done, item in enumerate(items):
        if time.monotonic() - written_at >= BETWEEN_LINES_S:
            written_at = time.monotonic()
            write_record(label, done, total)
        yield item
    write_record(label, total, total)


def write_record(label: str, done: int, total: int) -> None:
    """Write one record as a line of JSON."""
    print(json.dumps({"progress": label, "done": done, "total": total}), file=sys.stderr, flush=True)


def read_record(line: str) -> ProgressRecord | None:
    """The record in a line of standard error; None if the line is text for people.

    >>> read_record('{"progress": "decoding", "done": 3, "total": 12}'), read_record("12 recordings: 12 clips new")
    (ProgressRecord(label='decoding', done=3, total=12), None)
    """
    if not line.startswith(MARK):
        return None
    try:
        found = json.loads(line)
        return ProgressRecord(str(found["progress"]), int(found["done"]), int(found["total"]))
    except (ValueError, KeyError, TypeError):
        return None
