"""Train many fits in one loop: every learning rate, weight decay, seed and layer of a fold at once.

Fits of one seed see the same clips in the same order whatever their layer, rate or decay, so the result of a fit does not
depend on the others; each keeps the state of its best epoch and stops by itself.  Stopped fits leave the products as soon as
all fits of their setting, or of their layer and seed, have stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch

from tonelake.probes.config import Setting
from tonelake.probes.epochs import DropoutMasks, Order, epoch_order
from tonelake.probes.heads import Buffers, Shape, Tensors, forward, initial_parameters
from tonelake.probes.losses import Loss
from tonelake.probes.monitors import Monitor, Plateau, Validation, count_hits, evaluate_fits
from tonelake.probes.optimizers import Optimizer

HISTORY = (                              # of each fit and epoch; training accuracies are those of the batches, before each step
    "train_loss", "valid_loss", "score", "train_top_1", "train_top_5", "valid_top_1", "valid_top_5", "rate",
)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Optimizer and length of training."""

    optimizer: str = "adam"
    batch: int = 64
    epochs: int = 100
    patience: int = 10                   # epochs without improvement before a fit stops; 0: never stops early
    rate_patience: int = 0               # epochs without improvement before a fit's rate is halved; 0: never
    dropout: float = 0.0                 # of the hidden layer
    keep: str = "best"                   # epoch of the state that is kept: best or last


