"""Events of chorales: the notes that are rendered, beats of every kind of bar, exact chords, and what a clip sees of them."""

from __future__ import annotations

from dataclasses import replace

import mido
import numpy as np
import polars as pl
import pytest

from tonelake.ingest import ingest_chorales
from tonelake.ingest.chorale_scores import Score, load_score
from tonelake.ingest.events.chorale_events import NAMES, beats, chorale_events, harmonies
from tonelake.ingest.events.midi import read_midi
from tonelake.ingest.organ import render
from tonelake.ingest.soundfont_rendering import midi_file

SCORE = Score(
    name="test.mxl", notes=np.array([[0, 1, 60], [1, 0, 62], [0, 2, 64], [0, 2, 67], [3, 1, 67]], np.float64),
    bars=np.array([[0, 4]], np.float64), meters=((0.0, "4/4"),), key="g minor", tune="", title="", voices=3,
    parts=(2, 1, 2), quarter_s=0.5, part_names=("Soprano", "", "Bass"),
)


def test_every_event_has_the_time_of_the_score():
    found = chorale_events(SCORE)
    assert found.filter(kind="note").select("start_s", "end_s", "value", "pitch").rows() == [
        (0.0, 0.5, "Soprano", 60.0), (0.0, 1.0, "voice 2", 64.0), (0.0, 1.0, "Bass", 67.0), (0.5, 0.5, "Soprano", 62.0),
        (1.5, 2.0, "Bass", 67.0),
    ]
    assert found.filter(kind="beat").select("start_s", "value").rows() == [(0.0, "1"), (0.5, "2"), (1.0, "3"), (1.5, "4")]
    assert found.filter(kind="downbeat")["start_s"].to_list() == [0.0]
    assert found.filter(kind="key").select("start_s", "end_s", "value").rows() == [(0.0, 2.0, "G minor")]
    assert found.filter(kind="chord").select("start_s", "end_s", "value").rows() == [(0.0, 0.5, "C:maj"), (1.0, 1.5, "N")]


@pytest.mark.parametrize(("meter", "lengths", "numbers"), [
    ("4/4", [1, 4, 3, 1, 2, 2], "4" "1234" "123" "4" "12" "34"),
    ("3/4", [3, 2, 1, 3, 2], "123" "12" "3" "123" "12"),
    ("4/4", [0.5, 4, 3.5, 0.5, 4], "" "1234" "1234" "" "1234"),
    ("4/4", [4, 3, 4, 3, 3, 1], "1234" "123" "1234" "123" "123" "4"),
    ("6/8", [1.5, 3, 3], "2" "12" "12"),
    ("3/2", [6, 6], "123" "123"),
])
def test_beats_are_numbered_through_upbeats_and_divided_bars(meter, lengths, numbers):
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    score = replace(SCORE, bars=np.stack([starts, np.array(lengths, float)], axis=1), meters=((0.0, meter),))
    found = list(beats(score))
    assert "".join(str(number) for _, number in found) == numbers
    times = np.array([time for time, _ in found])
    assert np.allclose(np.diff(times), np.diff(times)[0]) or meter == "4/4"
    assert times.max() < sum(lengths)


def test_chords_are_those_of_music21():
    from music21 import chord

    names = {"maj": "major triad", "min": "minor triad", "dim": "diminished triad", "7": "dominant seventh chord"}
    score, compared = load_score("bwv66.6.mxl"), 0
    for start, end, label in harmonies(score.notes):
        if label is None or label == "N" or label.split(":")[1] not in names:
            continue
        middle = (start + end) / 2
        sounding = score.notes[(score.notes[:, 0] < middle) & (score.notes[:, 0] + score.notes[:, 1] > middle), 2]
        theirs, (root, quality) = chord.Chord([int(pitch) for pitch in sounding]), label.split(":")
        assert theirs.commonName == names[quality]
        assert theirs.root().pitchClass == NAMES.index(root)
        compared += 1
    assert compared > 30


def test_ingest_stores_the_notes_that_are_rendered(organ):
    ingest_chorales(organ)
    version = organ.events.table.version
    summary = organ.events.summary()
    assert set(summary["kind"]) == {"note", "beat", "downbeat", "chord", "key"} and set(summary["source"]) == {"chorale"}
    clips, score = organ.clips.read(["clip_id", "recording", "start_s", "duration_s"]), load_score("bwv66.6.mxl")
    # A clip that begins and ends within notes of all voices.
    clip = clips[2].with_columns(start_s=pl.col("start_s") + 0.1, duration_s=pl.col("duration_s") - 0.2)
    notes = organ.events.of_clips(clip, ["note"])
    start_s, duration_s = clip["start_s"][0], clip["duration_s"][0]
    assert (notes.filter(start_s=0.0)["begins"].to_list(), notes["ends"].to_list().count(False)) == ([False] * 4, 4)
    window = score.window(start_s / score.quarter_s, duration_s / score.quarter_s)
    window[:, :2] *= score.quarter_s
    stored = notes.select("start_s", (pl.col("end_s") - pl.col("start_s")), "pitch").to_numpy()
    sounds = [render(spans, duration_s, 8_000) for spans in (window, stored)]
    assert np.abs(sounds[0] - sounds[1]).max() < 1e-5 and np.abs(sounds[0]).max() > 0.1
    assert set(notes["value"]) == {"Soprano", "Alto", "Tenor", "Bass"}
    ingest_chorales(organ)
    assert organ.events.table.version == version


def test_the_midi_file_of_a_rendering_ends_every_note_and_gives_each_voice_a_channel(tmp_path):
    # Unisons of two voices, a repeated note, notes of no length at the beginning of another one and alone, and overlaps.
    spans = [
        (0, 1, 60, 0), (0, 1, 60, 1), (1, 1, 60, 0), (2, 0, 60, 0), (2, 1, 60, 0), (0, 0, 72, 2), (0, 2, 48, 3), (1, 2, 48, 3),
    ]
    notes, voice = np.array([span[:3] for span in spans], float), np.array([span[3] for span in spans])
    path = tmp_path / "score.mid"
    path.write_bytes(midi_file(notes, voice, (19, 40, 41, 42)))
    sounding, channels, now = {}, {}, 0
    for message in mido.MidiFile(path).tracks[0]:
        now += message.time
        if message.type == "program_change":
            channels[message.program] = message.channel
        elif message.type == "note_on" and message.velocity:
            assert (message.channel, message.note) not in sounding
            sounding[message.channel, message.note] = now
        elif message.type in ("note_on", "note_off"):
            assert sounding.pop((message.channel, message.note)) < now
    assert not sounding and len(set(channels.values())) == 4 and 9 not in channels.values()
    found = read_midi(path)
    assert found.events.select("start_s", "end_s", "pitch", "value").rows() == [
        (0.0, 1.0, 48.0, "Cello"), (0.0, 1.0, 60.0, "Church Organ"), (0.0, 1.0, 60.0, "Violin"),
        (1.0, 2.0, 60.0, "Church Organ"), (1.0, 3.0, 48.0, "Cello"), (2.0, 3.0, 60.0, "Church Organ"),
    ]
    assert not found.repairs
