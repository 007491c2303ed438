"""The jackknife against closed forms and brute force; max-t and cross-fitting in small simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tonelake.evaluate.jackknife import (
    Replicates,
    crossfit_estimate,
    crossfit_means,
    from_weights,
    jackknife_error,
    jackknife_estimate,
    jackknife_interval,
    jackknife_weights,
    make_units,
    replicate_means,
    replicate_pair_sums,
    t_quantile,
)
from tonelake.evaluate.multiple import max_t


def test_the_interval_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(0).standard_normal(12)
    found = replicate_means(values, make_units(np.arange(12), "tracks")).estimate()
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert t_quantile(11) == pytest.approx(stats.t.ppf(0.975, 11))


def test_a_mean_over_clips_leaves_out_whole_units_and_ignores_missing_values():
    values = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0], [7.0, 1.0]])
    found = replicate_means(values, make_units(np.array(["a", "a", "b", "c"]), "artists"))
    np.testing.assert_allclose(found.value, [4, 3])
    np.testing.assert_allclose(found.left_out, [[6, 3.5], [11 / 3, 1.5], [3, 4]])


def test_a_unit_is_left_out_on_both_sides_of_its_pairs():
    rng = np.random.default_rng(1)
    of, values = np.repeat(np.arange(4), 3), rng.standard_normal((12, 12))
    sums = np.zeros((4, 4))
    np.add.at(sums, (of[:, None], of[None, :]), values)
    found = replicate_pair_sums(sums)
    brute = [values[np.ix_(of != unit, of != unit)].sum() for unit in range(4)]
    assert found.value == pytest.approx(values.sum())
    np.testing.assert_allclose(found.left_out, brute)


def test_weights_of_the_jackknife_give_the_leave_one_out_values():
    values, units = np.arange(6.0), make_units(np.array([0, 0, 1, 2, 2, 2]), "tracks")
    weights = jackknife_weights(units)
    means = from_weights(weights @ values / weights.sum(axis=1))
    np.testing.assert_allclose(means.left_out, replicate_means(values, units).left_out)


def test_differences_are_paired_over_the_same_units():
    rng = np.random.default_rng(2)
    first = rng.standard_normal(30)
    second, units = first + 0.1 + 0.01 * rng.standard_normal(30), make_units(np.arange(30), "tracks")
    gain = (replicate_means(second, units) - replicate_means(first, units)).estimate()
    low, high = stats.t.interval(0.95, 29, (second - first).mean(), stats.sem(second - first))
    assert (gain.value, gain.low, gain.high) == pytest.approx(((second - first).mean(), low, high))


def test_many_units_are_left_out_in_equal_folds():
    units = make_units(np.repeat(np.arange(1_050), 2), "tracks", most=100)
    sizes = np.bincount(units.of)
    assert (units.folds, units.count, str(units)) == (100, 1_050, "over 1,050 tracks in 100 folds")
    assert set(sizes) == {20, 22}
    values = np.random.default_rng(3).standard_normal(2_100)
    one = replicate_means(values, make_units(np.arange(2_100), "clips", most=3_000)).left_out
    some = replicate_means(values, make_units(np.arange(2_100), "clips", most=100)).left_out
    assert jackknife_error(some) == pytest.approx(jackknife_error(one), rel=0.25)


def test_intervals_are_cut_to_the_range_of_the_figure_and_never_of_no_width_at_its_ends():
    ones = jackknife_estimate(1.0, np.ones(20), bounds=(0, 1))
    assert (ones.low, ones.high) == pytest.approx((0.05 ** (1 / 20), 1))
    nothing = jackknife_estimate(0.0, np.zeros(20), bounds=(0, 1))
    assert (nothing.low, nothing.high) == pytest.approx((0, 1 - 0.05 ** (1 / 20)))
    left_out = np.array([0.8, 1.0, 1.0, 0.95])
    low, high = jackknife_interval(0.95, left_out, bounds=(0, 1))
    assert low == 0.95 - t_quantile(3) * jackknife_error(left_out) and high == 1
    assert np.isnan(jackknife_estimate(0.5, np.array([0.5])).low)
    assert np.isnan(jackknife_estimate(0.5, np.array([0.5, np.nan])).low)


def simulate_equal(units, layers, seed):
    """Figures of equal layers: correlated noise of each unit, true mean 0."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((units, 1)) + rng.standard_normal((units, layers)) / 2
    return values, make_units(np.arange(units), "tracks")


def test_equal_layers_are_distinguished_in_five_percent_and_the_held_out_figure_is_unbiased():
    false, covered, plain, held_out = 0, 0, [], []
    for seed in range(100):
        values, units = simulate_equal(30, 13, seed)
        figures = replicate_means(values, units)
        false += max_t(figures, seed=seed, draws=1_000).distinguishable.any()
        chosen = crossfit_means(values, units)
        interval = crossfit_estimate(chosen, figures)
        covered += interval.low <= 0 <= interval.high
        plain.append(figures.value.max())
        held_out.append(chosen.value)
    error = np.std(held_out) / 10
    assert false <= 12                   # 5 expected; more than 12 with a probability of .002
    assert covered >= 88
    assert abs(np.mean(held_out)) < 3 * error < np.mean(plain)


def test_a_better_layer_is_distinguished_and_those_like_it_are_not():
    values, units = simulate_equal(40, 5, 0)
    values[:, 2] += 2
    values[:, 4] = values[:, 2]          # a copy
    values[:, 3] = np.nan
    found = max_t(replicate_means(values, units))
    assert found.best == 2
    assert found.distinguishable.tolist() == [True, True, False, True, False]
    assert found.tied.tolist() == [False, False, False, False, True]
    assert np.isnan(found.p_values[3]) and found.p_values[0] < 0.01 and found.p_values[4] == 1
    assert 0 < found.lead_low[0] < found.lead[0]


def test_two_candidates_named_in_advance_have_the_p_value_of_a_paired_t_test():
    values, units = simulate_equal(12, 2, 5)
    found = max_t(replicate_means(values, units))
    worse = 1 - found.best
    assert found.p_values[worse] == pytest.approx(stats.ttest_rel(*values.T).pvalue, abs=0.015)


def test_with_one_unit_nothing_is_distinguishable():
    found = max_t(Replicates(np.array([0.1, 0.9]), np.array([[0.1, 0.9]])))
    assert found.best == 1 and not found.distinguishable.any()
