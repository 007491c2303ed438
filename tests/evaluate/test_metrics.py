"""Metrics of predictions against scikit-learn's, with and without weights of clips."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as theirs

from tonelake.evaluate import metrics


@pytest.fixture(scope="module")
def classes():
    """Scores with ties, a class that does not occur, and one that is never predicted."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 7, 300)
    scores = rng.dirichlet(np.ones(9), 300).round(2)
    scores[np.arange(300), targets] += rng.random(300) * 0.5
    scores[:, 3] = 0.0
    return targets, (scores / scores.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_multiclass_metrics_equal_scikit_learns(classes, weighted):
    targets, scores = classes
    weights = np.random.default_rng(1).integers(0, 4, 300).astype(float) if weighted else np.ones(300)
    found = {name: value[0] for name, value in metrics.multiclass_metrics(targets, scores, weights[None]).items()}
    predicted = scores.argmax(1)
    given = {"sample_weight": weights}
    assert found["accuracy"] == pytest.approx(theirs.accuracy_score(targets, predicted, **given))
    assert found["top_5"] == pytest.approx(theirs.top_k_accuracy_score(targets, scores, k=5, labels=range(9), **given))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                      # predicted classes that do not occur
        assert found["balanced_accuracy"] == pytest.approx(theirs.balanced_accuracy_score(targets, predicted, **given))
    assert found["macro_f1"] == pytest.approx(theirs.f1_score(targets, predicted, average="macro", **given))
    onehot = targets[:, None] == np.arange(9)
    present = [c for c in range(9) if onehot[weights > 0, c].any()]
    ap = np.mean([theirs.average_precision_score(onehot[:, c], scores[:, c], **given) for c in present])
    area = np.mean([theirs.roc_auc_score(onehot[:, c], scores[:, c], **given) for c in present])
    assert found["map"] == pytest.approx(ap)
    assert found["roc_auc"] == pytest.approx(area)


def test_multilabel_metrics_equal_scikit_learns():
    rng = np.random.default_rng(2)
    targets = (rng.random((500, 6)) < [0.5, 0.3, 0.1, 0.05, 0.4, 0.01]).astype(np.float32)     # few and many positives
    targets[0, 5] = 1
    scores = np.clip(rng.random((500, 6)) * 0.7 + 0.3 * targets, 0, 1).round(2)                # ties
    found = {name: value[0] for name, value in metrics.multilabel_metrics(targets, scores, np.ones((1, 500))).items()}
    assert found["map"] == pytest.approx(theirs.average_precision_score(targets, scores, average="macro"))
    assert found["roc_auc"] == pytest.approx(theirs.roc_auc_score(targets, scores, average="macro"))
    assert found["macro_f1"] == pytest.approx(theirs.f1_score(targets, scores >= 0.5, average="macro", zero_division=0))


def test_per_tag_rows_equal_scikit_learns():
    rng = np.random.default_rng(5)
    targets = (rng.random((300, 4)) < 0.4).astype(np.float32)
    runs = [np.clip(rng.random((300, 4)) * 0.8 + 0.3 * targets - 0.1, 0, 1).round(2).astype(np.float32) for _ in range(2)]
    table = metrics.per_class("multilabel", list("abcd"), targets, runs)
    said = [theirs.precision_recall_fscore_support(targets, run >= np.float32(0.5), zero_division=0) for run in runs]
    for column, number in (("precision", 0), ("recall", 1), ("f1", 2)):
        assert table[column].to_list() == pytest.approx(np.mean([one[number] for one in said], axis=0).tolist())
    assert table["support"].to_list() == said[0][3].tolist()
    for column, score in (("ap", theirs.average_precision_score), ("roc_auc", theirs.roc_auc_score)):
        expected = np.mean([score(targets, run, average=None) for run in runs], axis=0)
        assert table[column].to_list() == pytest.approx(expected.tolist())


def test_among_equal_scores_the_lower_class_ranks_first():
    """As in a stable sort, and as argmax decides the first rank."""
    rng = np.random.default_rng(6)
    scores, targets = rng.integers(0, 3, (200, 8)).astype(np.float32), rng.integers(0, 8, 200)
    order = np.argsort(-scores, axis=1, kind="stable")
    assert metrics.rank_of_target(targets, scores).tolist() == (order == targets[:, None]).argmax(axis=1).tolist()
    assert ((metrics.rank_of_target(targets, scores) == 0) == (scores.argmax(axis=1) == targets)).all()


def test_a_weighted_median_equals_the_median_of_repeated_values():
    rng = np.random.default_rng(7)
    values, weights = rng.random(41), rng.integers(0, 4, (6, 41))
    expected = [np.quantile(np.repeat(values, row), 0.5, method="inverted_cdf") for row in weights]
    assert metrics.weighted_medians(values, weights.astype(float)).tolist() == expected


def test_both_counting_methods_agree():
    rng = np.random.default_rng(3)
    scores, weights = rng.random(200).round(2), rng.integers(0, 3, (5, 200)).astype(float)
    marks = np.unique(scores[:50])
    for one, other in zip(
        metrics.counts_above(scores, marks, weights), metrics.counts_above_sorted(scores, marks, weights), strict=True
    ):
        np.testing.assert_allclose(one, other)


def test_regression_metrics_equal_scikit_learns():
    rng = np.random.default_rng(4)
    targets = rng.standard_normal((200, 2)).astype(np.float32) * [1, 30] + [5, 1900]
    scores = targets + rng.standard_normal((200, 2)) * [0.5, 20]
    found = {name: value[0] for name, value in metrics.regression_metrics(targets, scores, np.ones((1, 200))).items()}
    assert found["r2"] == pytest.approx(theirs.r2_score(targets, scores), abs=1e-6)
    assert found["r2_1"] == pytest.approx(theirs.r2_score(targets[:, 1], scores[:, 1]), abs=1e-5)
    assert found["rmse"] == pytest.approx(theirs.root_mean_squared_error(targets, scores), rel=1e-6)


def test_per_class_rows_equal_scikit_learns_report(classes):
    targets, scores = classes
    names = [f"c{i}" for i in range(9)]
    table = metrics.per_class("multiclass", names, targets, [scores])
    report = theirs.classification_report(
        targets, scores.argmax(1), labels=range(9), target_names=names, output_dict=True, zero_division=np.nan
    )
    for row in table.to_dicts():
        for ours, key in (("precision", "precision"), ("recall", "recall"), ("support", "support")):
            expected = report[row["name"]][key]
            assert row[ours] is None if np.isnan(expected) else row[ours] == pytest.approx(expected)
    matrix = metrics.confusion(targets, [scores], 9)
    np.testing.assert_array_equal(matrix, theirs.confusion_matrix(targets, scores.argmax(1), labels=range(9)))
    assert table["attracts"].sum() == (scores.argmax(1) != targets).sum()


def test_intervals_are_bootstrapped_over_whole_tracks():
    """Clips of a track agree, so few tracks carry little information however many clips they have."""
    rng = np.random.default_rng(5)
    right = np.repeat(rng.random(20) < 0.6, 50)
    scores = np.stack([right, ~right], axis=1).astype(np.float32)
    targets = np.zeros(1000, int)
    by_track = metrics.estimate_metrics("multiclass", targets, [scores], np.repeat(np.arange(20), 50))["accuracy"]
    by_clip = metrics.estimate_metrics("multiclass", targets, [scores], np.arange(1000))["accuracy"]
    assert by_track.value == by_clip.value == pytest.approx(right.mean())
    assert by_track.high - by_track.low > 4 * (by_clip.high - by_clip.low)
    p = right.mean()
    assert by_clip.high - by_clip.low == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / 1000), rel=0.15)


def test_an_interval_contains_its_value_even_if_draws_miss_classes():
    rng = np.random.default_rng(6)
    targets = np.repeat(np.arange(60), 3)                    # one track per class
    scores = rng.dirichlet(np.ones(60), 180) + 0.05 * np.eye(60)[targets]
    estimates = metrics.estimate_metrics("multiclass", targets, [scores], targets)
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in estimates.values())


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([1.0, 1.0, 1.0, 0.0])
    assert metrics.calibration_errors(confidence, right, np.ones((1, 4)))[0] == pytest.approx(0.05 / 2 + 0.05 / 2)
    table = metrics.reliability(confidence, right)
    assert table["clips"].to_list() == [2, 2]
    assert table["right"].to_list() == [0.5, 1.0]


def test_estimates_are_means_over_seeds():
    targets = np.zeros(4, int)
    good, bad = np.array([[1.0, 0]] * 4), np.array([[0.0, 1]] * 4)
    assert metrics.estimate_metrics("multiclass", targets, [good, bad], np.arange(4))["accuracy"].value == 0.5
