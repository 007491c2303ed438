"""Losses and their gradients by the logits, for every fit of a stack at once.

    logits   (group, setting, out, clip) float32
    targets  multiclass (group, clip) int64; multilabel and regression (group, clip, out) float32
    present  (group, clip) float32: 1, or 0 for padding; None if no clip is padding
    loss     (group, setting), the mean over the clips of the batch, separately for each fit

Values and gradients are those of torch's cross_entropy, binary_cross_entropy_with_logits and mse_loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True)
class Loss:
    """A loss function with its weights on a device."""

    kind: str                                        # multiclass, multilabel or regression
    weights: torch.Tensor | None = None              # (class,), or (tag,) for positive examples; None: all 1
    smoothing: float = 0.0

    def __call__(
        self, logits: torch.Tensor, targets: torch.Tensor, present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and its gradient by the logits."""
        return FUNCTIONS[self.kind](self, logits, targets, present)


def cross_entropy(
    loss: Loss, logits: torch.Tensor, targets: torch.Tensor, present: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    classes = logits.shape[2]
    index = targets[:, None, None].expand(*logits.shape[:2], 1, -1)
    if loss.weights is None and present is None and not loss.smoothing:          # the usual case, in few calls
        powers, away = shifted_powers(logits, index)
        sums, count = powers.sum(dim=2, keepdim=True), logits.shape[3]
        value = (sums.log() - away).sum(dim=(2, 3)) / count
        return value, powers.div_(sums * count).scatter_add_(2, index, torch.full_like(away, -1 / count))
    own = torch.ones_like(targets, dtype=torch.float32) if loss.weights is None else loss.weights[targets]     # (group, clip)
    own = own if present is None else own * present
    total = own.sum(dim=1, keepdim=True).clamp_min(1e-12)
    scale = (own / total)[:, None, None]                                         # (group, 1, 1, clip)
    if not loss.smoothing:
        powers, away = shifted_powers(logits, index)
        sums = powers.sum(dim=2, keepdim=True)
        value = ((sums.log() - away) * scale).sum(dim=(2, 3))
        return value, powers.mul_(scale / sums).scatter_add_(2, index, -scale.expand_as(index))
    logged = torch.log_softmax(logits, dim=2)
    value = -(logged.gather(2, index) * scale).sum(dim=(2, 3))
    even = (torch.ones(classes, device=logits.device) if loss.weights is None else loss.weights)[:, None]
    spread = (loss.smoothing / classes / total)[..., None, None]                 # (group, 1, 1, 1)
    spread = spread if present is None else spread * present[:, None, None]      # (group, 1, 1, clip)
    value = (1 - loss.smoothing) * value - (spread * logged * even).sum(dim=(2, 3))
    gradient = logged.exp_().mul_((1 - loss.smoothing) * scale + spread * even.sum()).sub_(spread * even)
    return value, gradient.scatter_add_(2, index, -(1 - loss.smoothing) * scale.expand_as(index))


def shifted_powers(logits: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the exponentials of logits less the largest of each clip, and that difference at `index`, the clip's class.

    With log_softmax, the gradient would take a second exponential.
    """
    shifted = logits - logits.amax(dim=2, keepdim=True)
    away = shifted.gather(2, index)
    return shifted.exp_(), away


def binary_cross_entropy(
    loss: Loss, logits: torch.Tensor, targets: torch.Tensor, present: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth negatives only: a tag that was not assigned may still apply, an assigned one does apply."""
    wanted = (targets + (1 - targets) * loss.smoothing).transpose(1, 2)[:, None]             # (group, 1, tag, clip)
    positive = wanted if loss.weights is None else wanted * loss.weights[:, None]
    share = share_of_clip(targets, present)
    value = (positive * functional.softplus(-logits) + (1 - wanted) * functional.softplus(logits)).mul_(share).sum(dim=(2, 3))
    return value, (torch.sigmoid(logits) * (positive + 1 - wanted) - positive).mul_(share)


def mean_squared(
    loss: Loss, logits: torch.Tensor, targets: torch.Tensor, present: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    away = logits - targets.transpose(1, 2)[:, None]
    share = share_of_clip(targets, present)
    return (away.square() * share).sum(dim=(2, 3)), away.mul_(2 * share)


def share_of_clip(targets: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the weight of a clip's output in the mean of a batch, for targets (group, clip, out): one value, or a value for
    each clip, (group, 1, 1, clip)."""
    if present is None:
        return torch.full((), 1 / (targets.shape[1] * targets.shape[2]), device=targets.device)
    return (present / (present.sum(dim=1, keepdim=True) * targets.shape[2]))[:, None, None]


LossFunction = Callable[[Loss, torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]
FUNCTIONS: dict[str, LossFunction] = {
    "multiclass": cross_entropy, "multilabel": binary_cross_entropy, "regression": mean_squared,
}


def balanced_weights(kind: str, targets: np.ndarray, outputs: int) -> np.ndarray | None:
    """Return weights under which rare classes count as much as common ones; None for regression.

    multiclass: clips / (classes · clips of the class), with mean 1 over clips; absent classes weigh 0.
    multilabel: clips without the tag / clips with it, the weight of its positives (`pos_weight`).
    """
    if kind == "regression":
        return None
    counts = np.bincount(targets, minlength=outputs) if kind == "multiclass" else (targets > 0).sum(axis=0)
    wanted = len(targets) / max((counts > 0).sum(), 1) if kind == "multiclass" else len(targets) - counts
    return np.divide(wanted, counts, out=np.zeros(outputs), where=counts > 0).astype(np.float32)
