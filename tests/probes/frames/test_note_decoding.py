"""Note assembly from probabilities, and thresholds chosen on validation clips."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from event_tables import notes, random_notes

from tonelake.evaluate import match_notes, merge_unisons, score_events
from tonelake.probes.frames.decode_settings import DecodeSettings
from tonelake.probes.frames.decoding import choose_decoding, decode
from tonelake.probes.frames.note_thresholds import peaks_of_clip
from tonelake.probes.frames.peaks import local_maxima, refined_times
from tonelake.probes.frames.targets import frame_targets
from tonelake.probes.frames.tasks import FRAME_TASKS, frame_task
from tonelake.probes.frames.threshold_search import (
    HIGHEST,
    LOWEST,
    Axes,
    ClipPeaks,
    grid_f1,
    logit,
    search,
    search_line,
    sigmoid,
)
from tonelake.store import InputError

TENTH = (np.arange(12) * 0.1 + 0.05).astype(np.float32)
PERIOD = 256 / 22_050                    # 11.6 ms
FINE = (np.arange(861) * PERIOD + PERIOD / 2).astype(np.float32)          # ten seconds
TASK = frame_task("notes", 60, 61)
WIDE = frame_task("notes", 48, 71)
PLAIN = DecodeSettings(separation_s=0.1, shortest_s=0.1)


def decoded(onset: str, frame: str, offset: str = "0" * 12, settings: DecodeSettings = PLAIN) -> list[tuple[float, float]]:
    """(start, end) of the notes of one pitch from probabilities written as digits: tenths."""
    p = np.zeros((12, 6))
    p[:, 0], p[:, 2], p[:, 4] = ([int(digit) / 10 for digit in row] for row in (onset, frame, offset))
    found = decode(TASK, p, TENTH, settings)
    assert (found["pitch"] == 60).all() and found["velocity"].is_null().all() and (found["kind"] == "note").all()
    return [(round(start, 4), round(end, 4)) for start, end in found.select("start_s", "end_s").rows()]


def test_a_note_begins_at_an_onset_peak_and_lasts_while_frames_are_up():
    assert decoded("019400000000", "018999800000") == [(0.25, 0.7)]
    assert decoded("000000000009", "000000000009") == [(1.15, 1.2)]


def test_an_onset_below_its_threshold_and_frames_without_an_onset_are_not_notes():
    assert decoded("004000000000", "009999000000") == []
    assert decoded("000000000000", "009999000000") == []
    assert decoded("004000000000", "009999000000", settings=DecodeSettings(onset_threshold=0.4)) != []


def test_a_repeated_note_ends_the_one_before():
    assert decoded("080008000000", "099999990000") == [(0.15, 0.55), (0.55, 0.8)]


def test_an_onset_whose_frames_do_not_stay_up_is_a_note_only_if_no_length_is_asked_for():
    longer = DecodeSettings(separation_s=0.1, shortest_s=0.3)
    assert decoded("008000000000", "009900000000", settings=longer) == []
    assert decoded("008000000000", "009990000000", settings=longer) == [(0.25, 0.5)]
    free = DecodeSettings(separation_s=0.1, shortest_s=0.0)
    assert decoded("008000000000", "000000000000", settings=free) == [(0.25, 0.3)]


def test_a_gap_in_the_frames_is_bridged_only_if_it_is_short_enough():
    bridging = DecodeSettings(separation_s=0.1, shortest_s=0.1, gap_s=0.1)
    assert decoded("080000000000", "099099009900", settings=bridging) == [(0.15, 0.6)]
    assert decoded("080000000000", "099099009900") == [(0.15, 0.3)]


def test_an_offset_ends_a_note_where_a_threshold_is_given():
    offsets = DecodeSettings(separation_s=0.1, shortest_s=0.1, offset_threshold=0.5)
    assert decoded("080000000000", "099999990000", "000009000000", offsets) == [(0.15, 0.55)]
    assert decoded("080000000000", "099999990000", "000009000000") == [(0.15, 0.8)]
    assert decoded("080000000000", "099999990000", "090000000000", offsets) == [(0.15, 0.8)]       # at its own onset


def test_frames_may_rise_just_after_the_onset():
    p = np.zeros((861, 6))
    p[100, 0] = p[103:120, 2] = p[100, 1] = p[110:120, 3] = 1
    found = decode(TASK, p, FINE, DecodeSettings())
    assert found["pitch"].to_list() == [60]                              # 35 ms later; those of pitch 61 rise after 116 ms
    assert found["end_s"][0] == pytest.approx(120 * PERIOD, abs=1e-4)


def test_peaks_are_the_highest_within_their_reach_and_the_first_of_equals():
    p = np.array([[0.1, 0.5, 0.5, 0.2, 0.9, 0.3, 0.8, 0.0, 0.0]]).T
    assert np.flatnonzero(local_maxima(p, 1)).tolist() == [1, 4, 6]
    assert np.flatnonzero(local_maxima(p, 2)).tolist() == [1, 4]
    assert np.flatnonzero(local_maxima(p, 3)).tolist() == [4]
    assert not local_maxima(np.zeros((5, 2)), 1).any()


def test_a_parabola_finds_a_peak_between_frames():
    at = 3.3
    p = (1 - 0.05 * np.square(np.arange(8) - at))[:, None]
    found = refined_times(p, TENTH[:8], np.array([3]), np.array([0]))
    assert found[0] == pytest.approx(0.05 + 0.1 * at, abs=1e-6)
    assert refined_times(p, TENTH[:8], np.array([0, 7]), np.array([0, 0])) == pytest.approx([0.05, 0.75])


@pytest.mark.parametrize("seed", range(3))
def test_decoding_the_targets_gives_the_notes_back(seed):
    reference = random_notes(seed, 60)
    targets = frame_targets(WIDE, reference, FINE, period_s=PERIOD)
    found = decode(WIDE, targets, FINE, DecodeSettings())
    wanted = reference.sort("start_s", "pitch")
    matched = match_notes(reference, found)
    assert len(found) == len(reference) == len(matched.complete)
    for name in ("start_s", "end_s"):
        error = found[name].to_numpy()[matched.pairs[:, 1]] - wanted[name].to_numpy()[matched.pairs[:, 0]]
        assert np.abs(error).max() <= PERIOD / 2 + 1e-5
    held = notes((0.0, 1.0, 60, False), (1.0, 2.0, 60), (3.0, 3.0, 61))
    again = decode(TASK, frame_targets(TASK, held, FINE, period_s=PERIOD), FINE, DecodeSettings(shortest_s=0.0))
    assert again["start_s"].round(1).to_list() == [1.0, 3.0]


@pytest.mark.parametrize("name", FRAME_TASKS)
def test_silence_and_clips_without_frames_decode(name):
    task = frame_task(name)
    silent = decode(task, np.zeros((861, len(task.outputs)), np.float32), FINE, DecodeSettings())
    assert len(silent) == (1 if task.kind == "multiclass" else 0)
    assert len(decode(task, np.zeros((0, len(task.outputs))), np.empty(0), DecodeSettings())) == 0
    assert decode(task, np.zeros((1, len(task.outputs))), np.array([0.05]), DecodeSettings()).schema == silent.schema


def test_probabilities_of_another_shape_are_refused():
    with pytest.raises(InputError, match="a column for each output"):
        decode(TASK, np.zeros((12, 5)), TENTH, PLAIN)


def uncertain(seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, pl.DataFrame, float]:
    """A clip whose probabilities show its notes, blurred and noisy; `shift` of all logits."""
    rng = np.random.default_rng(seed)
    reference = random_notes(seed, 50)
    shown = frame_targets(WIDE, reference, FINE, period_s=PERIOD).astype(np.float32)
    onset = WIDE.groups["onset"]
    shown[1:, onset] = np.maximum(shown[1:, onset], 0.7 * shown[:-1, onset])
    slow = rng.normal(0, 1.2, (88, shown.shape[1])).repeat(10, axis=0)[:len(shown)]
    return sigmoid(5 * shown - 3 + slow + shift).astype(np.float32), FINE, reference, 10.0


def test_the_grid_scores_every_threshold_as_mir_eval_scores_decoded_notes():
    axes = Axes(logit(np.array([0.1, 0.3, 0.5, 0.8])), logit(np.array([0.05, 0.3, 0.7])))
    for seed, shortest in ((1, 0.03), (2, 0.0)):
        clip = uncertain(seed)
        held = clip[2].with_columns(begins=pl.col("start_s") > 0.4)
        grid = grid_f1(peaks_of_clip(WIDE, clip[0], FINE, held, 0.03, shortest), axes, 0.05)
        for i, onset in enumerate(sigmoid(axes.onset)):
            for j, frame in enumerate(sigmoid(axes.support)):
                settings = DecodeSettings(onset_threshold=float(onset), frame_threshold=float(frame), shortest_s=shortest)
                found = score_events("notes", held, decode(WIDE, clip[0], FINE, settings), 10.0)
                assert grid[i, j] == pytest.approx(found["onset_f1"], abs=1e-12)


def test_matching_is_maximal_where_peaks_and_onsets_are_dense():
    rng = np.random.default_rng(3)
    axes = Axes(logit(np.array([0.2, 0.5])), logit(np.array([0.5])))
    for _ in range(20):
        wanted, times = np.sort(rng.uniform(0, 0.6, 8)), np.sort(rng.uniform(0, 0.6, 12))
        p = rng.random(12).astype(np.float32)
        none = np.zeros(12, np.int64)
        clip = ClipPeaks(
            time_s=times, pitch=none, onset=p, support=np.ones(12, np.float32), wanted_s=wanted,
            wanted_pitch=np.zeros(8, np.int64), excused=none > 0,
        )
        grid = grid_f1(clip, axes, 0.05)
        for i, threshold in enumerate((0.2, 0.5)):
            events = [notes(*[(t, t + 0.01, 60) for t in each]) for each in (wanted, times[p >= threshold])]
            assert len(merge_unisons(events[0])) <= 8                    # short notes that do not overlap stay apart
            assert grid[i, 0] == pytest.approx(score_events("onsets", *events, 1.0)["f1"])


@pytest.mark.parametrize("shift", [0.0, -6.0, 6.0])
def test_thresholds_are_found_wherever_the_optimum_is(shift):
    clips = [uncertain(seed, shift) for seed in range(2)]
    settings = choose_decoding(WIDE, clips)
    found = [score_events("notes", clip[2], decode(WIDE, clip[0], FINE, settings), 10.0)["onset_f1"] for clip in clips]
    assert np.mean(found) > 0.9
    assert abs(float(logit(settings.onset_threshold)) - shift) < 2.5
    if shift:
        assert not LOWEST < settings.onset_threshold < HIGHEST
    assert DecodeSettings.from_dict(settings.as_dict()) == settings


def test_a_search_leaves_its_first_grid_only_where_the_optimum_is_outside():
    seen: list[Axes] = []

    def evaluate(axes: Axes, top: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        seen.append(axes)
        scores = -np.square(axes.onset[:, None] - top[0]) - np.square(axes.support[None, :] - top[1])
        return scores, np.zeros(scores.shape)

    for top in ((0.0, 1.0), (-9.0, 7.0), (-40.0, 0.0)):
        seen.clear()
        found = search(lambda axes, top=top: evaluate(axes, top))
        assert float(logit(found.onset)) == pytest.approx(max(top[0], -15), abs=0.21)
        assert float(logit(found.support)) == pytest.approx(top[1], abs=0.21)
        assert (len(seen) == 2) == (top == (0.0, 1.0))


def test_a_line_search_extends_to_either_end_and_takes_the_middle_of_equals():
    start = np.arange(4.0)
    assert search_line(lambda x: -abs(x + 7), start, (-20, 20)) == (-7.0, 0.0)
    assert search_line(lambda x: -abs(x - 9), start, (-20, 20)) == (9.0, 0.0)
    assert search_line(lambda x: x, start, (-20, 6)) == (6.0, 6.0)
    assert search_line(lambda x: 0.0, start, (-20, 20))[0] == 1.0


def test_no_validation_clips_give_the_defaults_and_silent_ones_some_settings():
    assert choose_decoding(WIDE, []) == DecodeSettings()
    silent = (np.zeros((861, len(WIDE.outputs)), np.float32), FINE, notes(), 10.0)
    assert len(decode(WIDE, silent[0], FINE, choose_decoding(WIDE, [silent]))) == 0


def test_a_support_threshold_decides_which_onsets_are_notes_and_the_frame_threshold_how_long_they_are():
    low = DecodeSettings(separation_s=0.1, shortest_s=0.2, frame_threshold=0.3, support_threshold=0.8)
    assert decoded("080000080000", "099944077440", settings=low) == [(0.15, 0.6)]
    one = DecodeSettings(separation_s=0.1, shortest_s=0.2, frame_threshold=0.3)
    assert decoded("080000080000", "099944077440", settings=one) == [(0.15, 0.6), (0.75, 1.1)]


def test_the_length_of_notes_has_a_threshold_of_its_own_where_that_is_better():
    clips = []
    for seed in range(2):
        p, frame_s, reference, duration = uncertain(seed)
        targets = frame_targets(WIDE, reference, FINE, period_s=PERIOD)
        frame = WIDE.groups["frame"]
        p = p.copy()
        p[:, WIDE.groups["offset"]] = 0
        p[:, frame] = np.where(targets[:, frame] > 0, 0.3, 0.05)         # quiet notes, beginnings that are clear
        p[:, frame] = np.maximum(p[:, frame], 0.9 * targets[:, WIDE.groups["onset"]])
        clips.append((p, frame_s, reference, duration))
    settings = choose_decoding(WIDE, clips)
    assert 0.05 < settings.frame_threshold < 0.3
    found = [score_events("notes", clip[2], decode(WIDE, clip[0], FINE, settings), 10.0)["onset_offset_f1"] for clip in clips]
    assert np.mean(found) > 0.9
