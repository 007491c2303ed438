"""Ranking figures against scikit-learn, every order of ties, brute-force leave-one-out, and enumeration of random orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tonelake.evaluate.ranking import (
    EXCLUDED,
    RANK_FIGURES,
    Folds,
    chance_of_ranks,
    order_candidates,
    rank_queries,
    replicates_of_ranks,
)


def ranked(scores, same, excluded=None, folds=None):
    """Rank (query, candidate) scores by `rank_queries`; without folds, queries share none with a candidate."""
    scores = np.asarray(scores, np.float32).copy()
    if excluded is not None:
        scores[excluded] = EXCLUDED
        same = same & ~excluded
    if folds is None:
        folds = Folds(np.zeros(scores.shape[1], np.int64), 2, np.arange(2))
    return rank_queries(order_candidates(scores, *np.nonzero(same)), np.ones(len(scores), np.int64), folds)


def test_ranking_agrees_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    for digits in (0, 1, 8):
        scores = np.round(rng.standard_normal((60, 30)), digits).astype(np.float32)
        same, excluded = rng.random((60, 30)) < 0.4, rng.random((60, 30)) < 0.3
        same[:, 0], excluded[:, 0] = True, False
        found = dict(zip(RANK_FIGURES, ranked(scores, same, excluded).values, strict=True))
        for row in range(60):
            kept = ~excluded[row]
            assert found["map"][row] == pytest.approx(average_precision_score(same[row, kept], scores[row, kept]), abs=1e-6)
            best = scores[row, kept] == scores[row, kept].max()
            assert found["recall_1"][row] == pytest.approx(same[row, kept][best].mean(), abs=1e-6)


def by_every_order(scores, positive):
    """Recall@1, recall@10 and R-precision over random orders of ties, many draws."""
    rng = np.random.default_rng(1)
    orders = np.stack([np.lexsort((rng.random(len(scores)), -scores)) for _ in range(4000)])
    hits = positive[orders]
    return [hits[:, :1].any(axis=1).mean(), hits[:, :10].any(axis=1).mean(), hits[:, : positive.sum()].mean()]


@pytest.mark.parametrize(("scores", "positive"), [
    ([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4], [1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ([1] * 12 + [2] * 3, [1, 1] + [0] * 13),
    ([5, 5, 5], [1, 0, 0]),
    ([-0.0, 0.0, 1], [1, 0, 0]),
])
def test_recall_and_r_precision_are_the_means_over_every_order_of_ties(scores, positive):
    scores, positive = np.array(scores, np.float32), np.array(positive, bool)
    found = ranked(scores[None], positive[None]).values[:3, 0]
    assert found == pytest.approx(by_every_order(scores, positive), abs=0.03)


@pytest.mark.parametrize("digits", [1, 8])
def test_each_unit_is_left_out_as_if_the_rest_were_ranked_again(digits):
    """Queries are the candidates themselves; a fold, or a part of the folds, is removed on both sides of every pair."""
    rng = np.random.default_rng(2)
    clips = 36
    group, fold = rng.integers(0, 3, clips), rng.integers(0, 6, clips)
    scores = np.round(rng.standard_normal((clips, clips)), digits).astype(np.float32)
    same, excluded = group[:, None] == group[None, :], np.eye(clips, dtype=bool)
    folds = Folds(fold, 6, np.array([0, 0, 0, 1, 1, 1]))
    masked = np.where(excluded, EXCLUDED, scores).astype(np.float32)
    found = rank_queries(order_candidates(masked, *np.nonzero(same & ~excluded)), fold, folds)
    figures = replicates_of_ranks(found, folds)
    left_out = [fold == one for one in range(6)] + [folds.parts[fold] == part for part in range(2)]
    for column, gone in enumerate(left_out):
        kept = ~gone
        again = ranked(scores[np.ix_(kept, kept)], same[np.ix_(kept, kept)], excluded[np.ix_(kept, kept)])
        np.testing.assert_allclose(found.sums[:, column] / found.counts[column], again.values.mean(axis=1), atol=1e-6)
        if column < 6:
            np.testing.assert_allclose(
                [figures[name].left_out[column] for name in RANK_FIGURES], again.values.mean(axis=1), atol=1e-6
            )
    np.testing.assert_allclose([figures[name].value for name in RANK_FIGURES], found.values.mean(axis=1))


def test_a_query_whose_hits_are_all_left_out_does_not_count():
    scores = np.array([[3, 2, 1, 0], [0, 1, 2, 3]], np.float32)
    same = np.array([[True, False, False, False], [False, False, True, True]])
    folds = Folds(np.array([0, 1, 2, 3]), 4, np.arange(4))
    found = rank_queries(order_candidates(scores, *np.nonzero(same)), np.array([1, 0]), folds)
    assert found.counts.tolist()[:4] == [0, 1, 2, 2]     # without 0: no hit for the first, and the second is left out itself


def test_chance_equals_the_mean_over_all_orders_of_small_cases():
    for total, relevant in [(1, 1), (4, 1), (5, 2), (6, 3), (6, 6)]:
        positive = np.arange(total) < relevant
        orders = np.array(list(permutations(range(total))))
        scores = -np.argsort(orders, axis=1).astype(np.float32)
        expected = ranked(scores, np.broadcast_to(positive, scores.shape)).values.mean(axis=1)
        found = chance_of_ranks(np.array([relevant]), np.array([total]))
        assert [found[name] for name in RANK_FIGURES] == pytest.approx(expected, abs=1e-5)
