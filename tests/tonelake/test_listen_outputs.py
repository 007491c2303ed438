"""Outputs of a live session: OSC to a real server, MIDI to ports in memory and to files, and what a failing one does."""

from __future__ import annotations

import json
import logging
import sys
import time

import midi_backend
import mido
import numpy as np
import polars as pl
import pytest
from loopbacks import wait_for

from tonelake.live_midi import MidiPort, MidiRecording, midi_ports, notes_of
from tonelake.live_outputs import Answer, JsonLines, LiveEvent, Osc, Outputs
from tonelake.recombine import QUIETEST_DB, velocity_of
from tonelake.sound_card import portaudio
from tonelake.store import InputError, MissingExtra, TonelakeError

GESTURE = {
    "number": 3, "start_s": 1.5, "end_s": 1.6, "token": 12, "token_share": 0.5, "loudness": -30.0, "centroid": 900.0,
    "pitch": 60.4, "pitch_classes": [1.0] + [0.0] * 11, "consonance": 0.75, "ioi_s": 0.1, "ratio": "1:2",
    "ratio_numerator": 1, "ratio_denominator": 2,
}


def path(pitches, length_s: float = 0.05) -> pl.DataFrame:
    """An answer with one event for each pitch."""
    count = len(pitches)
    return pl.DataFrame({
        "step": range(count), "token": range(20, 20 + count), "clip_id": ["aa11"] * count,
        "start_s": [length_s * i for i in range(count)], "end_s": [length_s * (i + 1) for i in range(count)],
        "context": [1] * count, "jumped": [False] * count, "held": [[]] * count,
        "relaxed": [["pitch > 90", "ratio = 1:2"], *[[]] * (count - 1)], "title": ["Song"] * count, "artist": ["Ada"] * count,
        "pitch": pl.Series(pitches, dtype=pl.Float32), "loudness": [-20.0] * count, "consonance": [0.5] * count,
    }, schema_overrides={"held": pl.List(pl.String), "relaxed": pl.List(pl.String)})


def continued(pitches, at_s: float = 2.0, length_s: float = 0.05) -> LiveEvent:
    return LiveEvent("continue", at_s, Answer(path(pitches, length_s)), "sounds")


PLAYED = LiveEvent("gesture", 1.6, GESTURE, "sounds")
HITS = LiveEvent("hits", 2.5, pl.DataFrame({
    "rank": [1], "score": [0.5], "clip_id": ["aa11"], "artist": [None], "title": [None], "track": ["a\x07.wav"],
    "start_s": [3.0],
}, schema_overrides={"artist": pl.String, "title": pl.String}), "sounds")
TOKENS = LiveEvent("tokens", 0.3, (np.array([0.1, 0.2, 0.3]), np.array([5, 5, 7], np.uint16)), "sounds")


# -- OSC


def test_events_arrive_as_osc_messages_with_the_documented_arguments(server):
    port, received = server
    osc = Osc(str(port))
    expected = [
        ("/tonelake/token", 5, 0.1, "sounds"), ("/tonelake/token", 7, 0.3, "sounds"),
        ("/tonelake/gesture", 3, 12, 1.5, 1.6, -30.0, 60.4, 900.0, 0.75, "1:2", "sounds"),
        ("/tonelake/hit", 1, 0.5, "aa11", "a\\x07.wav", "", 3.0, 2.5),
        ("/tonelake/continue", 0, 2, 20, "aa11", 0.0, 0.05, 0.0, -20.0, 60.0, "pitch > 90; ratio = 1:2"),
        ("/tonelake/continue", 1, 2, 21, "aa11", 0.05, 0.1, 0.05, -20.0, -1.0, ""),
    ]
    for event in (TOKENS, TOKENS, PLAYED, HITS, continued([60.0, None])):
        osc.send(event)
    # The second TOKENS begins with another token than the first ended with.
    expected[2:2] = expected[:2]
    wait_for(lambda: len(received) == len(expected))
    for found, wanted in zip(received, expected, strict=True):
        assert [type(value) for value in found] == [type(value) for value in wanted]
        assert [value if isinstance(value, str) else pytest.approx(value) for value in wanted] == list(found)     # 32 bits
    osc.close(cut=False)


