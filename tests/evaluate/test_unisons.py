"""Notes of several voices as notes of one sound."""

from __future__ import annotations

from event_tables import notes, random_notes

from tonelake.evaluate import merge_unisons


def merged(*rows):
    found = merge_unisons(notes(*rows))
    return [tuple(round(x, 3) if isinstance(x, float) else x for x in row) for row in found.select(
        "start_s", "end_s", "pitch", "begins", "ends").rows()]


def test_notes_that_begin_together_are_one_with_the_latest_end():
    assert merged((0, 2, 60), (0.03, 1, 60)) == [(0, 2, 60, True, True)]
    assert merged((0, 1, 60), (0.05, 2, 60, True, False)) == [(0, 2, 60, True, False)]
    assert merged((0, 1, 60), (0, 1, 61)) == [(0, 1, 60, True, True), (0, 1, 61, True, True)]


def test_three_voices_in_unison_are_one_note():
    assert merged((1, 2, 60), (1, 3, 60), (1, 2.5, 60)) == [(1, 3, 60, True, True)]


def test_a_pitch_struck_while_it_sounds_begins_a_new_note():
    assert merged((0, 4, 60), (2, 3, 60)) == [(0, 2, 60, True, True), (2, 4, 60, True, True)]
    assert merged((0, 4, 60), (1, 2, 60), (3, 5, 60)) == [
        (0, 1, 60, True, True), (1, 3, 60, True, True), (3, 5, 60, True, True),
    ]


def test_repeated_notes_are_left_alone_however_short():
    rows = [(0, 0.04, 60), (0.04, 0.08, 60), (0.08, 1, 60)]
    assert merged(*rows) == [(*row, True, True) for row in rows]
    table = random_notes(1)
    assert merge_unisons(table).equals(table.sort("start_s", "pitch"))


def test_a_held_note_is_not_a_unison_of_one_that_begins():
    assert merged((0, 1, 60, False), (0, 2, 60)) == [(0, 2, 60, True, True)]
    assert merged((0, 1, 60, False), (0.02, 2, 60)) == [(0, 0.02, 60, False, True), (0.02, 2, 60, True, True)]
    assert merged((0, 1, 60, False), (0, 2, 60, False)) == [(0, 2, 60, False, True)]


def test_a_note_of_no_length_joins_one_that_begins_with_it():
    assert merged((1, 1, 60), (1, 2, 60)) == [(1, 2, 60, True, True)]
    assert merged((1, 1, 60), (2, 2, 60)) == [(1, 1, 60, True, True), (2, 2, 60, True, True)]


def test_the_loudest_velocity_is_kept_and_columns_may_be_missing():
    table = notes((0, 1, 60), (0, 2, 60))
    loud = table.with_columns(velocity=table["velocity"].scatter([0, 1], [40, 90]))
    assert merge_unisons(loud)["velocity"].to_list() == [90]
    assert merge_unisons(table.select("start_s", "end_s", "pitch")).columns == ["start_s", "end_s", "pitch", "begins", "ends"]
    assert len(merge_unisons(notes())) == 0
