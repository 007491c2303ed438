"""Figures of a fine-tuning and of its frozen baseline on the same test clips, and their paired differences.

Added to `evaluate`'s metrics: the primary accuracy of tags (is the likeliest tag the one that is listed first?), the confidence
gap (between the two likeliest), and the macro-F1 over classes that occur.  Each figure is a mean over seeds.  Intervals are
jackknifed over the tracks of the test set; with several seeds they cover the seeds as well (`evaluate.seeds_estimate`).

Accuracy has one meaning in every table: the share of clips whose likeliest class is their own.  With several tags a clip, its
own class is the tag that is listed first, and clips without tags are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import (
    Estimate,
    Replicates,
    Units,
    calibration_error,
    confidence_gaps,
    confusion,
    from_weights,
    jackknife_weights,
    make_units,
    median_estimate,
    one_hot,
    per_class,
    replicate_metrics,
    safe_divide,
    seeds_estimate,
)

UNBOUNDED = ("r2", "rmse")               # beginnings of names; other metrics are between 0 and 1
WORD = "tracks"                          # the jackknife's unit


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """HeldOut clips with their targets."""

    kind: str
    names: Sequence[str]                 # classes, tags, or target columns
    targets: np.ndarray                  # as in `evaluate.metrics`
    primary: np.ndarray                  # (clip,) int: class, or the tag listed first; -1 for clips without one
    track: np.ndarray                    # (clip,) int: `Targets.track`

    @property
    def units(self) -> Units:
        return make_units(self.track, WORD)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Means over seeds by metric, on the same test clips."""

    tuned: dict[str, Estimate]
    frozen: dict[str, Estimate]
    difference: dict[str, Estimate]      # tuned minus frozen, paired over tracks and seeds; not of medians and calibration


def judge(test: HeldOut, tuned: Sequence[np.ndarray], frozen: Sequence[np.ndarray]) -> Figures:
    """Return the figures of scores (clip, output), one array a seed."""
    units = test.units
    after, before = ([replicate_figures(test, scores, units) for scores in runs] for runs in (tuned, frozen))
    difference = {}
    for name in after[0]:
        seeds = [one[name] - other[name] for one, other in zip(after, before, strict=True)]
        difference[name] = difference_estimate(seeds, share=is_share(name))
    return Figures(
        tuned=estimates(after) | other_estimates(test, tuned, units),
        frozen=estimates(before) | other_estimates(test, frozen, units), difference=difference,
    )


def is_share(name: str) -> bool:
    """Return whether a metric is between 0 and 1."""
    return not name.startswith(UNBOUNDED)


def estimates(runs: Sequence[dict[str, Replicates]]) -> dict[str, Estimate]:
    """Return the mean over seeds of each metric."""
    return {name: seeds_estimate([run[name] for run in runs], share=is_share(name)).estimate for name in runs[0]}


def difference_estimate(seeds: Sequence[Replicates], *, share: bool) -> Estimate:
    """Return the mean over seeds of a paired difference; `share`: of a metric between 0 and 1, so that -1 to 1 bounds it.

    If the two sides do not differ on any unit, n units still leave room for a difference: an outcome that none of them shows
    has a probability of up to 1 - 0.05 ** (1 / n) at 95 %.
    """
    found = seeds_estimate(seeds)
    if share and found.units_error == 0 and not found.seeds_error > 0 and found.estimate.value == 0:
        reach = 1 - 0.05 ** (1 / len(seeds[0].left_out))
        return Estimate(0.0, -reach, reach)
    bound = 1.0 if share else float("inf")
    low, high = np.clip([found.estimate.low, found.estimate.high], -bound, bound)
    return Estimate(found.estimate.value, float(low), float(high))


def replicate_figures(test: HeldOut, scores: np.ndarray, units: Units) -> dict[str, Replicates]:
    """Return every metric of one seed that a jackknife suits, on all test clips and without each unit."""
    found = replicate_metrics(test.kind, test.targets, [scores], units, names=test.names)
    weights = jackknife_weights(units)
    if test.kind == "multilabel":
        has_primary = test.primary >= 0
        hit = (scores.argmax(axis=1) == test.primary).astype(float)
        found["primary_accuracy"] = from_weights(
            safe_divide(weights[:, has_primary] @ hit[has_primary], weights[:, has_primary].sum(axis=1))
        )
        found["confidence_gap"] = from_weights(weights @ confidence_gaps(scores) / weights.sum(axis=1))
    if test.kind != "regression":
        found["macro_f1_present"] = from_weights(macro_f1_of_occurring(test, scores, weights))
    return found


def other_estimates(test: HeldOut, runs: Sequence[np.ndarray], units: Units) -> dict[str, Estimate]:
    """Return the figures that a jackknife does not suit: the median gap, whose interval covers units only and is left out for
    several seeds, and the calibration error, which has none."""
    if test.kind == "regression":
        return {}
    nan = float("nan")
    median = median_estimate(np.stack([confidence_gaps(scores) for scores in runs]), units)
    return {
        "confidence_gap_median": median if len(runs) == 1 else Estimate(median.value, nan, nan),
        "calibration_error": Estimate(calibration_error(test.kind, test.targets, list(runs), units), nan, nan),
    }


def macro_f1_of_occurring(test: HeldOut, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (draw,) macro-F1 over the classes or tags that occur among the test clips of a draw.

    The likeliest class counts as predicted, or each tag with a probability of at least one half.
    """
    if test.kind == "multiclass":
        true, predicted = (one_hot(numbers, scores.shape[1]).toarray() for numbers in (test.targets, scores.argmax(axis=1)))
    else:
        true, predicted = (test.targets > 0).astype(float), (scores >= 0.5).astype(float)
    support = weights @ true
    f1 = safe_divide(2 * (weights @ (true * predicted)), support + weights @ predicted, 0.0)
    return safe_divide(np.where(support > 0, f1, 0.0).sum(axis=1), (support > 0).sum(axis=1))


def class_tables(test: HeldOut, tuned: Sequence[np.ndarray], frozen: Sequence[np.ndarray]) -> dict[str, pl.DataFrame]:
    """Return the tables `classes` and `confusion`, means over seeds; none for regression."""
    if test.kind == "regression":
        return {}
    classes = per_class(test.kind, test.names, test.targets, tuned)
    before = per_class(test.kind, test.names, test.targets, frozen)
    counts = np.bincount(test.primary[test.primary >= 0], minlength=len(test.names))
    tables = {"classes": classes.with_columns(
        pl.Series("primary", counts), primary_accuracy(test, tuned, counts), frozen_ap=before["ap"], frozen_f1=before["f1"],
        frozen_primary_accuracy=primary_accuracy(test, frozen, counts),
    )}
    if test.kind == "multiclass":
        matrix = confusion(test.targets, tuned, len(test.names))
        first = "true" if "true" not in test.names else "true class"
        tables["confusion"] = pl.DataFrame({first: list(test.names)} | dict(zip(test.names, matrix.T, strict=True)))
    return tables


def primary_accuracy(test: HeldOut, runs: Sequence[np.ndarray], counts: np.ndarray) -> pl.Series:
    """Return, for each class or tag, the share of the clips whose own it is that have it as their likeliest; null for none.

    Equal to `sklearn.metrics.recall_score(primary, likeliest, average=None)`, the mean over runs.
    """
    correct = np.mean([
        np.bincount(test.primary[scores.argmax(axis=1) == test.primary], minlength=len(test.names)) for scores in runs
    ], axis=0)
    return pl.Series("primary_accuracy", safe_divide(correct, counts.astype(float))).fill_nan(None)
