"""Train the fits of a part in blocks whose weights, moments and gradients stay in the processor's cache.

A step of Adam reads and writes every weight, its moments and its gradient.  With 430 classes one fit has 330,000 weights: 18
fits at once exceed the cache, and the optimizer waits for memory longer than the products take.  Fits do not depend on each
other (`probes.grid`), so blocks change the order of the work, not the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tonelake.probes.config import Setting
from tonelake.probes.grid import GridData, GridResults, Schedule, train
from tonelake.probes.heads import Shape
from tonelake.probes.losses import Loss
from tonelake.probes.monitors import Monitor

FIGURES = ("score", "loss", "epoch", "epochs", "train_loss")


def train_in_blocks(
    data: GridData, shape: Shape, loss: Loss, settings: Sequence[Setting], seeds: Sequence[int], fold: int, schedule: Schedule,
    monitor: Monitor | None, most: float,
) -> GridResults:
    """Train every (spec, seed, setting) by `train`, at most `most` parameters at once, but at least a fit of every spec."""
    rows = []
    for seed_block, setting_block in blocks(len(seeds), len(settings), data.specs * shape.parameters(), most):
        own = train(data, shape, loss, settings[setting_block], seeds[seed_block], fold, schedule, monitor)
        if seed_block.stop - seed_block.start == len(seeds) and setting_block.stop - setting_block.start == len(settings):
            return own
        if setting_block.start == 0:
            rows.append([own])
        else:
            rows[-1].append(own)
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
    longest = max(part.history.shape[3] for part in parts)
    histories = []
    for part in parts:
        missing = longest - part.history.shape[3]
        histories.append(np.pad(part.history, [(0, 0)] * 3 + [(0, missing), (0, 0)], constant_values=np.nan))
    figures = {name: np.concatenate([getattr(part, name) for part in parts], axis=axis) for name in FIGURES}
    states = {name: torch.cat([part.states[name] for part in parts], dim=axis) for name in parts[0].states}
    return GridResults(states=states, history=np.concatenate(histories, axis=axis), **figures)
