"""Threads that compute alone: each runs torch's functions on one thread of its own.

Several clips on a thread each need no waiting between threads inside a function: thousands of parallel regions a window, at
each of which one thread that the system has put aside for another program holds up the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def single_threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of `count` threads, in each of which torch uses one thread; elsewhere torch keeps its number of threads."""
    import torch

    before = torch.get_num_threads()
    with ThreadPoolExecutor(count, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True)
            torch.set_num_threads(before)            # threads that start later take the last number that was set anywhere
