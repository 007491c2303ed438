"""Scores of keys and tempi: against mir_eval for each clip, and which classes count as keys."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest

from tonelake.evaluate import estimate_metrics, key_scores, make_units, parse_key, task_values

TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for tonic in TONICS for mode in ("major", "minor"))


def test_the_key_score_is_the_mean_of_mir_evals_score_of_each_clip():
    rng = np.random.default_rng(0)
    targets, scores = rng.integers(0, 24, 200), rng.random((200, 24))
    found = estimate_metrics("multiclass", targets, [scores], make_units(np.arange(200), "tracks"), names=KEYS)["key_score"]
    each = [mir_eval.key.weighted_score(KEYS[a], KEYS[b]) for a, b in zip(targets, scores.argmax(axis=1), strict=True)]
    assert found.value == pytest.approx(np.mean(each))
    assert found.high - found.low == pytest.approx(2 * 1.98 * np.std(each) / np.sqrt(200), rel=0.05)


@pytest.mark.parametrize(("text", "key"), [
    ("C major", "C major"), ("c#:min", "C# minor"), ("B- major", "A# major"), ("b- minor", "A# minor"), ("A-", "G# major"),
    ("F♯ minor", "F# minor"), ("Cb major", "B major"), ("Ebm", "D# minor"), ("G", "G major"), ("a", "A minor"),
    ("A-minor", "A minor"), ("H major", None), ("rock", None), ("", None), ("dm7", None), ("C majestic", None),
])
def test_keys_are_recognised_in_common_spellings(text, key):
    assert parse_key(text) == key


def test_only_columns_of_keys_have_a_key_score():
    assert key_scores(KEYS) is not None
    assert key_scores(("A", "B")) is None                    # parts of a song
    assert key_scores(("A", "Am")) is not None
    assert key_scores((*KEYS, "unknown")) is None
    assert task_values("multiclass", ("rock", "jazz"), np.array([0]), np.array([[1.0, 0.0]])) == {}


def test_tempo_accuracies_allow_four_percent_and_octaves():
    true, predicted = np.array([[120.0]] * 6), np.array([[120.0], [124.7], [125.0], [60.5], [363.0], [90.0]])
    found = task_values("regression", ("tempo",), true, predicted)
    assert found["tempo_1"].tolist() == [1, 1, 0, 0, 0, 0]
    assert found["tempo_2"].tolist() == [1, 1, 0, 1, 1, 0]
    assert task_values("regression", ("valence",), true, predicted) == {}
