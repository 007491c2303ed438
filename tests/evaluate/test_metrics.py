"""Metrics of predictions against scikit-learn's, with and without weights of clips, and coverage of their intervals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as theirs

from tonelake.evaluate import Replicates, make_units, metrics, squared_calibration_error
from tonelake.evaluate.calibration import reliability
from tonelake.evaluate.quantiles import median_estimate


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
    expected = [np.median(np.repeat(values, row)) for row in weights]
    assert {int(row.sum()) % 2 for row in weights} == {0, 1}
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


def clips_of_tracks(rng, tracks, hit, within=0.6):
    """Return (clip,) tracks and hits: a track's clips agree with its own probability, beta distributed around `hit`."""
    track = np.repeat(np.arange(tracks), rng.integers(1, 8, tracks))
    chance = rng.beta(hit / within, (1 - hit) / within, tracks)
    return track, rng.random(len(track)) < chance[track]


def test_intervals_are_over_whole_tracks():
    """Clips of a track agree, so few tracks carry little information however many clips they have."""
    rng = np.random.default_rng(5)
    right = np.repeat(rng.random(20) < 0.6, 50)
    scores = np.stack([right, ~right], axis=1).astype(np.float32)
    targets = np.zeros(1000, int)
    by_track, by_clip = (
        metrics.estimate_metrics("multiclass", targets, [scores], make_units(unit, "tracks"))["accuracy"]
        for unit in (np.repeat(np.arange(20), 50), np.arange(1000))
    )
    assert by_track.value == by_clip.value == pytest.approx(right.mean())
    assert by_track.high - by_track.low > 4 * (by_clip.high - by_clip.low)
    p = right.mean()
    assert by_clip.high - by_clip.low == pytest.approx(2 * 1.98 * np.sqrt(p * (1 - p) / 1000), rel=0.1)


@pytest.mark.parametrize("hit", [0.55, 0.9, 0.97])
def test_intervals_of_accuracy_cover_their_truth(hit):
    """In 93 to 98 of 100 test sets of thirty tracks; a symmetric interval covers 80 % near one."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        track, right = clips_of_tracks(rng, 30, hit)
        units = make_units(track, "tracks")
        found = metrics.logit_estimate(metrics.from_weights(
            (metrics.jackknife_weights(units) @ right.astype(float)) / metrics.jackknife_weights(units).sum(axis=1)
        ))
        covered.append(found.low <= hit <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.985


def test_a_figure_that_varies_with_no_unit_still_has_an_interval():
    targets, scores = np.zeros(30, int), np.tile([0.9, 0.1], (30, 1))
    found = metrics.estimate_metrics("multiclass", targets, [scores], make_units(np.arange(30) // 3, "tracks"))["accuracy"]
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.05 ** (1 / 10))


def test_intervals_of_a_median_cover_their_truth():
    rng, covered = np.random.default_rng(2), []
    for _ in range(400):
        track = np.repeat(np.arange(25), rng.integers(1, 8, 25))
        values = np.exp(rng.standard_normal(25)[track] + 0.4 * rng.standard_normal(len(track)))         # median 1
        found = median_estimate(values, make_units(track, "tracks"))
        covered.append(found.low <= 1 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.98


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two():
    units = make_units(np.arange(4), "tracks")
    assert median_estimate(np.array([1.0, 2.0, 4.0, 9.0]), units).value == 3.0
    found = metrics.estimate_metrics(
        "multiclass", np.zeros(4, int), [np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [1.0, 0.0]])], units
    )
    assert found["confidence_gap_median"].value == pytest.approx(0.6)            # gaps .2, .4, .8 and 1


def test_an_interval_contains_its_value_even_where_units_hold_whole_classes():
    rng = np.random.default_rng(6)
    targets = np.repeat(np.arange(60), 3)                    # one track per class
    scores = rng.dirichlet(np.ones(60), 180) + 0.05 * np.eye(60)[targets]
    estimates = metrics.estimate_metrics("multiclass", targets, [scores], make_units(targets, "tracks"))
    assert estimates.pop("calibration_error").low != estimates["accuracy"].low
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in estimates.values())


def test_one_track_has_figures_without_intervals():
    scores, units = np.eye(2)[[0, 1, 0, 1, 1, 1]], make_units(np.zeros(6), "tracks")
    found = metrics.estimate_metrics("multiclass", np.arange(6) % 2, [scores], units)
    assert found["accuracy"].value == pytest.approx(5 / 6)
    assert np.isnan([found["accuracy"].low, found["confidence_gap_median"].high, found["calibration_error"].value]).all()


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_calibration_error_is_not_inflated_by_few_clips(gap):
    """The mean over test sets is the true squared gap; the usual binned error of calibrated scores is .002 above zero here."""
    rng, found, binned = np.random.default_rng(3), [], []
    for _ in range(600):
        track = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        confidence = rng.uniform(0.4, 0.9, 40)[track]
        right = (rng.random(len(track)) < confidence - gap).astype(float)
        found.append(squared_calibration_error(confidence, right, make_units(track, "tracks")))
        table = reliability(confidence, right)
        binned.append((table["clips"] * (table["confidence"] - table["right"]) ** 2).sum() / len(track))
    assert np.mean(found) == pytest.approx(gap**2, abs=3 * np.std(found) / np.sqrt(600))
    assert np.mean(binned) > gap**2 + 0.002


def test_the_reliability_table_has_the_share_correct_of_each_bin():
    table = reliability(np.array([0.95, 0.95, 0.55, 0.55]), np.array([1.0, 1.0, 1.0, 0.0]))
    assert table["clips"].to_list() == [2, 2]
    assert table["right"].to_list() == [0.5, 1.0]


def test_estimates_are_means_over_seeds():
    targets = np.zeros(4, int)
    good, bad = np.array([[1.0, 0]] * 4), np.array([[0.0, 1]] * 4)
    units = make_units(np.arange(4), "tracks")
    assert metrics.estimate_metrics("multiclass", targets, [good, bad], units)["accuracy"].value == 0.5


def test_intervals_of_errors_are_symmetric_on_the_log_scale():
    rng = np.random.default_rng(3)
    left_out = 0.5 + 0.02 * rng.standard_normal(20)
    error = metrics.estimate_metric("rmse", Replicates(np.array(0.5), left_out))
    assert error.low * error.high == pytest.approx(0.25) and error.low < 0.5 < error.high
    share = metrics.estimate_metric("r2_0", Replicates(np.array(0.5), 1 - left_out))
    assert (share.value, share.low, share.high) == pytest.approx((0.5, 1 - error.high, 1 - error.low))
    assert metrics.estimate_metric("rmse", Replicates(np.array(0.0), np.zeros(5))).high == 0
