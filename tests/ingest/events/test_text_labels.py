"""Beats, chords, keys, sections and onsets in text: exact values of each format, and what is repaired, left out or refused."""

from __future__ import annotations

import math
import re

import pytest

from tonelake.ingest.events.beats import read_beats
from tonelake.ingest.events.chords import chord_label, read_chords
from tonelake.ingest.events.formats import read_label_file
from tonelake.ingest.events.keys import read_keys
from tonelake.ingest.events.onsets import read_onsets
from tonelake.ingest.events.sections import read_sections
from tonelake.store import InputError


def write(folder, text, name="song.lab"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def spans(found):
    return found.events.select("start_s", "end_s", "value").rows()


def times(found, kind):
    return found.events.filter(kind=kind).select("start_s", "value").rows()


@pytest.mark.parametrize("text", [
    "0.5 3\n1.25 1\n2 2\n", "0.5\t3\r\n1.25\t1\r\n2.0\t2", "0.5,3\n1.25,1\n2,2\n", "time;beat\n0,5;3\n1,25;1\n2,0;2\n",
    "0,50\t3\t7\n1,25\t1\t8\n2,00\t2\t8\n", "# madmom\n\n0.5   3.0\n1.25   1.0\n2.0   2.0\n",
    '"0.5","3"\n"1.25","1"\n"2","2"\n', "0.5 3\n1.25 1\n2 2\n".encode("utf-16"),
    b"\xef\xbb\xbf0.5 3\r1.25 1\r2 2\r", "2 2\n0.5 3\n1.25 1\n0.5 3\n",
])
def test_beats_are_read_from_every_form_of_text(tmp_path, text):
    found = read_beats(write(tmp_path, text))
    assert times(found, "beat") == [(0.5, "3"), (1.25, "1"), (2.0, "2")]
    assert times(found, "downbeat") == [(1.25, "1")]


def test_beats_without_numbers_are_beats_alone(tmp_path):
    found = read_beats(write(tmp_path, "0.01\n0.51\n1,01\n".replace(",", ".")))
    assert times(found, "beat") == [(0.01, None), (0.51, None), (1.01, None)] and not times(found, "downbeat")
    odd = read_beats(write(tmp_path, "0.0 0\n0.5 1.5\n1.0 1\n"))
    assert times(odd, "beat") == [(0.0, None), (0.5, None), (1.0, "1")]
    assert odd.repairs == {"numbers that are no beat of a bar left out": 2}


def test_times_that_cannot_be_are_left_out_and_counted(tmp_path):
    found = read_onsets(write(tmp_path, "1.5\nnan\n-0.25\n0,75\ninf\n1.5\n1e9\n".replace(",", ".")))
    assert times(found, "onset") == [(0.75, None), (1.5, None)]
    assert found.repairs == {
        "rows without a finite time left out": 2, "rows before the beginning left out": 1, "repeated rows left out": 1,
        "rows later than a day left out": 1, "rows sorted by time": 1,
    }
    assert times(read_onsets(write(tmp_path, "1,5\n2,5\n")), "onset") == [(1.5, None), (2.5, None)]


def test_chords_are_normalised_to_hartes_syntax(tmp_path):
    found = read_chords(write(tmp_path, "0.0 1.5 N\n1.5\t3.0\tC\n3.0 4.5 A:min7/b3\n4.5 6.0 F#m7b5\n6.0 7.0 Verse\n"))
    assert spans(found) == [
        (0.0, 1.5, "N"), (1.5, 3.0, "C:maj"), (3.0, 4.5, "A:min7/b3"), (4.5, 6.0, "F#:hdim7"), (6.0, 7.0, "X"),
    ]
    assert found.repairs == {"labels that are no chord stored as X": 1}


def test_overlapping_and_impossible_chords_are_repaired(tmp_path):
    rows = "-1.0 1.0 C\n0.5 2.0 G\n2.0 2.0 D\n3.0 2.5 A\n4.0 5.0 F\n3.0 9.0 E\n-3 -2 B\n"
    found = read_chords(write(tmp_path, rows))
    assert spans(found) == [(0.0, 0.5, "C:maj"), (0.5, 2.0, "G:maj"), (3.0, 4.0, "E:maj"), (4.0, 5.0, "F:maj")]
    assert found.repairs == {
        "spans begun before the beginning cut": 1, "spans without a length left out": 1, "rows sorted by time": 1,
        "spans that end before they begin left out": 1, "overlapping chord events cut at the next one": 2,
        "rows before the beginning left out": 1,
    }


@pytest.mark.parametrize(("chart", "harte"), [
    ("C", "C:maj"), ("Cm", "C:min"), ("Bb7", "Bb:7"), ("G/B", "G:maj/3"), ("D♭maj7", "Db:maj7"), ("E5", "E:5"), ("NC", "N"),
    ("C:maj(9)/3", "C:maj(9)/3"), ("D:sus4(b7)", "D:sus4(b7)"), ("X", "X"), ("H7", None), ("Chorus", None), ("", None),
])
def test_labels_are_chords_that_mir_eval_accepts(chart, harte):
    from mir_eval.chord import encode

    assert chord_label(chart) == harte
    if harte is not None:
        encode(harte)


def test_keys_are_whole_recordings_or_spans(tmp_path):
    whole = read_keys(write(tmp_path, "Eb minor\t2\tsure\n", "1.key"))
    assert spans(whole) == [(0.0, math.inf, "D# minor")]
    assert spans(type(whole).from_dict(whole.to_dict())) == spans(whole)
    assert spans(read_keys(write(tmp_path, "key 0.0 f# minor\n"))) == [(0.0, math.inf, "F# minor")]
    isophonics = "0.000\t0.333\tSilence\n0.333\t60.5\tKey\tE\n60.5\t176.0\tKey\tE:minor\n176 180 Key D:mixolydian\n"
    found = read_keys(write(tmp_path, isophonics))
    assert spans(found) == [(0.333, 60.5, "E major"), (60.5, 176.0, "E minor")]
    assert found.repairs == {"labels that are no major or minor key left out": 1}
    for text in ("C minor / F# minor\n", "-\n", "C major\nD major\n"):
        with pytest.raises(InputError, match=r"2\.key: does not hold a single"):
            read_keys(write(tmp_path, text, "2.key"))


def test_sections_are_spans_or_boundaries(tmp_path):
    assert spans(read_sections(write(tmp_path, '0.0\t10.5\tintro\n10.5\t20\t"Verse 1"\n'))) == [
        (0.0, 10.5, "intro"), (10.5, 20.0, "Verse 1"),
    ]
    assert spans(read_sections(write(tmp_path, "0.0 intro\n10.5 verse\n20 end\n"))) == [
        (0.0, 10.5, "intro"), (10.5, 20.0, "verse"),
    ]
    assert spans(read_sections(write(tmp_path, "0.0 intro\n10.5 verse\n"))) == [(0.0, 10.5, "intro"), (10.5, math.inf, "verse")]
    with pytest.raises(InputError, match=r"row 2: has one time"):
        read_sections(write(tmp_path, "0.0 1.0 intro\n10.5 verse\n"))


def test_lab_files_are_chords_keys_or_sections_by_their_labels(tmp_path):
    def kind(text):
        return set(read_label_file(write(tmp_path, text), "lab").events["kind"])

    assert kind("0 1 A:min\n1 2 G\n2 3 N\n") == {"chord"}
    assert kind("0 1 Silence\n1 2 Key A\n") == {"key"}
    assert kind("0 1 intro\n1 2 A\n2 3 solo\n") == {"section"}
    with pytest.raises(InputError, match="--kind chord or --kind section"):
        kind("0 1 A\n1 2 B\n2 3 A\n")


@pytest.mark.parametrize(("read", "data"), [
    (read_beats, b""), (read_beats, b"\xff\xfe\x00"), (read_beats, b"0.5\nsoon\n"), (read_beats, b"nan\n"),
    (read_chords, b"\0\0\0\0"),
    (read_chords, b"0 1\n1 x\n"), (read_sections, b"caf\xe9 1\n"), (read_onsets, b"RIFF\x24\x08\0\0WAVE"), (read_keys, b""),
    (read_sections, b"1.0\n2.0\n"), (read_beats, b"1" * 5000 + b"\n"), (read_onsets, b" " * (17 << 20)),
])
def test_other_files_are_errors_that_name_the_file(tmp_path, read, data):
    with pytest.raises(InputError, match=re.escape("song [1].lab")):
        read(write(tmp_path, data, "song [1].lab"))


def test_isophonics_files_agree_with_mirdatas_loader(tmp_path):
    beatles = pytest.importorskip("mirdata.datasets.beatles")
    chords = write(tmp_path, "0.000000 2.612267 N\n2.612267 11.459070 E\n11.459070 12.921927 A:7/b7\n", "chords.lab")
    theirs = beatles.load_chords(str(chords))
    mine = read_chords(chords).events
    assert mine.select("start_s", "end_s").rows() == [tuple(row) for row in theirs.intervals]
    assert mine["value"].to_list() == ["N", "E:maj", "A:7/b7"] and list(theirs.labels) == ["N", "E", "A:7/b7"]
    beats = write(tmp_path, "13.249 2\n13.959 3\n14.416 4\n14.965 1\n", "beats.txt")
    found = beatles.load_beats(str(beats))
    assert times(read_beats(beats), "beat") == [
        (time, str(int(number))) for time, number in zip(found.times, found.positions, strict=True)
    ]
    sections = write(tmp_path, "0.000000\t0.465000\t0\tsilence\n0.465000\t14.933000\t1\tintro\n", "sections.lab")
    parts = beatles.load_sections(str(sections))
    assert spans(read_sections(sections)) == [
        (*interval, label) for interval, label in zip(parts.intervals, parts.labels, strict=True)
    ]
    keys = write(tmp_path, "0.000\t0.333\tSilence\n0.333\t176.0\tKey\tE\n", "keys.lab")
    named = beatles.load_key(str(keys))
    assert spans(read_keys(keys)) == [(*named.intervals[-1], "E major")] and named.keys[-1] == "E"
