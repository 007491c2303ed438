"""Targets at the frames of an encoder: which frame an event belongs to, on paper and against a brute force."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from event_tables import instants, notes, random_notes, spans

from tonelake.probes.frames.targets import chord_class, frame_targets, key_class, nearest_frames
from tonelake.probes.frames.tasks import CHORDS, FRAME_TASKS, KEYS, frame_task
from tonelake.store import InputError

TENTH = (np.arange(10) * 0.1 + 0.05).astype(np.float32)             # centres of ten frames of 100 ms
TASK = frame_task("notes", 60, 62)


def rows(found: np.ndarray, task=TASK) -> dict[str, str]:
    """Each output that is ever on, as a line of digits."""
    return {name: "".join(map(str, column)) for name, column in zip(task.outputs, found.T, strict=True) if column.any()}


def target_rows(events, frame_s=TENTH, period_s=0.1) -> dict[str, str]:
    return rows(frame_targets(TASK, events, frame_s, period_s=period_s))


def test_a_note_has_an_onset_the_frames_whose_centres_it_covers_and_an_offset():
    assert target_rows(notes((0.2, 0.52, 60))) == {
        "onset 60": "0010000000", "frame 60": "0011100000", "offset 60": "0000010000",
    }
    # The nearest centre is that of frame 1, but the note does not cover it.
    assert target_rows(notes((0.16, 0.4, 61))) == {
        "onset 61": "0100000000", "frame 61": "0011000000", "offset 61": "0000100000",
    }


def test_a_time_half_way_between_two_centres_belongs_to_the_later_frame():
    assert nearest_frames(np.array([0.1, 0.2, 0.3]), TENTH, 0.1).tolist() == [1, 2, 3]
    # A centre at a note's start is covered, one at its end is not, whatever float32 makes of them.
    assert target_rows(notes((0.25, 0.55, 60)))["frame 60"] == "0011100000"


def test_a_note_held_over_from_before_the_clip_has_frames_and_no_onset():
    assert target_rows(notes((0.0, 0.3, 60, False))) == {"frame 60": "1110000000", "offset 60": "0001000000"}
    assert target_rows(notes((0.8, 1.0, 60, True, False))) == {"onset 60": "0000000010", "frame 60": "0000000011"}


def test_a_note_of_no_length_has_an_onset_alone():
    assert target_rows(notes((0.43, 0.43, 60))) == {"onset 60": "0000100000"}


def test_a_note_between_two_centres_covers_no_frame():
    assert target_rows(notes((0.36, 0.4, 60))) == {"onset 60": "0001000000", "offset 60": "0000100000"}


def test_a_repeated_note_keeps_its_onset_and_leaves_a_frame_before_it_empty():
    assert target_rows(notes((0.1, 0.5, 60), (0.5, 0.8, 60))) == {
        "onset 60": "0100010000", "frame 60": "0111011100", "offset 60": "0000010010",
    }
    # There is a gap already; or the earlier note would lose its only frame.
    assert target_rows(notes((0.1, 0.4, 60), (0.5, 0.8, 60)))["frame 60"] == "0111011100"
    assert target_rows(notes((0.4, 0.5, 60), (0.5, 0.8, 60)))["frame 60"] == "0000111100"
    assert target_rows(notes((0.3, 0.4, 60), (0.4, 0.5, 60), (0.5, 0.8, 60)))["frame 60"] == "0001111100"


def test_unisons_are_one_note_and_a_pitch_struck_while_it_sounds_begins_again():
    assert target_rows(notes((0.2, 0.5, 60), (0.2, 0.8, 60))) == target_rows(notes((0.2, 0.8, 60)))
    assert target_rows(notes((0.2, 0.8, 60), (0.5, 0.6, 60))) == target_rows(notes((0.2, 0.5, 60), (0.5, 0.8, 60)))


def test_pitches_outside_the_range_are_ignored_and_others_rounded():
    assert target_rows(notes((0.2, 0.4, 59), (0.2, 0.4, 63), (0.2, 0.4, 61.3))).keys() == {"onset 61", "frame 61", "offset 61"}


def test_a_time_more_than_a_period_from_every_frame_belongs_to_none():
    late = TENTH + np.float32(0.5)
    assert nearest_frames(np.array([0.0, 0.44, 0.46, 1.54, 1.56, 3.0]), late, 0.1).tolist() == [-1, -1, 0, 9, -1, -1]
    assert nearest_frames(np.array([0.0]), np.empty(0, np.float32), 0.1).tolist() == [-1]


@pytest.mark.parametrize("seed", range(4))
def test_targets_equal_a_brute_force_on_grids_of_11_ms_and_where_windows_meet(seed):
    rng = np.random.default_rng(seed)
    period = 256 / 22_050
    centres = np.arange(850) * period + period / 2
    if seed % 2:                         # the second window begins 0.4 periods late, and a frame is missing between the two
        centres = np.delete(np.where(np.arange(850) < 400, centres, centres + 0.4 * period), 400)
    frame_s = centres.astype(np.float32)
    table = random_notes(seed, 80).with_columns(
        begins=pl.Series(rng.random(80) < 0.9), ends=pl.Series(rng.random(80) < 0.9)
    )
    task = frame_task("notes", 50, 70)
    wanted = np.zeros((len(frame_s), len(task.outputs)), int)
    for row in table.iter_rows(named=True):
        if not 50 <= row["pitch"] <= 70:
            continue
        pitch = int(row["pitch"]) - 50
        times = frame_s.astype(np.float64)
        for group, time, counts in (("onset", row["start_s"], row["begins"]), ("offset", row["end_s"], row["ends"])):
            distance = np.abs(times - time)
            if counts and distance.min() <= period:          # to 10 µs, the later of two equally near frames
                nearest = np.flatnonzero(distance <= distance.min() + 2e-5)[-1]
                wanted[nearest, task.groups[group].start + pitch] = 1
        covered = (row["start_s"] <= times + 1e-5) & (times + 1e-5 < row["end_s"])
        wanted[covered, task.groups["frame"].start + pitch] = 1
    found = frame_targets(task, table, frame_s, period_s=period)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)


def test_downbeats_are_beats_and_neighbours_get_a_weight():
    task = frame_task("beats")
    events = pl.concat([instants("beat", [0.15, 0.45]), instants("downbeat", [0.15]), notes((0.3, 0.4, 60))])
    assert rows(frame_targets(task, events, TENTH, period_s=0.1), task) == {"beat": "0100100000", "downbeat": "0100000000"}
    soft = frame_targets(task, events, TENTH, period_s=0.1, neighbours=0.5)
    assert soft.dtype == np.float16
    assert soft[:, 0].tolist() == [0.5, 1, 0.5, 0.5, 1, 0.5, 0, 0, 0, 0]
    assert frame_targets(task, instants("downbeat", [0.7]), TENTH, period_s=0.1)[:, 0].tolist() == [0] * 7 + [1, 0, 0]


def test_onsets_are_those_given_else_the_beginnings_of_notes():
    task = frame_task("onsets")
    played = notes((0.0, 0.3, 60, False), (0.25, 0.5, 61), (0.25, 0.6, 62))
    assert rows(frame_targets(task, played, TENTH, period_s=0.1), task) == {"onset": "0010000000"}
    both = pl.concat([played, instants("onset", [0.75])])
    assert rows(frame_targets(task, both, TENTH, period_s=0.1), task) == {"onset": "0000000100"}


def test_chords_and_keys_are_classes_and_unlabelled_frames_are_minus_one():
    chords = spans("chord", (0.1, 0.3, "C:maj7"), (0.3, 0.5, "X"), (0.5, 0.7, "N"), (0.6, 0.9, "Bb:min"))
    found = frame_targets(frame_task("chords"), chords, TENTH, period_s=0.1)
    assert found.dtype == np.int64
    assert found.tolist() == [-1, 0, 0, -1, -1, 24, 22, 22, 22, -1]
    keys = spans("key", (0.0, 0.5, "Eb major"), (0.5, 0.8, "nonsense"), (0.8, 2.0, "G# minor"))
    found = frame_targets(frame_task("key"), keys, TENTH, period_s=0.1)
    assert found.tolist() == [3] * 5 + [-1] * 3 + [20] * 2


def test_chords_are_reduced_to_triads_as_mir_eval_reduces_them():
    from mir_eval.chord import majmin

    labels = [
        f"{root}:{quality}" for root in ("C", "F#", "Bb") for quality in
        ("maj", "min", "7", "maj7", "min7", "hdim7", "dim", "aug", "sus4", "maj6", "min6", "9", "1", "5", "maj/3", "maj/2")
    ] + ["N", "X", "G"]
    for label in labels:
        number = chord_class(label)
        scores = majmin([label] * len(CHORDS), list(CHORDS))
        assert number == (int(scores.argmax()) if scores.max() == 1 else -1), label
    assert [KEYS[key_class(name)] for name in ("A:min", "Db major")] == ["A minor", "C# major"]


@pytest.mark.parametrize("name", FRAME_TASKS)
def test_silence_has_targets_of_every_task(name):
    task = frame_task(name)
    found = frame_targets(task, notes(), TENTH, period_s=0.1)
    assert found.shape == ((10,) if task.kind == "multiclass" else (10, len(task.outputs)))
    assert (found == (-1 if task.kind == "multiclass" else 0)).all()
    assert len(frame_targets(task, notes(), np.empty(0, np.float32), period_s=0.1)) == 0


def test_bad_tasks_and_frames_are_refused():
    with pytest.raises(InputError, match="unknown"):
        frame_task("drums")
    with pytest.raises(InputError, match="not a range of MIDI numbers"):
        frame_task("notes", 70, 60)
    with pytest.raises(InputError, match="do not increase"):
        frame_targets(TASK, notes(), TENTH[::-1], period_s=0.1)
