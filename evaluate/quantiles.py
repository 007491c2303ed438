"""Medians of values whose observations belong to units, with valid intervals.

The jackknife fails for medians: without one unit the median moves to a neighbouring value, however far away the median of
another sample would be.  The interval is Woodruff's (1952, Journal of the American Statistical Association 47): the share of
values up to the median has a jackknife interval over units, and its ends are read off as quantiles.  In simulations it covers
93 to 97 % from ten units on.
"""

from __future__ import annotations

import numpy as np

from tonelake.evaluate.intervals import Estimate
from tonelake.evaluate.jackknife import Units, jackknife_error, replicate_means, t_quantile


def median_estimate(values: np.ndarray, units: Units) -> Estimate:
    """Return the median of (row,) or (run, row) values, pooled over runs, with its 95 % interval over units.

    The median of an even number of values is the mean of the middle two.  NaN ends for fewer than two units.
    """
    runs = np.atleast_2d(values)
    value = float(np.median(runs)) if runs.size else float("nan")
    if units.folds < 2:
        return Estimate(value, float("nan"), float("nan"))
    # Values equal to the median count half, so that ties do not shift the share.
    up_to = ((runs < value) + 0.5 * (runs == value)).mean(axis=0)
    half = t_quantile(units.folds - 1) * float(jackknife_error(replicate_means(up_to, units).left_out))
    low, high = np.quantile(runs, np.clip([0.5 - half, 0.5 + half], 0, 1))
    return Estimate(value, min(float(low), value), max(float(high), value))
