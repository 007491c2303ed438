"""Train many fits in one loop: every learning rate, weight decay, seed and layer of a fold at once.

Fits of one seed see the same clips in the same order whatever their layer, rate or decay, so the result of a fit does not
depend on the others; each keeps the state of its best epoch and stops by itself.  Stopped fits leave the products as soon as
all fits of their setting, or of their layer and seed, have stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tonelake.probes.config import Setting
from tonelake.probes.heads import Buffers, Shape, Tensors, forward, initial_parameters
from tonelake.probes.losses import Loss
from tonelake.probes.optimizers import Optimizer

EVALUATED_AT_ONCE = 32 << 20             # bytes of logits, or of vectors


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Optimizer and length of training."""

    optimizer: str = "adam"
    batch: int = 64
    epochs: int = 100
    patience: int = 10                   # epochs without improvement before a fit stops; 0: never stops early
    dropout: float = 0.0                 # of the hidden layer


class GridData:
    """Training and validation vectors with their targets, on a device, ready for the head.

    Shape: vectors (spec, clip, width) of one type, or (spec, clip, part, width) of weighted layers; targets (clip, …).
    """

    def __init__(
        self, train: torch.Tensor, train_targets: torch.Tensor, valid: torch.Tensor, valid_targets: torch.Tensor
    ) -> None:
        self.train, self.valid = train, valid
        self.train_targets, self.valid_targets = train_targets, valid_targets
        self.specs, self.device, self.dtype = train.shape[0], train.device, train.dtype

    def batches(
        self, orders: torch.Tensor, spec: torch.Tensor, seed: torch.Tensor, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield vectors and targets (group, clip, …) for `orders` (seed, clip) and each group's spec and seed."""
        flat = self.train.flatten(0, 1)
        for start in range(0, orders.shape[1], size):
            rows = orders[seed, start : start + size]                            # (group, clip)
            picked = flat.index_select(0, (rows + spec[:, None] * self.train.shape[1]).flatten())
            yield picked.view(*rows.shape, *self.train.shape[2:]), self.train_targets[rows]

    def valid_block(self, spec: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return (group, clip, …) validation vectors for each group's spec."""
        return self.valid[spec, start:stop]


@dataclass(kw_only=True)
class GridResults:
    """Results of each fit.  Shape: arrays (spec, seed, setting); states (spec, seed, setting, …)."""

    states: Tensors
    score: np.ndarray                    # best validation score: accuracy, or the negative loss
    loss: np.ndarray                     # validation loss at that state
    epoch: np.ndarray                    # epoch of that state, from 1
    epochs: np.ndarray                   # epochs trained
    train_loss: np.ndarray               # the mean over the last epoch


def train(
    data: GridData, shape: Shape, loss: Loss, settings: Sequence[Setting], seeds: Sequence[int], fold: int, schedule: Schedule
) -> GridResults:
    """Train every (spec, seed, setting).  Without validation clips, each fit keeps its last state."""
    device, specs, count = data.device, data.specs, len(data.train_targets)
    groups, k = specs * len(seeds), len(settings)
    start = [initial_parameters(shape, seed, fold) for seed in seeds]
    parameters = {
        name: torch.stack([s[name] for s in start])[:, None].repeat(specs, k, *([1] * len(size))).to(device)
        for name, size in shape.sizes().items()
    }
    optimizer = Optimizer(schedule.optimizer, settings, parameters, data.dtype)
    states = parameters                              # overwritten by better ones
    best, best_loss = (np.full((groups, k), -np.inf), np.full((groups, k), np.inf))
    best_epoch, epochs = (np.zeros((groups, k), np.int64) for _ in range(2))
    train_loss = np.full((groups, k), np.nan)
    running = np.ones((groups, k), bool)
    active_groups, active_settings = np.arange(groups), np.arange(k)         # still in the products
    buffers = Buffers()
    stops = len(data.valid_targets) > 0
    for epoch in range(schedule.epochs):
        orders = torch.from_numpy(np.stack([np.random.default_rng([seed, fold, epoch]).permutation(count) for seed in seeds]))
        spec, seed = (torch.from_numpy(i).to(device) for i in (active_groups // len(seeds), active_groups % len(seeds)))
        masks = DropoutMasks(schedule.dropout, shape, seeds, fold, epoch, seed)
        total = torch.zeros(len(active_groups), len(active_settings), device=device)
        batches = 0
        for x, targets in data.batches(orders.to(device), spec, seed, schedule.batch):
            x = x.transpose(1, 2) if shape.mixed else x
            forward_pass = forward(shape, optimizer.working, x, masks(targets.shape[1]), buffers, optimizer.rates)
            value, gradient = loss(forward_pass.logits, targets)
            optimizer.step(forward_pass.backward(gradient))
            total += value
            batches += 1
        here = np.ix_(active_groups, active_settings)
        train_loss[here] = np.where(running[here], (total / batches).cpu().numpy(), train_loss[here])
        epochs[here] += running[here]
        if stops:
            score, valid_loss = evaluate_fits(data, shape, loss, optimizer, spec)
        else:
            score, valid_loss = np.full(total.shape, float(epoch)), train_loss[here]         # keep the last state
        valid_loss = np.nan_to_num(valid_loss, nan=np.inf)
        higher = (score > best[here]) | ((score == best[here]) & (valid_loss < best_loss[here]))
        better = running[here] & np.isfinite(valid_loss) & higher
        for g, s in zip(*np.nonzero(better), strict=True):
            for name, value in optimizer.parameters(int(g), int(s)).items():
                states[name][active_groups[g], active_settings[s]] = value
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
            optimizer.keep_only(*keep)
            active_groups, active_settings = active_groups[left_groups], active_settings[left_settings]

    def by_fit(values: np.ndarray) -> np.ndarray:
        return values.reshape(specs, len(seeds), k)

    if not stops:
        best = -best_loss
    return GridResults(
        states={name: value.view(specs, len(seeds), *value.shape[1:]) for name, value in states.items()},
        score=by_fit(best), loss=by_fit(best_loss), epoch=by_fit(best_epoch), epochs=by_fit(epochs),
        train_loss=by_fit(train_loss),
    )


class DropoutMasks:
    """Dropout masks of the hidden layer, equal for every fit of a seed."""

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
    data: GridData, shape: Shape, loss: Loss, optimizer: Optimizer, spec: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return (group, setting) validation score and loss."""
    groups, k = len(spec), optimizer.rates.shape[1]
    clips = len(data.valid_targets)
    block = max(EVALUATED_AT_ONCE // (4 * groups * max(k * shape.outputs, shape.width * max(shape.mixed, 1))), 1)
    right, total, weight = torch.zeros(groups, k, device=spec.device), torch.zeros(groups, k, device=spec.device), 0.0
    for start in range(0, clips, block):
        x = data.valid_block(spec, start, start + block)
        targets = data.valid_targets[start : start + block]
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


def predict_logits(shape: Shape, state: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Return (clip, out) float32 logits of one fit for (clip, width), or (clip, part, width) of weighted layers."""
    one = {name: value[None, None].to(x.device) for name, value in state.items()}
    forward_pass = forward(shape, one, (x.transpose(0, 1) if shape.mixed else x)[None].float())
    return forward_pass.logits[0, 0].T
