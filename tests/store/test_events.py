"""Events: storing, replacing, and the part that a clip sees."""

from __future__ import annotations

import polars as pl
import pytest

from tonelake.store import EVENT_COLUMNS, InputError, Lake

NOTES = pl.DataFrame({
    "recording": ["one"] * 5, "kind": ["note"] * 5, "source": ["midi"] * 5,
    "start_s": [0.0, 1.5, 1.5, 3.0, 2.0], "end_s": [1.0, 2.5, 2.5, 3.0, 4.0],
    "value": ["bass", "piano", "piano", None, "bass"], "pitch": [40.0, 60.0, 60.0, 72.0, 43.0],
    "velocity": [80, 90, 90, 1, None],
})
BEATS = pl.DataFrame({
    "recording": ["one"] * 3, "kind": ["beat"] * 3, "source": ["beats"] * 3, "start_s": [0.0, 2.0, 4.0],
    "end_s": [0.0, 2.0, 4.0],
})


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


def test_events_are_read_as_they_were_stored(lake):
    assert lake.events.read().columns == list(EVENT_COLUMNS) and lake.events.count() == 0
    assert lake.events.replace(NOTES) == 5
    stored = lake.events.read()
    assert stored["start_s"].to_list() == [0.0, 1.5, 1.5, 2.0, 3.0]
    assert stored.sort(EVENT_COLUMNS).equals(NOTES.select(
        pl.col(name).cast(kind) for name, kind in stored.schema.items()).sort(EVENT_COLUMNS))
    lake.events.replace(BEATS)
    assert lake.events.summary().rows() == [("note", "midi", 1, 5), ("beat", "beats", 1, 3)]
    assert lake.events.read(kinds=["beat"])["start_s"].to_list() == [0.0, 2.0, 4.0]
    assert len(lake.events.read(recordings=["other"])) == 0


def test_storing_again_replaces_the_same_kind_and_source_of_the_same_recordings_only(lake):
    lake.events.replace(pl.concat([NOTES, NOTES.with_columns(recording=pl.lit("two")), BEATS], how="diagonal"))
    version = lake.events.table.version
    lake.events.replace(NOTES)
    assert lake.events.table.version == version                      # equal events are not written again
    lake.events.replace(NOTES[:2])
    lake.events.replace(NOTES.with_columns(source=pl.lit("predicted:run")))
    found = lake.events.read().group_by("recording", "kind", "source").len().sort("recording", "kind", "source")
    assert found.rows() == [
        ("one", "beat", "beats", 3), ("one", "note", "midi", 2), ("one", "note", "predicted:run", 5),
        ("two", "note", "midi", 5),
    ]
    lake.events.replace(NOTES.clear(), also=pl.DataFrame({"recording": ["two"], "kind": ["note"], "source": ["midi"]}))
    assert len(lake.events.read(recordings=["two"])) == 0
    lake.events.drop("predicted:run")
    assert len(lake.events.read(source="predicted:run")) == 0 and len(lake.events.read(source="midi")) == 2


def test_a_clip_sees_its_part_of_the_events_with_times_of_its_own(lake):
    lake.events.replace(pl.concat([NOTES, BEATS], how="diagonal"))
    clips = pl.DataFrame({
        "clip_id": ["a", "b"], "recording": ["one", "one"], "start_s": [0.0, 2.0], "duration_s": [2.0, 1.0],
    })
    notes = lake.events.of_clips(clips, ["note"]).select("clip_id", "start_s", "end_s", "pitch", "begins", "ends")
    assert notes.rows() == [
        ("a", 0.0, 1.0, 40.0, True, True), ("a", 1.5, 2.0, 60.0, True, False), ("a", 1.5, 2.0, 60.0, True, False),
        ("b", 0.0, 0.5, 60.0, False, True), ("b", 0.0, 0.5, 60.0, False, True), ("b", 0.0, 1.0, 43.0, True, False),
    ]
    beats = lake.events.of_clips(clips, ["beat"])
    assert beats.select("clip_id", "start_s").rows() == [("a", 0.0), ("b", 0.0)]         # a beat on a border: of the later clip


def test_a_note_without_length_belongs_to_the_clip_in_which_it_lies(lake):
    lake.events.replace(NOTES)
    clips = pl.DataFrame({"clip_id": ["a", "b"], "recording": ["one"] * 2, "start_s": [2.0, 3.0], "duration_s": [1.0, 1.0]})
    found = lake.events.of_clips(clips, ["note"]).filter(pl.col("pitch") == 72)
    assert found.select("clip_id", "start_s", "end_s", "begins").rows() == [("b", 0.0, 0.0, True)]


def test_two_sources_of_one_kind_have_to_be_chosen_from_and_predictions_are_not_among_them(lake):
    clips = pl.DataFrame({"clip_id": ["a"], "recording": ["one"], "start_s": [0.0], "duration_s": [5.0]})
    lake.events.replace(NOTES)
    lake.events.replace(NOTES.with_columns(source=pl.lit("predicted:x")))
    assert len(lake.events.of_clips(clips, ["note"])) == 5
    assert len(lake.events.of_clips(clips, ["note"], source="predicted:x")) == 5
    lake.events.replace(NOTES.with_columns(source=pl.lit("jams")))
    with pytest.raises(InputError, match="from jams and midi"):
        lake.events.of_clips(clips, ["note"])


@pytest.mark.parametrize(("changes", "reason"), [
    ({"kind": "melody"}, "kind 'melody': unknown. Choose note"),
    ({"start_s": float("nan")}, "a time that is not a number"),
    ({"start_s": -0.5}, "a negative start"),
    ({"end_s": 0.5, "start_s": 1.0}, "an end before its start"),
    ({"pitch": 128.0}, "a pitch outside 0 to 127"),
    ({"velocity": 0}, "a velocity outside"),
    ({"pitch": None}, "no pitch, as a note"),
    ({"kind": "beat"}, "a length, as an instant"),
    ({"recording": None}, "no recording or source"),
])
def test_rows_that_are_not_events_are_refused(lake, changes, reason):
    wrong = NOTES[:1].with_columns(pl.lit(value).cast(NOTES.schema[name]).alias(name) for name, value in changes.items())
    with pytest.raises(InputError, match=reason):
        lake.events.replace(wrong)
    assert lake.events.count() == 0


def test_other_columns_and_missing_ones_are_refused(lake):
    with pytest.raises(InputError, match="have unknown columns colour"):
        lake.events.replace(NOTES.with_columns(colour=1))
    with pytest.raises(InputError, match="lack source"):
        lake.events.replace(NOTES.drop("source"))
