"""JAMS files: every namespace that is read, both forms of data, several annotations, and files that are not JAMS."""

from __future__ import annotations

import json

import pytest

from tonelake.ingest.events.jams import read_jams
from tonelake.store import InputError


def annotation(namespace, *observations, **more):
    data = [dict(zip(("time", "duration", "value", "confidence"), (*one, None), strict=True)) for one in observations]
    return {"namespace": namespace, "data": data, "annotation_metadata": {}, "sandbox": {}} | more


def jams(folder, *annotations):
    path = folder / "song.jams"
    path.write_text(json.dumps({"annotations": annotations, "file_metadata": {"duration": 30}, "sandbox": {}}))
    return path


def events(found, kind):
    return found.events.filter(kind=kind).select("start_s", "end_s", "value", "pitch").rows()


def test_every_namespace_is_read(tmp_path):
    found = read_jams(jams(
        tmp_path, annotation("beat", (0.5, 0, 4), (1.0, 0, 1.0), (1.5, 0, None)), annotation("onset", (0.25, 0.0, 3)),
        annotation("chord", (0, 2, "A:min7"), (2, 2, "N")), annotation("key_mode", (0, 4, "A:minor")),
        annotation("segment_salami_lower", (0, 4, "a'")), annotation("note_hz", (1, 0.5, 440.0), (2, 0.5, 466.1637615)),
        annotation("tempo", (0, 4, 120.0)), annotation("pitch_contour", (0, 0, {"frequency": 440.0})),
    ))
    assert events(found, "beat") == [(0.5, 0.5, "4", None), (1.0, 1.0, "1", None), (1.5, 1.5, None, None)]
    assert events(found, "downbeat") == [(1.0, 1.0, "1", None)] and events(found, "onset") == [(0.25, 0.25, None, None)]
    assert events(found, "chord") == [(0, 2, "A:min7", None), (2, 4, "N", None)]
    assert events(found, "key") == [(0, 4, "A minor", None)] and events(found, "section") == [(0, 4, "a'", None)]
    assert events(found, "note") == [(1, 1.5, None, 69.0), (2, 2.5, None, pytest.approx(70.0))]
    assert not found.repairs


def test_older_files_hold_data_as_lists_and_beats_as_positions(tmp_path):
    beats = {"time": [0.1, 0.6], "duration": [0, 0], "value": [{"position": 1, "measure": 1}, {"position": 2}]}
    found = read_jams(jams(tmp_path, annotation("beat_position", data=beats)))
    assert events(found, "beat") == [(0.1, 0.1, "1", None), (0.6, 0.6, "2", None)]


def test_strings_of_a_guitar_belong_together_and_other_further_annotations_are_left_out(tmp_path):
    strings = [
        annotation("note_midi", (0.5 * string, 0.4, 40.0 + string), annotation_metadata={"data_source": str(string)})
        for string in range(3)
    ]
    again = annotation("note_midi", (5, 1, 50.0), annotation_metadata={"data_source": "1"})
    chords = [annotation("chord", (0, 1, "C")), annotation("chord", (0, 1, "C:maj6"))]
    found = read_jams(jams(tmp_path, *strings, again, *chords))
    assert [(value, pitch) for *_, value, pitch in events(found, "note")] == [("0", 40.0), ("1", 41.0), ("2", 42.0)]
    assert events(found, "chord") == [(0, 1, "C:maj", None)]
    assert found.repairs == {
        "further annotations of note events left out": 1, "further annotations of chord events left out": 1,
    }


def test_values_that_are_no_events_are_left_out_and_counted(tmp_path):
    found = read_jams(jams(
        tmp_path, annotation("note_midi", (0, 1, 60.5), (1, 1, None), (2, 1, 400), (3, -1, 60), (float("nan"), 1, 60)),
        annotation("key_mode", (0, 1, "C:dorian"), (1, 1, "N"), (2, 1, "Ab:major")), annotation("beat", (-1, 0, 1), (1, 0, 0)),
    ))
    assert events(found, "note") == [(0, 1, None, 60.5)] and events(found, "key") == [(2, 3, "G# major", None)]
    assert events(found, "beat") == [(1, 1, None, None)]
    assert found.repairs == {
        "notes without a pitch from 0 to 127 left out": 2, "spans that end before they begin left out": 1,
        "rows without a finite time left out": 1, "labels that are no major or minor key left out": 1,
        "rows before the beginning left out": 2, "numbers that are no beat of a bar left out": 1,
    }


@pytest.mark.parametrize("text", [
    "", "{}", "[]", "null", '{"annotations": {}}', '{"annotations": [3]}', '{"annotations": []}', "[" * 100_000,
    '{"annotations": [{"namespace": "beat", "data": 3}]}', '{"annotations": [{"namespace": "beat", "data": [{"value": 1}]}]}',
    '{"annotations": [{"namespace": "beat", "data": [{"time": true}]}]}',
    '{"annotations": [{"namespace": "chord", "data": [{"time": 0, "duration": 1, "value": ["C"]}]}]}',
    '{"annotations": [{"namespace": "beat", "data": {"time": [1], "duration": [], "value": []}}]}',
    '{"annotations": [{"namespace": "beat", "data": [{"time": 1' + "0" * 400 + "}]}]}",
])
def test_other_files_are_errors_that_name_the_file(tmp_path, text):
    path = tmp_path / "odd.jams"
    path.write_text(text)
    with pytest.raises(InputError, match=r"odd\.jams: "):
        read_jams(path)
