"""Fit linear heads to convergence on all training clips: every layer and weight decay, from the strongest decay to the weakest.

    classes   multinomial logistic regression: scikit-learn's objective with C = 1 / (decay · clips)
    tags      logistic regression of each tag, likewise
    numbers   ridge regression of each standardised number: scikit-learn's with alpha = decay · clips / 2

The objective is the mean loss over clips, summed over tags or numbers, + decay / 2 · the squared weights; biases are not
penalised.  Each decay starts at the solution of the stronger one, which takes half the steps of starting at zero, or fewer.  A
fit has converged when no entry of the gradient exceeds scikit-learn's tolerance and a further step promises a relative decrease
below SMALL_DECREASE; with many classes the first condition alone can hold far from the minimum.

Coordinates.  Vectors of an encoder are correlated: some directions vary a thousand times as much as others, for which L-BFGS
takes hundreds of steps.  So the weights are those of the principal components of the training vectors around their mean, each
multiplied by the root of the curvature expected along it, κ · variance + decay; κ is the mean curvature of the loss by a logit.

Products are in float32: in bfloat16 the rounding hides the decrease after a few steps, and nearly as many in float32 follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tonelake.probes.config import Setting
from tonelake.probes.grid import HISTORY, GridData, GridResults
from tonelake.probes.heads import Shape, Tensors
from tonelake.probes.lbfgs import History, Point, descend
from tonelake.probes.losses import Loss
from tonelake.probes.monitors import Monitor, count_hits, evaluate_fits

TOLERANCE = 1e-4                         # largest entry of the gradient of a converged fit: scikit-learn's default
SMALL_DECREASE = 1e-5                    # relative to the objective
WIDEST_BASIS = 2_048                     # above it, principal components take longer than they save
BASIS_CLIPS = 8_192                      # from which they are computed
LEAST_VARIANCE = 1e-5                    # of a component relative to the largest: below it, variances are rounding
TURNED_ONCE = 100                        # evaluations of a layer, about: turning the vectors then costs less than the weights
LEAST_CURVATURE = 1e-3                   # relative to the highest
BLOCK_BYTES = 8 << 20                    # of vectors or logits: the second product finds both in the cache


# The mean loss over clips, and over tags or numbers; top-1 and top-5 accuracy, NaN unless targets are classes.
Figures = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The loss of a head on the training clips."""

    figures: Figures
    gradient: torch.Tensor               # (out, width + 1), last the biases: of the loss summed over tags or numbers
    curvature: float                     # mean second derivative of that loss by a logit, estimated by squared errors


