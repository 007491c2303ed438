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
from tonelake.index.search.duplicates import new_marks
from tonelake.index.search.same_audio import Heard, Pair, correlate
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


def deaf_to(name):
    """Return a reader of clips for which the sources whose path contains `name` cannot be read."""
    def read(clips, rate, workers):
        for clip, wave in read_clips(clips, rate, workers):
            yield clip, ValueError("gone") if name in clips.filter(clip_id=clip)["source"][0] else wave

    return read


def test_pairs_that_cannot_be_heard_are_neither_listed_nor_stored(copied, caplog):
    found = index.duplicates(copied, read=deaf_to("song0"), layer="chroma", cosine=0.8, save=True)
    assert sorted(found["track"]) == ["again/song1.flac", "song1.wav"]
    assert "because the audio of 2 clips cannot be read, such as" in caplog.text and "(gone)" in caplog.text
    assert copied.clips.read(where="same_as IS NOT NULL").height == 2
    with pytest.raises(InputError, match="stores only duplicates that the audio confirms"):
        index.duplicates(copied, confirm=False, save=True)


def test_saving_changes_only_what_was_examined(copied):
    def sets():
        marked = copied.clips.read(where="same_as IS NOT NULL")
        return {frozenset(one) for one in marked.group_by("same_as").agg("track")["track"]}

    how = {"layer": "chroma", "cosine": 0.8, "save": True}
    index.duplicates(copied, **how)
    both = {frozenset({"again/song0.mp3", "song0.wav"}), frozenset({"again/song1.flac", "song1.wav"})}
    assert sets() == both
    index.duplicates(copied, **how, where="track NOT LIKE '%song1%'")        # neither clip of the set is examined
    assert sets() == both
    index.duplicates(copied, **how, where="track != 'song1.wav'")            # one of them is
    assert sets() == both
    index.duplicates(copied, **how, read=deaf_to("again/song1"))
    assert sets() == both
    index.duplicates(copied, layer="mfcc", cosine=1.0, save=True)            # no candidates: stored pairs are heard again
    assert sets() == both
    index.duplicates(copied, **(how | {"correlation": 1.0}))                 # heard, and too different
    assert len(sets()) >= 3


def test_a_stored_set_is_joined_by_a_new_copy_of_one_clip():
    ids = pl.Series(["a", "b", "c", "d"])
    marks = pl.DataFrame({"clip_id": ["b", "x"], "same_as": ["b", "b"]})     # x is not examined
    found = new_marks(ids, marks, Heard((Pair(first=0, second=1, cosine=0.99, correlation=0.99),), (), {}))
    assert dict(found.iter_rows()) == {"a": "a", "b": "a", "x": "a"}
    examined = pl.DataFrame({"clip_id": ["c", "d"], "same_as": ["c", "c"]})
    assert dict(new_marks(ids, examined, Heard((), (), {})).iter_rows()) == {"d": "d"}
    deaf = Heard((), (Pair(first=2, second=3, cosine=0.99),), {3: ValueError("gone")})
    assert len(new_marks(ids, examined, deaf)) == 0


def test_two_copies_alone_in_a_lake_are_found(tmp_path):
    """Centred by their mean, two vectors are opposite."""
    wave = melody(6, seed=5, rate=RATE)
    write(tmp_path / "music" / "one.wav", wave, rate=RATE)
    encode(tmp_path / "music" / "two.mp3", 0.7 * wave, rate=RATE)
    lake = Lake(tmp_path / "lake")
    ingest_folder(lake, tmp_path / "music", seconds=None)
    embed_lake(lake, EmbedSettings("spectral"), read_clips)
    found = index.duplicates(lake, save=True)
    assert sorted(found["track"]) == ["one.wav", "two.mp3"] and found["correlation"][1] > 0.9
    assert len(lake.clips.read(where="same_as IS NOT NULL")) == 2


@pytest.mark.slow
def test_clips_that_overlap_do_not_hide_copies(tmp_path):
    """A clip every second of six: the nearest ten clips of each are of its own recording; a row is a recording."""
    for number in range(3):
        wave = melody(14, seed=number, rate=RATE)
        write(tmp_path / "music" / f"song{number}.wav", wave, rate=RATE)
        if number < 2:
            encode(tmp_path / "music" / f"copy{number}.mp3", 0.6 * wave, rate=RATE)
    lake = Lake(tmp_path / "lake")
    ingest_folder(lake, tmp_path / "music", seconds=6, hop=1)
    embed_lake(lake, EmbedSettings("spectral"), read_clips)
    found = index.duplicates(lake)
    assert [sorted(one) for one in found.group_by("set", maintain_order=True).agg("track")["track"]] == [
        ["copy0.mp3", "song0.wav"], ["copy1.mp3", "song1.wav"],
    ]
    assert found["clips"].to_list() == [9] * 4
    assert len(index.duplicates(lake, clips=True)) == 36


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
    assert "4 recordings in 2 sets, stored as label column same_as" in run.stderr
    with pytest.raises(InputError, match="correlation 0"):
        index.duplicates(copied, correlation=0)
    assert Path(copied.uri).is_dir()
