"""Jackknife of two sets of units against Welch's interval, and max-t where candidates have units of their own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tonelake.evaluate import (
    interval_of_strata,
    jackknife_error,
    jackknife_variance,
    make_units,
    max_t_of_strata,
    replicate_means,
    stratified,
    variances_of_strata,
)


def means_without(values):
    """Return the means without each value."""
    return (values.sum() - values) / (len(values) - 1)


def test_the_interval_of_a_difference_of_means_is_welchs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 5), rng.normal(0, 3, 30)
    value = first.mean() - second.mean()
    sides = [value - first.mean() + means_without(first), value + second.mean() - means_without(second)]
    variances = np.array([jackknife_variance(side) for side in sides])
    low, high = interval_of_strata(np.array(value), variances, np.array([4.0, 29.0]))
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (low, high) == pytest.approx((expected.low, expected.high))
    joined = variances_of_strata(np.concatenate(sides), np.repeat([0, 1], [5, 30]), 3)
    assert joined[:2] == pytest.approx(variances) and np.isnan(joined[2])
    assert np.sqrt(variances[0]) == pytest.approx(float(jackknife_error(sides[0])))


def test_a_set_of_one_unit_has_no_variance():
    assert np.isnan(jackknife_variance(np.array([[1.0, 2.0]]))).all()
    np.testing.assert_array_equal(jackknife_variance(np.array([[-np.inf, 1.0], [np.inf, 1.0]])), [np.nan, 0.0])
    low, high = interval_of_strata(np.array([0.5]), np.array([[np.nan], [0.1]]), np.array([[1.0], [5.0]]))
    assert np.isnan(low).all() and np.isnan(high).all()


@pytest.mark.parametrize("own_units", [3, 100])
def test_equal_candidates_are_told_apart_in_at_most_a_twentieth_of_draws(own_units):
    """Each candidate's figure is the mean of units of its own plus that of five shared units; 150 draws, error .018."""
    rng = np.random.default_rng(own_units)
    apart = 0
    for _ in range(150):
        shared = rng.standard_normal((5, 8))
        own = rng.standard_normal((own_units, 8))
        values = shared.mean(axis=0) + own.mean(axis=0)
        left_out = values + (shared.sum(axis=0) - shared) / 4 - shared.mean(axis=0)
        found = max_t_of_strata(values, left_out, own.var(axis=0, ddof=1) / own_units, np.full(8, own_units - 1.0))
        apart += found.distinguishable.any()
    assert apart / 150 <= 0.05 + 0.018


def test_a_better_candidate_is_told_from_the_others():
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((20, 6)) * 0.1
    values = np.array([2.0, 0, 0, 0.1, -0.2, 0.0])
    found = max_t_of_strata(values, values + shared / 19, np.full(6, 0.01), np.full(6, 9.0), contenders=3)
    assert found.best == 0 and found.distinguishable.tolist() == [False, True, True, True, True, True]
    assert (found.lead_low[1:] > 0).all() and found.p_values[0] == 1


def test_the_error_of_a_stratified_mean_is_the_closed_form():
    """Groups of 4, 9 and 20 units that differ by far more than their units do."""
    rng = np.random.default_rng(4)
    group = np.repeat([0, 1, 2], [4, 9, 20])
    values = 5.0 * group + rng.standard_normal(33)
    figure = replicate_means(values, make_units(np.arange(33), "tracks"))
    own = [values[group == g] for g in range(3)]
    expected = np.sqrt(sum((len(one) / 33) ** 2 * one.var(ddof=1) / len(one) for one in own))
    assert jackknife_error(stratified(figure, group).left_out) == pytest.approx(expected)
    assert jackknife_error(figure.left_out) > 3 * expected
    assert stratified(figure, None) is figure


def test_small_strata_form_one_and_a_lone_unit_joins_the_largest():
    figure = replicate_means(np.arange(12.0), make_units(np.arange(12), "tracks"))
    pairs = np.repeat(np.arange(6), 2)                               # all smaller than four units: one stratum, as without
    assert stratified(figure, pairs) is figure
    lone = np.array([0] * 6 + [1] * 5 + [2])
    joined = np.array([0] * 6 + [1] * 5 + [0])
    assert stratified(figure, lone).left_out == pytest.approx(stratified(figure, joined).left_out)


def test_folds_of_many_units_have_equal_shares_of_every_stratum():
    strata = np.repeat([0, 1], [150, 50])
    units = make_units(np.arange(200), "tracks", most=10, strata=strata)
    shares = np.stack([np.bincount(units.of[strata == g], minlength=10) for g in (0, 1)])
    assert (shares == [[15] * 10, [5] * 10]).all() and units.strata is None
    few = make_units(np.arange(200), "tracks", most=500, strata=strata)
    assert few.strata is not None and few.strata.tolist() == strata.tolist()
