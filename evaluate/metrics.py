"""How good predictions are: the field's figures for each kind of task, each with a bootstrap interval.

    multiclass   targets (clip,) int, scores (clip, class) probabilities
    multilabel   targets (clip, tag) 0 or 1, scores (clip, tag) probabilities
    regression   targets (clip, target), scores (clip, target)

Every figure is computed from weights of clips, so that one formula gives the value (all weights 1) and the bootstrap (how
often each clip was drawn; whole tracks are drawn, since clips of a track are not independent).  Conventions are
scikit-learn's: balanced accuracy is over the classes that occur, macro-F1 also over those that were predicted, average
precision is the step-wise sum, the ROC area counts ties half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.evaluate.resampling import resample_weights_of_clips

DRAWS = 1_000                            # of the bootstrap
CELLS = 400_000_000                      # draws × clips × classes at most: ten seconds of sums
WEIGHTS = 40_000_000                     # draws × clips at most: 320 MB
FEW_MARKS = 32                           # scores of positives up to which counting by products is the faster way
CALIBRATION_BINS = 15                    # as in Guo et al. 2017 (arXiv 1706.04599)
UNBOUNDED = ("r2", "rmse")
MAIN_METRIC = {"multiclass": "accuracy", "multilabel": "map", "regression": "r2"}


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def figures(
    kind: str, targets: np.ndarray, scores: Sequence[np.ndarray], track: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Figure]:
    """The figures of a kind of task, each the mean over runs that differ by their seed.

    `scores`: one array a run; `track`: (clip,) int.  The interval is of tracks drawn anew, each draw a mean over the runs,
    and is moved by the draws' bias: draws leave classes out, which moves a mean over classes.
    """
    draws = int(np.clip(min(CELLS // max(scores[0].size * len(scores), 1), WEIGHTS // len(targets)), min(40, draws), draws))
    weights = np.concatenate([np.ones((1, len(targets))), resample_weights_of_clips(track, draws, seed)])
    runs = [METRICS_BY_KIND[kind](targets, run, weights) for run in scores]
    result = {}
    for name in runs[0]:
        values = np.mean([run[name] for run in runs], axis=0)                    # (1 + draw,)
        rest = values[1:][np.isfinite(values[1:])]
        low, high = np.percentile(rest, [2.5, 97.5]) + values[0] - rest.mean() if len(rest) else (np.nan, np.nan)
        if not name.startswith(UNBOUNDED):
            low, high = np.clip([low, high], 0, 1)
        result[name] = Figure(float(values[0]), float(low), float(high))
    return result


def multiclass_figures(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each figure, (draw,), of `weights` (draw, clip)."""
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    total = weights.sum(axis=1)
    true, found = one_hot(targets, classes), one_hot(predicted, classes)
    hit = (predicted == targets).astype(float)
    support, claimed = weights @ true, weights @ found                           # (draw, class)
    right = (weights * hit) @ true
    recall = safe_divide(right, support)
    f1 = safe_divide(2 * right, support + claimed)
    top5 = (place_of(targets, scores) < 5).astype(float)
    ordered = np.sort(scores, axis=1)
    gap = ordered[:, -1] - ordered[:, -2] if classes > 1 else ordered[:, -1]
    aps, areas = ranking_figures(true.toarray() > 0, scores, weights)
    return {
        "accuracy": (weights @ hit) / total, "top_5": (weights @ top5) / total, "balanced_accuracy": np.nanmean(recall, axis=1),
        "macro_f1": np.nanmean(f1, axis=1), "map": mean_of(aps), "roc_auc": mean_of(areas),
        "confidence_gap": (weights @ gap) / total, "confidence_gap_median": medians(gap, weights),
        "calibration_error": calibration_errors(scores.max(axis=1), hit, weights),
    }


