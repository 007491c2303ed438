"""Notes of MIDI files: exact times, pairing of note-on and note-off, pedal, drums, tempo changes, and damaged files."""

from __future__ import annotations

import io
import re
import struct

import mido
import numpy as np
import pytest

from tonelake.ingest.events.label_events import LabelEvents
from tonelake.ingest.events.midi import read_midi
from tonelake.store import InputError

TICKS = 480                              # a quarter note, half a second at the default tempo


def write(path, *tracks, ticks=TICKS, kind=1):
    """Write tracks of (absolute tick, message) as a MIDI file."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for track in tracks:
        messages, now = mido.MidiTrack(), 0
        for tick, message in track:
            messages.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(messages)
    file.save(path)
    return path


def on(pitch, velocity=80, channel=0):
    return mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)


def off(pitch, channel=0):
    return mido.Message("note_off", note=pitch, channel=channel)


def pedal(value, channel=0):
    return mido.Message("control_change", control=64, value=value, channel=channel)


def notes(found: LabelEvents):
    return found.events.filter(kind="note").select("start_s", "end_s", "pitch").rows()


def test_notes_have_the_times_of_their_ticks_through_tempo_changes_in_another_track(tmp_path):
    tempo = [(0, mido.MetaMessage("set_tempo", tempo=600_000)), (960, mido.MetaMessage("set_tempo", tempo=300_000))]
    played = [
        (0, mido.MetaMessage("track_name", name="Flöte".encode().decode("latin-1"))), (240, on(60, 100)), (1200, off(60)),
        (1200, on(62, 1)), (1200 + 7, on(62, 0)),
    ]
    found = read_midi(write(tmp_path / "a.mid", tempo, played))
    assert notes(found) == [(0.3, 1.35, 60.0), (1.35, (960 * 600_000 + 247 * 300_000) / 480e6, 62.0)]
    assert found.events["velocity"].to_list() == [100, 1] and found.events["value"].to_list() == ["Flöte"] * 2
    assert not found.repairs


def test_a_note_is_named_by_its_program_before_its_track(tmp_path):
    played = [
        (0, mido.MetaMessage("track_name", name="Lead")), (0, mido.Message("program_change", program=33, channel=2)),
        (0, on(40, channel=2)), (0, on(70)), (100, off(70)), (200, off(40, channel=2)),
    ]
    found = read_midi(write(tmp_path / "a.mid", played)).events
    assert dict(found.select("pitch", "value").iter_rows()) == {40.0: "Electric Bass (finger)", 70.0: "Lead"}
    nameless = read_midi(write(tmp_path / "b.mid", [(0, on(60)), (10, off(60))], kind=0)).events
    assert nameless["value"].to_list() == [None]


def test_note_offs_are_paired_as_a_synthesizer_plays_them(tmp_path):
    played = [
        (0, on(60)), (480, on(60)), (480, off(60)), (960, off(60)),          # repeated without a break, note-on first
        (960, on(61)), (960, off(61)),                                       # no length
        (1000, on(62, 30)), (1000, on(62, 90)), (1480, off(62)), (1480, off(62)),        # a unison in one channel
        (2000, on(63)), (2480, on(63)), (2960, off(63)), (3440, off(63)),    # overlapping
        (3500, off(64)), (3600, on(65)),                                     # no beginning, no end
    ]
    found = read_midi(write(tmp_path / "a.mid", played))
    per_tick = 0.5 / TICKS
    expected = [(0, 480, 60), (480, 960, 60), (960, 960, 61), (1000, 1480, 62), (2000, 2480, 63), (2480, 2960, 63)]
    assert np.allclose(notes(found), [(a * per_tick, b * per_tick, pitch) for a, b, pitch in expected], rtol=0, atol=1e-12)
    assert found.events.filter(pitch=62)["velocity"].to_list() == [90]
    assert found.repairs == {
        "notes struck again while they sounded ended there": 2, "notes struck twice at once merged": 1,
        "note-offs without a note ignored": 3, "notes that never end left out": 1,
    }


def test_the_sustain_pedal_holds_notes_of_its_channel_until_they_are_played_again(tmp_path):
    played = [
        (0, on(60)), (0, on(64, channel=1)), (100, pedal(64)), (480, off(60)), (480, off(64, channel=1)), (500, on(62)),
        (600, off(62)), (700, on(62)), (710, off(62)), (960, pedal(63)), (1000, on(67)), (1100, off(67)),
        (1200, pedal(127)), (1300, on(69)), (1400, off(69)), (1920, on(70)), (1930, off(70)),
    ]
    path = write(tmp_path / "a.mid", played)
    per_tick = 0.5 / TICKS
    held = [(round(a / per_tick), round(b / per_tick), p) for a, b, p in notes(read_midi(path))]
    assert held == [
        (0, 480, 64), (0, 960, 60), (500, 700, 62), (700, 960, 62), (1000, 1100, 67), (1300, 1930, 69), (1920, 1930, 70),
    ]
    keys = [(round(a / per_tick), round(b / per_tick), p) for a, b, p in notes(read_midi(path, sustain=False))]
    assert keys == [
        (0, 480, 60), (0, 480, 64), (500, 600, 62), (700, 710, 62), (1000, 1100, 67), (1300, 1400, 69), (1920, 1930, 70),
    ]


def test_drums_are_onsets_and_a_file_with_drums_has_onsets_for_all_its_notes(tmp_path):
    drums = [(0, on(36, 120, channel=9)), (10, off(36, channel=9)), (480, on(38, 90, channel=9))]
    alone = read_midi(write(tmp_path / "drums.mid", drums)).events
    assert alone.rows() == [("onset", 0.0, 0.0, "drums", None, 120), ("onset", 0.5, 0.5, "drums", None, 90)]
    piano = [(0, mido.Message("program_change", program=0)), (240, on(60)), (480, off(60))]
    both = read_midi(write(tmp_path / "all.mid", drums, piano)).events
    assert both.filter(kind="note").rows() == [("note", 0.25, 0.5, "Acoustic Grand Piano", 60.0, 80)]
    assert both.filter(kind="onset").select("start_s", "value").rows() == [
        (0.0, "drums"), (0.25, "Acoustic Grand Piano"), (0.5, "drums"),
    ]


def test_smpte_time_and_riff_are_read(tmp_path):
    path = write(tmp_path / "a.mid", [(0, mido.MetaMessage("set_tempo", tempo=100)), (25 * 40, on(60)), (25 * 60, off(60))])
    data = bytearray(path.read_bytes())
    data[12:14] = struct.pack("bB", -25, 40)                         # 25 frames a second, 40 ticks a frame
    path.write_bytes(data)
    assert notes(read_midi(path)) == [(1.0, 1.5, 60.0)]
    riff = b"RIFF" + struct.pack("<I", len(data) + 12) + b"RMIDdata" + struct.pack("<I", len(data)) + data
    (tmp_path / "a.rmi").write_bytes(riff)
    assert notes(read_midi(tmp_path / "a.rmi")) == [(1.0, 1.5, 60.0)]


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_files_agree_with_pretty_midi(tmp_path, seed):
    pretty_midi = pytest.importorskip("pretty_midi")
    random = np.random.default_rng(seed)
    file = pretty_midi.PrettyMIDI(resolution=220, initial_tempo=100 + 13 * seed)
    for program in (0, 40):
        part = pretty_midi.Instrument(program)
        ends: dict[int, float] = {}
        for start in np.cumsum(random.uniform(0.01, 0.2, 60)):
            pitch = int(random.integers(30, 90))
            if ends.get(pitch, 0.0) < start - 0.02:
                ends[pitch] = start + random.uniform(0.05, 1.0)
                part.notes.append(pretty_midi.Note(int(random.integers(1, 127)), pitch, start, ends[pitch]))
        file.instruments.append(part)
    file.write(str(tmp_path / "a.mid"))
    again = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    theirs = sorted((n.start, n.end, n.pitch, n.velocity) for part in again.instruments for n in part.notes)
    mine = sorted(read_midi(tmp_path / "a.mid").events.select("start_s", "end_s", "pitch", "velocity").iter_rows())
    assert np.allclose(mine, theirs, rtol=0, atol=1e-9)


def test_damaged_and_hostile_files_are_errors_that_name_the_file(tmp_path):
    good = write(tmp_path / "good.mid", [(0, on(60)), (480, off(60))]).read_bytes()
    cases = {
        "empty.mid": b"", "text.mid": b"Dear listener", "cut.mid": good[:-6],
        "no time base.mid": good[:12] + b"\0\0" + good[14:],
        "silent.mid": bytes(write(tmp_path / "silent.mid", [(0, pedal(0))]).read_bytes()),
        "status.mid": good[:22] + b"\0\xf4\0\0" + good[26:], "tracks.mid": good[:10] + b"\x7f\xff" + good[12:],
        "huge.mid": good + b"\0" * (5 << 20),
        "long.mid": good[:22] + b"\xff\xff\xff\x7f\x90\x3c\x50" + good[26:],
        "two.mid": write(tmp_path / "two.mid", [(0, on(60))], [(0, on(61))], kind=2).read_bytes(),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=re.escape(name)) as raised:
            read_midi(tmp_path / name)
        assert "\n" not in str(raised.value) and "  " not in str(raised.value)
    with pytest.raises(InputError, match=r"gone\.mid"):
        read_midi(tmp_path / "gone.mid")


def test_events_survive_json(tmp_path):
    import json

    buffer = io.StringIO()
    found = read_midi(write(tmp_path / "a.mid", [(1, on(60)), (7, off(60))], ticks=7))
    json.dump(found.to_dict(), buffer)
    assert LabelEvents.from_dict(json.loads(buffer.getvalue())).events.equals(found.events)
