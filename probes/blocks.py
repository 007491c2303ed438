"""Train the fits of a part in blocks whose weights, moments and gradients stay in the processor's cache.

A step of Adam reads and writes every weight, its moments and its gradient.  With 430 classes one fit has 330,000 weights: 18
fits at once exceed the cache, and the optimizer waits for memory longer than the products take.  Fits do not depend on each
other (`probes.grid`), so blocks change the order of the work, not the results.

On a CPU, blocks are trained side by side, each on one thread.  A step has thirty functions of 5 to 300 µs, and threads that
share each of them wait for each other at its end: two cores take as long as one, and many times as long where another program
keeps a core busy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from threading import Event

import numpy as np
import torch

from tonelake.embed import single_threads
from tonelake.probes.config import Setting
from tonelake.probes.grid import GridData, GridResults, Schedule, train
from tonelake.probes.heads import Shape
from tonelake.probes.losses import Loss
from tonelake.probes.monitors import Monitor

FIGURES = ("score", "loss", "epoch", "epochs", "train_loss")
FEWEST_PARAMETERS = 200_000              # of a block beside others: steps of a smaller one are mostly Python, which takes turns


def train_in_blocks(
    data: GridData, shape: Shape, loss: Loss, settings: Sequence[Setting], seeds: Sequence[int], fold: int, schedule: Schedule,
    monitor: Monitor | None, most: float, workers: int = 1,
) -> GridResults:
    """Train every (spec, seed, setting) by `train`, at most `most` parameters at once, but at least a fit of every spec.

    `workers`: the most blocks that are trained side by side, each on a thread of its own, on a CPU.
    """
    parameters, fits = data.specs * shape.parameters(), len(seeds) * len(settings)
    workers = min(workers, fits, parameters * fits // FEWEST_PARAMETERS)
    if workers > 1:
        most = min(most, -(-fits // workers) * parameters)       # no worker without a block
    parts = list(blocks(len(seeds), len(settings), parameters, most))
    stopped = Event()

    def fit(part: tuple[slice, slice]) -> GridResults:
        return train(data, shape, loss, settings[part[1]], seeds[part[0]], fold, schedule, monitor, stopped)

    if workers > 1:
        with single_threads(workers, "probe") as pool:
            futures = [pool.submit(fit, part) for part in parts]
            try:
                for done in as_completed(futures):
                    done.result()
            finally:
                stopped.set()            # after an error or Ctrl-C; the pool waits for every block
            found = [future.result() for future in futures]
    else:
        found = list(map(fit, parts))
    columns = sum(seed_block.start == 0 for seed_block, _ in parts)
    rows = [found[start : start + columns] for start in range(0, len(found), columns)]
    return joined([joined(row, axis=2) for row in rows], axis=1)


def blocks(seeds: int, settings: int, parameters: int, most: float) -> Iterator[tuple[slice, slice]]:
    """Yield the seeds and settings of each block.  Fits of one setting stop at similar epochs, so all seeds of a setting are
    in one block if they fit.

    >>> [(a.stop - a.start, b.stop - b.start) for a, b in blocks(3, 5, parameters=10, most=70)]
    [(3, 2), (3, 2), (3, 1)]
    >>> [(a.stop - a.start, b.stop - b.start) for a, b in blocks(3, 2, parameters=10, most=29)]
    [(2, 1), (2, 1), (1, 1), (1, 1)]
    """
    fits = int(min(max(most / parameters, 1), seeds * settings))
    by_seed, by_setting = min(fits, seeds), min(max(fits // seeds, 1), settings)
    for seed in range(0, seeds, by_seed):
        for setting in range(0, settings, by_setting):
            yield slice(seed, min(seed + by_seed, seeds)), slice(setting, min(setting + by_setting, settings))


def joined(parts: Sequence[GridResults], axis: int) -> GridResults:
    """Concatenate results along the axis of seeds, 1, or of settings, 2.  Shorter histories end in NaN."""
    if len(parts) == 1:
        return parts[0]
    longest = max(part.history.shape[3] for part in parts)
    histories = []
    for part in parts:
        missing = longest - part.history.shape[3]
        histories.append(np.pad(part.history, [(0, 0)] * 3 + [(0, missing), (0, 0)], constant_values=np.nan))
    figures = {name: np.concatenate([getattr(part, name) for part in parts], axis=axis) for name in FIGURES}
    states = {name: torch.cat([part.states[name] for part in parts], dim=axis) for name in parts[0].states}
    return GridResults(states=states, history=np.concatenate(histories, axis=axis), **figures)