class TrainingLoss:
    """The loss of one spec's training clips, by weights (out, width + 1) of their components and, last, biases at the mean."""

    def __init__(self, data: GridData, spec: int, shape: Shape, loss: Loss) -> None:
        self.data, self.spec, self.shape, self.loss = data, spec, shape, loss
        self.clips, self.outputs = len(data.train_targets), shape.outputs
        self.summed = 1 if loss.kind == "multiclass" else shape.outputs
        each = torch.ones(self.clips, device=data.device)
        if loss.kind == "multiclass" and loss.weights is not None:
            each = loss.weights[data.train_targets]
        self.shares = each.cpu().double() / float(each.sum())            # (clip,) the weight of each in the loss
        sample = data.train_rows(spec, slice(None, None, -(-self.clips // BASIS_CLIPS)))
        self.mean = sample.mean(dim=0)
        self.basis, self.variances = principal_components(sample - self.mean)
        self.vectors = None if data.streamed else data.train[spec]
        self.turned = False              # whether `vectors` are components, else weights are turned for each product
        if self.vectors is not None and self.basis is not None and self.clips < TURNED_ONCE * shape.outputs:
            self.vectors, self.turned = (self.vectors - self.mean) @ self.basis, True

    def to_inputs(self, weights: torch.Tensor) -> torch.Tensor:
        """Return (out, width) weights of the vectors from those of their components."""
        return weights if self.basis is None else weights @ self.basis.T

    def head(self, weights: torch.Tensor) -> Tensors:
        """Return the parameters of a linear head from weights (out, width + 1)."""
        inputs = self.to_inputs(weights[:, :-1])
        return {"weight": inputs, "bias": weights[:, -1] - inputs @ self.mean}

    def measure(self, weights: torch.Tensor) -> Measured:
        """Return the loss at weights (out, width + 1)."""
        inputs, bias = weights[:, :-1], weights[:, -1]
        if not self.turned:
            inputs, bias = self.head(weights).values()
        products, biases = torch.zeros_like(inputs), torch.zeros_like(bias)
        squares, loss, hits = 0.0, 0.0, torch.zeros(2)
        for rows, x in self.blocks():
            targets = self.data.train_targets[rows][None]
            logits = torch.mm(inputs, x.T).add_(bias[:, None])[None, None]       # (1, 1, out, clip)
            if self.loss.kind == "multiclass":
                hits += count_hits(logits, targets)[:, 0, 0].cpu()
            value, by_logits = self.loss(logits, targets)
            share = float(self.shares[rows].sum())
            errors = by_logits[0, 0].mul_(share * self.summed)                   # (out, clip)
            loss += share * float(value)
            squares += float(errors.square().sum())
            products.addmm_(errors, x)
            biases += errors.sum(dim=1)
        if not self.turned:
            products.addr_(biases, self.mean, alpha=-1)
            products = products if self.basis is None else products @ self.basis
        top_1, top_5 = (hits / self.clips).tolist() if self.loss.kind == "multiclass" else (np.nan, np.nan)
        curvature = 2.0 if self.loss.kind == "regression" else self.clips * squares / self.outputs
        gradient = torch.cat([products, biases[:, None]], dim=1)
        return Measured(figures=(loss, top_1, top_5), gradient=gradient, curvature=curvature)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield rows and vectors of blocks of training clips."""
        size = self.data.stretch_bytes if self.vectors is None else BLOCK_BYTES
        at_once = max(size // (4 * max(self.shape.width, self.outputs)), 1)
        for start in range(0, self.clips, at_once):
            rows = slice(start, start + at_once)
            yield rows, self.data.train_rows(self.spec, rows) if self.vectors is None else self.vectors[rows]


def principal_components(vectors: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return (width, component) directions and (component,) variances of (clip, width) vectors around 0; no directions, and the
    mean variance, if they are too wide."""
    width = vectors.shape[1]
    if width > WIDEST_BASIS:
        return None, vectors.square().mean().expand(width)
    variances, directions = torch.linalg.eigh(vectors.T @ vectors / len(vectors))
    return directions, variances.clamp_min(LEAST_VARIANCE * float(variances.max()))


@dataclass(frozen=True, kw_only=True)
class Fit(Point):
    """A head and its objective.  `x` and `gradient` are in scaled coordinates."""

    weights: torch.Tensor                # (out, width + 1) as in `TrainingLoss`
    slope: torch.Tensor                  # (out, width + 1) gradient of the objective by the weights
    measured: Measured


class Objective:
    """The loss with its penalty at one decay, by scaled weights (out · (width + 1),)."""

    def __init__(self, loss: TrainingLoss, decay: float, curvature: float) -> None:
        self.loss, self.decay = loss, decay
        expected = torch.cat([curvature * loss.variances + decay, torch.full_like(loss.variances[:1], curvature)])
        self.scale = expected.clamp_min(1e-12).rsqrt()       # (width + 1,); 0 for constant vectors or a single class

    def __call__(self, x: torch.Tensor) -> Fit:
        weights = x.view(-1, len(self.scale)) * self.scale
        return self.at(weights, self.loss.measure(weights))

    def at(self, weights: torch.Tensor, measured: Measured) -> Fit:
        """Return the fit of weights whose loss is known: it is the same at every decay."""
        slope = measured.gradient.clone()
        slope[:, :-1].add_(weights[:, :-1], alpha=self.decay)
        penalty = self.decay / 2 * float(weights[:, :-1].square().sum())
        return Fit(
            x=(weights / self.scale).flatten(), value=measured.figures[0] * self.loss.summed + penalty,
            gradient=(slope * self.scale).flatten(), weights=weights, slope=slope, measured=measured,
        )

    def converged(self, fit: Fit, decrease: float) -> bool:
        """Return whether a fit has converged, given the decrease that a further step promises.  Without a decay there may be no
        minimum, and a flat objective suffices."""
        return (self.decay == 0 or decrease <= SMALL_DECREASE * fit.value) and self.is_flat(fit)

    def is_flat(self, fit: Fit) -> bool:
        """Return whether no entry of the gradient by the weights of the vectors exceeds TOLERANCE."""
        biases = fit.slope[:, -1]
        if float(biases.abs().max()) > TOLERANCE:
            return False
        return float(torch.addr(self.loss.to_inputs(fit.slope[:, :-1]), biases, self.loss.mean).abs().max()) <= TOLERANCE


def fit_decays(loss: TrainingLoss, decays: Sequence[float], most: int) -> Iterator[tuple[float, Fit, list[Figures]]]:
    """Yield each decay, the strongest first, with its fit and the figures after each iteration, at most `most` of these."""
    weights = torch.zeros(loss.outputs, loss.shape.width + 1, device=loss.data.device)
    measured = loss.measure(weights)
    highest = measured.curvature         # classes are equally likely
    for decay in sorted(decays, reverse=True):
        # curvature falls while a fit sharpens: the mean, on a logarithmic scale, of the highest and that at the start
        objective = Objective(loss, decay, max((measured.curvature * highest) ** 0.5, LEAST_CURVATURE * highest))
        seen = list[Figures]()
        for fit, decrease in descend(objective, objective.at(weights, measured), History(weights.numel(), weights.device)):
            seen.append(fit.measured.figures)
            if objective.converged(fit, decrease) or len(seen) > most:
                break
        weights, measured = fit.weights, fit.measured
        yield decay, fit, seen[1:] or seen


@dataclass(frozen=True)
class Heads:
    """Fitted heads as `evaluate_fits` reads them.  Shape: working (group, setting, …), rates (1, setting)."""

    working: Tensors
    rates: torch.Tensor


def fit_to_convergence(
    data: GridData, shape: Shape, loss: Loss, settings: Sequence[Setting], most: int, monitor: Monitor | None = None
) -> GridResults:
    """Fit every spec and decay with at most `most` iterations; the axis of seeds has length 1, as the minimum is unique."""
    monitor, places = monitor or Monitor(), {setting.decay: number for number, setting in enumerate(settings)}
    columns = [HISTORY.index(name) for name in ("train_loss", "train_top_1", "train_top_5")]
    shapes = {name: (data.specs, len(settings), *size) for name, size in shape.sizes().items()}
    states = {name: torch.zeros(size, device=data.device) for name, size in shapes.items()}
    iterations = np.zeros((data.specs, 1, len(settings)), np.int64)
    found: dict[tuple[int, int], list[Figures]] = {}
    for spec in range(data.specs):
        training = TrainingLoss(data, spec, shape, loss)
        for decay, fit, seen in fit_decays(training, list(places), most):
            place = places[decay]
            for name, value in training.head(fit.weights).items():
                states[name][spec, place] = value
            iterations[spec, 0, place] = len(seen)
            found[spec, place] = seen
    history = np.full((data.specs, 1, len(settings), int(iterations.max()), len(HISTORY)), np.nan, np.float32)
    for (spec, place), seen in found.items():
        history[spec, 0, place, : len(seen), columns] = np.array(seen).T
        history[spec, 0, place, : len(seen), HISTORY.index("rate")] = 0
    ends = iterations[..., None, None] - 1
    last = np.take_along_axis(history, ends, axis=3)         # (spec, 1, setting, 1, figure)
    train_loss = last[..., 0, HISTORY.index("train_loss")].astype(float)
    score, valid_loss = -train_loss, train_loss
    if len(data.valid_targets):
        heads = Heads(states, torch.ones(1, len(settings), device=data.device))
        valid = evaluate_fits(data, shape, loss, heads, torch.arange(data.specs, device=data.device), monitor)
        score, valid_loss = valid.score[:, None], valid.loss[:, None]
        figures = {"score": valid.score, "valid_loss": valid.loss, "valid_top_1": valid.top_1, "valid_top_5": valid.top_5}
        for name, values in figures.items():
            last[..., 0, HISTORY.index(name)] = values[:, None]
        np.put_along_axis(history, ends, last, axis=3)
    return GridResults(
        states={name: value[:, None] for name, value in states.items()}, score=score, loss=valid_loss, epoch=iterations,
        epochs=iterations.copy(), train_loss=train_loss, history=history,
    )
