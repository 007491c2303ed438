"""Beats and downbeats by each decoder, onsets, chords and keys."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import polars as pl
import pytest
from event_tables import instants, spans

from tonelake.evaluate import score_events
from tonelake.probes.frames.beat_decoding import beat_decoders, numbers_in_bar, regular
from tonelake.probes.frames.decode_settings import DecodeSettings
from tonelake.probes.frames.decoding import choose_decoding, decode
from tonelake.probes.frames.targets import frame_targets
from tonelake.probes.frames.tasks import CHORDS, KEYS, frame_task
from tonelake.probes.frames.transitions import change_matrix, learn_changes, transition_matrix, viterbi
from tonelake.store import MissingExtra

PERIOD = 1 / 50
FRAMES = (np.arange(600) * PERIOD + PERIOD / 2).astype(np.float32)        # twelve seconds
BEATS = frame_task("beats")


def metred(interval: float = 0.6, beats: int = 3, first: float = 0.31, phase: int = 2) -> tuple:
    """A clip with beats at a steady tempo, whose probabilities show them with noise, one beat missing."""
    times = np.arange(first, 12, interval)
    events = pl.concat([instants("beat", times), instants("downbeat", times[phase::beats])])
    shown = frame_targets(BEATS, events, FRAMES, period_s=PERIOD, neighbours=0.4).astype(np.float32)
    noise = np.random.default_rng(0).uniform(0, 0.2, shown.shape)
    p = np.clip(0.75 * shown + noise, 0, 1)
    p[np.abs(FRAMES - times[7]) < 0.05, 0] = 0.1
    return p.astype(np.float32), FRAMES, events, 12.0


def test_peaks_find_the_beats_that_are_shown():
    p, frame_s, events, _ = metred()
    found = decode(BEATS, p, frame_s, DecodeSettings(onset_threshold=0.6, downbeat_threshold=0.6))
    scores = score_events("beats", events, found, 12.0)
    assert (scores["precision"], scores["recall"], scores["downbeat_f1"]) == (1, pytest.approx(19 / 20), 1)
    assert found.filter(pl.col("kind") == "downbeat")["value"].unique().to_list() == ["1"]
    assert found.filter(pl.col("kind") == "beat")["value"].is_null().all()


@pytest.mark.slow                        # librosa compiles for some seconds
def test_dynamic_programming_fills_in_a_beat_and_counts_the_bar():
    p, frame_s, events, _ = metred()
    found = decode(BEATS, p, frame_s, DecodeSettings(decoder="dp"))
    scores = score_events("beats", events, found, 12.0)
    assert scores["recall"] == 1 and scores["f1"] > 0.95 and scores["downbeat_f1"] > 0.85
    numbers = found.filter(pl.col("kind") == "beat")["value"].cast(pl.Int64).to_numpy()
    assert (np.diff(numbers) % 3 == 1).all() and set(numbers) == {1, 2, 3}


@pytest.mark.skipif("dbn" not in beat_decoders(), reason="madmom-infer is not installed")
def test_the_dbn_fills_in_a_beat_and_counts_the_bar():
    p, frame_s, events, _ = metred()
    found = decode(BEATS, p, frame_s, DecodeSettings(decoder="dbn"))
    scores = score_events("beats", events, found, 12.0)
    assert scores["f1"] > 0.95 and scores["downbeat_f1"] > 0.9 and scores["amlt"] > 0.9
    assert set(found.filter(pl.col("kind") == "beat")["value"]) == {"1", "2", "3"}
    assert len(decode(BEATS, np.zeros_like(p), frame_s, DecodeSettings(decoder="dbn"))) == 0


def test_a_decoder_that_is_not_installed_says_how_to_get_it(monkeypatch):
    import importlib

    real = importlib.import_module

    def missing(name: str, package: str | None = None):
        if name.startswith("madmom_infer"):
            raise ModuleNotFoundError(name, name="madmom_infer")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match="the decoder dbn"):
        decode(BEATS, metred()[0], FRAMES, DecodeSettings(decoder="dbn"))


def test_the_decoder_of_beats_is_chosen_by_score():
    clips = [metred(), metred(0.5, 4, 0.2, 1)]
    settings = choose_decoding(BEATS, clips, decoders=["peaks"])
    assert settings.decoder == "peaks" and 0.3 < settings.onset_threshold < 0.9
    assert score_events("beats", clips[1][2], decode(BEATS, *clips[1][:2], settings), 12.0)["f1"] > 0.95


def test_bars_are_counted_from_the_strongest_beats():
    assert numbers_in_bar(np.array([0.1, 0.9, 0.1, 0.2, 0.8, 0.1, 0.1]), (3, 4)).tolist() == [3, 1, 2, 3, 1, 2, 3]
    assert numbers_in_bar(np.array([0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9]), (3, 4)).tolist() == [3, 4, 1, 2, 3, 4, 1]
    assert numbers_in_bar(np.empty(0), (3, 4)).tolist() == []
    assert numbers_in_bar(np.array([0.5]), (3, 4)).tolist() == [1]


def test_irregular_frames_are_put_on_a_grid_without_losing_a_peak():
    frame_s = np.array([0.0, 0.1, 0.2, 0.34, 0.44])
    values, start = regular(np.array([0.0, 1.0, 0.0, 1.0, 0.0]), frame_s, 0.1)
    assert start == 0 and values.tolist()[:4] == [0, 1, 0, 1]


def test_onsets_are_peaks_and_their_threshold_is_chosen():
    task, events = frame_task("onsets"), instants("onset", np.arange(0.2, 11, 0.37))
    p = 0.5 * frame_targets(task, events, FRAMES, period_s=PERIOD) + np.random.default_rng(1).uniform(0, 0.3, (600, 1))
    settings = choose_decoding(task, [(p, FRAMES, events, 12.0)])
    assert 0.3 < settings.onset_threshold < 0.5
    assert score_events("onsets", events, decode(task, p, FRAMES, settings), 12.0)["f1"] == 1


def test_viterbi_finds_the_most_probable_of_all_sequences():
    rng = np.random.default_rng(0)
    for classes, frames in ((2, 7), (3, 6)):
        p, matrix = rng.dirichlet(np.ones(classes), frames), rng.dirichlet(np.ones(classes), classes)

        def chance(path, p=p, matrix=matrix):
            steps = [matrix[a, b] for a, b in pairwise(path)]
            return np.prod([p[i, state] for i, state in enumerate(path)]) * np.prod(steps)

        best = max(product(range(classes), repeat=frames), key=chance)
        assert viterbi(p, matrix).tolist() == list(best)
        several = viterbi(p, np.stack([matrix, np.eye(classes)]))
        assert several.shape == (2, frames) and several[0].tolist() == list(best) and len(set(several[1])) == 1
    assert viterbi(np.empty((0, 3)), np.eye(3)).shape == (0,)


def test_transitions_keep_a_class_for_the_expected_time():
    matrix = transition_matrix(25, 2.0, 0.02)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(25))
    assert np.diag(matrix) == pytest.approx(np.full(25, 0.99))
    assert matrix[0, 1] == matrix[24, 3] == pytest.approx(0.01 / 24)


def test_learned_changes_hold_in_every_key():
    chords = ["C:maj", "F:maj", "G:maj", "C:maj", "A:min", "D:min", "N", "C:maj"]
    task = frame_task("chords")
    changes = learn_changes(task, [spans("chord", *((i, i + 1, name) for i, name in enumerate(chords)))])
    matrix = change_matrix(25, changes)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(25)) and not np.diag(matrix).any()
    number = {name: i for i, name in enumerate(CHORDS)}
    up = matrix[number["E:maj"], number["A:maj"]]            # a fourth up: two of three changes between major triads
    assert up == pytest.approx(matrix[number["B:maj"], number["E:maj"]])
    assert up > 2 * matrix[number["E:maj"], number["F:maj"]]
    assert learn_changes(task, [spans("chord", (0, 1, "C"), (1, 2, "C"), (2, 3, "X"))]) == ()
    keys = learn_changes(frame_task("key"), [spans("key", (0, 1, "C major"), (1, 2, "A minor"))])
    assert change_matrix(24, keys)[KEYS.index("D major"), KEYS.index("B minor")] > 1 / 24


def test_chords_are_smoothed_as_the_validation_clips_ask_for():
    task = frame_task("chords")
    names = ("C:maj", "F:maj", "G:maj", "A:min", "N", "E:min")
    events = spans("chord", *((2 * i, 2 * i + 2, name) for i, name in enumerate(names)))
    target = frame_targets(task, events, FRAMES, period_s=PERIOD)
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.full(25, 0.4), 600)
    p[np.arange(600), target] += 0.1
    p /= p.sum(axis=1, keepdims=True)
    settings = choose_decoding(task, [(p, FRAMES, events, 12.0)], training=[events])
    found = decode(task, p, FRAMES, settings)
    assert settings.stay_s > 0.2
    assert score_events("chords", events, found, 12.0)["majmin"] > 0.95
    assert (p.argmax(axis=1) == target).mean() < 0.7
    assert found["start_s"].to_list()[1:] == found["end_s"].to_list()[:-1] and found["start_s"][0] < 1e-6
    assert DecodeSettings.from_dict(settings.as_dict()) == settings
    plain = decode(task, np.eye(25)[target], FRAMES, DecodeSettings(stay_s=1.0))
    assert plain["value"].to_list() == events["value"].to_list()
    assert plain["end_s"].to_list() == pytest.approx(events["end_s"].to_list())


def test_one_key_of_a_clip_can_be_kept_throughout():
    task, events = frame_task("key"), spans("key", (0, 12, "D minor"))
    p = np.random.default_rng(3).dirichlet(np.full(24, 0.5), 600)
    p[:, KEYS.index("D minor")] += 0.02
    settings = choose_decoding(task, [(p, FRAMES, events, 12.0)])
    assert decode(task, p, FRAMES, settings)["value"].to_list() == ["D minor"]