def test_unknown_features_keep_the_types_of_the_message(server):
    port, received = server
    silent = GESTURE | {"token": None, "pitch": None, "centroid": None, "consonance": None, "ratio": None}
    osc = Osc(f"127.0.0.1:{port}")
    osc.send(LiveEvent("gesture", 1.6, silent))
    osc.close(cut=False)
    wait_for(lambda: received)
    assert received[0][1:3] == (3, -1) and received[0][6:] == (-1.0, -1.0, -1.0, "", "")


@pytest.mark.parametrize("address", ["", "osc", "host:", ":9000", "host:99999", "9000 "])
def test_an_address_that_is_none_is_a_sentence(address):
    with pytest.raises(InputError, match=r"not a host and a port\. Write for example 127\.0\.0\.1:9000"):
        Osc(address)


# -- MIDI ports


def sent(port) -> list[tuple]:
    return [(message.type, message.channel + 1, message.note, message.velocity) for _, message in port.sent]


def test_gestures_and_answers_are_notes_on_two_channels_with_their_lengths(ports):
    out = MidiPort("two")
    (port,) = ports.opened
    assert port.name == "Synth Two 129:0" and not port.virtual
    begun = time.monotonic()
    out.send(PLAYED)
    wait_for(lambda: len(port.sent) == 2)
    assert port.sent[1][0] - begun >= 0.1
    begun = time.monotonic()
    out.send(continued([62.0, None, 64.0]))
    out.close(cut=False)                 # plays what is due
    assert sent(port) == [
        ("note_on", 1, 60, 64), ("note_off", 1, 60, 0), ("note_on", 2, 62, 85), ("note_off", 2, 62, 0), ("note_on", 2, 64, 85),
        ("note_off", 2, 64, 0),
    ]
    after_s = [moment - begun for moment, _ in port.sent[2:]]
    assert all(found >= due for found, due in zip(after_s, (0, 0.05, 0.1, 0.15), strict=True)) and port.closed


def test_an_answer_replaces_the_rest_of_the_one_before(ports):
    out = MidiPort("virtual:tonelake")
    (port,) = ports.opened
    assert port.name == "tonelake" and port.virtual
    out.send(continued([62.0, 63.0], length_s=60.0))
    wait_for(lambda: port.sent)
    out.send(continued([62.0], length_s=0.02))
    wait_for(lambda: len(port.sent) == 4)
    assert [kind for kind, *_ in sent(port)] == ["note_on", "note_off", "note_on", "note_off"]
    out.send(continued([70.0], length_s=60.0))
    wait_for(lambda: len(port.sent) == 5)
    out.close(cut=True)                  # at once
    assert sent(port)[-1] == ("note_off", 2, 70, 0)


def test_a_pitch_struck_again_ends_with_its_last_note(ports):
    out = MidiPort("one")
    (port,) = ports.opened
    out.send(PLAYED)
    wait_for(lambda: port.sent)
    begun = time.monotonic()
    out.send(LiveEvent("gesture", 0.0, GESTURE | {"end_s": GESTURE["start_s"] + 0.3}))
    out.close(cut=False)
    assert [kind for kind, *_ in sent(port)] == ["note_on", "note_off", "note_on", "note_off"]
    assert port.sent[-1][0] - begun >= 0.3


def test_a_port_that_is_not_there_is_a_sentence_with_those_that_are(ports):
    for name, message in (
        ("drum", r"--midi-out 'drum': no port has this in its name\. Choose one of 'Synth One 128:0', 'Synth Two 129:0'"),
        ("synth", "several ports have"),
    ):
        with pytest.raises(InputError, match=message):
            MidiPort(name)
    ports.names.clear()
    with pytest.raises(InputError, match=r"Start the program that plays, or give virtual:NAME"):
        MidiPort("drum")


def test_a_machine_without_midi_is_a_sentence(ports, monkeypatch):
    def none(**_):
        raise OSError("no sequencer.")

    monkeypatch.setattr(midi_backend, "get_devices", none)
    with pytest.raises(InputError, match=r"MIDI cannot be used \(no sequencer\)\. On Linux"):
        midi_ports()


