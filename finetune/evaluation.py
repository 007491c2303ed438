"""Metrics of a fine-tuning on its test clips, the probes' metrics and those of the meter studies' own report.

Added to `evaluate.metrics`: the primary accuracy (is the likeliest tag the one that is listed first?), the confidence gap
(between the two likeliest), and the macro-F1 over classes that occur.  Each has a bootstrap interval over tracks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.evaluate import (
    DRAWS,
    Estimate,
    bias_corrected_estimate,
    confusion,
    estimate_metrics,
    one_hot,
    per_class,
    safe_divide,
    weighted_medians,
    weights_with_original,
)

MAX_WEIGHTS = 40_000_000                 # draws × clips: 320 MB


def evaluate_predictions(
    kind: str, names: Sequence[str], targets: np.ndarray, primary: np.ndarray, scores: np.ndarray, track: np.ndarray
) -> tuple[dict[str, Estimate], dict[str, pl.DataFrame]]:
    """Return metrics, and the tables `classes` and `confusion`.  `primary`: (clip,) int, -1 for clips without one."""
    estimates = estimate_metrics(kind, targets, [scores], track)
    if kind == "regression":
        return estimates, {}
    if kind == "multilabel":
        estimates |= tag_metrics(primary, scores, track)
    estimates["macro_f1_present"] = macro_f1_of_occurring(kind, targets, scores, track)
    classes = per_class(kind, names, targets, [scores])
    hits = scores.argmax(axis=1) == primary
    counts = np.bincount(primary[primary >= 0], minlength=len(names))
    correct = np.bincount(primary[hits], minlength=len(names))
    accuracy = pl.Series("primary_accuracy", safe_divide(correct.astype(float), counts.astype(float))).fill_nan(None)
    tables = {"classes": classes.with_columns(pl.Series("primary", counts), accuracy)}
    if kind == "multiclass":
        matrix = confusion(targets, [scores], len(names))
        first = "true" if "true" not in names else "true class"
        tables["confusion"] = pl.DataFrame({first: list(names)} | dict(zip(names, matrix.T, strict=True)))
    return estimates, tables


def tag_metrics(primary: np.ndarray, scores: np.ndarray, track: np.ndarray) -> dict[str, Estimate]:
    """Return the primary accuracy, and the mean and median gap between the two likeliest tags."""
    has_primary = primary >= 0
    hit = (scores.argmax(axis=1) == primary).astype(float)
    ordered = np.sort(scores, axis=1)
    gap = ordered[:, -1] - (ordered[:, -2] if scores.shape[1] > 1 else 0)
    weights = bootstrap_weights(track)
    accuracy = safe_divide(weights[:, has_primary] @ hit[has_primary], weights[:, has_primary].sum(axis=1))
    return {
        "primary_accuracy": bias_corrected_estimate(accuracy),
        "confidence_gap": bias_corrected_estimate(weights @ gap / weights.sum(axis=1)),
        "confidence_gap_median": bias_corrected_estimate(weighted_medians(gap, weights)),
    }


def macro_f1_of_occurring(kind: str, targets: np.ndarray, scores: np.ndarray, track: np.ndarray) -> Estimate:
    """Return the macro-F1 over the classes or tags that occur among the test clips.  The likeliest class counts as predicted,
    or each tag with a probability of at least one half."""
    if kind == "multiclass":
        true, predicted = (one_hot(numbers, scores.shape[1]).toarray() for numbers in (targets, scores.argmax(axis=1)))
    else:
        true, predicted = (targets > 0).astype(float), (scores >= 0.5).astype(float)
    occurs = true.any(axis=0)
    weights = bootstrap_weights(track)
    f1 = safe_divide(2 * (weights @ (true * predicted)), weights @ true + weights @ predicted, 0.0)
    return bias_corrected_estimate(f1[:, occurs].mean(axis=1))


def bootstrap_weights(track: np.ndarray) -> np.ndarray:
    """Return (1 + draw, clip) weights, with fewer draws for many clips."""
    return weights_with_original(track, int(np.clip(MAX_WEIGHTS // max(len(track), 1), 40, DRAWS)), seed=0)
