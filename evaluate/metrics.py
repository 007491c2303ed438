"""Metrics of predictions for each kind of task, each with a bootstrap interval.

    multiclass   targets (clip,) int, scores (clip, class) probabilities
    multilabel   targets (clip, tag) 0 or 1, scores (clip, tag) probabilities
    regression   targets (clip, target), scores (clip, target)

scikit-learn's functions are not used because they take one weight vector a call; here every metric is computed for all draws
at once from weights (draw, clip).  All weights 1 give the value; the bootstrap counts how often each clip was drawn (whole
tracks are drawn, since clips of a track are not independent).  Conventions are scikit-learn's, and tests compare with it:
balanced accuracy covers the classes that occur, macro-F1 also those that were predicted, average precision is the step-wise
sum, the ROC area counts ties half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.evaluate.intervals import Estimate, bias_corrected_estimate
from tonelake.evaluate.resampling import weights_with_original

DRAWS = 1_000                            # bootstrap draws
MAX_CELLS = 400_000_000                  # draws × clips × classes: ten seconds of sums
MAX_WEIGHTS = 40_000_000                 # draws × clips: 320 MB
FEW_THRESHOLDS = 32                      # up to here, counting by matrix products is faster than by running sums
CALIBRATION_BINS = 15                    # as in Guo et al. 2017 (arXiv 1706.04599)
UNBOUNDED = ("r2", "rmse")
MAIN_METRIC = {"multiclass": "accuracy", "multilabel": "map", "regression": "r2"}




def estimate_metrics(
    kind: str, targets: np.ndarray, scores: Sequence[np.ndarray], track: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Estimate]:
    """Return every metric of a kind of task by name, each the mean over runs that differ by their seed.

    `scores`: one array a run; `track`: (clip,) int.  The bootstrap draws whole tracks; each draw is a mean over the runs, and
    the interval is shifted by the bias of the draws (see `bias_corrected_estimate`).
    """
    most = min(MAX_CELLS // max(scores[0].size * len(scores), 1), MAX_WEIGHTS // len(targets))
    weights = weights_with_original(track, int(np.clip(most, min(40, draws), draws)), seed)
    runs = [METRICS_BY_KIND[kind](targets, run, weights) for run in scores]
    result = {}
    for name in runs[0]:
        values = np.mean([run[name] for run in runs], axis=0)                    # (1 + draw,)
        result[name] = bias_corrected_estimate(values, bounded=not name.startswith(UNBOUNDED))
    return result


def multiclass_metrics(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return each metric as (draw,) values, for `weights` (draw, clip)."""
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    total = weights.sum(axis=1)
    true, found = one_hot(targets, classes), one_hot(predicted, classes)
    hit = (predicted == targets).astype(float)
    support, predicted_as = weights @ true, weights @ found                           # (draw, class)
    right = (weights * hit) @ true
    recall = safe_divide(right, support)
    f1 = safe_divide(2 * right, support + predicted_as)
    top5 = (rank_of_target(targets, scores) < 5).astype(float)
    ordered = np.sort(scores, axis=1)
    gap = ordered[:, -1] - ordered[:, -2] if classes > 1 else ordered[:, -1]
    aps, areas = ranking_metrics(true.toarray() > 0, scores, weights)
    return {
        "accuracy": (weights @ hit) / total, "top_5": (weights @ top5) / total, "balanced_accuracy": np.nanmean(recall, axis=1),
        "macro_f1": np.nanmean(f1, axis=1), "map": mean_over_classes(aps), "roc_auc": mean_over_classes(areas),
        "confidence_gap": (weights @ gap) / total, "confidence_gap_median": weighted_medians(gap, weights),
        "calibration_error": calibration_errors(scores.max(axis=1), hit, weights),
    }