@pytest.mark.parametrize("module, message", [
    ("rtmidi", "MIDI ports: .*python-rtmidi.* not installed"), ("pythonosc", "OSC: .*python-osc.* not installed"),
    ("sounddevice", "sound cards: .*sounddevice.* not installed"),
])
def test_a_missing_library_is_a_sentence_with_its_install_command(monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "pythonosc.udp_client", None)
    with pytest.raises(MissingExtra, match=message):
        {"rtmidi": midi_ports, "pythonosc": lambda: Osc("9000"), "sounddevice": portaudio}[module]()


# -- a MIDI file


def test_a_session_is_recorded_as_a_midi_file_with_two_tracks(tmp_path):
    file = tmp_path / "session.mid"
    recording = MidiRecording(file)
    assert len(mido.MidiFile(file).tracks) == 1                      # there from the beginning
    for event in (PLAYED, continued([62.0, 64.0], at_s=2.0, length_s=1.0), continued([65.0, None], at_s=3.5, length_s=1.0)):
        recording.send(event)
    assert recording.close(cut=False) == f"{file}: 4 notes; 1 events have no pitch"
    found = {}
    for track in mido.MidiFile(file).tracks[1:]:
        at, notes = 0, []
        for message in track:
            at += message.time
            if message.type in ("note_on", "note_off"):
                notes.append((message.type, round(at / 2_000, 3), message.note, message.velocity))
        found[track.name] = notes
    assert found == {
        "played": [("note_on", 1.5, 60, 64), ("note_off", 1.6, 60, 0)],
        "answer": [
            ("note_on", 2.0, 62, 85), ("note_off", 3.0, 62, 0), ("note_on", 3.0, 64, 85), ("note_off", 3.5, 64, 0),
            ("note_on", 3.5, 65, 85), ("note_off", 4.5, 65, 0),
        ],
    }


def test_a_midi_file_that_cannot_be_written_is_an_error_at_the_beginning(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        MidiRecording(tmp_path / "file" / "session.mid")


def test_velocities_are_those_of_a_written_continuation():
    for loudness in (-90.0, -60.0, -45.5, -20.0, -3.0, 0.0, 6.0):
        expression = (1 + 126 * (1 + pl.col("x") / QUIETEST_DB)).round().clip(1, 127).cast(pl.Int32)
        assert velocity_of(loudness) == pl.DataFrame({"x": [loudness]}).select(expression).item()
    assert velocity_of(None) == 80
    assert [note.pitch for note in notes_of(continued([-5.0, 200.0]))] == [0, 127]


# -- all together


class Broken:
    """An output that fails with its second event."""

    name, kinds = "the lights", ("gesture",)

    def __init__(self):
        self.events = 0

    def send(self, event):
        self.events += 1
        if self.events > 1:
            raise OSError("cable pulled")

    def close(self, cut):
        raise OSError("cable pulled")


def test_an_output_that_fails_is_left_out_with_one_sentence_and_the_others_continue(capsys, caplog, ports):
    caplog.set_level(logging.INFO, "tonelake")
    broken = Broken()
    outputs = Outputs([JsonLines(), broken, MidiPort("one")])
    ports.opened[0].fails = True
    for _ in range(3):
        outputs.send(PLAYED)
        time.sleep(0.01)                 # the port fails in its thread, and is found to have failed by the next event
    outputs.close(cut=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["gesture"]["token"] for line in lines] == [12, 12, 12] and lines[0]["vocabulary"] == "sounds"
    assert broken.events == 2
    assert caplog.text.count("the lights: failed (cable pulled). It gets no more events; the session continues") == 1
    assert caplog.text.count("MIDI port 'one': failed (port is gone)") == 1


def test_a_session_ends_once_every_output_has_failed():
    outputs = Outputs([Broken()])
    outputs.send(PLAYED)
    with pytest.raises(TonelakeError, match="each of them has failed"):
        outputs.send(PLAYED)


def test_json_lines_hold_hits_and_answers(capsys):
    lines = JsonLines()
    lines.send(HITS)
    lines.send(continued([60.0]))
    hits, answer = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert hits["hits"][0]["clip_id"] == "aa11" and hits["at_s"] == 2.5
    assert answer["continue"][0]["relaxed"] == ["pitch > 90", "ratio = 1:2"] and answer["continue"][0]["pitch"] == 60
