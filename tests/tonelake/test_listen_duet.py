"""The duet: answers from one oracle, asked for by gestures or pauses, without holding up the encoder."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import mido
import numpy as np
import polars as pl
import pytest
import soundfile
from commands import run
from fake_sounddevice import perform
from loopbacks import wait_for
from performances import END_S, PITCHES, RATE, TIMES, make_lake, performance

import tonelake
from tonelake.duet import Duet, PauseFinder
from tonelake.index import Continuer
from tonelake.ingest import AudioError
from tonelake.live_outputs import Answer, LiveEvent
from tonelake.live_sound import AnswersWav
from tonelake.recombine import RATE as WAV_RATE
from tonelake.recombine import recombine
from tonelake.store import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_lake(tmp_path_factory.mktemp("duet"))


# -- answers


def test_an_answer_continues_what_was_played_from_the_longest_common_context(made):
    continuer = Continuer(made, "sounds", jump=0.0)
    gestures = continuer.joined.features.filter(continuer.joined.numbers >= 0)
    clip = gestures["clip_id"][0]
    own = gestures.filter(clip_id=clip)
    path = continuer.path(own["token"][:3].to_list(), steps=2)
    events = list(zip(gestures["clip_id"], gestures["number"], gestures["token"].to_list(), strict=True))
    context = path["context"].to_list()
    assert context[0] == 3 and len(path) == 2 and path["relaxed"].to_list() == [[], []]
    # The event is one that three equal tokens precede.
    start = gestures.filter(clip_id=path["clip_id"][0], start_s=path["start_s"][0])["number"].item()
    before = [token for one, number, token in events if one == path["clip_id"][0] and start - 3 <= number < start]
    assert before == own["token"][:3].to_list()
    row = gestures.filter(clip_id=path["clip_id"][0], start_s=path["start_s"][0]).row(0, named=True)
    for name in ("pitch", "loudness", "consonance", "token"):
        assert path[name][0] == row[name]
    assert {"title", "artist", "jumped", "held"} <= set(path.columns)


def test_answers_meet_requests_where_they_can_and_repeat_with_the_seed(made):
    pitches = [Continuer(made, want=["pitch >= 61"], seed=3).path([0, 1], steps=6)["pitch"].to_list() for _ in range(2)]
    assert pitches[0] == pitches[1] and min(pitches[0]) >= 61
    path = Continuer(made, want=["pitch > 200", "pitch < 61"]).path([0], steps=3)
    assert path["relaxed"].to_list() == [["pitch > 200"]] * 3 and path["held"].to_list() == [["pitch < 61"]] * 3
    assert len(Continuer(made).path([60_000], steps=3)) == 3         # a token that no clip has
    # The ratio of the first event is that to what was played.
    path = Continuer(made, want=["ratio = 1:2"]).path([0], steps=1, previous_s=0.5)
    assert path["ioi_s"].item() == pytest.approx(0.25, rel=0.1)


def test_bad_requests_are_refused_before_anything_plays(made):
    for settings, message in (
        ({"want": ["loud"]}, "not a name, a comparison and a value"), ({"want": ["charm > 1"]}, "events have no 'charm'"),
        ({"least": 0}, "1 or more"), ({"jump": 2.0}, "0 to 1"), ({"where": "track = 'nix'"}, "no clip where track = 'nix'"),
    ):
        with pytest.raises(InputError, match=message):
            Continuer(made, **settings)
    with pytest.raises(InputError, match="0 steps"):
        Continuer(made).path([1], steps=0)


# -- when they are asked for


def row(number: int, token: int, start_s: float, end_s: float) -> dict:
    return {"number": number, "token": token, "start_s": start_s, "end_s": end_s, "ioi_s": end_s - start_s}


class Partner:
    """Notes what it is asked; `gate` holds it back."""

    def __init__(self):
        self.asked: list[tuple] = []
        self.gate = threading.Event()
        self.gate.set()
        self.relaxed: list[str] = []

    def path(self, word, *, steps, previous_s):
        self.gate.wait(10)
        self.asked.append((list(word), steps, previous_s))
        return pl.DataFrame({"relaxed": [self.relaxed] * steps}, schema={"relaxed": pl.List(pl.String)})


NO_FRAMES = (np.empty(0), np.empty(0, np.uint16))


def test_every_second_gesture_is_answered_from_all_that_was_played():
    partner, sent = Partner(), []
    duet = Duet(partner, sent.append, every=2, steps=3, wait=True, vocabulary="sounds")
    for number in range(5):
        duet.hear(number + 1.5, [row(number, 10 + number, number, number + 1.0)], *NO_FRAMES)
    duet.close()
    assert partner.asked == [([10, 11], 3, 1.0), ([10, 11, 12, 13], 3, 1.0)]
    assert [(event.kind, event.at_s, event.vocabulary) for event in sent] == [
        ("continue", 2.5, "sounds"), ("continue", 4.5, "sounds"),
    ]


def test_a_pause_is_answered_with_the_gesture_that_it_ends():
    partner = Partner()
    duet = Duet(partner, lambda event: None, pause_s=0.3, wait=True)
    loud, silent = np.full(1_000, 0.1, np.float32), np.full(1_000, 1e-4, np.float32)
    for number, piece in enumerate([silent, loud, loud, *[silent] * 6, loud, silent]):               # tenths of a second
        duet.listen(piece, 10_000)
        time_s = np.array([number / 10 + 0.05])
        duet.hear(time_s[0], [row(0, 4, 0.1, 0.2)] if number == 2 else [], time_s, np.array([7 if number in (2, 3, 4) else 9]))
    duet.close()
    assert [word for word, *_ in partner.asked] == [[4, 7]]          # the second sound has not been silent for long enough


def test_pauses_are_relative_to_what_was_played():
    def pauses(gain: float, quiet: float) -> int:
        finder = PauseFinder(0.25)
        pieces = [0.2] * 3 + [quiet] * 5 + [0.2] + [quiet] * 5
        return sum(finder.hear(np.full((100, 2), gain * level), 1_000) for level in pieces)

    assert pauses(1.0, 1e-3) == 2 and pauses(0.1, 1e-3) == 2         # at any gain
    assert pauses(1.0, 0.05) == 0                                    # a soft passage is none
    assert pauses(1e-5, 0.0) == 0                                    # nor is noise that was never a sound


def test_the_encoder_never_waits_and_what_is_dropped_is_said(caplog):
    partner, sent = Partner(), []
    partner.gate.clear()
    duet = Duet(partner, sent.append)
    begun = time.monotonic()
    for number in range(8):
        duet.hear(number, [row(number, number, number, number + 1.0)], *NO_FRAMES)
        while number == 0 and duet._questions.qsize():
            time.sleep(0.001)                                        # until the thread has taken the first
    assert time.monotonic() - begun < 5 and not sent
    partner.gate.set()
    duet.close()
    assert [event.at_s for event in sent] == [0, 6, 7]               # the first one, and the last that fit into the queue
    assert caplog.text.count("1 answers left out") == 1 and "4 answers left out, since gestures come faster" in caplog.text


def test_conditions_that_were_relaxed_are_said_once_in_a_while_and_counted_at_the_end(caplog):
    caplog.set_level(logging.INFO, "tonelake")
    partner = Partner()
    partner.relaxed = ["consonance > 2"]
    duet = Duet(partner, lambda event: None, steps=4, wait=True)
    for number in range(3):
        duet.hear(number, [row(number, 1, number, number + 1.0)], *NO_FRAMES)
    duet.close()
    assert caplog.text.count("4 of 4 events of this answer do not meet 'consonance > 2', so it was relaxed") == 1
    assert "in total, 12 events did not meet 'consonance > 2'" in caplog.text


def test_an_answer_that_fails_does_not_end_the_session(caplog):
    class Lost(Partner):
        def path(self, word, **_):
            raise OSError("disk gone")

    duet = Duet(Lost(), lambda event: None, wait=True)
    for number in range(3):
        duet.hear(number, [row(number, 1, number, number + 1.0)], *NO_FRAMES)
    duet.close()
    assert caplog.text.count("duet: no answer (disk gone). The session continues") == 1
    for settings in ({"every": 0}, {"steps": 0}, {"pause_s": 0.0}):
        with pytest.raises(InputError, match="must be positive"):
            Duet(Partner(), lambda event: None, **settings)


# -- as sound


def test_answers_are_at_their_times_in_one_file_and_cut_by_the_next(made, tmp_path):
    path = Continuer(made, jump=0.0).path([0], steps=2)
    sound = recombine(made, path)
    file = tmp_path / "answers.wav"
    wav = AnswersWav(made, file)
    wav.send(LiveEvent("continue", 0.5, Answer(path)))
    wav.send(LiveEvent("continue", 0.75, Answer(path)))
    said = wav.close(cut=False)
    found, rate = soundfile.read(file, dtype="float32")
    first, second = round(0.5 * WAV_RATE), round(0.75 * WAV_RATE)
    assert rate == WAV_RATE and not found[:first].any()
    assert np.abs(found[first:second] - sound[: second - first]).max() < 1e-3        # 16 bits
    begin = len(found) - len(sound)
    assert said == f"{file}: {len(found) / WAV_RATE:.1f} s with 2 answers"
    assert begin == second + 441 and np.abs(found[begin:] - sound).max() < 1e-3      # after the fade of 10 ms


def test_an_answer_whose_clip_cannot_be_read_is_left_out_of_the_file(made, tmp_path, monkeypatch, caplog):
    def gone(*_, **__):
        raise AudioError("one.wav: is missing. Ingest it again")

    monkeypatch.setattr(made, "audio", gone)
    wav = AnswersWav(made, tmp_path / "a.wav")
    wav.send(LiveEvent("continue", 0.5, Answer(Continuer(made).path([0], steps=2))))
    assert "0 answers" in wav.close(cut=False) and "an answer at 0.5 s is left out (one.wav: is missing" in caplog.text
    with pytest.raises(InputError, match="cannot be written"):
        AnswersWav(made, tmp_path / "no" / "a.wav")


# -- the command


def test_listen_answers_a_file_through_every_output(made, tmp_path, server, ports):
    file = Path(made.uri).parent / "music" / "one.wav"
    osc_port, received = server
    done = run(
        "listen", file, "--vocabulary", "sounds", "--window", "1", "--hop", "0.25", "--fast", "--duet", "--every", "2",
        "--steps", "3", "--want", "pitch > 200", "--want", "pitch < 61", "--prefer", "loudness > 0", "-k", "0",
        "--midi", tmp_path / "duet.mid", "--wav", tmp_path / "duet.wav", "--osc", osc_port,
        "--midi-out", "virtual:tonelake", lake=made.uri,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    gestures = [line["gesture"] for line in lines if "gesture" in line]
    assert [one["start_s"] for one in gestures] == pytest.approx(TIMES, abs=0.012)
    assert [round(one["pitch"]) for one in gestures] == list(PITCHES) and not any("hits" in line for line in lines)
    answers = [line for line in lines if "continue" in line]
    assert len(answers) == 2 and all(len(line["continue"]) == 3 for line in answers)
    events = [one for line in answers for one in line["continue"]]
    assert all(one["relaxed"] == ["pitch > 200", "loudness > 0"] and one["pitch"] < 61 for one in events)
    assert "3 of 3 events of this answer do not meet 'pitch > 200'" in done.stderr
    tracks = {track.name: sum(message.type == "note_on" for message in track) for track in
              mido.MidiFile(tmp_path / "duet.mid").tracks}
    assert tracks["played"] == 5 and tracks["answer"] >= 3
    tokens = [token for line in lines for token in line.get("tokens", ())]
    expected = Counter(token=sum(a != b for a, b in pairwise([-1, *tokens])), gesture=5, **{"continue": 6})
    wait_for(lambda: len(received) == expected.total())
    assert Counter(address.removeprefix("/tonelake/") for address, *_ in received) == expected
    notes = [(message.channel, message.note) for _, message in ports.opened[0].sent if message.type == "note_on"]
    assert [note for channel, note in notes if channel == 0] == list(PITCHES)
    first = [round(line["continue"][0]["pitch"]) for line in answers]
    assert [note for channel, note in notes if channel == 1 and note in first][:1] == first[:1] and ports.opened[0].closed
    sound, rate = soundfile.read(tmp_path / "duet.wav")
    assert np.abs(sound).max() > 0.05 and not sound[: round(rate * (answers[0]["at_s"] - 0.01))].any()


def test_several_vocabularies_are_followed_at_once_and_the_duet_follows_the_first(made, tmp_path):
    shutil.copytree(made.uri, tmp_path / "lake")
    tonelake.open(tmp_path / "lake", progress=False).fit_vocabulary(k=3, layer="high", name="few")
    file = Path(made.uri).parent / "music" / "one.wav"
    words = ["listen", file, "--vocabulary", "sounds", "--vocabulary", "few", "--window", "1", "--fast", "-k", "0", "--duet"]
    done = run(*words, "--grid", "0.5", "--every", "3", lake=tmp_path / "lake")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {name: [token for line in lines if line["vocabulary"] == name for token in line.get("tokens", ())]
             for name in ("sounds", "few")}
    assert len(found["few"]) == len(found["sounds"]) > 200 and max(found["few"]) == 2 < max(found["sounds"])
    gestures = [(line["vocabulary"], line["gesture"]["start_s"]) for line in lines if "gesture" in line]
    assert sorted(gestures) == [(name, 0.5 * i) for name in ("few", "sounds") for i in range(7)]
    assert [line["vocabulary"] for line in lines if "continue" in line] == ["sounds"] * 2
    assert "duet: 10 gestures of 2 clips may answer" in done.stderr


def test_options_of_a_duet_need_one_and_a_duet_needs_gestures(made, tmp_path):
    file = Path(made.uri).parent / "music" / "one.wav"
    done = run("listen", file, "--wav", tmp_path / "a.wav", lake=made.uri)
    assert done.returncode == 2 and "--wav: is about answers. Add --duet" in done.stderr
    done = run("listen", file, "--duet", "--fast", lake=made.uri)
    assert done.returncode == 2 and "--vocabulary" in done.stderr
    done = run("listen", file, "--duet", "--vocabulary", "nix", lake=made.uri)
    assert done.returncode == 2 and "no vocabulary 'nix'" in done.stderr
    done = run("listen", file, "--vocabulary", "sounds", "--duet", "--want", "charm > 1", lake=made.uri)
    assert done.returncode == 2 and "events have no 'charm'" in done.stderr
    done = run("listen", file, "--osc", "nowhere", lake=made.uri)
    assert done.returncode == 2 and "not a host and a port" in done.stderr


def test_listen_to_a_sound_card_until_ctrl_c(made, monkeypatch):
    heard = np.append(performance(), np.zeros(RATE // 2, np.float32))
    fake = perform(monkeypatch, heard, RATE)
    done = run(
        "listen", "--rate", RATE, "--block", "512", "--vocabulary", "sounds", "--window", "1", "--gestures", lake=made.uri
    )
    assert done.returncode == 0, done.stderr
    assert "sound card 'Built-in Mic': 22,050 Hz, 1 channel, blocks of 512 samples (23 ms), latency 30 ms" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    gestures = [line["gesture"] for line in lines if "gesture" in line]
    assert [one["start_s"] for one in gestures] == pytest.approx(TIMES, abs=0.012) and gestures[-1]["end_s"] > END_S
    assert fake.streams[0].closed
    listed = [json.loads(line) for line in run("listen", "--devices", lake=made.uri).stdout.splitlines()]
    assert [one["name"] for one in listed][:3] == ["Built-in Mic", "USB Audio", "Speakers"]
