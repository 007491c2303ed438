"""The order of clips in an epoch, its batches, and dropout masks: equal for every fit of a seed.

Batches are of clips, or of whole tracks with all their clips.  Tracks of different seeds can have different numbers of clips,
so shorter batches are padded with -1; padding has no weight in the loss (`present` in `probes.losses`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tonelake.probes.heads import Shape

Bounds = list[tuple[int, int]]


@dataclass(frozen=True)
class Order:
    """Rows of the training clips in the order of one epoch."""

    rows: np.ndarray                     # (seed, position) int, -1 for padding
    bounds: Bounds                       # first position and end of each batch

    def clips(self, batch: int) -> np.ndarray:
        """Return (seed,) how many clips a batch has without padding."""
        start, stop = self.bounds[batch]
        return (self.rows[:, start:stop] >= 0).sum(axis=1)

    @property
    def padded(self) -> bool:
        return bool((self.rows < 0).any())


def epoch_order(seeds: Sequence[int], fold: int, epoch: int, count: int, batch: int, tracks: np.ndarray | None) -> Order:
    """Return a random order of `count` clips for each seed, in batches of `batch` clips or, given the (clip,) track of each,
    of `batch` tracks."""
    generators = [np.random.default_rng([seed, fold, epoch]) for seed in seeds]
    if tracks is None:
        rows = np.stack([rng.permutation(count) for rng in generators])
        return Order(rows, [(start, min(start + batch, count)) for start in range(0, count, batch)])
    _, unit = np.unique(tracks, return_inverse=True)
    members = np.split(np.argsort(unit, kind="stable"), np.cumsum(np.bincount(unit))[:-1])
    mixed = [rng.permutation(len(members)) for rng in generators]
    bounds, parts, position = Bounds(), [], 0
    for start in range(0, len(members), batch):
        batches = [np.concatenate([members[track] for track in own[start : start + batch]]) for own in mixed]
        longest = max(map(len, batches))
        parts.append(np.stack([np.pad(own, (0, longest - len(own)), constant_values=-1) for own in batches]))
        bounds.append((position, position + longest))
        position += longest
    return Order(np.concatenate(parts, axis=1), bounds)


class DropoutMasks:
    """Dropout masks of the hidden layer, equal for every fit of a seed."""

    def __init__(self, share: float, shape: Shape, seeds: Sequence[int], fold: int, epoch: int, seed: torch.Tensor) -> None:
        self.share = share if shape.kind == "mlp" else 0.0
        self.hidden, self.seed = shape.hidden, seed
        self.generators = [torch.Generator().manual_seed((s * 1_000_003 + fold) * 100_003 + epoch) for s in seeds]

    def __call__(self, clips: np.ndarray) -> torch.Tensor | None:
        """Return (group, 1, hidden, clip) masks for (seed,) numbers of clips; padding is masked."""
        if not self.share:
            return None
        longest = int(clips.max())
        drawn = torch.zeros(len(self.generators), longest, self.hidden)
        for own, generator, count in zip(drawn, self.generators, clips.tolist(), strict=True):
            torch.rand(count, self.hidden, generator=generator, out=own[:count])
        return ((drawn >= self.share).float() / (1 - self.share)).transpose(1, 2).to(self.seed.device)[self.seed][:, None]
