"""One training run of many fits: every learning rate, weight decay, seed and layer of a fold at once.

Fits of one seed see the same clips in the same order whatever their layer, rate or decay, so what a fit comes to does not
depend on which others run beside it; each keeps the state of its best epoch and stops by itself.  Fits that have stopped
leave the products as soon as all fits of their setting, or of their layer and seed, have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tonelake.probes.config import Setting
from tonelake.probes.heads import Room, Shape, Tensors, forward, initial
from tonelake.probes.losses import Loss
from tonelake.probes.optimizers import Optimizer

EVALUATED_AT_ONCE = 32 << 20             # bytes of logits, or of vectors


@dataclass(frozen=True)
class Schedule:
    """How long and how a fit is trained."""

    optimizer: str = "adam"
    batch: int = 64
    epochs: int = 100
    patience: int = 10                   # epochs without a better state after which a fit stops; 0: none stops
    dropout: float = 0.0                 # of the hidden layer


class Sides:
    """Vectors and targets of what is learned from and what is stopped by, on a device, ready for the head.

    Shape: vectors (slot, clip, width) of one type, or (slot, clip, part, width) of weighed layers; targets (clip, …).
    """

    def __init__(
        self, train: torch.Tensor, train_targets: torch.Tensor, valid: torch.Tensor, valid_targets: torch.Tensor
    ) -> None:
        self.train, self.valid = train, valid
        self.train_targets, self.valid_targets = train_targets, valid_targets
        self.slots, self.device, self.dtype = train.shape[0], train.device, train.dtype

    def batches(
        self, orders: torch.Tensor, slot: torch.Tensor, seed: torch.Tensor, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Vectors (group, clip, …) and targets (group, clip, …) for `orders` (seed, clip) and each group's slot and seed."""
        flat = self.train.flatten(0, 1)
        for start in range(0, orders.shape[1], size):
            rows = orders[seed, start : start + size]                            # (group, clip)
            picked = flat.index_select(0, (rows + slot[:, None] * self.train.shape[1]).flatten())
            yield picked.view(*rows.shape, *self.train.shape[2:]), self.train_targets[rows]

    def valid_block(self, slot: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """(group, clip, …) what is stopped by, for each group's slot."""
        return self.valid[slot, start:stop]


@dataclass
class Fitted:
    """What became of each fit.  Shape: arrays (slot, seed, setting); states (slot, seed, setting, …)."""

    states: Tensors
    score: np.ndarray                    # the best on what is stopped by: accuracy, or the loss with its sign turned
    loss: np.ndarray                     # there, at that state
    epoch: np.ndarray                    # of that state, from 1
    epochs: np.ndarray                   # trained
    train_loss: np.ndarray               # the mean over the last epoch


def train(
    sides: Sides, shape: Shape, loss: Loss, settings: Sequence[Setting], seeds: Sequence[int], fold: int, schedule: Schedule
) -> Fitted:
    """Train every (slot, seed, setting).  With no clip to stop by, each keeps its last state."""
    device, slots, count = sides.device, sides.slots, len(sides.train_targets)
    groups, k = slots * len(seeds), len(settings)
    start = [initial(shape, seed, fold) for seed in seeds]
    parameters = {
        name: torch.stack([s[name] for s in start])[:, None].repeat(slots, k, *([1] * len(size))).to(device)
        for name, size in shape.sizes().items()
    }
    optimizer = Optimizer(schedule.optimizer, settings, parameters, sides.dtype)
    states = parameters                              # overwritten by better ones
    best, best_loss = (np.full((groups, k), -np.inf), np.full((groups, k), np.inf))
    best_epoch, epochs = (np.zeros((groups, k), np.int64) for _ in range(2))
    train_loss = np.full((groups, k), np.nan)
    running = np.ones((groups, k), bool)
    on_groups, on_settings = np.arange(groups), np.arange(k)         # those still in the products
    room = Room()
    stops = len(sides.valid_targets) > 0
    for epoch in range(schedule.epochs):
        orders = torch.from_numpy(np.stack([np.random.default_rng([seed, fold, epoch]).permutation(count) for seed in seeds]))
        slot, seed = (torch.from_numpy(i).to(device) for i in (on_groups // len(seeds), on_groups % len(seeds)))
        masks = Dropout(schedule.dropout, shape, seeds, fold, epoch, seed)
        total = torch.zeros(len(on_groups), len(on_settings), device=device)
        batches = 0
        for x, targets in sides.batches(orders.to(device), slot, seed, schedule.batch):
            x = x.transpose(1, 2) if shape.mixed else x
            made = forward(shape, optimizer.working, x, masks(targets.shape[1]), room, optimizer.rates)
            value, gradient = loss(made.logits, targets)
            optimizer.step(made.backward(gradient))
            total += value
            batches += 1
        here = np.ix_(on_groups, on_settings)
        train_loss[here] = np.where(running[here], (total / batches).cpu().numpy(), train_loss[here])
        epochs[here] += running[here]
        if stops:
            score, valid_loss = evaluate_fits(sides, shape, loss, optimizer, slot)
        else:
            score, valid_loss = np.full(total.shape, float(epoch)), train_loss[here]         # the last state is kept
        valid_loss = np.nan_to_num(valid_loss, nan=np.inf)
        higher = (score > best[here]) | ((score == best[here]) & (valid_loss < best_loss[here]))
        better = running[here] & np.isfinite(valid_loss) & higher
        for g, s in zip(*np.nonzero(better), strict=True):
            for name, value in optimizer.parameters(int(g), int(s)).items():
                states[name][on_groups[g], on_settings[s]] = value
        best[here], best_loss[here] = np.where(better, score, best[here]), np.where(better, valid_loss, best_loss[here])
        best_epoch[here] = np.where(better, epoch + 1, best_epoch[here])
        diverged = ~np.isfinite(train_loss[here])
        if stops and schedule.patience:
            running[here] &= epoch + 1 - best_epoch[here] < schedule.patience
        running[here] &= ~diverged
        left_groups, left_settings = running[here].any(axis=1), running[here].any(axis=0)
        if not left_groups.any():
            break
        if not (left_groups.all() and left_settings.all()):
            keep = [torch.from_numpy(np.flatnonzero(left)).to(device) for left in (left_groups, left_settings)]
            optimizer.keep(*keep)
            on_groups, on_settings = on_groups[left_groups], on_settings[left_settings]

    def by_fit(values: np.ndarray) -> np.ndarray:
        return values.reshape(slots, len(seeds), k)

    if not stops:
        best = -best_loss
    return Fitted(
        {name: value.view(slots, len(seeds), *value.shape[1:]) for name, value in states.items()}, by_fit(best),
        by_fit(best_loss), by_fit(best_epoch), by_fit(epochs), by_fit(train_loss),
    )


class Dropout:
    """Masks of a hidden layer, the same for every fit of a seed."""

    def __init__(self, share: float, shape: Shape, seeds: Sequence[int], fold: int, epoch: int, seed: torch.Tensor) -> None:
        self.share = share if shape.kind == "mlp" else 0.0
        self.hidden, self.seed = shape.hidden, seed
        self.generators = [torch.Generator().manual_seed((s * 1_000_003 + fold) * 100_003 + epoch) for s in seeds]

    def __call__(self, clips: int) -> torch.Tensor | None:
        if not self.share:
            return None
        drawn = torch.stack([torch.rand(clips, self.hidden, generator=g) for g in self.generators])
        return ((drawn >= self.share).float() / (1 - self.share)).transpose(1, 2).to(self.seed.device)[self.seed][:, None]


def evaluate_fits(
    sides: Sides, shape: Shape, loss: Loss, optimizer: Optimizer, slot: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """(group, setting) score and loss on what is stopped by."""
    groups, k = len(slot), optimizer.rates.shape[1]
    clips = len(sides.valid_targets)
    block = max(EVALUATED_AT_ONCE // (4 * groups * max(k * shape.outputs, shape.width * max(shape.mixed, 1))), 1)
    right, total, weight = torch.zeros(groups, k, device=slot.device), torch.zeros(groups, k, device=slot.device), 0.0
    for start in range(0, clips, block):
        x = sides.valid_block(slot, start, start + block)
        targets = sides.valid_targets[start : start + block]
        own = targets.expand(groups, *targets.shape)
        logits = forward(shape, optimizer.working, x.transpose(1, 2) if shape.mixed else x, rates=optimizer.rates).logits
        value, _ = loss(logits, own)
        amount = float(loss.weights[targets].sum()) if loss.kind == "multiclass" and loss.weights is not None else len(targets)
        total += value * amount
        weight += amount
        if loss.kind == "multiclass":
            right += (logits.argmax(dim=2) == own[:, None]).sum(dim=-1)
    mean_loss = (total / max(weight, 1e-12)).cpu().numpy().astype(float)
    return ((right / clips).cpu().numpy().astype(float) if loss.kind == "multiclass" else -mean_loss), mean_loss


def predict(shape: Shape, state: Tensors, x: torch.Tensor) -> torch.Tensor:
    """(clip, out) float32 logits of one fit for (clip, width), or (clip, part, width) of weighed layers."""
    one = {name: value[None, None].to(x.device) for name, value in state.items()}
    made = forward(shape, one, (x.transpose(0, 1) if shape.mixed else x)[None].float())
    return made.logits[0, 0].T
