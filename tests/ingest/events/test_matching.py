"""Which recordings a label file belongs to: by folders and names, never by guessing."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from tonelake.ingest.events.formats import format_of
from tonelake.ingest.events.matching import AudioFile, match_labels

MUSIC, LABELS = Path("/music"), Path("/labels")


def matched(audio, labels, label_root=LABELS, tracks=()):
    """Pairs (label, audio), ambiguous labels and unmatched ones, below their roots; `audio`: paths, or (path, recording)."""
    named = [one if isinstance(one, tuple) else (one, one) for one in audio]
    files = [
        AudioFile(source=path, path=MUSIC / path, recording=recording, track=dict(tracks).get(path, path))
        for path, recording in named
    ]
    found = match_labels(files, {label_root / path: "beats" for path in labels}, MUSIC, label_root)
    pairs = {
        (str(match.parts[0].path.relative_to(label_root)), audio.source) for match in found.found for audio in match.audio
    }
    ambiguous = {str(path.relative_to(label_root)) for path, _ in found.ambiguous}
    return pairs, ambiguous, {str(path.relative_to(label_root)) for path in found.unmatched}


@pytest.mark.parametrize(("audio", "label"), [
    ("a/song.wav", "a/song.beats"), ("a/song.wav", "song.beats"), ("a/Song.WAV", "x/song.beats"),
    ("a/song.wav", "song.wav.jams"), ("a/song.wav", "song_beats.txt"), ("a/song.beats.wav", "song.beats.beats"),
    ("blues/blues.00001.au", "gtzan_blues_00001.beats"), ("Help!/01 - Help!.mp3", "Help/01_-_Help.beats"),
    ("Caf\u00e9.wav", "Cafe\u0301.beats"), ("audio/10.LOFI.mp3", "annotations/key/10.LOFI.key"),
    ("Track1/stems/S00.flac", "Track1/MIDI/S00.mid"), ("x/Beatles/Help/mix.wav", "chordlab/Help/mix.lab"),
])
def test_a_label_file_belongs_to_the_audio_of_its_name(audio, label):
    assert matched([audio, "other/unsung.wav"], [label]) == ({(label, audio)}, set(), set())


def test_the_closest_folder_decides_between_equal_names():
    audio = ["A/audio/song.wav", "B/audio/song.wav"]
    pairs, ambiguous, unmatched = matched(audio, ["A/labels/song.beats", "B/labels/song.beats"])
    assert pairs == {("A/labels/song.beats", audio[0]), ("B/labels/song.beats", audio[1])} and not ambiguous | unmatched
    assert matched(audio, ["song.beats"]) == (set(), {"song.beats"}, set())
    assert matched(audio, ["C/song.beats"]) == (set(), {"C/song.beats"}, set())


def test_names_that_many_files_have_are_matched_by_their_folders_only():
    assert matched(["Track2/mix.wav"], ["Track1/mix.beats"]) == (set(), set(), {"Track1/mix.beats"})
    assert matched(["Track2/S01.wav"], ["Track1/S01.mid", "Track2/S01.mid"])[0] == {("Track2/S01.mid", "Track2/S01.wav")}


def test_recordings_beside_a_label_file_share_it_and_copies_count_once():
    beside = ["a/song.wav", "a/song.mp3"]
    assert matched(beside, ["a/song.beats"], MUSIC)[0] == {("a/song.beats", path) for path in beside}
    copies = [("a/song.wav", "same"), ("b/song.wav", "same")]
    assert matched(copies, ["song.beats"])[0] == {("song.beats", "a/song.wav")}
    assert matched(["a/x/song.wav", "a/y/song.wav"], ["song.beats"])[1] == {"song.beats"}


def test_two_label_files_for_one_recording_are_refused_unless_one_is_closer():
    annotators = ["annotator1/song.beats", "annotator2/song.beats"]
    assert matched(["music/song.wav"], annotators) == (set(), set(annotators), set())
    pairs, ambiguous, _ = matched(["a/song.wav"], ["a/song.beats", "b/song.beats"])
    assert ("a/song.beats", "a/song.wav") in pairs and not ambiguous


def test_a_track_with_one_recording_is_found_by_its_name():
    tracks = {"a/01.wav": "Blue in Green", "a/02.wav": "So What", "a/03.wav": "So What"}
    assert matched([*tracks], ["blue in green.beats"], tracks=tracks)[0] == {("blue in green.beats", "a/01.wav")}
    assert matched([*tracks], ["So What.beats"], tracks=tracks)[1] == {"So What.beats"}


def test_formats_are_recognised_by_suffix_and_words():
    cases = {
        "a.MIDI": "midi", "a.kar": "midi", "x.jams": "jams", "a.beats": "beats", "a.key": "keys", "a.onsets": "onsets",
        "beat_annotations/a.txt": "beats", "chordlab/The Beatles/a.lab": "chords", "keylab/a.lab": "keys",
        "seglab/a.lab": "sections",
        "a.lab": "lab", "a_chords.csv": "chords", "a.onset.txt": "onsets", "Key of Life/a.txt": None, "key of life.txt": None,
        "beats_and_downbeats/a.txt": "beats", "lyrics.txt": None, "a.wav": None, "a.csv": None,
    }
    assert {path: format_of(PurePath(path)) for path in cases} == cases
    assert format_of(PurePath("a.txt"), ["downbeat", "beat"]) == "beats"
    assert format_of(PurePath("a.txt"), ["beat", "chord"]) is None
