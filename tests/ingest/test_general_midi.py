"""Programs of General MIDI, presets of soundfonts, sources with their settings, and MIDI files."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from soundfonts import write_soundfont

from tonelake.ingest import AudioError, read_source, soundfont_of
from tonelake.ingest.chorale_scores import load_score
from tonelake.ingest.chorale_sources import ChoraleSource, Rendering, parse_chorale
from tonelake.ingest.general_midi import PROGRAMS, parse_programs
from tonelake.ingest.soundfont_rendering import TICKS_PER_S, midi_file, note_spans, voice_programs
from tonelake.ingest.soundfonts import check_presets, soundfont_presets
from tonelake.store import InputError


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory) -> Path:
    return write_soundfont(tmp_path_factory.mktemp("sounds") / "sounds.sf2", {0: [1], 19: [1, 0, 1], 20: [0]})


# -- programs, sources and presets


def test_general_midi_has_128_programs_with_names_of_their_own():
    assert len(PROGRAMS) == len(set(PROGRAMS)) == 128
    assert (PROGRAMS[0], PROGRAMS[19], PROGRAMS[40], PROGRAMS[73], PROGRAMS[127]) == (
        "Acoustic Grand Piano", "Church Organ", "Violin", "Flute", "Gunshot"
    )


@pytest.mark.parametrize(("given", "numbers"), [
    (19, (19,)), ("19", (19,)), ("Church organ", (19,)), ("52,53,54,55", (52, 53, 54, 55)), (["Choir Aahs", 53], (52, 53)),
    ("19,19,19", (19,)), ("lead 8 (bass+lead)", (87,)), ("violin, 41", (40, 41)), ("oboe", (68,)), ("choir aahs", (52,)),
])
def test_programs_are_numbers_or_names(given, numbers):
    assert parse_programs(given) == numbers


@pytest.mark.parametrize(("given", "message"), [
    ("128", "is out of range"), (-1, "is out of range"), ("theremin", "is not an instrument"), ("", "is not an instrument"),
    ("organ", "fits several instruments.*19 Church Organ"), ("1,", "is not an instrument"), ([], "0 programs"),
    (list(range(16)), "16 programs"),
])
def test_unknown_programs_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        parse_programs(given)


@pytest.mark.parametrize("path", ["/a/TimGM6mb.sf2", "/a b/ü?&=%.sf2", "/a/\udcff.sf2"])
def test_a_source_has_all_settings_of_a_rendering(path):
    piece = ChoraleSource("bwv66.6.mxl", Rendering(soundfont=Path(path), programs=(52, 0), reverb=True))
    assert parse_chorale(str(piece)) == piece and soundfont_of(str(piece)) == Path(path)
    assert "/" not in str(piece) and str(piece).isascii()
    str(piece.rendering.timbre).encode()
    assert parse_chorale("chorale:bwv66.6.mxl") == ChoraleSource("bwv66.6.mxl") and soundfont_of("/a.sf2") is None


@pytest.mark.parametrize(
    "settings", ["", "soundfont=a.sf2", "soundfont=a&program=x", "program=1", "soundfont=a&program=1&x=2", "a"]
)
def test_a_source_with_other_settings_is_an_error(settings):
    with pytest.raises(AudioError, match=r"settings that cannot be read\. Ingest the chorales"):
        read_source(f"chorale:bwv66.6.mxl?{settings}", 0, 1, 24_000)
    assert soundfont_of(f"chorale:bwv66.6.mxl?{settings}") is None


def test_presets_of_bank_0_are_read_from_a_soundfont(soundfont, tmp_path):
    assert soundfont_presets(soundfont) == {0: "Sound 0", 19: "Sound 19", 20: "Sound 20"}
    check_presets(soundfont, (0, 19))
    with pytest.raises(AudioError, match=r"has no program 21, 40 in bank 0. Choose --program among 0 Sound 0, 19 Sound 19, 20"):
        check_presets(soundfont, (0, 40, 21))
    with pytest.raises(AudioError, match="has no presets in bank 0"):
        soundfont_presets(write_soundfont(tmp_path / "drums.sf2", {0: [1]}, bank=128))


@pytest.mark.parametrize("data", [
    b"", b"RIFF", b"not a soundfont, but text", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
    b"RIFF\xff\xff\xff\xffsfbkLIST\xff\xff\xff\x7fpdta",
    b"RIFF\x30\0\0\0sfbkLIST\x10\0\0\0pdtaphdr\x04\0\0\0abcd",
])
def test_other_files_are_not_soundfonts(tmp_path, data):
    (tmp_path / "a.sf2").write_bytes(data)
    with pytest.raises(AudioError, match=r"is not a SoundFont 2 file|has no presets"):
        soundfont_presets(tmp_path / "a.sf2")
    with pytest.raises(AudioError, match=r"absent.sf2: the soundfont cannot be read.*Put it back"):
        soundfont_presets(tmp_path / "absent.sf2")
    with pytest.raises(AudioError, match="cannot be read"):
        soundfont_presets(tmp_path)


def test_a_cut_soundfont_never_crashes_the_reader(soundfont, tmp_path):
    data = soundfont.read_bytes()
    for end in range(0, len(data), 97):
        (tmp_path / "cut.sf2").write_bytes(data[:end])
        with suppress(AudioError):
            assert 0 in soundfont_presets(tmp_path / "cut.sf2")


# -- notes


def read_back(data: bytes) -> list[tuple[float, float, int, int]]:
    """(start, end, channel, pitch) of the notes of a MIDI file.  Reference: music21's reader."""
    from music21 import midi

    file = midi.MidiFile()
    file.readstr(data)
    (track,) = file.tracks
    now, sounding, found = 0, {}, []
    for event in track.events:
        if isinstance(event, midi.DeltaTime):
            now += event.time
        elif event.isNoteOn():
            assert (event.channel, event.pitch) not in sounding
            sounding[event.channel, event.pitch] = now
        elif event.isNoteOff():
            begun = sounding.pop((event.channel, event.pitch))
            found.append((begun / TICKS_PER_S, now / TICKS_PER_S, event.channel, event.pitch))
    assert not sounding and file.ticksPerQuarterNote == TICKS_PER_S
    return sorted(found)


