"""What a fine-tuning came to on the clips held out, in the figures of probes and of the meter studies' own report.

Beside `evaluate.metrics`: the primary accuracy (is the likeliest tag the one that is named first?), the confidence gap (between
the two likeliest), and the macro-F1 over classes that occur.  Each with a bootstrap interval over tracks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.evaluate import (
    DRAWS,
    Figure,
    confusion,
    figures,
    medians,
    one_hot,
    per_class,
    resample_weights_of_clips,
    safe_divide,
)


def evaluate_predictions(
    kind: str, names: Sequence[str], targets: np.ndarray, primary: np.ndarray, scores: np.ndarray, track: np.ndarray
) -> tuple[dict[str, Figure], dict[str, pl.DataFrame]]:
    """Figures, and tables: classes, and confusion of classes.  `primary`: (clip,) int, -1 where there is none."""
    found = figures(kind, targets, [scores], track)
    if kind == "regression":
        return found, {}
    if kind == "multilabel":
        found |= tag_figures(primary, scores, track)
    found["macro_f1_present"] = present_f1(kind, targets, scores, track)
    classes = per_class(kind, names, targets, [scores])
    hits = scores.argmax(axis=1) == primary
    counts = np.bincount(primary[primary >= 0], minlength=len(names))
    right = np.bincount(primary[hits], minlength=len(names))
    accuracy = pl.Series("primary_accuracy", safe_divide(right.astype(float), counts.astype(float))).fill_nan(None)
    tables = {"classes": classes.with_columns(pl.Series("primary", counts), accuracy)}
    if kind == "multiclass":
        matrix = confusion(targets, [scores], len(names))
        first = "true" if "true" not in names else "true class"
        tables["confusion"] = pl.DataFrame({first: list(names)} | dict(zip(names, matrix.T, strict=True)))
    return found, tables


def tag_figures(primary: np.ndarray, scores: np.ndarray, track: np.ndarray) -> dict[str, Figure]:
    """Primary accuracy, and the gap between the two likeliest tags: mean and median."""
    named = primary >= 0
    hit = (scores.argmax(axis=1) == primary).astype(float)
    ordered = np.sort(scores, axis=1)
    gap = ordered[:, -1] - (ordered[:, -2] if scores.shape[1] > 1 else 0)
    weights = all_weights(track)
    return {
        "primary_accuracy": figure_of_draws(safe_divide(weights[:, named] @ hit[named], weights[:, named].sum(axis=1))),
        "confidence_gap": figure_of_draws(weights @ gap / weights.sum(axis=1)),
        "confidence_gap_median": figure_of_draws(medians(gap, weights)),
    }


def present_f1(kind: str, targets: np.ndarray, scores: np.ndarray, track: np.ndarray) -> Figure:
    """Macro-F1 over the classes or tags that occur among the clips judged: predicted is the likeliest class, or each tag from
    a probability of one half."""
    if kind == "multiclass":
        true, said = (one_hot(numbers, scores.shape[1]).toarray() for numbers in (targets, scores.argmax(axis=1)))
    else:
        true, said = (targets > 0).astype(float), (scores >= 0.5).astype(float)
    kept = true.any(axis=0)
    weights = all_weights(track)
    f1 = safe_divide(2 * (weights @ (true * said)), weights @ true + weights @ said, 0.0)
    return figure_of_draws(f1[:, kept].mean(axis=1))


def all_weights(track: np.ndarray) -> np.ndarray:
    """(1 + draw, clip): all ones, then how often each clip is drawn."""
    draws = int(np.clip(40_000_000 // max(len(track), 1), 40, DRAWS))
    return np.concatenate([np.ones((1, len(track))), resample_weights_of_clips(track, draws, seed=0)])


def figure_of_draws(values: np.ndarray) -> Figure:
    """The value and its draws -> the figure, its interval moved by the draws' bias."""
    rest = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(rest, [2.5, 97.5]) + values[0] - rest.mean() if len(rest) else (np.nan, np.nan)
    return Figure(float(values[0]), float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1)))
