"""The page docs/experiments/gestures.md: six commands from a folder of recordings to a duet at a sound card."""

from __future__ import annotations

import json

import mido
import numpy as np
import pytest
import soundfile
from experiment_pages import page_commands, run_page
from fake_sounddevice import perform
from performances import PITCHES, RATE, performance
from sounds import write

import tonelake


@pytest.mark.slow
@pytest.mark.no_cover
def test_six_commands_lead_from_a_folder_to_a_duet(tmp_path, monkeypatch):
    for name, pitches in (("one", PITCHES), ("two", PITCHES[::-1])):
        write(tmp_path / "music" / f"{name}.wav", performance(pitches)[:, None], RATE)
    heard = np.append(performance(), np.zeros(RATE // 2, np.float32))
    card = perform(monkeypatch, heard, RATE)
    commands = run_page("gestures", tmp_path, {
        "'~/Music' --seconds 30": "music --seconds 3",
        "--encoder mert-95m --frames 7": "--encoder fakes:FakeEncoder --frames high",
        "--layer 7 --k 512": "--layer high --k 8", "7-512": "high-8",
        "--pause 1": f"--pause 0.3 --rate {RATE} --window 1 --hop 0.1",
    })
    assert len(commands) == len([one for one in page_commands("gestures") if one.startswith("tonelake")]) == 6

    lake = tonelake.open(tmp_path / "lake", progress=False)
    assert lake.list_vocabularies()["clips"].item() == lake.clips.count() == 2
    done = commands[-1].done
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (answer,) = (line["continue"] for line in lines if "continue" in line)               # of the pause at the end
    assert len(answer) == 6 and all(one["clip_id"] in set(lake.clips.ids()) for one in answer)
    assert all(one["consonance"] >= 0.6 or "consonance >= 0.6" in one["relaxed"] for one in answer)
    assert sum("gesture" in line for line in lines) == 5
    sound, rate = soundfile.read(tmp_path / "answers.wav", dtype="float32")
    assert np.abs(sound).max() > 0.05
    tracks = {track.name for track in mido.MidiFile(tmp_path / "session.mid").tracks}
    assert {"played", "answer"} <= tracks
    played = card.streams[1]             # opened after the input
    assert played.device == 2 and played.closed and np.abs(played.play(rate)).max() > 0.05
