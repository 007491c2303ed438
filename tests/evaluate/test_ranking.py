"""Ranking figures against scikit-learn and random orders of ties."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tonelake.evaluate.ranking import rank


def test_ranking_agrees_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    for _ in range(100):
        size = rng.integers(2, 40)
        scores = np.round(rng.standard_normal(size), rng.integers(0, 3)).astype(np.float32)
        positive = rng.random(size) < 0.4
        positive[0] = True
        found = rank(scores, positive)
        assert found.precision == pytest.approx(average_precision_score(positive, scores), abs=1e-9)
        assert found.recall[0] == pytest.approx(positive[scores == scores.max()].mean())


def test_recall_and_r_precision_are_the_means_over_every_order_of_ties():
    rng = np.random.default_rng(1)
    for scores, positive in [
        ([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4], [1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ([1] * 12 + [2] * 3, [1, 1] + [0] * 13),
        ([5, 5, 5], [1, 0, 0]),
    ]:
        scores, positive = np.array(scores, np.float32), np.array(positive, bool)
        orders = np.stack([np.lexsort((rng.random(len(scores)), -scores)) for _ in range(4000)])
        ranked = positive[orders]
        found = rank(scores, positive)
        assert found.recall == pytest.approx([ranked[:, :k].any(axis=1).mean() for k in (1, 10)], abs=0.03)
        assert found.r_precision == pytest.approx(ranked[:, : positive.sum()].mean(), abs=0.03)
