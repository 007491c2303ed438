"""Chorales by FluidSynth and a soundfont: programs, presets, notes, sound, and recordings beside the organ's."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import run
from soundfonts import write_soundfont

from tonelake import ingest
from tonelake.index.names.songs import file_names
from tonelake.ingest import AudioError, ingest_chorales, read_clips, read_source, soundfont_of
from tonelake.ingest.chorale_audio import chorale_recording
from tonelake.ingest.chorale_scores import load_score
from tonelake.ingest.chorale_sources import ChoraleSource, Rendering
from tonelake.ingest.datasets.chorales import clip_row
from tonelake.ingest.soundfont_rendering import (
    RATE,
    TAIL_S,
    render_soundfont,
)
from tonelake.store import Added, InputError, Lake
from tonelake.verify import verify

PIECE = "bwv66.6.mxl"
SINE, THIRD = 0, 19                      # programs of the soundfont: a sine, and a sine with its third partial
MUTE, HIGH = 20, 21                      # a silent program, and one that no soundfont here has
plays = pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="FluidSynth is not installed: package fluidsynth")


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory) -> Path:
    return write_soundfont(tmp_path_factory.mktemp("sounds") / "two sounds é.sf2", {SINE: [1], THIRD: [1, 0, 1], MUTE: [0]})


@pytest.fixture(scope="module")
def both(tmp_path_factory, soundfont) -> Lake:
    """A lake of a piece on the organ and by the soundfont.  Tests that write use a copy of it."""
    lake = Lake(tmp_path_factory.mktemp("both") / "lake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.datasets.chorales, "chorale_names", lambda: [PIECE])
        ingest_chorales(lake)
        assert ingest_chorales(lake, soundfont=soundfont, program="0,19,0,19").added.new == lake.clips.count() / 2
    return lake


@pytest.fixture
def copied(both, tmp_path, monkeypatch) -> Lake:
    monkeypatch.setattr(ingest.datasets.chorales, "chorale_names", lambda: [PIECE])
    shutil.copytree(both.uri, tmp_path / "lake")
    return Lake(tmp_path / "lake")


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


# -- sound


def loudness(sound: np.ndarray, hz: float, start_s: float, seconds: float = 0.4) -> float:
    """Amplitude of a partial in a span of a sound at RATE."""
    part = sound[round(start_s * RATE) :][: round(seconds * RATE)]
    return float(2 * np.abs(np.mean(part * np.exp(-2j * np.pi * hz * np.arange(len(part)) / RATE))))


@plays
def test_notes_sound_at_their_time_pitch_and_program(soundfont):
    notes = np.array([[0.5, 1.0, 69], [2.0, 0.5, 81], [2.0, 0.5, 57]])
    rendering = Rendering(soundfont=soundfont, programs=(SINE, THIRD))
    sound = render_soundfont(notes, np.array([0, 0, 1]), rendering)
    assert sound.dtype == np.float32 and len(sound) == round((2.5 + TAIL_S) * RATE)
    assert np.abs(sound).max() == pytest.approx(0.5)
    heard = np.flatnonzero(np.abs(sound) > 0.02) / RATE
    for start_s, end_s in ((0.5, 1.5), (2.0, 2.5)):
        inside = heard[(heard > start_s - 0.1) & (heard < end_s + 0.1)]
        assert 0 <= inside[0] - start_s < 0.003 and 0 <= inside[-1] - end_s < 0.012
    # The first voice is a sine, the second has a third partial.
    assert loudness(sound, 440, 0.6) > 20 * loudness(sound, 1320, 0.6)
    assert loudness(sound, 220, 2.05) == pytest.approx(loudness(sound, 660, 2.05), rel=0.1)
    assert loudness(sound, 880, 2.05) > 20 * loudness(sound, 2640, 2.05)
    assert np.array_equal(sound, render_soundfont(notes, np.array([0, 0, 1]), rendering))


@plays
def test_reverb_is_heard_after_the_notes_only_if_it_is_asked_for(soundfont):
    rendering = Rendering(soundfont=soundfont, programs=(SINE,))
    notes, voice = np.array([[0, 0.5, 69]]), np.zeros(1, int)
    dry, wet = (render_soundfont(notes, voice, replace(rendering, reverb=reverb)) for reverb in (False, True))
    assert np.abs(dry[round(0.6 * RATE) :]).max() < 1e-4 < 5e-3 < np.abs(wet[round(0.6 * RATE) :]).max()


@plays
def test_settings_of_the_user_do_not_change_the_sound(soundfont, tmp_path, monkeypatch):
    notes, rendering = np.array([[0, 0.5, 69]]), Rendering(soundfont=soundfont, programs=(SINE,))
    before = render_soundfont(notes, np.zeros(1, int), rendering)
    (tmp_path / ".fluidsynth").write_text("set synth.reverb.active 1\ntuning a 0\nsettuning 0 69 0 100\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert np.array_equal(render_soundfont(notes, np.zeros(1, int), rendering), before)


@plays
def test_a_soundfont_that_fluidsynth_cannot_load_is_an_error(soundfont, tmp_path):
    """Its exit status is 0, and it would play a default soundfont instead."""
    data = bytearray(soundfont.read_bytes())
    data[data.index(b"shdr") : data.index(b"shdr") + 4] = b"none"
    (tmp_path / "broken.sf2").write_bytes(data)
    broken = Rendering(soundfont=tmp_path / "broken.sf2", programs=(SINE,))
    with pytest.raises(AudioError, match=r"broken.sf2: FluidSynth cannot play it \(.+\). Choose another soundfont"):
        render_soundfont(np.array([[0, 0.5, 69]]), np.zeros(1, int), broken)


@plays
@pytest.mark.parametrize("rate", [24_000, RATE])
def test_a_part_of_a_piece_equals_that_part_of_the_whole(soundfont, rate):
    source = str(ChoraleSource("bwv66.6.mxl", Rendering(soundfont=soundfont, programs=(SINE, THIRD, SINE, THIRD))))
    whole, part = read_source(source, 0, 12.5, rate), read_source(source, 3.1, 5.2, rate)
    assert (len(whole), len(part)) == (round(12.5 * rate), round(5.2 * rate))
    assert np.array_equal(part, whole[round(3.1 * rate) :][: len(part)]) and np.abs(part).max() > 0.05
    beyond = read_source(source, 1_000, 1, rate)
    assert len(beyond) == rate and not beyond.any()


@plays
def test_the_notes_of_a_window_are_heard(soundfont):
    """The strongest partials of a chord are the fundamentals of its four notes."""
    score = load_score("bwv66.6.mxl")
    source = str(ChoraleSource("bwv66.6.mxl", Rendering(soundfont=soundfont, programs=(SINE,))))
    start = float(score.bars[3, 0])
    sounding = score.window(start, 0.5)
    sounding = sounding[sounding[:, 1] > 0.49]
    sound = read_source(source, start * score.quarter_s, 0.5 * score.quarter_s, RATE)
    strengths = {midi: loudness(sound, 440 * 2 ** ((midi - 69) / 12), 0.05, 0.25) for midi in range(40, 85)}
    loudest = sorted(strengths, key=strengths.__getitem__)[-len({*sounding[:, 2]}) :]
    assert {*loudest} == {*sounding[:, 2].astype(int)}


# -- in a lake


@plays
def test_renderings_of_a_piece_are_recordings_of_their_own_of_one_track(both, soundfont):
    clips = both.clips.read()
    assert set(clips["timbre"]) == {"organ", "two sounds é 0,19,0,19"} and clips["clip_id"].is_unique().all()
    sides = [clips.filter((pl.col("timbre") == "organ") == on_organ) for on_organ in (True, False)]
    names = ["track", "piece", "bwv", "tune", "key", "meter", "title", "artist", "start_s", "duration_s", "dataset"]
    assert sides[0].select(names).equals(sides[1].select(names))
    assert not {*sides[0]["recording"]} & {*sides[1]["recording"]} and clips["recording"].n_unique() == 2


@plays
def test_clips_of_the_organ_keep_their_ids(both):
    score = load_score("bwv66.6.mxl")
    row = both.clips.read(where="piece = 'bwv66.6' AND start_s = 0 AND timbre = 'organ'").row(0, named=True)
    assert row["recording"] == row["digest"] == score.digest == clip_row(score, 0.0, 16.0)["recording"]
    assert row["source"] == "chorale:bwv66.6.mxl"


@plays
def test_clips_of_both_are_read_by_decoder_processes(both):
    clips = both.clips.read(where="start_s = 0")
    for clip, samples in read_clips(clips, 24_000, 1):
        row = clips.filter(pl.col("clip_id") == clip).row(0, named=True)
        mine = read_source(row["source"], 0, row["duration_s"], 24_000, row["digest"])
        assert not isinstance(samples, Exception) and np.array_equal(samples, mine) and np.abs(mine).max() > 0.1


@plays
def test_another_ingest_of_the_same_rendering_changes_nothing(copied, soundfont):
    count = copied.clips.count()
    report = ingest_chorales(copied, soundfont=soundfont, program=[0, "church organ", "0", 19])
    assert report.added == Added(known=count // 2) and (report.new, report.known, report.superseded) == (0, 1, 0)


def test_notes_voices_soundfont_programs_and_reverb_decide_what_a_recording_is(soundfont, tmp_path):
    score, other = load_score(PIECE), write_soundfont(tmp_path / "other.sf2", {SINE: [1]})
    voices = replace(score, parts=(*score.parts[:2], score.parts[2] - 1, score.parts[3] + 1))
    notes = replace(score, notes=score.notes + np.array([0, 0, 1]))
    plain = Rendering(soundfont=soundfont, programs=(SINE,))
    changed = [
        (score, plain), (voices, plain), (notes, plain), (score, replace(plain, reverb=True)), (score, Rendering()),
        (score, replace(plain, programs=(THIRD,))), (score, replace(plain, programs=(SINE, THIRD, SINE, SINE))),
        (score, replace(plain, soundfont=other)),
    ]
    assert len({chorale_recording(*one) for one in changed}) == len(changed)
    copy = shutil.copy(soundfont, tmp_path / "copy.sf2")
    assert chorale_recording(score, replace(plain, soundfont=copy)) == chorale_recording(score, plain)


@plays
def test_a_replaced_soundfont_is_an_error_until_the_chorales_are_ingested_again(copied, soundfont, tmp_path):
    own = tmp_path / "own.sf2"
    shutil.copy(soundfont, own)
    ingest_chorales(copied, soundfont=own, program=SINE)
    row = copied.clips.read(where="timbre = 'own 0'").row(0, named=True)
    read = (row["source"], 0.0, 1.0, 24_000, row["digest"])
    assert len(read_source(*read)) == 24_000
    write_soundfont(own, {SINE: [1, 0.5]})
    with pytest.raises(AudioError, match=r"own.sf2: the soundfont has been replaced .*Put the former file back, or run"):
        read_source(*read)
    assert verify(copied, digests=True)["problem"].str.contains("1 files have changed").any()
    report = ingest_chorales(copied, soundfont=own, program=SINE)
    assert report.superseded == report.added.new == copied.clips.read(where="timbre = 'own 0'").height
    assert not copied.clips.read(where="timbre = 'organ'", superseded=True)["state"].drop_nulls().len()


@plays
def test_a_missing_soundfont_is_named_and_clips_follow_one_that_moved(copied, soundfont, tmp_path):
    own, moved = tmp_path / "own.sf2", tmp_path / "moved.sf2"
    shutil.copy(soundfont, own)
    ingest_chorales(copied, soundfont=own, program=SINE)
    before = copied.clips.read(where="timbre = 'own 0'")
    own.rename(moved)
    row = before.row(0, named=True)
    with pytest.raises(AudioError, match=r"own.sf2: the soundfont is missing .*Put it back, or ingest the chorales again"):
        read_source(row["source"], 0, 1, 24_000, row["digest"])
    found = verify(copied).row(0, named=True)
    assert str(own) in found["problem"] and "of 1 chorales is missing" in found["problem"] and "--soundfont" in found["remedy"]
    report = ingest_chorales(copied, soundfont=moved, program=SINE)
    assert report.added.new == report.superseded == 0
    after = copied.clips.read(where="timbre = 'moved 0'")
    assert after["clip_id"].equals(before["clip_id"]) and after["state"].null_count() == len(after)
    assert {soundfont_of(source) for source in after["source"]} == {moved}
    assert len(read_source(after["source"][0], 0, 1, 24_000, after["digest"][0])) == 24_000 and verify(copied).is_empty()


@plays
def test_a_piece_with_more_voices_than_programs_is_a_recorded_failure(organ, soundfont):
    report = ingest_chorales(organ, soundfont=soundfont, program="0,19")
    assert (report.failed, report.added.new) == (1, 0)
    assert "bwv66.6.mxl: 4 voices, but 2 programs are given" in organ.failures.read()["error"][0]


@plays
@pytest.mark.parametrize(("settings", "message"), [
    ({"program": MUTE}, "program 20 is silent in the range of the notes. Choose another --program"),
    ({"program": HIGH}, "has no program 21 in bank 0. Choose --program among 0 Sound 0"),
    ({"program": 128}, "is out of range"),
])
def test_programs_that_cannot_sound_are_refused_before_anything_is_written(organ, soundfont, settings, message):
    with pytest.raises(InputError, match=message):
        ingest_chorales(organ, soundfont=soundfont, **settings)
    assert not organ.clips.count()


def test_settings_without_a_soundfont_are_refused(organ):
    for settings in ({"program": 19}, {"reverb": True}):
        with pytest.raises(InputError, match="Name one with --soundfont"):
            ingest_chorales(organ, **settings)
    with pytest.raises(InputError, match="Name the file with --labels"):
        ingest_chorales(organ, multi=["moods"])
    with pytest.raises(InputError, match=r"absent.sf2: the soundfont cannot be read"):
        ingest_chorales(organ, soundfont="absent.sf2")


def test_without_fluidsynth_the_error_names_its_package(organ, soundfont, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"fluidsynth: is not installed.*package fluidsynth \(Debian.*fluid-synth"):
        ingest_chorales(organ, soundfont=soundfont)


@plays
def test_a_row_with_the_settings_of_a_rendering_labels_that_one_alone(copied, soundfont, tmp_path):
    source = copied.clips.read(where="timbre <> 'organ' AND piece = 'bwv66.6'")["source"][0]
    file = table(tmp_path, f'source,mood\n"{source}",bright\nbwv66.6.mxl,plain\n')
    ingest_chorales(copied, labels=file)
    ingest_chorales(copied, labels=file, soundfont=soundfont, program="0,19,0,19")
    found = copied.clips.read(where="piece = 'bwv66.6'").select("timbre", "mood").unique()
    assert {*found.rows()} == {("organ", "plain"), ("two sounds é 0,19,0,19", "bright")}


@plays
def test_the_command_takes_all_settings(organ, soundfont, tmp_path):
    done = run(
        "ingest", "chorales", "--soundfont", soundfont, "--program", "church organ", "--reverb",
        "--labels", table(tmp_path, "bwv,mood\n66.6,calm\n"), lake=organ.uri,
    )
    assert done.returncode == 0, done.stderr
    version = subprocess.run(["fluidsynth", "--version"], capture_output=True, text=True, check=True).stdout.split()[3]
    assert f"timbre 'two sounds é 19 reverb': rendered by FluidSynth {version}" in done.stderr
    assert set(Lake(organ.uri).clips.read()["mood"]) == {"calm"}


def test_the_file_name_of_a_chorale_has_no_settings():
    played = ChoraleSource(PIECE, Rendering(soundfont=Path("/a/b c.sf2"), programs=(1,)))
    assert file_names(pl.Series([str(played), f"chorale:{PIECE}", "/a/b?c.mp3"])).to_list() == [PIECE, PIECE, "b?c.mp3"]
