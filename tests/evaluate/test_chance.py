"""Expected figures of guessing, against enumeration of small cases and simulation by scikit-learn's metrics."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from sklearn import metrics as theirs

from tonelake.evaluate import chance_metrics, expected_average_precision, expected_f1


@pytest.mark.parametrize(("relevant", "total"), [(1, 1), (1, 5), (2, 5), (4, 5), (5, 5), (3, 7)])
def test_chance_of_average_precision_equals_its_mean_over_all_orders(relevant, total):
    values = []
    for places in combinations(range(total), relevant):
        values.append(np.mean([(i + 1) / (place + 1) for i, place in enumerate(places)]))
    assert expected_average_precision(relevant, total) == pytest.approx(np.mean(values))


def test_chance_of_f1_equals_its_mean_over_all_guesses():
    """Four clips, two of the class, guessed with probability 0.3."""
    expected = 0.0
    for guess in np.ndindex(2, 2, 2, 2):
        probability = np.prod([0.3 if one else 0.7 for one in guess])
        expected += probability * theirs.f1_score([1, 1, 0, 0], guess, zero_division=0)
    assert expected_f1(np.array([2]), 4, 0.3)[0] == pytest.approx(expected)


def test_chance_figures_of_classes_equal_their_means_over_all_predictions():
    targets = np.array([0, 0, 1, 2])
    found = chance_metrics("multiclass", targets, 3, credit=np.array([[1, 0.5, 0], [0, 1, 0.2], [0.3, 0, 1]]))
    assert (found["accuracy"], found["balanced_accuracy"], found["top_5"], found["roc_auc"]) == (1 / 3, 1 / 3, 1.0, 0.5)
    f1 = [
        np.mean([theirs.f1_score(targets == c, np.array(guess) == c, zero_division=0) for c in range(3)])
        for guess in np.ndindex(3, 3, 3, 3)
    ]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert found["key_score"] == pytest.approx(np.mean([1.5, 1.5, 1.2, 1.3]) / 3)
    orders = [
        np.mean([theirs.average_precision_score(targets == c, order) for c in range(3)]) for order in permutations(range(4))
    ]
    assert found["map"] == pytest.approx(np.mean(orders))


def test_chance_of_tags_follows_their_frequency():
    targets = np.array([[1, 0], [1, 0], [0, 0], [0, 1]], float)
    found = chance_metrics("multilabel", targets, 2, frequencies=np.array([0.3, 0.5]))
    assert found["macro_f1"] == pytest.approx(np.mean([expected_f1(np.array([n]), 4, p)[0] for n, p in ((2, 0.3), (1, 0.5))]))
    assert "macro_f1" not in chance_metrics("multilabel", targets, 2)
    assert chance_metrics("regression", targets, 2) == {}
