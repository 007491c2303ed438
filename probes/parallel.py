"""Parts of a grid trained beside one another, each on its share of the cores.

A part's products are small: shared out among cores, they wait for one another longer than they compute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
Check = Callable[[], None]


class Halted(Exception):
    """The others have ended, so this one need not go on."""


def beside_one_another(
    items: Sequence[Item], work: Callable[[Item, Check], Result], workers: int
) -> Generator[tuple[Item, Result], None, None]:
    """(item, `work` of it) as they are done, `workers` at a time; whoever works calls what it is given now and then.

    While this runs, torch's threads are shared out among the workers.  Left early, it ends within a step of each.
    """
    if workers <= 1:
        yield from ((item, work(item, lambda: None)) for item in items)
        return
    ended, threads = threading.Event(), torch.get_num_threads()

    def check() -> None:
        if ended.is_set():
            raise Halted

    pool = ThreadPoolExecutor(workers, "fit", torch.set_num_threads, (max(threads // workers, 1),))
    left = iter(items)
    running: dict[Future[Result], Item] = {}
    try:
        while True:
            # No more than are worked on: what is done and waits to be taken is memory.
            running |= {pool.submit(work, item, check): item for item in islice(left, workers - len(running))}
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
