"""Stems are made once, are clips of the track of their mix with its labels, and failures are recorded."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import write

import tonelake
from tonelake.ingest import AudioError, demucs_stems, ingest_folder
from tonelake.store import InputError

RATE = 22_050


class Bands:
    """Separates a sound at 600 Hz."""

    name, rate = "bands", RATE

    def __init__(self) -> None:
        self.calls = 0

    def separate(self, mix):
        self.calls += 1
        spectrum = np.fft.rfft(mix)
        low = np.fft.rfftfreq(len(mix), 1 / RATE) < 600
        parts = {"low": np.where(low, spectrum, 0), "high": np.where(low, 0, spectrum)}
        return {name: np.fft.irfft(part, len(mix)).astype(np.float32) for name, part in parts.items()}


@pytest.fixture
def mixed(tmp_path):
    """Three labelled tracks of two tones each, 300 and 1,500 Hz; all seconds of a track are identical."""
    time = np.arange(3 * RATE) / RATE
    for number in range(3):
        sound = 0.4 * np.sin(2 * np.pi * 300 * time) + (0.1 + 0.1 * number) * np.sin(2 * np.pi * 1_500 * time)
        write(tmp_path / "music" / f"{number}.wav", sound[:, None].astype(np.float32), rate=RATE)
    (tmp_path / "labels.csv").write_text("stem_name,path,meter\na,0.wav,three\nb,1.wav,four\nc,2.wav,four\n")
    lake = tonelake.open(tmp_path / "lake", progress=False)
    ingest_folder(lake, tmp_path / "music", seconds=None, labels=tmp_path / "labels.csv")
    return lake


def test_stems_are_clips_of_their_track_with_its_labels(mixed):
    separator = Bands()
    report = mixed.separate(separator)
    assert (report.added.new, report.failed, separator.calls) == (6, 0, 3)
    clips = mixed.clips.read()
    assert sorted(clips["stem"].to_list()) == ["high"] * 3 + ["low"] * 3 + ["mix"] * 3
    for track, of_track in clips.group_by("track"):
        assert of_track["meter"].n_unique() == 1, track
        mix = of_track.filter(of_track["stem"] == "mix").row(0, named=True)
        assert set(of_track.filter(of_track["stem"] != "mix")["separated_from"]) == {mix["clip_id"]}
        low, high = (mixed.audio(of_track.filter(of_track["stem"] == name)["clip_id"][0], RATE) for name in ("low", "high"))
        whole = mixed.audio(mix["clip_id"], RATE)
        np.testing.assert_allclose(low + high, whole, atol=1e-3)     # FLAC holds 16 bits
        assert np.abs(np.fft.rfft(low)).argmax() == 900 and np.abs(np.fft.rfft(high)).argmax() == 4_500


def test_a_second_run_separates_only_new_clips(mixed, tmp_path):
    mixed.separate(Bands())
    again = Bands()
    report = mixed.separate(again)
    assert (report.added.new, again.calls) == (0, 0) and "3 mixes already separated" in report.notes
    write(tmp_path / "more" / "x.wav", np.random.default_rng(0).normal(0, 0.1, (2 * RATE, 1)).astype(np.float32), rate=RATE)
    ingest_folder(mixed, tmp_path / "more", seconds=None)
    assert mixed.separate(again).added.new == 2 and again.calls == 1


def test_an_interrupted_run_keeps_clips_with_all_their_stems(mixed):
    class Stopped(Bands):
        def separate(self, mix):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().separate(mix)

    with pytest.raises(KeyboardInterrupt):
        mixed.separate(Stopped())
    assert len(mixed.clips.read(where="stem = 'low'")) == 2
    rest = Bands()
    mixed.separate(rest)
    assert rest.calls == 1 and len(mixed.clips.read(where="stem = 'low'")) == 3


def test_a_clip_without_its_file_is_a_failure_and_the_others_are_separated(mixed, tmp_path):
    (tmp_path / "music" / "1.wav").unlink()
    report = mixed.separate(Bands())
    assert (report.added.new, report.failed) == (4, 1)
    assert mixed.failures.read("separate")["source"].str.ends_with("1.wav").all()


def test_the_failure_of_one_clip_stays_recorded_when_other_clips_of_its_file_succeed(mixed, tmp_path, monkeypatch):
    lake = tonelake.open(tmp_path / "cut", progress=False)
    ingest_folder(lake, tmp_path / "music", seconds=1.0)
    read = demucs_stems.read_clips

    def without_the_first(due, rate, workers):
        bad = due.sort("track", "start_s")["clip_id"][0]
        return ((clip, AudioError("a bad sector") if clip == bad else wave) for clip, wave in read(due, rate, workers))

    with monkeypatch.context() as patch:
        patch.setattr(demucs_stems, "read_clips", without_the_first)
        assert lake.separate(Bands()).failed == 1
    assert lake.failures.read("separate")["error"].to_list() == ["a bad sector"]
    assert lake.separate(Bands()).added.new == 2
    assert lake.failures.read("separate").is_empty()


@pytest.mark.parametrize(("stems", "message"), [
    ({"../x": None}, "calls a stem"), ({"mix": None}, "calls a stem"), ({"low": np.zeros(3, np.float32)}, "has shape"),
])
def test_the_stems_of_a_separator_are_checked(mixed, stems, message):
    class Odd(Bands):
        def separate(self, mix):
            return {name: mix if value is None else value for name, value in stems.items()}

    with pytest.raises(InputError, match=message):
        mixed.separate(Odd())
    assert not len(mixed.clips.read(where="stem != 'mix'"))


def test_without_demucs_the_error_has_the_command_that_installs_it(mixed, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "demucs.api", None)
    with pytest.raises(InputError, match=r"separation: demucs is not installed.* -m pip install \"demucs>=4\.1\""):
        mixed.separate()
    with pytest.raises(InputError, match="no mixes where"):
        mixed.separate(Bands(), where="meter = 'seven'")
