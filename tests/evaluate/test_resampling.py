"""Bootstrap and jackknife: nominal coverage, known standard errors, and missing values."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tonelake.evaluate.intervals import mean_interval
from tonelake.evaluate.resampling import bootstrap_means, jackknife, resample_weights


def test_the_jackknife_gives_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).standard_normal(40)
    error = jackknife(lambda left: left @ values / left.sum(axis=1), 40)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(40))


def test_intervals_have_about_their_nominal_coverage():
    """Means of 40 tracks of correlated queries: the 95 % interval contains the true mean in about 95 of 100 samples."""
    rng = np.random.default_rng(1)
    weights = resample_weights(40, 400, seed=0)
    unit_of = np.repeat(np.arange(40), 6)
    covered = 0
    for _ in range(200):
        values = np.repeat(rng.standard_normal(40), 6) + 0.3 * rng.standard_normal(240)
        low, high = np.percentile(bootstrap_means(values[None], unit_of, weights)[:, 0], [2.5, 97.5])
        covered += low < 0 < high
    assert 180 <= covered <= 199


def test_an_interval_leaves_out_groups_without_a_value():
    weights = resample_weights(5, 300, 0)
    values = np.array([1.0, np.nan, -0.5, 0.25, np.nan])
    drawn = [np.nanmean(np.repeat(values, row.astype(int))) for row in weights if row[[0, 2, 3]].any()]
    low, high = np.percentile(drawn, [2.5, 97.5])
    found = mean_interval(pl.Series(values).fill_nan(None), weights[weights[:, [0, 2, 3]].any(axis=1)])
    assert found == (0.25, pytest.approx(low), pytest.approx(high))
    assert np.isnan(mean_interval(pl.Series([None, None], dtype=pl.Float64), resample_weights(2, 10, 0))).all()
