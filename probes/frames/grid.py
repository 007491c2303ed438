"""Train many frame heads in one loop: every learning rate, weight decay and seed of one input at once.

All fits see the same segments in the same order, so states are read and laid out once; seeds differ in initial weights and
dropout.  A fit's result does not depend on the other fits.  Each fit keeps the state of its best epoch by validation score,
and leaves the products when it has not improved for too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.optim.adam import adam

from tonelake.probes.config import Setting
from tonelake.probes.frames.frame_data import SegmentData
from tonelake.probes.frames.frame_losses import FrameLoss, ValidationSums
from tonelake.probes.frames.heads import HeadShape
from tonelake.probes.frames.stacks import initial_fits, make_stack
from tonelake.probes.heads import Tensors

BLOCK_CELLS = 1 << 20                    # hidden values and logits of a block on a CPU, so that they stay in its cache
BLOCK_CELLS_GPU = 1 << 28
MOST_PARAMETERS = 200_000_000            # of the fits trained at once, each with two moments, a gradient and a best state
LOSS_EVERY = 16                          # batches between those whose training loss is computed
HISTORY = ("train_loss", "valid_loss", "score")


@dataclass(frozen=True, kw_only=True)
class FrameSchedule:
    """Length of training."""

    epochs: int
    patience: int                        # epochs without improvement before a fit stops; 0: never stops early


@dataclass(kw_only=True)
class FrameGridResults:
    """Results of each fit.  Shape: arrays (fit,), fits being seed · settings + setting; states (fit, …)."""

    states: Tensors
    score: np.ndarray                    # validation score at the kept state
    loss: np.ndarray                     # validation loss at that state
    epoch: np.ndarray                    # epoch of that state, from 1; 0 if no loss was finite
    epochs: np.ndarray                   # epochs trained
    history: np.ndarray                  # (fit, epoch, figure of HISTORY) float32; NaN after a fit has stopped


class AdamW:
    """torch's fused AdamW for the fits of a stack, each with its own learning rate and weight decay."""

    def __init__(self, parameters: Tensors, settings: Sequence[Setting]) -> None:
        self.parameters, self.settings = parameters, list(settings)
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.steps = torch.zeros(len(self.settings), len(parameters), device=next(iter(parameters.values())).device)

    def step(self, gradients: Tensors) -> None:
        """Take one step; `gradients` have the parameters' names and shapes."""
        found = {name: gradients[name].contiguous() for name in self.parameters}
        names = list(self.parameters)
        for fit, setting in enumerate(self.settings):
            adam(
                [self.parameters[name][fit] for name in names], [found[name][fit] for name in names],
                [self.first[name][fit] for name in names], [self.second[name][fit] for name in names], [],
                list(self.steps[fit].unbind()), fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=setting.rate,
                weight_decay=setting.decay, eps=1e-8, maximize=False, decoupled_weight_decay=True,
            )

    def keep_only(self, fits: np.ndarray) -> None:
        """Drop all other fits."""
        index = torch.from_numpy(fits).to(self.steps.device)
        for held in (self.parameters, self.first, self.second):
            for name, value in held.items():
                held[name] = value[index]
        self.steps, self.settings = self.steps[index], [self.settings[fit] for fit in fits]


def train(
    train_data: SegmentData, valid_data: Sequence[SegmentData], shape: HeadShape, loss: FrameLoss, groups: dict[str, slice],
    settings: Sequence[Setting], seeds: Sequence[int], schedule: FrameSchedule, *, bias: np.ndarray | None = None,
    step: Callable[[], None] = lambda: None, autocast: bool = False,
) -> FrameGridResults:
    """Train every setting and seed; as many at once as fit in memory.

    `valid_data`: validation clips, in parts whose scores are averaged, or none; without them, each fit keeps its last state.
    `bias`: start of the output layer's bias; `step` is called after each epoch; `autocast`: see `make_stack`.
    """
    fits = [(seed, setting) for seed in seeds for setting in settings]
    at_once = max(MOST_PARAMETERS // max(shape.parameters(), 1), 1)
    found = [
        Training(train_data, valid_data, shape, loss, groups, fits[i : i + at_once], bias, autocast).run(schedule, step)
        for i in range(0, len(fits), at_once)
    ]
    if len(found) == 1:
        return found[0]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in found]) for name in ("score", "loss", "epoch", "epochs")
    }
    longest = max(part.history.shape[1] for part in found)
    history = np.concatenate([
        np.pad(part.history, [(0, 0), (0, longest - part.history.shape[1]), (0, 0)], constant_values=np.nan) for part in found
    ])
    states = {name: torch.cat([part.states[name] for part in found]) for name in found[0].states}
    return FrameGridResults(states=states, history=history, **arrays)