class GridData:
    """Training and validation vectors with their targets, on a device, ready for the head.

    Shape: vectors (spec, clip, width) of one type, or (spec, clip, part, width) of weighted layers; targets (clip, …).
    `train_tracks`: (clip,) the track of each clip, if batches are of whole tracks; `valid_tracks`: (clip,) from 0, if the
    clips of a track are averaged.
    """

    streamed, stretch_bytes = False, 0
    train_tracks: np.ndarray | None = None
    valid_tracks: torch.Tensor | None = None

    def __init__(
        self, train: torch.Tensor, train_targets: torch.Tensor, valid: torch.Tensor, valid_targets: torch.Tensor
    ) -> None:
        self.train, self.valid = train, valid
        self.train_targets, self.valid_targets = train_targets, valid_targets
        self.specs, self.device, self.dtype = train.shape[0], train.device, train.dtype

    def average_tracks(self, train: np.ndarray, valid: np.ndarray) -> None:
        """Make batches of whole tracks and average the validation clips of a track, by the (clip,) track of each clip."""
        self.train_tracks = train
        self.valid_tracks = torch.from_numpy(np.unique(valid, return_inverse=True)[1].ravel()).to(self.device)

    def batches(
        self, order: Order, spec: torch.Tensor, seed: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """Yield vectors and targets (group, clip, …) for each group's spec and seed, and which clips are not padding."""
        flat = self.train.flatten(0, 1)
        rows_of_seeds = torch.from_numpy(order.rows).to(self.device)
        for start, stop in order.bounds:
            rows = rows_of_seeds[seed, start:stop]                               # (group, clip)
            present = (rows >= 0).float() if order.padded else None
            rows = rows.clamp_min(0) if order.padded else rows
            picked = flat.index_select(0, (rows + spec[:, None] * self.train.shape[1]).flatten())
            yield picked.view(*rows.shape, *self.train.shape[2:]), self.train_targets[rows], present

    def train_rows(self, spec: int, rows: slice) -> torch.Tensor:
        """Return (clip, …) training vectors of one spec."""
        return self.train[spec, rows]

    def valid_block(self, spec: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return (group, clip, …) validation vectors for each group's spec."""
        return self.valid[spec, start:stop]


@dataclass(kw_only=True)
class GridResults:
    """Results of each fit.  Shape: arrays (spec, seed, setting); states (spec, seed, setting, …)."""

    states: Tensors
    score: np.ndarray                    # validation score at the kept state
    loss: np.ndarray                     # validation loss at that state
    epoch: np.ndarray                    # epoch of that state, from 1
    epochs: np.ndarray                   # epochs trained
    train_loss: np.ndarray               # the mean over the last epoch
    history: np.ndarray                  # (spec, seed, setting, epoch, figure of HISTORY) float32; NaN after a fit has stopped


class Progress:
    """Scores of all fits while they are trained, and which state of each is kept.  Shape: (group, setting)."""

    def __init__(self, groups: int, settings: int, schedule: Schedule, *, ties_by_loss: bool, stops: bool) -> None:
        self.schedule, self.ties_by_loss, self.stops = schedule, ties_by_loss, stops
        shape = (groups, settings)
        self.best, self.best_loss, self.best_epoch = np.full(shape, -np.inf), np.full(shape, np.inf), np.zeros(shape, np.int64)
        self.score, self.loss, self.epoch = np.full(shape, -np.inf), np.full(shape, np.inf), np.zeros(shape, np.int64)
        self.epochs, self.train_loss = np.zeros(shape, np.int64), np.full(shape, np.nan)
        self.running = np.ones(shape, bool)
        self.history: list[np.ndarray] = []

    def update(
        self, here: tuple[np.ndarray, ...], train_loss: np.ndarray, train_tops: np.ndarray, valid: Validation | None,
        rates: np.ndarray,
    ) -> np.ndarray:
        """Record an epoch of the fits `here`; return a mask of those whose state is to be kept."""
        number, running = len(self.history) + 1, self.running[here]
        self.train_loss[here] = np.where(running, train_loss, self.train_loss[here])
        self.epochs[here] += running
        if valid is None:                # keep the last state
            nan = np.full(train_loss.shape, np.nan)
            valid = Validation(score=np.full(train_loss.shape, float(number)), loss=self.train_loss[here], top_1=nan, top_5=nan)
        loss = np.nan_to_num(valid.loss, nan=np.inf)
        best, best_loss = self.best[here], self.best_loss[here]
        higher = valid.score > best
        if self.ties_by_loss:
            higher |= (valid.score == best) & (loss < best_loss)
        finite = running & np.isfinite(loss)
        better = finite & higher
        self.best[here], self.best_loss[here] = np.where(better, valid.score, best), np.where(better, loss, best_loss)
        self.best_epoch[here] = np.where(better, number, self.best_epoch[here])
        kept = better if self.schedule.keep == "best" else finite
        self.score[here] = np.where(kept, valid.score if self.stops else -loss, self.score[here])
        self.loss[here] = np.where(kept, loss, self.loss[here])
        self.epoch[here] = np.where(kept, number, self.epoch[here])
        figures = np.full((len(HISTORY), *self.running.shape), np.nan, np.float32)
        score = valid.score if self.stops else np.full(train_loss.shape, np.nan)
        for row, values in zip(
            figures, (train_loss, valid.loss if self.stops else score, score, *train_tops, valid.top_1, valid.top_5, rates),
            strict=True,
        ):
            row[here] = np.where(running, values, np.nan)
        self.history.append(figures)
        if self.stops and self.schedule.patience:
            self.running[here] &= number - self.best_epoch[here] < self.schedule.patience
        self.running[here] &= np.isfinite(self.train_loss[here])
        return kept


def train(
    data: GridData, shape: Shape, loss: Loss, settings: Sequence[Setting], seeds: Sequence[int], fold: int, schedule: Schedule,
    monitor: Monitor | None = None, stopped: Event | None = None,
) -> GridResults:
    """Train every (spec, seed, setting).  Without validation clips, each fit keeps its last state.

    Raises CancelledError before the next epoch once `stopped` is set.
    """
    monitor = monitor or Monitor()
    device, specs, count = data.device, data.specs, len(data.train_targets)
    groups, k = specs * len(seeds), len(settings)
    start = [initial_parameters(shape, seed, fold) for seed in seeds]
    parameters = {
        name: torch.stack([s[name] for s in start])[:, None].repeat(specs, k, *([1] * len(size))).to(device)
        for name, size in shape.sizes().items()
    }
    optimizer = Optimizer(schedule.optimizer, settings, parameters, data.dtype)
    states = parameters                              # overwritten by better ones
    stops = len(data.valid_targets) > 0
    progress = Progress(groups, k, schedule, ties_by_loss=monitor.ties_by_loss, stops=stops)
    plateau = Plateau(schedule.rate_patience, groups, k) if stops and schedule.rate_patience else None
    active_groups, active_settings = np.arange(groups), np.arange(k)         # still in the products
    buffers = Buffers()
    for epoch in range(schedule.epochs):
        if stopped is not None and stopped.is_set():
            raise CancelledError
        order = epoch_order(seeds, fold, epoch, count, schedule.batch, data.train_tracks)
        spec, seed = (torch.from_numpy(i).to(device) for i in (active_groups // len(seeds), active_groups % len(seeds)))
        masks = DropoutMasks(schedule.dropout, shape, seeds, fold, epoch, seed)
        total = torch.zeros(len(active_groups), len(active_settings), device=device)
        hits = torch.zeros(2, *total.shape, device=device)
        for batch, (x, targets, present) in enumerate(data.batches(order, spec, seed)):
            x = x.transpose(1, 2) if shape.mixed else x
            mask = masks(order.clips(batch)) if masks.share else None
            forward_pass = forward(shape, optimizer.working, x, mask, buffers, optimizer.rates)
            if loss.kind == "multiclass":
                hits += count_hits(forward_pass.logits, targets, present)
            value, gradient = loss(forward_pass.logits, targets, present)
            optimizer.step(forward_pass.backward(gradient))
            total += value
        here = np.ix_(active_groups, active_settings)
        tops = (hits / count).cpu().numpy() if loss.kind == "multiclass" else np.full(hits.shape, np.nan)
        valid = evaluate_fits(data, shape, loss, optimizer, spec, monitor) if stops else None
        rates = optimizer.rates.expand(total.shape).cpu().numpy()
        kept = progress.update(here, (total / len(order.bounds)).cpu().numpy(), tops, valid, rates)
        for g, s in zip(*np.nonzero(kept), strict=True):
            for name, parameter in optimizer.parameters(int(g), int(s)).items():
                states[name][active_groups[g], active_settings[s]] = parameter
        if plateau is not None and valid is not None:
            factors = plateau.factors(here, valid.score, negative=monitor.by_loss(loss.kind))
            if (factors != 1).any():
                optimizer.multiply_rates(torch.from_numpy(factors).float().to(device))
        running = progress.running[here]
        left_groups, left_settings = running.any(axis=1), running.any(axis=0)
        if not left_groups.any():
            break
        if not (left_groups.all() and left_settings.all()):
            keep = [torch.from_numpy(np.flatnonzero(left)).to(device) for left in (left_groups, left_settings)]
            optimizer.keep_only(*keep)
            active_groups, active_settings = active_groups[left_groups], active_settings[left_settings]

    def by_fit(values: np.ndarray) -> np.ndarray:
        return values.reshape(specs, len(seeds), k, *values.shape[2:])

    return GridResults(
        states={name: value.view(specs, len(seeds), *value.shape[1:]) for name, value in states.items()},
        score=by_fit(progress.score), loss=by_fit(progress.loss), epoch=by_fit(progress.epoch), epochs=by_fit(progress.epochs),
        train_loss=by_fit(progress.train_loss), history=by_fit(np.stack(progress.history).transpose(2, 3, 0, 1)),
    )


def predict_logits(shape: Shape, state: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Return (clip, out) float32 logits of one fit for (clip, width), or (clip, part, width) of weighted layers."""
    one = {name: value[None, None].to(x.device) for name, value in state.items()}
    forward_pass = forward(shape, one, (x.transpose(0, 1) if shape.mixed else x)[None].float())
    return forward_pass.logits[0, 0].T
