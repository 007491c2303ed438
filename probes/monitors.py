"""Validation of every fit after an epoch: loss, top-1 and top-5, and the score by which fits stop and are selected.

    auto       accuracy of classes, equal accuracies ordered by loss; of tags and numbers, the negative loss
    loss       the negative loss
    accuracy   share of clips whose likeliest class is theirs
    auroc      mean area under the ROC curve over tags, or classes, that occur and do not always occur
    r2         mean R² over targets
    key_score  mean of a score of (true, predicted) classes: MIREX's of keys

Where tracks are averaged, the mean logits of a track's clips are judged in place of the clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from tonelake.probes.heads import Shape, Tensors, forward
from tonelake.probes.losses import Loss

if TYPE_CHECKING:
    from tonelake.probes.grid import GridData

EVALUATED_AT_ONCE = 32 << 20             # bytes of logits, or of vectors
COLLECTED_AT_ONCE = 256 << 20            # bytes of logits for a metric that needs those of all clips
TOP = 5


class Heads(Protocol):
    """Parameters over rates (group, setting, …), and rates (1 or group, setting): an `Optimizer`, or fitted heads."""

    @property
    def working(self) -> Tensors: ...
    @property
    def rates(self) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """The validation score of a grid."""

    name: str = "auto"
    credit: torch.Tensor | None = None   # (true class, predicted class) float32, for key_score

    @property
    def ties_by_loss(self) -> bool:
        return self.name == "auto"

    def by_loss(self, kind: str) -> bool:
        """Return whether scores are negative losses, for a kind of task."""
        return self.name == "loss" or (self.name == "auto" and kind != "multiclass")


@dataclass(kw_only=True)
class Validation:
    """Results on the validation clips.  Shape: (group, setting)."""

    score: np.ndarray
    loss: np.ndarray
    top_1: np.ndarray                    # NaN unless targets are classes
    top_5: np.ndarray


def count_hits(logits: torch.Tensor, targets: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Return (2, group, setting) how many clips have their class as the likeliest, and among the five likeliest.

    `logits` (group, setting, class, clip), `targets` (group, clip).  Diverged fits, whose logits are NaN, have no hits.
    """
    classes = logits.shape[2]
    own = logits.gather(2, targets[:, None, None].expand(*logits.shape[:2], 1, -1))
    # classes that score at most as much, counted as floats: sums of booleans are three times as slow
    reached = torch.le(logits, own, out=torch.empty_like(logits)).sum(dim=2)
    hits = torch.stack([reached == classes, reached > max(classes - TOP, 0)])    # (2, group, setting, clip)
    return (hits if present is None else hits & (present > 0)[:, None]).sum(dim=-1)


def evaluate_fits(
    data: GridData, shape: Shape, loss: Loss, heads: Heads, spec: torch.Tensor, monitor: Monitor
) -> Validation:
    """Validate every fit.  `spec`: (group,) the input of each group."""
    if data.valid_tracks is not None or monitor.name not in ("auto", "loss", "accuracy"):
        return evaluate_collected(data, shape, loss, heads, spec, monitor)
    groups, k = len(spec), heads.rates.shape[1]
    clips = len(data.valid_targets)
    hits, total, weight = torch.zeros(2, groups, k, device=spec.device), torch.zeros(groups, k, device=spec.device), 0.0
    for start, logits in valid_logits(data, shape, heads, spec):
        targets = data.valid_targets[start : start + logits.shape[3]]
        own = targets.expand(groups, *targets.shape)
        if loss.kind == "multiclass":
            hits += count_hits(logits, own)
        value, _ = loss(logits, own)
        amount = float(loss.weights[targets].sum()) if loss.kind == "multiclass" and loss.weights is not None else len(targets)
        total += value * amount
        weight += amount
    mean_loss = as_array(total / max(weight, 1e-12))
    top_1, top_5 = as_array(hits / clips) if loss.kind == "multiclass" else np.full((2, groups, k), np.nan)
    return Validation(score=-mean_loss if monitor.by_loss(loss.kind) else top_1, loss=mean_loss, top_1=top_1, top_5=top_5)