class Training:
    """Fits that are trained together."""

    def __init__(
        self, train_data: SegmentData, valid_data: Sequence[SegmentData], shape: HeadShape, loss: FrameLoss,
        groups: dict[str, slice], fits: Sequence[tuple[int, Setting]], bias: np.ndarray | None,
        autocast: bool,
    ) -> None:
        self.train_data, self.valid_data, self.loss, self.groups = train_data, valid_data, loss, groups
        self.shape, self.stack = shape, make_stack(shape, autocast=autocast)
        self.device, self.dtype = train_data.device, train_data.dtype
        self.seeds = [seed for seed, _ in fits]
        start = None if bias is None else torch.from_numpy(bias)
        parameters = {name: value.to(self.device) for name, value in initial_fits(shape, self.seeds, start).items()}
        self.states = {name: value.clone() for name, value in parameters.items()}
        self.optimizer = AdamW(parameters, [setting for _, setting in fits])

    def run(self, schedule: FrameSchedule, step: Callable[[], None]) -> FrameGridResults:
        """Train until every fit has stopped."""
        count = len(self.seeds)
        best, best_loss, best_epoch = np.full(count, -np.inf), np.full(count, np.nan), np.zeros(count, np.int64)
        epochs, active = np.zeros(count, np.int64), np.arange(count)
        history: list[np.ndarray] = []
        for epoch in range(1, schedule.epochs + 1):
            seeds = [self.seeds[fit] for fit in active]
            train_loss = self.train_epoch(epoch, seeds)
            valid_loss, score = self.validate(seeds) if self.valid_data else (train_loss, np.full(len(active), float(epoch)))
            figures = np.full((count, len(HISTORY)), np.nan, np.float32)
            figures[active] = np.stack([train_loss, valid_loss, score], axis=1)
            history.append(figures)
            epochs[active] = epoch
            finite = np.isfinite(valid_loss) & np.isfinite(train_loss) & self.finite()
            better = np.where(finite, score, -np.inf) > best[active]
            for row in np.flatnonzero(better):
                for name, value in self.optimizer.parameters.items():
                    self.states[name][active[row]] = value[row]
            kept = active[better]
            best[kept], best_loss[kept], best_epoch[kept] = score[better], valid_loss[better], epoch
            step()
            waited = epoch - best_epoch[active] >= schedule.patience if schedule.patience else np.zeros(len(active), bool)
            running = finite & ~waited
            if not running.any():
                break
            if not running.all():
                self.optimizer.keep_only(np.flatnonzero(running))
                active = active[running]
        return FrameGridResults(
            states={name: value.cpu() for name, value in self.states.items()}, score=best, loss=best_loss, epoch=best_epoch,
            epochs=epochs, history=np.stack(history, axis=1),
        )

    def train_epoch(self, epoch: int, seeds: Sequence[int]) -> np.ndarray:
        """Take a step for each batch; return (fit,) training losses, from some of the batches."""
        total, weight = torch.zeros(len(seeds), device=self.device), 0.0
        for batch in self.train_data.batches(np.random.default_rng([epoch, 1])):
            draw = (epoch, batch.number)
            working = self.working()
            masks = self.stack.masks(seeds, draw, batch.x.shape[1], self.device)
            gradients = Tensors()
            amount: torch.Tensor | float = 0.0
            logged = batch.number % LOSS_EVERY == 0
            for first, stop in self.blocks(batch.x, len(seeds)):
                x, targets, unjudged = batch.block(first, stop)
                own = None if masks is None else [mask[:, first:stop] for mask in masks]
                forward = self.stack(working, x, own, seeds, draw)
                judged = forward.logits.shape[1] - (0 if unjudged is None else len(unjudged))
                amount += self.loss.amount(targets, judged, forward.logits.shape[2])
                if logged:
                    total += self.loss.value(forward.logits, targets, unjudged)
                found = forward.backward(self.loss.gradient(forward.logits, targets, unjudged))
                gradients = found if not gradients else {name: value.add_(found[name]) for name, value in gradients.items()}
            if logged:
                weight += float(amount)
            if amount > 0:
                self.optimizer.step({name: value / amount for name, value in gradients.items()})
        return (total / max(weight, 1e-12)).cpu().numpy().astype(float)

    def validate(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return (fit,) validation losses and scores."""
        sums = ValidationSums(self.loss, len(seeds), self.groups, len(self.valid_data), self.device)
        working = self.working()
        for part, data in enumerate(self.valid_data):
            for batch in data.batches(None):
                for first, stop in self.blocks(batch.x, len(seeds)):
                    x, targets, unjudged = batch.block(first, stop)
                    sums.add(self.stack(working, x, None, seeds, ()).logits, targets, unjudged, part)
        return sums.results()

    def finite(self) -> np.ndarray:
        """Return (fit,) whether all parameters are finite."""
        sums = [value.flatten(1).sum(dim=1) for value in self.optimizer.parameters.values()]
        return torch.isfinite(torch.stack(sums)).all(dim=0).cpu().numpy()

    def working(self) -> Tensors:
        """Return the parameters in the type of the products."""
        return {name: value.to(self.dtype) for name, value in self.optimizer.parameters.items()}

    def blocks(self, x: torch.Tensor, fits: int) -> list[tuple[int, int]]:
        """Divide the segments of a batch into blocks whose values fit the cache."""
        segments, frames = x.shape[1], x.shape[2]
        if not self.stack.in_blocks:
            return [(0, segments)]
        widest = max(outputs for _, outputs in self.shape.kernels() or [])
        most = BLOCK_CELLS if self.device.type == "cpu" else BLOCK_CELLS_GPU
        each = max(most // (fits * frames * widest), 1)
        return [(first, min(first + each, segments)) for first in range(0, segments, each)]