def multilabel_metrics(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return each metric as (draw,) values; F1 counts a tag as predicted from a probability of one half."""
    true = targets > 0
    aps, areas = ranking_metrics(true, scores, weights)
    predicted_as = scores >= 0.5
    right = weights @ (true & predicted_as)
    f1 = safe_divide(2 * right, weights @ true + weights @ predicted_as)
    return {
        "map": mean_over_classes(aps), "roc_auc": mean_over_classes(areas), "macro_f1": np.nan_to_num(f1).mean(axis=1),
        "calibration_error": np.mean(
            [calibration_errors(scores[:, i], true[:, i].astype(float), weights) for i in range(true.shape[1])], axis=0
        ),
    }


def regression_metrics(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return R² and RMSE as (draw,) values: the mean over targets and, if there are several, each target's own, by number."""
    total = weights.sum(axis=1)[:, None]
    centre = weights @ targets / total
    spread = weights @ np.square(targets, dtype=np.float64) - total * centre**2
    error = weights @ np.square(targets - scores, dtype=np.float64)
    r2, rmse = 1 - safe_divide(error, spread), np.sqrt(error / total)                # (draw, target)
    result = {"r2": mean_over_classes(r2), "rmse": rmse.mean(axis=1)}
    if targets.shape[1] > 1:
        result |= {f"r2_{i}": r2[:, i] for i in range(targets.shape[1])}
        result |= {f"rmse_{i}": rmse[:, i] for i in range(targets.shape[1])}
    return result


METRICS_BY_KIND = {"multiclass": multiclass_metrics, "multilabel": multilabel_metrics, "regression": regression_metrics}


def ranking_metrics(true: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (draw, class) average precision and area under the ROC curve; NaN if a class never or always occurs.

    Precision is taken at the score of each positive clip, over all clips that score at least as much.
    """
    aps, areas = (np.full((len(weights), true.shape[1]), np.nan) for _ in range(2))
    for label in np.flatnonzero(true.any(axis=0)):
        positive, own = true[:, label], scores[:, label]
        thresholds = np.unique(own[positive])                                         # ascending
        count = counts_above if len(thresholds) <= FEW_THRESHOLDS else counts_above_sorted
        hits, hits_over = count(own[positive], thresholds, weights[:, positive])      # (draw, threshold) reached, exceeded
        misses, misses_over = count(own[~positive], thresholds, weights[:, ~positive])
        gained = hits - hits_over
        found, others = hits[:, 0], weights[:, ~positive].sum(axis=1)
        aps[:, label] = safe_divide((gained * safe_divide(hits, hits + misses, 0.0)).sum(axis=1), found)
        below = others[:, None] - (misses + misses_over) / 2                     # equal scores count half
        areas[:, label] = safe_divide((gained * below).sum(axis=1), found * others)
    return aps, areas


def counts_above(scores: np.ndarray, thresholds: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (draw, threshold) weights of the scores that reach each threshold, and of those that exceed it."""
    return weights @ (scores[:, None] >= thresholds), weights @ (scores[:, None] > thresholds)


def counts_above_sorted(scores: np.ndarray, thresholds: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `counts_above` returns, by running sums, which is less work for many thresholds."""
    order = np.argsort(-scores, kind="stable")
    running = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1)
    ordered = -scores[order]
    return running[:, np.searchsorted(ordered, -thresholds, "right")], running[:, np.searchsorted(ordered, -thresholds, "left")]


def per_class(
    kind: str, names: Sequence[str], targets: np.ndarray, scores: Sequence[np.ndarray]
) -> pl.DataFrame:
    """Return a row a class or tag, the mean over runs: support, precision, recall (the class's accuracy), f1, ap, roc_auc; for
    classes also how many clips of other classes were predicted as it, and which class most often."""
    true = one_hot(targets, len(names)).toarray() > 0 if kind == "multiclass" else targets > 0
    ones = np.ones((1, len(true)))
    rows = []
    for run in scores:
        predicted_as = one_hot(run.argmax(axis=1), len(names)).toarray() > 0 if kind == "multiclass" else run >= 0.5
        right, support, predicted = ((m.sum(axis=0).astype(float)) for m in (true & predicted_as, true, predicted_as))
        aps, areas = ranking_metrics(true, run, ones)
        f1_scores = safe_divide(2 * right, support + predicted)
        rows.append(np.stack([safe_divide(right, predicted), safe_divide(right, support), f1_scores, aps[0], areas[0]]))
    with np.errstate(invalid="ignore"):
        precision, recall, f1, ap, area = np.mean(rows, axis=0)
    table = pl.DataFrame({
        "name": list(names), "support": true.sum(axis=0), "precision": precision, "recall": recall, "f1": f1, "ap": ap,
        "roc_auc": area,
    }).with_columns(pl.selectors.float().fill_nan(None))
    if kind == "multiclass":
        wrong = confusion(targets, scores, len(names))
        np.fill_diagonal(wrong, 0)
        taken, given = wrong.sum(axis=0), wrong.argmax(axis=1)
        attracted = [names[i] if wrong[:, c].any() else None for c, i in enumerate(wrong.argmax(axis=0))]
        mistaken = [names[i] if wrong[c].any() else None for c, i in enumerate(given)]
        table = table.with_columns(attracts=taken, attracts_most=pl.Series(attracted, dtype=pl.String),
                                   mistaken_for=pl.Series(mistaken, dtype=pl.String))
    return table


def confusion(targets: np.ndarray, scores: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Return (true class, predicted class) float: numbers of clips, the mean over runs."""
    true = one_hot(targets, classes)
    return np.mean([(true.T @ one_hot(run.argmax(axis=1), classes)).toarray() for run in scores], axis=0)


def reliability(confidence: np.ndarray, right: np.ndarray) -> pl.DataFrame:
    """Return a row for each occupied bin of confidence: clips, mean confidence and the share of correct predictions."""
    number = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    frame = pl.DataFrame({"bin": number, "confidence": confidence.astype(float), "right": right.astype(float)})
    return frame.group_by("bin").agg(pl.len().alias("clips"), pl.col("confidence").mean(), pl.col("right").mean()).sort("bin")


def calibration_errors(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (draw,) expected calibration errors: the mean of |confidence − share correct| over bins, weighted by clips."""
    number = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = weights @ (one_hot(number, CALIBRATION_BINS) * (confidence - right)[:, None])
    return np.abs(gaps).sum(axis=1) / weights.sum(axis=1)


def one_hot(numbers: np.ndarray, classes: int) -> sparse.csr_array:
    """Return a sparse (clip, class) matrix: 1 at each clip's class."""
    rows = np.arange(len(numbers) + 1)
    return sparse.csr_array((np.ones(len(numbers)), numbers, rows), shape=(len(numbers), classes))


def rank_of_target(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return (clip,) int: how many classes rank before the true one; among equal scores, lower numbers rank first."""
    own = np.take_along_axis(scores, targets[:, None], 1)
    earlier = np.arange(scores.shape[1]) < targets[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (draw,) weighted medians, the lower of the two middle values."""
    order = np.argsort(values)
    reached = np.cumsum(weights[:, order], axis=1)
    return values[order][(reached >= reached[:, -1:] / 2).argmax(axis=1)]


def safe_divide(a: np.ndarray, b: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Return a / b, and `otherwise` where b is zero."""
    return np.divide(a, b, out=np.full(np.shape(a), otherwise, float), where=b != 0)


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Return (draw,) means over the classes that have a finite value."""
    known = np.isfinite(values)
    return safe_divide(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


