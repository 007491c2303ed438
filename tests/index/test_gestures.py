"""Gestures against written-out sounds: onsets, features, tokens and rhythm; live pieces against one pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder
from performances import END_S, PITCHES, TIMES, performance, tone
from sounds import write
from typer.testing import CliRunner

import tonelake
from tonelake.index.gestures.features import FLOOR_DB, features_of, roughness
from tonelake.index.gestures.live import LiveGestures
from tonelake.index.gestures.onsets import LATENCY_S, RATE, OnsetFinder
from tonelake.index.gestures.stream import LONGEST_S, GestureStream
from tonelake.index.ratios import TOLERANCE, fractions, small_ratios
from tonelake.index.tokens.vocabulary import read_vocabulary
from tonelake.store import InputError


@pytest.fixture(scope="module")
def played() -> np.ndarray:
    """Five decaying tones over faint noise."""
    return performance()


FRAME_S = np.arange(0.05, END_S, 0.1)
TOKENS = np.searchsorted(TIMES, FRAME_S)                             # 1 in the first gesture, 2 in the second, …


@pytest.fixture(scope="module")
def rows(played) -> list[dict]:
    stream = GestureStream()
    return stream.push(played, FRAME_S, TOKENS) + stream.finish()


# -- onsets and segmentation


def test_gestures_begin_at_the_onsets_and_have_their_tokens_and_rhythm(rows):
    assert [row["start_s"] for row in rows] == pytest.approx(TIMES, abs=0.012)
    assert [row["end_s"] for row in rows] == pytest.approx([*TIMES[1:], END_S], abs=0.012)
    assert [row["number"] for row in rows] == list(range(5)) and [row["token"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["ioi_s"] for row in rows[:4]] == pytest.approx(np.diff(TIMES), abs=0.012) and rows[4]["ioi_s"] is None
    assert [row["ratio"] for row in rows] == [None, "2:1", "1:2", "4:1", None]
    assert (rows[1]["ratio_numerator"], rows[1]["ratio_denominator"]) == (2, 1)
    assert [row["pitch"] for row in rows] == pytest.approx(PITCHES, abs=0.2)


@pytest.mark.parametrize("size", [100, 777, 40_000])
def test_pieces_of_a_stream_give_the_gestures_of_one_pass_within_the_latency(played, rows, size):
    stream, found, late = GestureStream(), [], []
    for i in range(0, len(played), size):
        now = slice(*np.searchsorted(FRAME_S, [i / RATE, (i + size) / RATE]))
        done = stream.push(played[i : i + size], FRAME_S[now], TOKENS[now])
        late += [(i + size) / RATE - row["end_s"] for row in done]
        found += done
    found += stream.finish()
    assert found == rows
    assert len(late) == 4 and max(late) <= max(LATENCY_S, 0.1) + size / RATE         # frames come every 0.1 s


def test_a_steady_sound_has_one_onset_and_noise_few(played):
    for sound in (tone(60, 3), 0.1 * np.random.default_rng(1).standard_normal(3 * RATE)):
        finder = OnsetFinder()
        assert finder.push(sound) + finder.finish() == [0.0]
    finder = OnsetFinder()
    assert finder.push(np.zeros(RATE)) + finder.finish() == []


def test_a_quieter_performance_has_the_same_onsets(played):
    finder = OnsetFinder()
    assert finder.push(0.2 * played) + finder.finish() == pytest.approx(TIMES, abs=0.015)


def test_a_grid_cuts_at_equal_times_and_long_gestures_are_cut():
    stream = GestureStream(grid_s=0.5)
    found = stream.push(tone(60, 1.75), np.array([0.6, 0.7, 0.8, 1.1]), np.array([4, 2, 2, 9])) + stream.finish()
    assert [row["start_s"] for row in found] == [0, 0.5, 1.0, 1.5]
    assert [row["token"] for row in found] == [4, 2, 9, 9]
    assert [row["token_share"] for row in found] == pytest.approx([0, 2 / 3, 1, 0])
    assert [row["ratio"] for row in found] == [None, "1:1", "1:1", None]
    stream = GestureStream()
    none = np.empty(0)
    found = stream.push(tone(60, 2.5 * LONGEST_S), none, none) + stream.finish()
    assert [row["start_s"] for row in found] == [0, LONGEST_S, 2 * LONGEST_S] and found[0]["token"] is None
    for wrong in (0.01, 60.0):
        with pytest.raises(InputError, match="s: out of range"):
            GestureStream(grid_s=wrong)


def test_silence_is_one_gesture_without_pitch():
    stream = GestureStream()
    (row,) = stream.push(np.zeros(2 * RATE), np.array([0.5]), np.array([7])) + stream.finish()
    assert (row["loudness"], row["pitch"], row["consonance"], row["token"], row["end_s"]) == (FLOOR_DB, None, None, 7, 2.0)


# -- features


def test_features_of_a_sine_are_those_of_its_definition():
    import librosa

    sine = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    found = features_of(sine)
    assert found.loudness == pytest.approx(-3.01, abs=0.01) and found.pitch == pytest.approx(69, abs=0.01)
    assert np.argmax(found.pitch_classes) == 9 and found.pitch_classes[9] > 0.999 and found.consonance == 1
    sound = tone(50, 1.0)
    theirs = librosa.feature.spectral_centroid(y=sound, sr=RATE, center=False).mean()
    assert features_of(sound).centroid == pytest.approx(theirs, rel=0.1)
    assert features_of(0.1 * sound).loudness == pytest.approx(features_of(sound).loudness - 20, abs=1e-6)


def test_the_strongest_pitch_is_a_fundamental_weaker_than_its_harmonics():
    time = np.arange(RATE) / RATE
    sound = sum(a * np.sin(2 * np.pi * 220 * n * time) for n, a in zip(range(1, 6), (0.2, 0.5, 0.4, 0.3, 0.2), strict=True))
    assert features_of(sound).pitch == pytest.approx(57, abs=0.02)


def test_pitch_classes_of_a_chord_are_its_notes():
    time = np.arange(RATE) / RATE
    chord = sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) for pitch in (60, 64, 67))
    expected = [1 / 3 if i in (0, 4, 7) else 0 for i in range(12)]
    assert features_of(0.1 * chord).pitch_classes == pytest.approx(expected, abs=0.01)


def test_consonance_of_harmonic_tones_ranks_intervals_as_published():
    """The order of Plomp and Levelt 1965 (figure 12) and Hutchinson and Knopoff 1978 for dyads of complex tones."""
    found = {n: features_of(tone(60, 0.7) + tone(60 + n, 0.7)).consonance for n in (12, 7, 5, 4, 6, 11, 2, 1)}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[12] > 0.99 and found[1] < 0.6


def test_roughness_is_largest_at_a_quarter_of_the_critical_band():
    middle = 500.0
    band = 1.72 * middle**0.65
    apart = np.linspace(0, 1.5, 301)
    values = [roughness(np.array([middle - x * band / 2, middle + x * band / 2]), np.ones(2)) for x in apart]
    assert apart[np.argmax(values)] == pytest.approx(0.25) and max(values) == pytest.approx(0.5)     # a * a / (a * a + a * a)
    assert values[0] == 0 and not np.any(np.array(values)[apart > 1.2])
    unequal = roughness(np.array([middle - band / 8, middle + band / 8]), np.array([1.0, 0.5]))
    assert unequal == pytest.approx(0.5 / 1.25)


def test_ratios_are_the_simplest_within_the_tolerance():
    values = np.random.default_rng(0).uniform(0.1, 10, 300)
    for value, p, q in zip(values, *small_ratios(values), strict=True):
        near = [one for one in fractions() if abs(np.log(value * one[1] / one[0])) <= np.log(1 + TOLERANCE)]
        assert (p, q) == (min(near, key=lambda one: (sum(one), one)) if near else (0, 0))
    assert [part.tolist() for part in small_ratios(np.array([0.0, -1, np.inf]))] == [[0, 0, 0], [0, 0, 0]]


# -- in a lake


@pytest.fixture(scope="module")
def made(tmp_path_factory, played):
    """A lake of two performances with frames, tokens and gestures."""
    home = tmp_path_factory.mktemp("gestures")
    write(home / "music" / "one.wav", played[:, None], RATE)
    write(home / "music" / "two.wav", played[::-1, None].copy(), RATE)
    lake = tonelake.open(home / "lake")
    lake.ingest_folder(home / "music", workers=1)
    lake.embed(f"fakes:{FakeEncoder.__name__}", frames=["high"], workers=1)
    lake.fit_vocabulary(k=8, layer="high", name="sounds")
    lake.apply_vocabulary()
    assert lake.compute_gestures(workers=1)[1:] == (2, 0)
    return lake


def clip_of(lake, name: str) -> str:
    rows = lake.clips.read(["clip_id", "source"])
    return rows.filter(pl.col("source").str.contains(name))["clip_id"][0]


def test_gestures_are_stored_once_and_found_by_sql(made):
    clip = clip_of(made, "one.wav")
    found = made.gestures_of_clip(clip)
    assert found["start_s"].to_list() == pytest.approx(TIMES, abs=0.012)
    assert found["ratio"].to_list() == [None, "2:1", "1:2", "4:1", None]
    one = next(iter(made.tokens().each(read_vocabulary(made).digest, [clip])))
    for row in found.iter_rows(named=True):
        inside = one.tokens[(one.frame_s >= row["start_s"]) & (one.frame_s < row["end_s"])]
        counts = np.bincount(inside)
        assert row["token"] == counts.argmax() and row["token_share"] == pytest.approx(counts.max() / len(inside))
    assert made.compute_gestures(workers=1)[1:] == (0, 0)
    table = made.gestures().table
    assert table.count(f"clip_id = '{clip}' AND ratio = '2:1' AND consonance > 0.5") == 1


def test_gestures_are_replaced_when_cut_otherwise_and_go_with_their_clips_and_vocabulary(made, tmp_path):
    import shutil

    shutil.copytree(made.uri, tmp_path / "lake")
    lake = tonelake.open(tmp_path / "lake")
    assert lake.compute_gestures(grid_s=0.5, workers=1)[1:] == (2, 0)
    assert set(lake.gestures().table.read(["segmentation"]).column(0).to_pylist()) == {"grid 0.5 s"}
    clip = clip_of(lake, "one.wav")
    assert lake.gestures_of_clip(clip)["start_s"].to_list() == [0.5 * i for i in range(7)]
    assert any(row == "gestures_fake" for row in lake.optimize()["table"])
    lake.forget(where=f"clip_id = '{clip}'")
    assert set(lake.gestures().table.read(["clip_id"]).column(0).to_pylist()) == {clip_of(lake, "two.wav")}
    lake.fit_vocabulary(k=4, layer="high", name="sounds")
    lake.apply_vocabulary()
    assert lake.gestures().table.count() == 0


def test_live_gestures_equal_those_of_the_clip(made, played):
    clip = clip_of(made, "one.wav")
    heard = LiveGestures(made.live(rate=RATE, vocabulary="", k=0))
    rows = []
    for i in range(0, len(played), 3_000):
        heard.push(played[i : i + 3_000])
        rows += heard.take()
    heard.finish()
    rows += heard.take()
    stored = made.gestures_of_clip(clip)
    for name in ("start_s", "end_s", "ioi_s", "pitch", "consonance", "loudness", "centroid"):
        ours, theirs = ([v if v is not None else -1 for v in values] for values in ([row[name] for row in rows], stored[name]))
        assert ours == pytest.approx(theirs, rel=1e-3), name          # the file holds 16 bits
    assert [row["ratio"] for row in rows] == stored["ratio"].to_list()
    with pytest.raises(InputError, match="--vocabulary"):
        LiveGestures(made.live(rate=RATE, k=0))


def test_listen_prints_the_gestures_of_a_file(made):
    file = Path(made.uri).parent / "music" / "one.wav"
    words = ["listen", str(file), "--lake", made.uri, "--vocabulary", "sounds", "--window", "1", "--gestures", "--fast"]
    words.append("--json")
    answer = CliRunner().invoke(tonelake.cli.app, words)
    assert answer.exit_code == 0, (answer.output, answer.exception)
    found = [row["gesture"] for row in map(json.loads, answer.stdout.splitlines()) if "gesture" in row]
    assert [row["start_s"] for row in found] == pytest.approx(TIMES, abs=0.012)
    assert [row["ratio"] for row in found] == [None, "2:1", "1:2", "4:1", None]
    answer = CliRunner().invoke(tonelake.cli.app, [word for word in words if word not in ("--vocabulary", "sounds")])
    assert answer.exit_code == 1 and "--vocabulary" in answer.output + str(answer.exception)


def test_the_commands_show_gestures(made):
    clip = clip_of(made, "one.wav")
    run = CliRunner()
    answer = run.invoke(tonelake.cli.app, ["tokens", "gestures", "--lake", made.uri])
    assert answer.exit_code == 0 and "already has them" in answer.output
    answer = run.invoke(tonelake.cli.app, ["tokens", "show", clip, "--gestures", "--lake", made.uri])
    assert answer.exit_code == 0 and "2:1" in answer.output


def test_a_continuation_is_written_as_audio_and_as_midi(made, played, tmp_path):
    import mido
    import soundfile

    clip = clip_of(made, "one.wav")
    word = made.gestures_of_clip(clip)["token"].to_list()
    words = ["oracle", "continue", f"{word[0]},", "--lake", made.uri, "--steps", "3", "--context", "1", "--jump", "0"]
    words += ["--want", "ioi_s > 0", "--where", f"clip_id = '{clip}'", "--want", "consonance > 0"]
    answer = CliRunner().invoke(tonelake.cli.app, [
        *words, "--json", "--wav", str(tmp_path / "duet.wav"), "--midi", str(tmp_path / "duet.mid"),
    ])
    assert answer.exit_code == 0, (answer.output, answer.exception)
    path = pl.DataFrame([json.loads(line) for line in answer.stdout.splitlines()])
    length = (path["end_s"] - path["start_s"]).sum()
    sound, rate = soundfile.read(tmp_path / "duet.wav")
    assert len(sound) / rate == pytest.approx(length, abs=0.1) and np.abs(sound).max() > 0.05
    notes = [message for message in mido.MidiFile(tmp_path / "duet.mid") if message.type == "note_on"]
    stored = made.gestures_of_clip(clip)
    pitches = dict(zip(stored["start_s"].round(4), stored["pitch"].round(), strict=True))
    assert [note.note for note in notes] == [int(pitches[round(start, 4)]) for start in path["start_s"]]
    answer = CliRunner().invoke(tonelake.cli.app, [*words, "--wav", str(tmp_path / "no" / "duet.wav")])
    assert answer.exit_code == 1 and "cannot be written" in str(answer.output) + str(answer.exception)
