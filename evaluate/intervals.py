"""Estimates with 95 % intervals, from a value and its bootstrap draws.

Draws come from weights of whole tracks (`evaluate.resampling`).  scipy.stats.bootstrap is not used: it resamples single
observations and knows no clusters, and clips of one track are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """2.5th and 97.5th percentile of (draw,) values, ignoring NaN; NaN if no draw is finite."""
    if not np.isfinite(draws).any():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(low), float(high)


def bias_corrected_estimate(values: np.ndarray, *, bounded: bool = True) -> Estimate:
    """Estimate from (1 + draw,) values, the first of them on the clips as they are.

    The interval is shifted by the bias of the draws: a draw can miss classes, which shifts a mean over classes.  `bounded`:
    clip the interval to 0 to 1.
    """
    finite = values[1:][np.isfinite(values[1:])]
    low, high = np.array(percentile_interval(finite)) + values[0] - finite.mean() if len(finite) else (np.nan, np.nan)
    if bounded:
        low, high = np.clip([low, high], 0, 1)
    return Estimate(float(values[0]), float(low), float(high))


def mean_interval(values: pl.Series, weights: np.ndarray) -> tuple[float, float, float]:
    """Mean of the non-null values with its 95 % bootstrap interval, from `weights` (draw, value); NaN if all are null."""
    known = values.is_not_null().to_numpy()
    if not known.any():
        return (float("nan"),) * 3
    numbers = values.fill_null(0).to_numpy()
    draws = (weights @ numbers) / np.maximum(weights @ known.astype(float), 1)
    return float(numbers[known].mean()), *percentile_interval(draws)


def estimates_as_dict(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    """Estimates for JSON, which has no NaN: rounded to 6 digits, None for values that are not finite."""
    def plain(value: float) -> float | None:
        return round(value, 6) if np.isfinite(value) else None

    return {name: {"value": plain(e.value), "low": plain(e.low), "high": plain(e.high)} for name, e in estimates.items()}
