"""Duplicates: planted copies are found and confirmed on the audio, similar clips are not, and one set counts as one track."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sounds import encode, melody, write
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.embed import EmbedSettings, embed_lake
from tonelake.evaluate.labelled import read_labelled
from tonelake.index.search.same_audio import correlate
from tonelake.ingest import ingest_folder, read_clips
from tonelake.store import InputError, Lake

RATE = 44_100


@pytest.fixture(scope="module")
def copied_lake(tmp_path_factory):
    """Ten songs; song 0 also as mp3, song 1 also quieter and half a second later, and song 2 in another performance (its
    tune at another pitch); one silent pair."""
    home = tmp_path_factory.mktemp("copies")
    music = home / "music"
    waves = [melody(8, seed=seed, rate=RATE) for seed in range(10)]
    for number, wave in enumerate(waves):
        write(music / f"song{number}.wav", wave, rate=RATE)
    encode(music / "again" / "song0.mp3", waves[0], rate=RATE)
    late = np.concatenate([np.zeros((RATE // 2, waves[1].shape[1]), np.float32), 0.4 * waves[1]])
    write(music / "again" / "song1.flac", late, rate=RATE)
    import soxr

    write(music / "again" / "song2.wav", soxr.resample(waves[2], RATE, round(RATE * 0.97)), rate=RATE)
    for name in ("a", "b"):
        write(music / f"silent-{name}.wav", np.zeros((4 * RATE, 1), np.float32), rate=RATE)
    lake = Lake(home / "lake")
    ingest_folder(lake, music, seconds=None)
    embed_lake(lake, EmbedSettings("spectral"), read_clips)
    return lake


@pytest.fixture
def copied(copied_lake, tmp_path):
    import shutil

    shutil.copytree(copied_lake.uri, tmp_path / "lake")
    return Lake(tmp_path / "lake")


def test_copies_are_found_and_other_performances_are_not(copied):
    found = index.duplicates(copied, layer="chroma", cosine=0.8)
    assert found.group_by("set").agg(pl.col("track").sort()).sort("set")["track"].to_list() == [
        ["again/song0.mp3", "song0.wav"], ["again/song1.flac", "song1.wav"],
    ]
    later = found.filter(pl.col("compared_with").is_not_null())
    assert later["correlation"].min() > 0.9
    assert sorted(round(abs(offset), 1) for offset in later["offset_s"]) == pytest.approx([0.0, 0.5], abs=0.11)
    first = found.filter(pl.col("compared_with").is_null())
    assert set(later["compared_with"]) == set(first["clip_id"])


def test_without_confirmation_the_embedding_decides(copied, monkeypatch):
    found = index.duplicates(copied, read=lambda *_: pytest.fail("audio was read"), layer="chroma", cosine=0.8, confirm=False)
    assert found["correlation"].null_count() == len(found) > 4 - 1
    assert not any("silent" in track for track in found["track"])


def test_for_an_unreadable_source_the_embedding_decides(copied):
    def read(clips, rate, workers):
        for clip, wave in read_clips(clips, rate, workers):
            yield clip, ValueError("gone") if "song0" in clips.filter(clip_id=clip)["source"][0] else wave

    found = index.duplicates(copied, read=read, layer="chroma", cosine=0.8)
    assert found.filter(track="song0.wav")["correlation"].null_count() == 1


def test_sets_count_as_one_track_everywhere(copied):
    labels = pl.DataFrame({"track": ["song0.wav", "again/song0.mp3", "song1.wav", "song3.wav"], "band": ["x", "x", "y", "y"]})
    clips = copied.clips.read(["clip_id", "track", "source", "digest", "start_s", "duration_s"])
    copied.clips.add(clips.join(labels, on="track"))
    space = copied.spaces.get(None)
    before = read_labelled(copied, space, "band")
    index.duplicates(copied, layer="chroma", cosine=0.8, save=True)
    after = read_labelled(copied, space, "band")
    assert len(np.unique(before.track)) == 4
    assert len(np.unique(after.track)) == 3
    assert dict(zip(after.names, after.tracks_of_groups(), strict=True)) == {"x": 1, "y": 2}
    with pytest.raises(InputError, match="clips of one track only"):
        index.typical(copied, "band", "x")
    assert copied.clips.read(where="same_as IS NOT NULL").height == 4
    # Found again with stricter settings, a clip that is no longer a duplicate gets its own id.
    index.duplicates(copied, layer="chroma", cosine=0.8, correlation=1.0, save=True)
    marked = copied.clips.read(["clip_id", "same_as"], where="same_as IS NOT NULL")
    assert (marked["clip_id"] == marked["same_as"]).sum() >= 3


@pytest.mark.parametrize("lag", [-300, 0, 411])
def test_the_correlation_equals_trying_every_lag(lag):
    rng = np.random.default_rng(abs(lag))
    tone = rng.standard_normal(2_000)
    a = tone[500:1500] + 0.5 * rng.standard_normal(1_000)
    b = -2 * tone[500 - lag : 1600 - lag] + 0.5 * rng.standard_normal(1_100)
    a0, b0 = a - a.mean(), b - b.mean()
    best = (0.0, 0)
    for shift in range(-500, 601):
        start, end = max(0, -shift), min(len(a), len(b) - shift)
        if end - start < 500:
            continue
        x, y = a0[start:end], b0[start + shift : end + shift]
        best = max(best, (abs(x @ y) / np.sqrt((x @ x) * (y @ y)), shift))
    strength, offset_s = correlate(a, b, 1000)
    assert strength == pytest.approx(best[0], abs=1e-9)
    assert round(offset_s * 1000) == best[1] == lag
    assert correlate(np.zeros(100), np.zeros(90), 1000) == (0.0, 0.0)


def test_the_command(copied):
    run = CliRunner().invoke(app, ["duplicates", "--layer", "chroma", "--cosine", "0.8", "--save", "--lake", copied.uri])
    assert run.exit_code == 0, run.output
    assert len(run.stdout.splitlines()) == 4
    assert json.loads(run.stdout.splitlines()[0])["set"] == 1
    assert "4 clips in 2 sets, stored as label column same_as" in run.stderr
    with pytest.raises(InputError, match="correlation 0"):
        index.duplicates(copied, correlation=0)
    assert Path(copied.uri).is_dir()
