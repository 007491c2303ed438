"""The cosine of two sounds, and its percentile among pairs of songs, against loops over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from commands import rows, run
from fakes import FakeEncoder
from sounds import melody, write

from tonelake import index
from tonelake.embed import embed_clips, settings
from tonelake.index.search import file_vectors, two_sounds
from tonelake.ingest import ingest_folder, read_clips
from tonelake.store import InputError, Lake


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def clips_by_track(lake, layer):
    """Return the vectors of each track's clips."""
    clips, (ids, vectors) = lake.clips.read(["clip_id", "track"]), lake.vectors().layer(layer)
    rows = dict(zip(ids, vectors, strict=True))
    return {track: np.stack([rows[clip] for clip in part["clip_id"]]) for (track,), part in clips.group_by("track")}


def test_songs_are_the_means_of_their_clips_and_compared_with_pairs_of_other_songs(filled, caplog):
    caplog.set_level("INFO", "tonelake")
    found = index.cosine(filled, "Title 3", "Title 20", layers="all")
    assert (found["layer"].to_list(), found["name"].to_list()) == ([0, 1], ["low", "high"])
    for layer, row in enumerate(found.rows(named=True)):
        means = {track: clips.mean(axis=0) for track, clips in clips_by_track(filled, layer).items()}
        others = [track for track in means if track not in ("track003", "track020")]
        known = np.array([cosine(means[a], means[b]) for a, b in combinations(others, 2)])
        value = cosine(means["track003"], means["track020"])
        assert row["cosine"] == pytest.approx(value, abs=1e-5)
        assert row["percentile"] == pytest.approx(100 * (known < value).mean(), abs=0.5)
        assert (row["usual"], row["pairs"]) == (pytest.approx(known.mean(), abs=1e-5), 22 * 21 // 2)
    assert "'Title 3' by Artist 0: the mean of its 10 clips is compared" in caplog.text
    assert "percentiles: among all 231 pairs of 22 songs of this lake, drawn at random" in caplog.text


def test_clips_are_compared_with_clips_one_of_each_song(filled, monkeypatch, caplog):
    caplog.set_level("INFO", "tonelake")
    ids, vectors = filled.vectors().layer(0)
    found = index.cosine(filled, ids[0], ids[1], layer="low")
    assert found["cosine"].to_list() == [pytest.approx(cosine(vectors[0], vectors[1]), abs=1e-6)]
    assert "pairs of 23 clips of different songs" in caplog.text and found["percentile"][0] > 80
    monkeypatch.setattr(two_sounds, "REFERENCE_SONGS", 9)
    some = [index.cosine(filled, ids[0], ids[1], layer="low", seed=seed) for seed in (1, 1, 2)]
    assert some[0].equals(some[1]) and some[0]["usual"][0] != some[2]["usual"][0] and some[0]["pairs"][0] == 36


def test_a_song_and_itself_have_a_cosine_of_one_and_silence_has_none(filled):
    assert index.cosine(filled, "Title 3", "Title 3")["cosine"][0] == pytest.approx(1)
    found = index.cosine(filled, "Title 3", np.zeros(6, np.float32))
    assert (found["cosine"][0], found["percentile"][0]) == (None, None) and found["pairs"][0] > 0


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"layer": 0, "layers": "all"}, "Give one of them"), ({"layers": "low,0"}, "must name layers once each"),
        ({"layers": []}, "must name layers once each"), ({"layers": "low,9"}, "9"),
    ],
)
def test_layers_that_cannot_be_read_are_named(filled, choice, words):
    with pytest.raises(InputError, match=words):
        index.cosine(filled, "Title 3", "Title 4", **choice)


@pytest.fixture
def songs(tmp_path, monkeypatch):
    """A lake of four short songs; its encoder can be loaded again for queries."""
    for seed in range(4):
        write(tmp_path / "music" / f"{seed}.wav", melody(2, seed=seed))
    lake = Lake(tmp_path / "lake")
    ingest_folder(lake, tmp_path / "music")
    embed_clips(lake, lake.spaces.make(settings.describe_space(FakeEncoder(), "fake", 30.0)), FakeEncoder(), read_clips)
    monkeypatch.setattr(settings, "load_encoder", lambda name, **how: FakeEncoder())
    return lake


def test_files_outside_the_lake_are_embedded_and_the_part_compared_is_said(songs, tmp_path, monkeypatch):
    copy, other = (write(tmp_path / f"{seed}-new.wav", melody(2, seed=seed), subtype="FLOAT") for seed in (2, 9))
    monkeypatch.setattr(file_vectors, "MAX_QUERY_S", 1.0)
    done = run("cosine", copy, other, "--layers", "all", lake=songs.uri)
    first = rows(done)
    assert [row["name"] for row in first] == ["low", "high"] and [row["pairs"] for row in first] == [0, 0]
    assert "2-new.wav: 0:02 long; only the first 0:01 is compared" in done.stderr
    assert "percentiles need 5 other songs in the lake, so there are none" in done.stderr
    monkeypatch.setattr(file_vectors, "MAX_QUERY_S", 600.0)
    assert rows(run("cosine", copy, tmp_path / "music" / "2.wav", lake=songs.uri))[0]["cosine"] > 0.999
    swapped = rows(run("cosine", other, copy, "--layers", "all", lake=songs.uri))
    straight = rows(run("cosine", copy, other, "--layers", "all", lake=songs.uri))
    assert pl.DataFrame(swapped).equals(pl.DataFrame(straight))
