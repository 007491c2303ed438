"""Loss, its gradient, and validation scores of frame heads, for every fit of a stack at once.

    logits        (fit, row, output), a row being a frame of a segment
    targets       multilabel: positive cells (`Cells`); multiclass: (row,) int64, -1 where unlabelled
    unjudged      rows that are padding or belong to another segment, or None

Multilabel: binary cross entropy, positives weighted by group, the mean over judged frames and outputs.  Positives are few, so
the dense part (a sigmoid or softplus) treats every cell as negative and positive cells are corrected one by one.
Multiclass: cross entropy, weighted by class, the mean over labelled frames.

The validation score is average precision, the mean over groups of outputs (onset, frame, …); of classes it is the accuracy.
Average precision and loss are computed from a histogram of logits.  Where groups of a column are held out in validation, the
score is the mean of those of clips of seen groups and of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

BINS, REACH = 1024, 16.0                 # of the histogram of logits, from -REACH to REACH
FEW_POSITIVES = 1                        # groups with fewer positive cells do not count in the score


class Cells(NamedTuple):
    """Positive cells of a batch."""

    rows: torch.Tensor                   # (cell,) int64
    outputs: torch.Tensor                # (cell,) int64
    amounts: torch.Tensor                # (cell,) float32 targets above 0, 1 unless soft


FrameTargets = Cells | torch.Tensor


class FrameLoss:
    """Loss of one task.  `weights`: (output,) float32 of positives or classes, on the device."""

    def __init__(self, kind: str, weights: torch.Tensor) -> None:
        self.kind, self.weights = kind, weights

    def gradient(self, logits: torch.Tensor, targets: FrameTargets, unjudged: torch.Tensor | None) -> torch.Tensor:
        """Return the gradient of the sum over judged cells by the logits, in place of them."""
        if isinstance(targets, Cells):
            found = logits.sigmoid_()
            places = (slice(None), targets.rows, targets.outputs)
            chance, amounts = found[places], targets.amounts.to(found.dtype)     # (fit, cell)
            weighted = self.weights[targets.outputs].to(found.dtype) * amounts
            found[places] = chance * (weighted + 1 - amounts) - weighted
        else:
            known = targets >= 0
            found = torch.softmax(logits.float(), dim=2)
            own = targets.clamp_min(0)
            found[:, torch.arange(len(own), device=own.device), own] -= 1
            found *= (self.weights[own] * known)[:, None]
            found = found.to(logits.dtype)
        return found if unjudged is None else found.index_fill_(1, unjudged, 0)

    def amount(self, targets: FrameTargets, rows: int, outputs: int) -> torch.Tensor | float:
        """Return what the sum over `rows` judged rows is divided by."""
        if isinstance(targets, Cells):
            return rows * outputs
        return (self.weights[targets.clamp_min(0)] * (targets >= 0)).sum()

    def value(self, logits: torch.Tensor, targets: FrameTargets, unjudged: torch.Tensor | None) -> torch.Tensor:
        """Return (fit,) sums over judged cells; overwrites unjudged logits."""
        if isinstance(targets, Cells):
            if unjudged is not None:
                logits = logits.index_fill_(1, unjudged, -1e4)
            positive = logits[:, targets.rows, targets.outputs].float()
            weighted = self.weights[targets.outputs] * targets.amounts
            extra = weighted * functional.softplus(-positive) - targets.amounts * functional.softplus(positive)
            return functional.softplus(logits).sum(dim=(1, 2), dtype=torch.float32) + extra.sum(dim=1)
        own = targets.clamp_min(0)
        logged = torch.log_softmax(logits.float(), dim=2)
        picked = logged[:, torch.arange(len(own), device=own.device), own]
        return -(picked * (self.weights[own] * (targets >= 0))).sum(dim=1)


def positive_weights(
    kind: str, counts: np.ndarray, frames: int, groups: Mapping[str, slice], *, balanced: bool
) -> np.ndarray:
    """Return (output,) float32 weights of positives, or of classes.

    `counts`: (output,) positive frames, of `frames` in training.  Balanced: multilabel, negatives / positives of the output's
    group, so that both weigh as much; multiclass, frames / (classes · frames of the class), 0 for absent classes.
    """
    if not balanced:
        return np.ones(len(counts), np.float32)
    found = np.ones(len(counts))
    if kind == "multiclass":
        present = counts > 0
        np.divide(counts.sum() / max(present.sum(), 1), counts, out=found, where=present)
        found[~present] = 0
        return found.astype(np.float32)
    for group in groups.values():
        positive = counts[group].sum()
        found[group] = (frames * len(counts[group]) - positive) / positive if positive else 1
    return found.astype(np.float32)


def start_of_bias(
    kind: str, counts: np.ndarray, frames: int, groups: Mapping[str, slice], weights: np.ndarray
) -> np.ndarray | None:
    """Return (output,) float32 logits of the frequency of each group under the weights; None for classes."""
    if kind == "multiclass":
        return None
    found = np.zeros(len(counts))
    for group in groups.values():
        share = np.clip(counts[group].sum() / max(frames * len(counts[group]), 1), 1e-6, 1 - 1e-6)
        found[group] = np.log(weights[group] * share / (1 - share))
    return found.astype(np.float32)


class ValidationSums:
    """Loss and score of every fit over the validation frames, collected block by block.

    `parts`: number of parts of the validation set whose scores are averaged, such as seen and held-out timbres.
    """

    def __init__(self, loss: FrameLoss, fits: int, groups: Mapping[str, slice], parts: int, device: torch.device) -> None:
        self.loss, self.groups, self.parts = loss, list(groups.values()), parts
        self.total = torch.zeros(fits, dtype=torch.float64, device=device)
        self.weight = torch.zeros((), dtype=torch.float64, device=device)
        shape = (fits, parts, len(self.groups))
        self.every = torch.zeros(*shape, BINS, dtype=torch.int64, device=device)
        self.positive = torch.zeros(*shape, BINS, dtype=torch.int64, device=device)
        self.widths = torch.tensor([group.stop - group.start for group in self.groups], device=device)
        numbers = np.concatenate([np.full(int(width), number) for number, width in enumerate(self.widths.tolist())])
        self.offsets = torch.from_numpy(numbers.astype(np.int32) * BINS).to(device)      # (output,) groups follow one another
        self.hits = torch.zeros(fits, parts, dtype=torch.int64, device=device)
        self.labelled = torch.zeros(parts, dtype=torch.int64, device=device)

    def add(self, logits: torch.Tensor, targets: FrameTargets, unjudged: torch.Tensor | None, part: int) -> None:
        """Take a block of one part into account."""
        rows = logits.shape[1] - (0 if unjudged is None else len(unjudged))
        self.weight += self.loss.amount(targets, rows, logits.shape[2])
        if isinstance(targets, Cells):
            self._count(logits, targets, unjudged, part)
        else:
            self.total += self.loss.value(logits, targets, unjudged)
            known = targets >= 0
            self.hits[:, part] += ((logits.argmax(dim=2) == targets) & known).sum(dim=1)
            self.labelled[part] += known.sum()

    def _count(self, logits: torch.Tensor, targets: Cells, unjudged: torch.Tensor | None, part: int) -> None:
        """Count logits in bins; the targets are 0 or 1."""
        if unjudged is not None:                 # into the lowest bin, from which they are taken away
            logits = logits.index_fill_(1, unjudged, -2 * REACH)
        bins = self.bins_of(logits)
        counts = torch.bincount(bins.flatten(), minlength=self.every[:, 0].numel())
        self.every[:, part] += counts.view(self.every[:, 0].shape)
        if unjudged is not None:
            self.every[:, part, :, 0] -= len(unjudged) * self.widths
        positive = torch.bincount(bins[:, targets.rows, targets.outputs].flatten(), minlength=self.every[:, 0].numel())
        self.positive[:, part] += positive.view(self.every[:, 0].shape)

    def bins_of(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (fit, row, output) int32: the bin of each logit, numbered over fits and groups."""
        scaled = logits.mul(BINS / (2 * REACH)) if logits.dtype == torch.float32 else logits.float().mul_(BINS / (2 * REACH))
        scaled.add_(BINS / 2).nan_to_num_(0)     # of diverged fits, which their parameters show
        fits = torch.arange(len(logits), dtype=torch.int32, device=logits.device)[:, None, None] * len(self.groups) * BINS
        return scaled.clamp_(0, BINS - 1).to(torch.int32).add_(fits + self.offsets)

    def _loss_of_bins(self) -> torch.Tensor:
        """Return (fit,) summed losses, the logits of a bin being its middle."""
        middle = (torch.arange(BINS, dtype=torch.float64, device=self.every.device) + 0.5) * (2 * REACH / BINS) - REACH
        weights = torch.stack([self.loss.weights[group.start] for group in self.groups]).double()        # one a group
        negative = (self.every - self.positive) * functional.softplus(middle)
        positive = self.positive * functional.softplus(-middle) * weights[:, None]
        return (negative + positive).sum(dim=(1, 2, 3))

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (fit,) mean losses and (fit,) scores."""
        if self.loss.kind == "multilabel":
            self.total = self._loss_of_bins()
        loss = (self.total / self.weight.clamp_min(1e-12)).cpu().numpy()
        if self.loss.kind == "multiclass":
            shares = (self.hits / self.labelled.clamp_min(1)).cpu().numpy()
            used = (self.labelled > 0).cpu().numpy()
        else:
            precision = average_precision(self.every.cpu().numpy(), self.positive.cpu().numpy())     # (fit, part, group)
            known = self.positive[0].sum(dim=-1).cpu().numpy() >= FEW_POSITIVES
            shares = (precision * known).sum(axis=2) / np.maximum(known.sum(axis=1), 1)
            used = np.asarray(known.any(axis=1))
        return loss, shares[:, used].mean(axis=1) if used.any() else -loss


def average_precision(every: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return (…) average precision from (…, bin) counts of all cells and of the positive ones, by increasing logit.

    Cells of one bin are taken as evenly mixed, so the middle one has the mean precision of the bin's positives.
    """
    every, positive = every[..., ::-1], positive[..., ::-1]
    above, found = every.cumsum(axis=-1), positive.cumsum(axis=-1)
    precision = (found - (positive - 1) / 2) / np.maximum(above - (every - 1) / 2, 1)
    return (precision * positive).sum(axis=-1) / np.maximum(found[..., -1], 1)
