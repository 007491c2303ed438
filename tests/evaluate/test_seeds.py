"""Intervals of means over seeds: their coverage, and what they reduce to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tonelake.evaluate import Replicates, logit_estimate, seeds_estimate


def replicates(values):
    """Return the mean of (unit,) values with its leave-one-out values."""
    return Replicates(np.float64(values.mean()), (values.sum() - values) / (len(values) - 1))


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.3), (3, 0.3), (5, 0.1), (5, 0.3), (5, 1.0)])
def test_intervals_cover_new_units_and_new_seeds(seeds, spread):
    """A figure that varies with the unit, the seed and both; without the seeds' part, 75 % are covered at a spread of 0.3."""
    rng, covered, rounds = np.random.default_rng(seeds), 0, 1_000
    for _ in range(rounds):
        units, trainings = rng.standard_normal((30, 1)), spread * rng.standard_normal((1, seeds))
        values = units + trainings + 0.5 * rng.standard_normal((30, seeds))
        found = seeds_estimate([replicates(own) for own in values.T]).estimate
        covered += found.low <= 0 <= found.high
    assert 0.94 <= covered / rounds <= (0.98 if seeds == 5 else 0.995)


def test_with_one_seed_the_interval_is_that_of_the_jackknife():
    values = np.random.default_rng(0).random(20)
    found = seeds_estimate([replicates(values)])
    low, high = stats.t.interval(0.95, 19, values.mean(), stats.sem(values))
    assert (found.estimate.low, found.estimate.high) == pytest.approx((low, high))
    assert found.units_error == pytest.approx(stats.sem(values)) and np.isnan(found.seeds_error)
    assert seeds_estimate([replicates(values)], share=True).estimate == logit_estimate(replicates(values))


def test_shares_stay_between_nought_and_one():
    runs = [replicates(np.random.default_rng(seed).random(10) ** 0.05) for seed in range(3)]
    found = seeds_estimate(runs, share=True)
    assert 0 < found.estimate.low < found.estimate.value < found.estimate.high < 1
    assert found.seeds_error == pytest.approx(stats.sem([float(run.value) for run in runs]))