def multilabel_figures(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each figure, (draw,); F1 counts a tag as predicted from a probability of one half."""
    true = targets > 0
    aps, areas = ranking_figures(true, scores, weights)
    claimed = scores >= 0.5
    right = weights @ (true & claimed)
    f1 = safe_divide(2 * right, weights @ true + weights @ claimed)
    return {
        "map": mean_of(aps), "roc_auc": mean_of(areas), "macro_f1": np.nan_to_num(f1).mean(axis=1),
        "calibration_error": np.mean(
            [calibration_errors(scores[:, i], true[:, i].astype(float), weights) for i in range(true.shape[1])], axis=0
        ),
    }


def regression_figures(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """R² and RMSE, the mean over targets, and where there are several also of each, by number."""
    total = weights.sum(axis=1)[:, None]
    centre = weights @ targets / total
    spread = weights @ np.square(targets, dtype=np.float64) - total * centre**2
    error = weights @ np.square(targets - scores, dtype=np.float64)
    r2, rmse = 1 - safe_divide(error, spread), np.sqrt(error / total)                # (draw, target)
    result = {"r2": mean_of(r2), "rmse": rmse.mean(axis=1)}
    if targets.shape[1] > 1:
        result |= {f"r2_{i}": r2[:, i] for i in range(targets.shape[1])}
        result |= {f"rmse_{i}": rmse[:, i] for i in range(targets.shape[1])}
    return result


METRICS_BY_KIND = {"multiclass": multiclass_figures, "multilabel": multilabel_figures, "regression": regression_figures}


def ranking_figures(true: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(draw, class) average precision and area under the ROC curve; NaN of a class that does not occur, or always does.

    Precision is taken at the score of each positive clip, over all clips that score at least as much.
    """
    aps, areas = (np.full((len(weights), true.shape[1]), np.nan) for _ in range(2))
    for label in np.flatnonzero(true.any(axis=0)):
        positive, own = true[:, label], scores[:, label]
        marks = np.unique(own[positive])                                         # rising
        count = counts_above if len(marks) <= FEW_MARKS else counts_above_sorted
        hits, hits_over = count(own[positive], marks, weights[:, positive])      # (draw, mark) at least, and more
        misses, misses_over = count(own[~positive], marks, weights[:, ~positive])
        gained = hits - hits_over
        found, others = hits[:, 0], weights[:, ~positive].sum(axis=1)
        aps[:, label] = safe_divide((gained * safe_divide(hits, hits + misses, 0.0)).sum(axis=1), found)
        below = others[:, None] - (misses + misses_over) / 2                     # those of the same score count half
        areas[:, label] = safe_divide((gained * below).sum(axis=1), found * others)
    return aps, areas


def counts_above(scores: np.ndarray, marks: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(draw, mark) the weight of scores that are at least, and that are more than each mark."""
    return weights @ (scores[:, None] >= marks), weights @ (scores[:, None] > marks)


def counts_above_sorted(scores: np.ndarray, marks: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same by running sums, which is less work for many marks."""
    order = np.argsort(-scores, kind="stable")
    running = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1)
    ordered = -scores[order]
    return running[:, np.searchsorted(ordered, -marks, "right")], running[:, np.searchsorted(ordered, -marks, "left")]


def per_class(
    kind: str, names: Sequence[str], targets: np.ndarray, scores: Sequence[np.ndarray]
) -> pl.DataFrame:
    """A row a class or tag, the mean over runs: support, precision, recall (which is the class's accuracy), f1, ap, and for
    classes how many clips of others were taken for it and which class most often."""
    true = one_hot(targets, len(names)).toarray() > 0 if kind == "multiclass" else targets > 0
    ones = np.ones((1, len(true)))
    rows = []
    for run in scores:
        claimed = one_hot(run.argmax(axis=1), len(names)).toarray() > 0 if kind == "multiclass" else run >= 0.5
        right, support, said = ((m.sum(axis=0).astype(float)) for m in (true & claimed, true, claimed))
        aps, areas = ranking_figures(true, run, ones)
        f1_scores = safe_divide(2 * right, support + said)
        rows.append(np.stack([safe_divide(right, said), safe_divide(right, support), f1_scores, aps[0], areas[0]]))
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
        for_it = [names[i] if wrong[:, c].any() else None for c, i in enumerate(wrong.argmax(axis=0))]
        mistaken = [names[i] if wrong[c].any() else None for c, i in enumerate(given)]
        table = table.with_columns(attracts=taken, attracts_most=pl.Series(for_it, dtype=pl.String),
                                   mistaken_for=pl.Series(mistaken, dtype=pl.String))
    return table


def confusion(targets: np.ndarray, scores: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """(true class, predicted class) float: clips, the mean over runs."""
    true = one_hot(targets, classes)
    return np.mean([(true.T @ one_hot(run.argmax(axis=1), classes)).toarray() for run in scores], axis=0)


def reliability(confidence: np.ndarray, right: np.ndarray) -> pl.DataFrame:
    """Calibration: for each bin of confidence that occurs, clips, mean confidence, and the share that is right."""
    number = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    frame = pl.DataFrame({"bin": number, "confidence": confidence.astype(float), "right": right.astype(float)})
    return frame.group_by("bin").agg(pl.len().alias("clips"), pl.col("confidence").mean(), pl.col("right").mean()).sort("bin")


def calibration_errors(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draw,) expected calibration error: the mean over bins of |confidence − share that is right|, by their clips."""
    number = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = weights @ (one_hot(number, CALIBRATION_BINS) * (confidence - right)[:, None])
    return np.abs(gaps).sum(axis=1) / weights.sum(axis=1)


def one_hot(numbers: np.ndarray, classes: int) -> sparse.csr_array:
    """(clip, class) 1 where a clip is of a class."""
    rows = np.arange(len(numbers) + 1)
    return sparse.csr_array((np.ones(len(numbers)), numbers, rows), shape=(len(numbers), classes))


def place_of(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(clip,) how many classes score more than the right one; of equal scores those of lower number come first."""
    own = np.take_along_axis(scores, targets[:, None], 1)
    earlier = np.arange(scores.shape[1]) < targets[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draw,) weighted medians, the lower one of two."""
    order = np.argsort(values)
    reached = np.cumsum(weights[:, order], axis=1)
    return values[order][(reached >= reached[:, -1:] / 2).argmax(axis=1)]


def safe_divide(a: np.ndarray, b: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """a / b, and `otherwise` where b is zero."""
    return np.divide(a, b, out=np.full(np.shape(a), otherwise, float), where=b != 0)


def mean_of(values: np.ndarray) -> np.ndarray:
    """(draw,) means over the classes that have a value."""
    known = np.isfinite(values)
    return safe_divide(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def figure_as_dict(found: Mapping[str, Figure]) -> dict[str, dict[str, float | None]]:
    """For JSON, where there is no NaN."""
    def plain(value: float) -> float | None:
        return round(value, 6) if np.isfinite(value) else None

    return {name: {"value": plain(f.value), "low": plain(f.low), "high": plain(f.high)} for name, f in found.items()}
