"""The area under the ROC curve of pairs against scikit-learn, at any anisotropy, and without each unit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tonelake.evaluate.pair_area import BINS, exact_area, make_bins, replicate_area


@pytest.mark.parametrize("digits", [1, 9])
@pytest.mark.parametrize("mean", [0.0, 0.999])
def test_the_area_equals_scikit_learns_whatever_the_range_of_scores(mean, digits):
    rng = np.random.default_rng(0)
    kinds = rng.random(4_000) < 0.1
    scores = np.round(rng.standard_normal(4_000) + kinds, digits)
    scores = mean + (1 - mean) * 0.1 * scores
    found = exact_area(np.sort(scores[kinds]), np.sort(scores))
    assert found == pytest.approx(roc_auc_score(kinds, scores), abs=1e-9)


def test_the_area_needs_pairs_of_both_kinds():
    assert np.isnan(exact_area(np.array([1.0]), np.array([1.0])))
    assert np.isnan(exact_area(np.array([]), np.array([1.0, 2.0])))


@pytest.mark.parametrize("outlier", [0.0, 1e4])
def test_areas_without_a_unit_differ_as_those_of_scikit_learn_even_beside_an_outlier(outlier):
    rng = np.random.default_rng(1)
    kinds, units = rng.random(6_000) < 0.2, rng.integers(0, 5, 6_000)
    scores = (rng.standard_normal(6_000) + kinds * (1 + 0.3 * units)).astype(np.float32)
    scores[0] += outlier
    bins = make_bins(scores)
    found = bins.find(scores)
    parts = [units >= 0, *(units == unit for unit in range(5))]
    histograms = [
        np.stack([np.bincount(found[kind & part], minlength=BINS) for part in parts]) for kind in (kinds, ~kinds)
    ]
    area = replicate_area(roc_auc_score(kinds, scores), *histograms)
    expected = [roc_auc_score(kinds[units != unit], scores[units != unit]) for unit in range(5)]
    assert area.value == roc_auc_score(kinds, scores)
    np.testing.assert_allclose(area.left_out, expected, atol=2e-4)


def test_equal_scores_have_an_area_of_one_half():
    bins = make_bins(np.full(10, 0.5))
    assert bins.find(np.array([0.5, 0.5], np.float32)).tolist() == [0, 0]
    assert exact_area(np.full(3, 0.5), np.full(8, 0.5)) == 0.5
