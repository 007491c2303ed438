"""Scores of events: written-out cases, and mir_eval's own functions."""

from __future__ import annotations

import math
import warnings

import mir_eval
import numpy as np
import polars as pl
import pytest
from event_tables import instants, notes, random_notes, spans

from tonelake.evaluate import (
    compare_scores,
    estimate_scores,
    estimates_by_clips,
    estimates_by_notes,
    make_units,
    match_notes,
    merge_unisons,
    score_clips,
    score_events,
)
from tonelake.evaluate.note_scores import piano_roll


def noisy(reference: pl.DataFrame, seed: int) -> pl.DataFrame:
    """An imperfect transcription: notes missing, doubled, shifted, cut and at a wrong pitch."""
    rng = np.random.default_rng(seed)
    kept = reference.filter(pl.Series(rng.random(len(reference)) < 0.85))
    count = len(kept)
    start = np.maximum(kept["start_s"].to_numpy() + rng.normal(0, 0.03, count), 0)
    end = np.maximum(kept["end_s"].to_numpy() + rng.normal(0, 0.1, count), start + 0.02)
    pitch = kept["pitch"].to_numpy() + np.where(rng.random(count) < 0.1, 12, 0)
    moved = kept.with_columns(start_s=start, end_s=end, pitch=pl.Series(pitch, dtype=pl.Float32))
    return pl.concat([moved, moved.head(5)])


