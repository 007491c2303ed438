"""Intervals of means over training seeds, which cover the test set's units and the seeds.

A trained model's figure varies with the units it is tested on and with the seed of its training.  The interval of a mean over
seeds has two parts, whose half-widths are added as squares (Donner and Zou 2012, Statistical Methods in Medical Research 21):
the jackknife's over units, for the mean over these seeds, and the t interval over seeds.  In simulations it covers 96 to 99 %,
nearest to 95 % from five seeds on; one t quantile for the sum of both variances (Satterthwaite) covers 88 % where two seeds
differ much.  With one seed the interval covers units only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tonelake.evaluate.intervals import Estimate
from tonelake.evaluate.jackknife import Replicates, jackknife_error, t_quantile
from tonelake.evaluate.metrics import logit_estimate


@dataclass(frozen=True, kw_only=True)
class SeedsEstimate:
    """A mean over seeds with its 95 % interval, and its two sources of spread as standard errors."""

    estimate: Estimate
    units_error: float                   # from the units of the test set
    seeds_error: float                   # from the seeds; NaN for a single one


def seeds_estimate(runs: Sequence[Replicates], *, share: bool = False) -> SeedsEstimate:
    """Return the mean of a scalar figure over runs that differ by their seed, all judged on the same units.

    `share`: the figure is between 0 and 1, and its interval is symmetric on the logit scale (`metrics.logit_estimate`).
    """
    values = np.array([float(run.value) for run in runs])
    mean = mean_replicates(runs)
    value, units_error = float(mean.value), float(jackknife_error(mean.left_out))
    seeds_error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    if not seeds_error > 0:
        estimate = logit_estimate(mean) if share else mean.estimate()
        return SeedsEstimate(estimate=estimate, units_error=units_error, seeds_error=seeds_error)
    half = float(np.hypot(t_quantile(len(mean.left_out) - 1) * units_error, t_quantile(len(values) - 1) * seeds_error))
    slope = value * (1 - value)
    if share and slope > 0:
        reach = half / slope * np.array([-1, 1])
        low, high = 1 / (1 + np.exp(-np.clip(np.log(value / (1 - value)) + reach, -700, 700)))
    else:
        low, high = value - half, value + half
    return SeedsEstimate(
        estimate=Estimate(value, float(low), float(high)), units_error=units_error, seeds_error=seeds_error
    )


def mean_replicates(runs: Sequence[Replicates]) -> Replicates:
    """Return the mean of a figure over runs that are judged on the same units."""
    return Replicates(
        np.mean([run.value for run in runs], axis=0), np.mean([run.left_out for run in runs], axis=0)
    )
