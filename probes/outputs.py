"""Turn vectors into probabilities of a fit, and scores into columns of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch

from tonelake.probes.grid import predict_logits
from tonelake.probes.heads import Shape, Tensors

TOP_CLASSES = 5                          # classes reported for each clip, with their probabilities


def logits_of(shape: Shape, state: Tensors, vectors: np.ndarray, device: str) -> np.ndarray:
    """Return (clip, out) float32 logits of one fit for prepared vectors (clip, width)."""
    return predict_logits(shape, state, torch.from_numpy(vectors).to(device)).cpu().numpy()


def as_outputs(kind: str, logits: np.ndarray, scale: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Return (clip, out) float32 from logits: probabilities of classes, which sum to 1, or of tags; for regression, values in
    the targets' units if `scale` (mean and spread of each target) is given."""
    if kind == "multiclass":
        return torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
    if kind == "multilabel":
        return torch.sigmoid(torch.from_numpy(logits)).numpy()
    return logits if scale is None else logits * scale[1] + scale[0]


def probabilities(
    kind: str, shape: Shape, state: Tensors, vectors: np.ndarray, device: str,
    scale: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return the outputs (see `as_outputs`) of one fit for prepared vectors (clip, width)."""
    return as_outputs(kind, logits_of(shape, state, vectors, device), scale)


def prediction_columns(kind: str, names: Sequence[str], scores: np.ndarray) -> pl.DataFrame:
    """Return (clip, out) scores as columns.

    multiclass: predicted, probability, gap (to the next class), and the likeliest classes with their probabilities;
    multilabel: predicted (tags of at least one half) and every tag's probability; regression: predicted_<target>.
    """
    if kind == "regression":
        return pl.DataFrame({f"predicted_{name}": scores[:, i] for i, name in enumerate(names)})
    if kind == "multilabel":
        predicted = [[names[int(i)] for i in np.flatnonzero(row >= 0.5)] for row in scores]
        likely = pl.Series("probabilities", scores.astype(np.float32)).cast(pl.List(pl.Float32))
        return pl.DataFrame({"predicted": pl.Series(predicted, dtype=pl.List(pl.String)), "probabilities": likely})
    count = min(TOP_CLASSES, len(names))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    ordered = np.take_along_axis(scores, order, 1)
    array = np.array(names, dtype=object)
    return pl.DataFrame({
        "predicted": pl.Series(array[order[:, 0]].tolist(), dtype=pl.String), "probability": ordered[:, 0],
        "gap": ordered[:, 0] - (ordered[:, 1] if count > 1 else 0),
        "likeliest": pl.Series([list(array[row]) for row in order], dtype=pl.List(pl.String)),
        "probabilities": pl.Series("probabilities", ordered.astype(np.float32)).cast(pl.List(pl.Float32)),
    })


def readable_targets(kind: str, names: Sequence[str], targets: np.ndarray) -> pl.Series:
    """Return the class name of each clip, or its list of tags, from targets (clip,) or (clip, tag)."""
    if kind == "multiclass":
        return pl.Series("target", [names[int(i)] for i in targets], dtype=pl.String)
    return pl.Series("target", [[names[int(i)] for i in np.flatnonzero(row)] for row in targets], dtype=pl.List(pl.String))


def clip_losses(kind: str, targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return (clip,) float32 losses of (clip, out) scores.

    multiclass: cross-entropy of the true class; multilabel: mean cross-entropy of all tags; regression: mean absolute error,
    in standard deviations of each target.
    """
    if kind == "regression":
        spread = targets.std(axis=0)
        return np.abs((scores - targets) / np.where(spread > 0, spread, 1)).mean(axis=1).astype(np.float32)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    if kind == "multilabel":
        return -np.where(targets > 0, np.log(clipped), np.log(1 - clipped)).mean(axis=1).astype(np.float32)
    return -np.log(clipped[np.arange(len(clipped)), targets]).astype(np.float32)