def valid_logits(
    data: GridData, shape: Shape, heads: Heads, spec: torch.Tensor, groups: slice = slice(None)
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the first row and the logits (group, setting, out, clip) of blocks of validation clips."""
    spec = spec[groups]
    working = {name: value[groups] for name, value in heads.working.items()}
    rates = heads.rates[groups] if len(heads.rates) > 1 else heads.rates
    widest = max(rates.shape[1] * shape.outputs, shape.width * max(shape.mixed, 1))
    block = max(EVALUATED_AT_ONCE // (4 * len(spec) * widest), 1)
    for start in range(0, len(data.valid_targets), block):
        x = data.valid_block(spec, start, start + block)
        yield start, forward(shape, working, x.transpose(1, 2) if shape.mixed else x, rates=rates).logits


def evaluate_collected(
    data: GridData, shape: Shape, loss: Loss, heads: Heads, spec: torch.Tensor, monitor: Monitor
) -> Validation:
    """Validate every fit by the logits of all clips or tracks, some groups at a time."""
    targets, tracks = data.valid_targets, data.valid_tracks
    if tracks is not None:
        first = torch.full((int(tracks.max()) + 1,), len(tracks), dtype=torch.int64, device=tracks.device)
        targets = targets[first.scatter_reduce(0, tracks, torch.arange(len(tracks), device=tracks.device), "amin")]
    size = 4 * heads.rates.shape[1] * shape.outputs * len(data.valid_targets)
    at_once = max(COLLECTED_AT_ONCE // max(size, 1), 1)
    found = []
    for start in range(0, len(spec), at_once):
        part = slice(start, start + at_once)
        logits = torch.cat([block for _, block in valid_logits(data, shape, heads, spec, part)], dim=3)
        logits = logits if tracks is None else mean_of_tracks(logits, tracks)
        own = targets.expand(len(logits), *targets.shape)
        value, _ = loss(logits.clone(), own)
        tops = torch.full((2, *value.shape), torch.nan, device=value.device)
        if loss.kind == "multiclass":
            tops = count_hits(logits, own) / len(targets)
        if monitor.name in SCORES:
            score = SCORES[monitor.name](logits, own, monitor)
        else:
            score = -value if monitor.by_loss(loss.kind) else tops[0]
        found.append(torch.stack([score, value, *tops]))
    score, value, top_1, top_5 = as_array(torch.cat(found, dim=1))
    return Validation(score=score, loss=value, top_1=top_1, top_5=top_5)


def mean_of_tracks(logits: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Return (group, setting, out, track) means over the clips of each track; `tracks`: (clip,) from 0."""
    count = torch.bincount(tracks)
    total = logits.new_zeros(*logits.shape[:3], len(count)).index_add_(3, tracks, logits)
    return total / count


def roc_area(logits: torch.Tensor, targets: torch.Tensor, monitor: Monitor) -> torch.Tensor:
    """Return (group, setting) mean areas under the ROC curve, from the ranks of positive clips."""
    if targets.dim() == 2:                                                       # classes: one against the others
        targets = torch.nn.functional.one_hot(targets, logits.shape[2])
    true = targets.transpose(1, 2)[:, None].to(torch.float64)                    # (group, 1, out, clip)
    ranks = logits.argsort(dim=3).argsort(dim=3).to(torch.float64) + 1
    positive, clips = true.sum(dim=3), true.shape[3]
    pairs = positive * (clips - positive)
    area = ((ranks * true).sum(dim=3) - positive * (positive + 1) / 2) / pairs.clamp_min(1)
    known = (pairs > 0).to(torch.float64)
    return ((area * known).sum(dim=2) / known.sum(dim=2)).float()


def r_squared(logits: torch.Tensor, targets: torch.Tensor, monitor: Monitor) -> torch.Tensor:
    """Return (group, setting) mean R² over targets."""
    true = targets.transpose(1, 2)[:, None].to(torch.float64)
    error = (logits - true).square().sum(dim=3)
    spread = (true - true.mean(dim=3, keepdim=True)).square().sum(dim=3)
    return (1 - error / spread.clamp_min(1e-12)).mean(dim=2).float()


def class_credit(logits: torch.Tensor, targets: torch.Tensor, monitor: Monitor) -> torch.Tensor:
    """Return (group, setting) means of the credit for the likeliest class."""
    assert monitor.credit is not None
    return monitor.credit[targets[:, None], logits.argmax(dim=2)].mean(dim=-1)


SCORES: dict[str, Callable[[torch.Tensor, torch.Tensor, Monitor], torch.Tensor]] = {
    "auroc": roc_area, "r2": r_squared, "key_score": class_credit,
}


def as_array(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(float)


class Plateau:
    """torch's ReduceLROnPlateau with factor 0.5 for every fit: halve the rate once a score has not risen for too long."""

    FACTOR, THRESHOLD = 0.5, 1e-4        # the threshold is relative, torch's default

    def __init__(self, patience: int, groups: int, settings: int) -> None:
        self.patience = patience
        self.best = np.full((groups, settings), -np.inf)
        self.waited = np.zeros((groups, settings), np.int64)

    def factors(self, here: tuple[np.ndarray, ...], score: np.ndarray, *, negative: bool) -> np.ndarray:
        """Return (group, setting) factors of the rates after an epoch; `here`: the numbers of these fits; `negative`: scores
        are negative losses."""
        best = self.best[here]
        with np.errstate(invalid="ignore"):
            better = score > best * (1 + (-self.THRESHOLD if negative else self.THRESHOLD))
        better |= np.isneginf(best) & np.isfinite(score)
        self.best[here] = np.where(better, score, best)
        waited = np.where(better, 0, self.waited[here] + 1)
        reduce = waited > self.patience
        self.waited[here] = np.where(reduce, 0, waited)
        return np.where(reduce, self.FACTOR, 1.0)