def intervals(table: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return table.select("start_s", "end_s").to_numpy(), mir_eval.util.midi_to_hz(table["pitch"].to_numpy().astype(float))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("detune", [0.0, 0.3])
def test_note_scores_are_those_of_mir_eval(seed, detune):
    reference = random_notes(seed)
    estimate = noisy(reference, seed).with_columns(pl.col("pitch") + detune)
    found = score_events("notes", reference, estimate, 10.0)
    wanted = mir_eval.transcription.evaluate(*intervals(reference), *intervals(estimate))
    pairs = {
        "onset_f1": "F-measure_no_offset", "onset_precision": "Precision_no_offset", "onset_recall": "Recall_no_offset",
        "onset_offset_f1": "F-measure", "onset_offset_precision": "Precision", "onset_offset_recall": "Recall",
    }
    assert {name: found[name] for name in pairs} == pytest.approx({name: wanted[key] for name, key in pairs.items()}, abs=1e-12)


def test_frame_scores_are_those_of_mir_eval_multipitch():
    reference = random_notes(1, 25, 4.0)
    estimate = noisy(reference, 1)
    times = np.arange(400) * 0.01
    series = [
        [mir_eval.util.midi_to_hz(np.flatnonzero(moment)) for moment in piano_roll(table, 4.0)]
        for table in (reference, estimate)
    ]
    wanted = mir_eval.multipitch.metrics(times, series[0], times, series[1])
    found = score_events("notes", reference, estimate, 4.0)
    assert (found["frame_precision"], found["frame_recall"]) == pytest.approx(wanted[:2])
    assert found["frame_f1"] == pytest.approx(2 * wanted[0] * wanted[1] / (wanted[0] + wanted[1]))


def test_a_note_sounds_from_its_start_up_to_its_end():
    roll = piano_roll(notes((0.02, 0.05, 60), (0.031, 0.039, 61), (0.05, 0.05, 62), (0.9, 2.0, 63)), 1.0)
    assert roll.shape == (100, 128)
    assert np.flatnonzero(roll[:, 60]).tolist() == [2, 3, 4]
    assert not roll[:, 61:63].any()
    assert np.flatnonzero(roll[:, 63]).tolist() == list(range(90, 100))


def test_an_onset_50_ms_away_is_right_and_51_ms_away_is_wrong():
    for shift, hits in ((0.05, 1), (0.051, 0), (-0.05, 1)):
        found = score_events("notes", notes((0.2, 0.6, 60)), notes((0.2 + shift, 0.6, 60)), 1.0)
        assert found["matched"] == hits
    assert score_events("notes", notes((0.2, 0.6, 60)), notes((0.2, 0.6, 61)), 1.0)["matched"] == 0


def test_offsets_may_be_off_by_a_fifth_of_the_note_or_50_ms():
    for length, error, right in ((1.0, 0.2, 1), (1.0, 0.21, 0), (0.1, 0.05, 1), (0.1, 0.06, 0)):
        found = score_events("notes", notes((0.0, length, 60)), notes((0.0, length + error, 60)), 2.0)
        assert (found["matched"], found["matched_offsets"]) == (1, right)


def test_a_note_held_over_from_before_the_clip_is_neither_missed_nor_a_false_alarm():
    reference = notes((0.0, 1.0, 60, False), (0.5, 1.0, 64))
    assert score_events("notes", reference, notes((0.5, 1.0, 64)), 1.0)["onset_f1"] == 1
    assert score_events("notes", reference, notes((0.02, 1.0, 60), (0.5, 1.0, 64)), 1.0)["onset_f1"] == 1
    assert score_events("notes", reference, notes((0.2, 1.0, 60), (0.5, 1.0, 64)), 1.0)["onset_f1"] == pytest.approx(2 / 3)
    assert score_events("notes", reference, notes((0.02, 1.0, 61), (0.5, 1.0, 64)), 1.0)["onset_f1"] == pytest.approx(2 / 3)
    # It sounds, however.
    assert score_events("notes", reference, notes((0.5, 1.0, 64)), 1.0)["frame_recall"] == pytest.approx(50 / 150)


def test_unisons_count_once_and_repeated_notes_each():
    found = score_events("notes", notes((0, 1, 60), (0, 2, 60), (2, 3, 60)), notes((0, 2, 60), (2, 3, 60)), 3.0)
    assert (found["reference"], found["onset_f1"], found["onset_offset_f1"]) == (2, 1, 1)
    assert score_events("notes", notes((0, 1, 60), (1, 2, 60)), notes((0, 2, 60)), 3.0)["onset_recall"] == 0.5


def test_a_note_of_no_length_can_be_found():
    assert score_events("notes", notes((0.5, 0.5, 60)), notes((0.51, 0.53, 60)), 1.0)["onset_offset_f1"] == 1


def test_silence_is_undefined_on_both_sides_and_zero_on_one():
    silence, one = notes(), notes((0.2, 0.5, 60))
    found = score_events("notes", silence, silence, 1.0)
    assert all(math.isnan(found[name]) for name in ("onset_f1", "onset_offset_f1", "frame_f1", "median_error_s"))
    assert score_events("notes", one, silence, 1.0)["onset_f1"] == score_events("notes", silence, one, 1.0)["onset_f1"] == 0
    assert math.isnan(score_events("beats", silence, silence, 1.0)["f1"])
    assert math.isnan(score_events("onsets", silence, silence, 1.0)["f1"])
    assert score_events("onsets", silence, one, 1.0)["f1"] == 0
    assert math.isnan(score_events("chords", silence, silence, 1.0)["majmin"])
    assert math.isnan(score_events("key", silence, spans("key", (0, 1, "C major")), 1.0)["key_score"])


def test_median_errors_show_shift_and_spread():
    reference = notes((0.1, 0.3, 60), (0.5, 0.7, 61), (0.8, 0.9, 62))
    estimate = notes((0.11, 0.3, 60), (0.53, 0.7, 61), (0.79, 0.9, 62))
    found = score_events("notes", reference, estimate, 1.0)
    assert found["median_error_s"] == pytest.approx(0.01)
    assert found["median_absolute_error_s"] == pytest.approx(0.01)


def test_triad_recall_counts_beats_whose_three_pitch_classes_are_found():
    reference = pl.concat([
        notes((0, 1, 48), (0, 1, 64), (0, 1, 79), (1, 2, 50), (1, 2, 57), (2, 3, 45), (2, 3, 60), (2, 3, 76), (2, 3, 88)),
        instants("beat", [0, 1, 2, 3]),
    ])
    found = notes((0, 1, 60), (0, 1, 64), (0, 1, 67), (0, 1, 70), (1, 2, 50), (2, 3, 45), (2, 3, 60))
    scores = score_events("notes", reference, found, 3.0)
    assert scores["triad_recall"] == 0.5                                 # D and A alone are not a triad
    assert scores["triad_class_recall"] == pytest.approx(5 / 6)
    assert "triad_recall" not in score_events("notes", reference.filter(pl.col("kind") == "note"), found, 3.0)


@pytest.mark.parametrize("seed", range(4))
def test_beat_and_onset_scores_are_those_of_mir_eval(seed):
    rng = np.random.default_rng(seed)
    sought = np.arange(0.3, 20, 0.5)
    found = np.sort(sought[rng.random(len(sought)) < 0.9] + rng.normal(0, 0.04, (rng.random(len(sought)) < 2).sum())[:1])
    if seed == 2:
        found = found[::2]               # half the tempo: right at another metrical level
    beats = score_events("beats", instants("beat", sought), instants("beat", found), 20.0)
    assert beats["f1"] == pytest.approx(mir_eval.beat.f_measure(sought, found))
    _, correct, _, any_level = mir_eval.beat.continuity(sought, found)
    assert (beats["cmlt"], beats["amlt"]) == pytest.approx((correct, any_level))
    onsets = score_events("onsets", instants("onset", sought), instants("onset", found), 20.0)
    assert (onsets["f1"], onsets["precision"], onsets["recall"]) == pytest.approx(mir_eval.onset.f_measure(sought, found))


def test_the_first_five_seconds_count_and_downbeats_are_beats():
    reference = pl.concat([instants("beat", [0.5, 1.0, 1.5]), instants("downbeat", [0.5, 2.0])])
    assert score_events("beats", reference, instants("beat", [0.5, 1.0]), 3.0)["recall"] == 0.5
    assert score_events("beats", reference, instants("downbeat", [2.0]), 3.0)["downbeat_f1"] == pytest.approx(2 / 3)
    assert "downbeat_f1" not in score_events("beats", instants("beat", [0.5]), instants("downbeat", [0.5]), 3.0)


def test_a_single_beat_has_no_continuity_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(score_events("beats", instants("beat", [1.0]), instants("beat", [1.0, 2.0]), 3.0)["cmlt"])
        assert score_events("beats", instants("beat", [1.0, 2.0]), instants("beat", [1.0]), 3.0)["cmlt"] == 0


def test_chord_scores_are_those_of_mir_eval():
    reference = spans("chord", (0, 2, "C:maj"), (2, 3.5, "A:min7"), (3.5, 4, "B:dim"), (4, 5, "N"), (5, 6, "X"), (6, 8, "F/5"))
    estimate = spans("chord", (0, 1.5, "C:maj7"), (1.5, 3, "A:maj"), (3, 4.2, "B:min"), (4.2, 5.5, "N"), (5.5, 8, "F"))
    found = score_events("chords", reference, estimate, 8.0)

    def parts(table):
        return table.select("start_s", "end_s").to_numpy(), table["value"].to_list()

    wanted = mir_eval.chord.evaluate(*parts(reference), *parts(estimate))
    assert (found["root"], found["majmin"]) == pytest.approx((wanted["root"], wanted["majmin"]))
    assert (found["root_s"], found["majmin_s"]) == (7, 6.5)


def test_time_without_a_reference_chord_is_left_out_and_a_gap_in_the_estimate_is_no_chord():
    reference = spans("chord", (1, 3, "C"), (5, 6, "N"))
    estimate = spans("chord", (1, 2, "C"), (3, 5, "G"))
    assert score_events("chords", reference, estimate, 10.0)["majmin"] == pytest.approx(2 / 3)
    unreadable = spans("chord", (0, 1, "C"), (1, 2, "Q:what"))
    assert score_events("chords", unreadable, spans("chord", (0, 2, "C")), 2.0)["majmin_s"] == 1


def test_of_overlapping_chords_the_later_one_counts():
    reference = spans("chord", (0, 4, "C"), (2, 3, "G"))
    assert score_events("chords", reference, spans("chord", (0, 2, "C"), (2, 3, "G"), (3, 4, "C")), 4.0)["majmin"] == 1


def test_key_scores_are_weighted_by_time():
    reference = spans("key", (0, 6, "C major"), (6, 8, "A minor"))
    assert score_events("key", reference, spans("key", (0, 8, "G major")), 8.0)["key_score"] == pytest.approx(0.5 * 6 / 8)
    assert score_events("key", reference, spans("key", (0, 8, "C major")), 8.0)["key_score"] == pytest.approx((6 + 0.3 * 2) / 8)
    assert score_events("key", reference, notes(), 8.0)["key_score"] == 0


@pytest.fixture(scope="module")
def scored():
    clips = []
    for seed in range(8):
        reference = random_notes(seed, 40).with_columns(value=pl.Series(["bass", "voice"] * 20))
        clips.append((reference, noisy(reference, seed), 10.0))
    return clips, score_clips("notes", clips)


def test_estimates_are_means_over_clips_and_pooled_counts(scored):
    _, table = scored
    units = make_units(np.arange(8), "tracks")
    found = estimate_scores(table, units)
    values = table["onset_f1"].to_numpy()
    assert found["onset_f1"].value == pytest.approx(values.mean())
    half = 2.3646 * values.std(ddof=1) / np.sqrt(8)          # the jackknife of a mean is its standard error
    assert (found["onset_f1"].high - found["onset_f1"].low) / 2 == pytest.approx(half, rel=1e-3)
    counts = table.select("matched", "reference", "estimated").sum().row(0)
    assert found["pooled_onset_f1"].value == pytest.approx(2 * counts[0] / (counts[1] + counts[2]))


def test_a_clip_for_which_a_score_is_undefined_does_not_count(scored):
    clips, table = scored
    quiet = score_clips("notes", [*clips, (notes(), notes(), 10.0)])
    units = make_units(np.arange(9), "tracks")
    assert estimate_scores(quiet, units)["onset_f1"] == estimate_scores(table, units.take(np.arange(8)))["onset_f1"]
    empty = estimate_scores(score_clips("notes", [(notes(), notes(), 1.0)] * 2), units.take(np.arange(2)))
    assert math.isnan(empty["onset_f1"].value) and math.isnan(empty["pooled_onset_f1"].value)


def test_groups_of_clips_and_of_notes_add_up(scored):
    clips, table = scored
    units = make_units(np.arange(8), "tracks")
    groups = ["a", "b"] * 3 + ["a", None]
    by_clip = estimates_by_clips(table, units, groups).filter(pl.col("score") == "onset_f1")
    assert by_clip.select("group", "clips").rows() == [("a", 4), ("b", 3)]
    assert by_clip["value"][1] == pytest.approx(table["onset_f1"].gather([1, 3, 5]).mean())
    by_octave = estimates_by_notes(clips, units, "octave")
    assert set(by_octave["group"]) <= {"C3 to B3", "C4 to B4", "C5 to B5"}
    recall = estimates_by_notes(clips, units, "value")
    assert recall.select("group", "score", "clips").rows() == [("bass", "recall", 8), ("voice", "recall", 8)]
    hits = sum(len(match_notes(reference, estimate).pairs) for reference, estimate, _ in clips)
    sizes = [sum(len(merge_unisons(clip[0]).filter(pl.col("value") == name)) for clip in clips) for name in recall["group"]]
    assert np.dot(recall["value"], sizes) == pytest.approx(hits)


def test_models_are_compared_on_the_clips_that_all_of_them_have(scored):
    _, table = scored
    worse = table.with_columns(onset_f1=pl.col("onset_f1") - pl.Series(np.linspace(0.05, 0.15, 8)))
    gap = table.with_columns(onset_f1=pl.when(pl.int_range(8) == 0).then(math.nan).otherwise(pl.col("onset_f1")))
    found = compare_scores({"good": table, "worse": worse, "same": gap}, make_units(np.arange(8), "tracks"), "notes")
    assert found["model"].to_list() == ["good", "worse", "same"]
    assert found["distinguishable"].to_list() == [False, True, False]
    assert found["lead"].to_list() == pytest.approx([0, np.linspace(0.05, 0.15, 8)[1:].mean(), 0])