def test_a_midi_file_has_the_notes_of_each_voice_on_a_channel_of_its_own():
    score = load_score("bwv66.6.mxl")
    assert sum(score.parts) == len(score.notes) and len(score.parts) == score.voices == 4
    notes = score.notes * [score.quarter_s, score.quarter_s, 1]
    found = read_back(midi_file(notes, score.voice_of_notes, (52, 53, 54, 55)))
    wanted = [(s, s + n, v + 1, int(p)) for (s, n, p), v in zip(notes.tolist(), score.voice_of_notes.tolist(), strict=True)]
    np.testing.assert_allclose(found, sorted(wanted), atol=1e-4)


def test_more_than_fifteen_voices_share_channels_and_none_is_that_of_the_drums():
    notes = np.array([[number, 0.5, 60] for number in range(20)], float)
    found = read_back(midi_file(notes, np.arange(20), voice_programs((19,), 20)))
    assert len(found) == 20 and {channel for *_, channel, _ in found} == {*range(1, 17)} - {10}


def test_notes_of_one_pitch_and_channel_never_overlap():
    """A channel sounds a pitch once, and a note that ends where it begins would sound for ever."""
    rng = np.random.default_rng(3)
    notes = np.stack([rng.integers(0, 40, 300) / 4, rng.integers(0, 8, 300) / 4, rng.integers(60, 64, 300)], axis=1)
    channel = rng.integers(0, 3, 300)
    spans = note_spans(notes, channel)
    for (*key, _, until), (*other, begin, _) in pairwise(spans):
        assert key != other or until <= begin
    assert all(last > first for *_, first, last in spans)
    covered = {(c, p, t) for c, p, first, last in spans for t in range(first, last, 2500)}
    for (start, length, pitch), of in zip(notes, channel, strict=True):
        assert {(of, pitch, t) for t in range(round(start * 1e4), round((start + length) * 1e4), 2500)} <= covered
    starts = {(of, pitch, round(start * 1e4)) for (start, length, pitch), of in zip(notes, channel, strict=True) if length}
    assert {(c, p, first) for c, p, first, _ in spans} == starts


def test_several_programs_fewer_than_the_voices_are_refused():
    assert voice_programs((1, 2, 3), 2) == (1, 2) and voice_programs((7,), 3) == (7, 7, 7)
    with pytest.raises(AudioError, match=r"5 voices, but 4 programs are given\. Give --program one"):
        voice_programs((1, 2, 3, 4), 5)
