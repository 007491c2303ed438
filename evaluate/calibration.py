"""Calibration of probabilities: is a prediction of 80 % right in 80 % of cases?

The usual error (Guo et al. 2017, arXiv 1706.04599), a mean of |confidence - share correct| over bins, is above zero for a
perfectly calibrated model too, because the share correct of a bin is itself uncertain.  Here the squared gap of a bin is
estimated without bias by products of pairs of clips of different units (the plug-in correction of Kumar, Liang and Ma 2019,
arXiv 1909.10155, for clips of one track that are not independent).  It has no interval: near perfect calibration no interval
tried covers 95 %.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tonelake.evaluate.jackknife import Units

CALIBRATION_BINS = 15                    # as in Guo et al. 2017
UNITS_A_BIN = 4                          # fewer bins where a bin would hold clips of fewer units: it needs pairs


def squared_calibration_error(confidence: np.ndarray, right: np.ndarray, units: Units) -> float:
    """Return the mean over clips of the squared gap between confidence and share correct of their bin, without bias.

    Bins hold equally many clips.  Negative values are possible: the expectation is zero under perfect calibration.  NaN with
    fewer than two units.
    """
    bins = min(CALIBRATION_BINS, units.count // UNITS_A_BIN) or 1
    number = np.empty(len(confidence), np.int64)
    number[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // max(len(confidence), 1)
    shape, cell = (units.folds, bins), units.of * bins + number
    gaps = np.bincount(cell, confidence - right, units.folds * bins).reshape(shape)          # sums by unit and bin
    clips = np.bincount(cell, minlength=units.folds * bins).reshape(shape).astype(float)
    products = gaps.sum(axis=0) ** 2 - np.square(gaps).sum(axis=0)                           # pairs of different units
    pairs = clips.sum(axis=0) ** 2 - np.square(clips).sum(axis=0)
    known = pairs > 0
    if not known.any():
        return float("nan")
    weight = clips.sum(axis=0)[known]
    return float(((products[known] / pairs[known]) * weight).sum() / weight.sum())


def calibration_error(kind: str, targets: np.ndarray, scores: list[np.ndarray], units: Units) -> float:
    """Return the root mean square calibration error, debiased, the mean over runs taken before the root.

    multiclass: of the likeliest class; multilabel: the mean over tags.
    """
    squares = []
    for run in scores:
        if kind == "multiclass":
            squares.append(squared_calibration_error(run.max(axis=1), (run.argmax(axis=1) == targets).astype(float), units))
        else:
            pairs = zip(run.T, (targets > 0).T.astype(float), strict=True)
            squares.append(float(np.mean([squared_calibration_error(own, true, units) for own, true in pairs])))
    return max(float(np.mean(squares)), 0.0) ** 0.5 if np.isfinite(squares).all() else float("nan")


def reliability(confidence: np.ndarray, right: np.ndarray) -> pl.DataFrame:
    """Return a row for each occupied bin of confidence: clips, mean confidence and the share of correct predictions."""
    number = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    frame = pl.DataFrame({"bin": number, "confidence": confidence.astype(float), "right": right.astype(float)})
    return frame.group_by("bin").agg(pl.len().alias("clips"), pl.col("confidence").mean(), pl.col("right").mean()).sort("bin")
