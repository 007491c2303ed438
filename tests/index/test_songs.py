"""Hits by songs against brute force: best moments, counts, caps, own songs, walks, and sentences about what a query is."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows, fill
from sounds import melody, write

from tonelake import index
from tonelake.index.search import approximate
from tonelake.index.search import songs as folding
from tonelake.index.search.walk import walk
from tonelake.ingest import ingest_folder, read_clips
from tonelake.store import InputError, Lake, Space, read_songs, track_numbers


def ranked(lake, query, layers, metric="cosine"):
    """Return (ids, nearness) of every embedded clip by NumPy, higher is nearer; `layers`: weights by number."""
    total = 0.0
    for layer, weight in layers.items():
        ids, vectors = lake.vectors().layer(layer)
        vectors, one = vectors.astype(np.float64), query[layer].astype(np.float64)
        if metric == "l2":
            total = total - np.linalg.norm(vectors - one, axis=1)
        else:
            lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(one) if metric == "cosine" else 1.0
            total = total + weight * (vectors @ one) / lengths
    return ids.to_list(), total


def songs_by_hand(lake, ids, nearness, k, allowed, per=None):
    """Return (best clip, clips at least as near as the last song) of the k nearest songs, one clip after the other."""
    every = lake.clips.read()
    song = dict(zip(every["clip_id"], track_numbers(every), strict=True))
    column = dict(every.select("clip_id", per[0]).iter_rows()) if per else {}
    best, counts = [], {}
    for row in np.argsort(-nearness, kind="stable"):
        if len(best) == k or ids[row] not in allowed or song[ids[row]] in {song[ids[one]] for one in best}:
            continue
        values = column.get(ids[row])
        values = values if isinstance(values, list) else [] if values is None else [values]
        if any(counts.get(value, 0) >= per[1] for value in values):
            continue
        for value in values:
            counts[value] = counts.get(value, 0) + 1
        best.append(row)
    last = nearness[best[-1]] if best else 0
    near = [song[ids[row]] for row in range(len(ids)) if ids[row] in allowed and nearness[row] >= last - 1e-7]
    return [(ids[row], near.count(song[ids[row]])) for row in best]


def others(lake, clip, where=None):
    """Ids of the clips of other songs, of those that match a filter."""
    songs = read_songs(lake.clips)
    ids = lake.clips.ids(where)
    return set(ids.filter(songs.of(ids) != songs.of([clip])[0]))


def pairs(hits):
    return list(hits.select("clip_id", "clips").iter_rows())


@pytest.mark.parametrize("metric", index.METRICS)
@pytest.mark.parametrize("k", [1, 7, 23, 100])
def test_the_nearest_songs_equal_brute_force(filled, metric, k):
    ids, vectors = filled.vectors().layer(0)
    for row in (0, 57, 239):
        hits = index.similar(filled, ids[row], layer=0, k=k, metric=metric)
        expected = songs_by_hand(filled, *ranked(filled, {0: vectors[row]}, {0: 1}, metric), k, others(filled, ids[row]))
        assert pairs(hits) == expected and len(hits) == min(k, 23)
        assert hits["rank"].to_list() == list(range(1, len(hits) + 1)) and hits["track"].n_unique() == len(hits)


@pytest.mark.parametrize("where", ["year > 1970", "artist = 'Artist 3'", "year = 1977 AND start_s >= 40", "start_s = 0"])
def test_songs_under_a_filter_equal_brute_force(filled, where):
    ids, vectors = filled.vectors().layer(1)
    hits = index.similar(filled, ids[100], k=9, where=where)
    expected = songs_by_hand(filled, *ranked(filled, {1: vectors[100]}, {1: 1}), 9, others(filled, ids[100], where))
    assert pairs(hits) == expected and len(hits) > 0


def test_songs_of_a_mixture_and_of_a_facet_equal_brute_force(filled):
    low, high = (filled.vectors().layer(layer) for layer in (0, 1))
    clip, query = low.ids[31], {0: low.vectors[31], 1: high.vectors[31]}
    hits = index.similar(filled, clip, layers={"low": 0.3, "high": 0.7}, k=8)
    assert pairs(hits) == songs_by_hand(filled, *ranked(filled, query, {0: 0.3, 1: 0.7}), 8, others(filled, clip))
    every = index.similar(filled, clip, layer=1, like="tags", k=1_000, clips=True)
    nearness = dict(zip(every["clip_id"], every["score"].to_numpy().astype(np.float64), strict=True))
    ids = [one for one in low.ids if one in nearness]
    expected = songs_by_hand(filled, ids, np.array([nearness[one] for one in ids]), 8, others(filled, clip))
    assert pairs(index.similar(filled, clip, layer=1, like="tags", k=8)) == expected


@pytest.mark.parametrize("per", [("artist", 1), ("artist", 2), ("tags", 3), ("album", 1), ("year", 1)])
@pytest.mark.parametrize("clips", [False, True])
def test_hits_that_share_a_value_are_capped(filled, per, clips):
    ids, vectors = filled.vectors().layer(0)
    hits = index.similar(filled, ids[77], layer=0, k=6, per=per, clips=clips)
    if not clips:
        assert pairs(hits) == songs_by_hand(filled, *ranked(filled, {0: vectors[77]}, {0: 1}), 6, others(filled, ids[77]), per)
    values = filled.clips.take(hits["clip_id"].to_list(), [per[0]])[per[0]]
    if values.dtype == pl.List(pl.String):
        values = values.explode()
    assert values.drop_nulls().value_counts()["count"].max() in (None, *range(1, per[1] + 1))


def test_a_cap_by_track_counts_songs_among_clips(filled):
    clip = filled.vectors().ids()[5]
    hits = index.similar(filled, clip, layer=0, k=40, per=("track", 2), clips=True)
    assert len(hits) == 40 and hits["track"].value_counts()["count"].max() == 2
    for wrong in (("colour", 1), ("artist", 0)):
        with pytest.raises(InputError):
            index.similar(filled, clip, per=wrong)


def test_confirmed_duplicates_are_one_song(lake):
    fill(lake, tracks=12, clips_a_track=5, seed=2)
    clips = lake.clips.read()
    joined = clips.filter(pl.col("track").is_in(["track004", "track007"]) & (pl.col("start_s") == 10))["clip_id"].to_list()
    lake.clips.set_labels(pl.DataFrame({"clip_id": joined, "same_as": [joined[0]] * 2}))
    assert len(index.similar(lake, clips["clip_id"][0], k=100, layer=0)) == 10
    own = clips.filter(track="track004")["clip_id"][0]
    hits = index.similar(lake, own, k=100, layer=0)
    assert len(hits) == 10 and not {"track004", "track007"} & set(hits["track"])
    assert "track007" not in set(index.similar(lake, own, k=100, layer=0, not_same="track", clips=True)["track"])
    ids, vectors = lake.vectors().layer(0)
    row = ids.to_list().index(own)
    expected = songs_by_hand(lake, *ranked(lake, {0: vectors[row]}, {0: 1}), 6, others(lake, own))
    assert pairs(index.similar(lake, own, layer=0, k=6)) == expected
    third = lake.clips.read(where="track = 'track004' AND start_s = 0")       # joined by clips that this filter leaves out
    both = pl.concat([third, lake.clips.read(where="track = 'track007' AND start_s = 0")])["clip_id"]
    assert len(np.unique(read_songs(lake.clips).of(both))) == 1


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A lake of 3,000 clips of 60 songs in a space of one layer, with a function that builds an index over it."""
    lake = Lake(tmp_path_factory.mktemp("indexed") / "lake")
    rows = clip_rows(60, 50)
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="one", revision="1", sample_rate=24_000, layers=("0",), dims=(16,), window_s=30.0, hop_s=30.0, precision="float32"
    ))
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 16))[np.repeat(np.arange(60), 50)] + 0.6 * rng.standard_normal((3_000, 16))
    part = vectors.astype(np.float32)
    lake.vectors(space).add(rows["clip_id"].to_list(), [part], [part], [1] * 3_000)
    return lake


@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
@pytest.mark.parametrize("metric", index.METRICS)
def test_an_index_is_searched_until_it_has_k_songs(indexed, kind, metric, monkeypatch):
    """Fifty clips of each song crowd out the others: k times a few clips are of one or two songs."""
    index.drop_indexes(indexed)
    clips = [indexed.vectors().ids()[row] for row in (3, 1_700)]
    exact = [index.similar(indexed, clip, k=12, metric=metric) for clip in clips]
    some = [index.similar(indexed, clip, k=5, metric=metric, where="year > 1985") for clip in clips]
    widest = replace(approximate.KINDS[kind], widths=approximate.KINDS[kind].widths[-1:])       # finds every clip of a song
    monkeypatch.setitem(approximate.KINDS, kind, widest)
    index.build_indexes(indexed, metric=metric, kind=kind, recall=0.999)
    searched = []
    monkeypatch.setattr(folding, "MOST_SEARCHED", 1.0)
    inner = folding.search_stored
    monkeypatch.setattr(folding, "search_stored", lambda *how: searched.append(how[4]) or inner(*how))
    for clip, true, filtered in zip(clips, exact, some, strict=True):
        found = index.similar(indexed, clip, k=12, metric=metric)
        assert pairs(found) == pairs(true)
        score = "distance" if metric == "l2" else "score"
        np.testing.assert_allclose(found[score], true[score], rtol=2e-3, atol=2e-3)
        assert pairs(index.similar(indexed, clip, k=5, metric=metric, where="year > 1985")) == pairs(filtered)
    assert max(searched) > min(searched)
    monkeypatch.setattr(folding, "MOST_SEARCHED", 0.0)                # then a scan is faster, and as right
    assert pairs(index.similar(indexed, clips[0], k=12, metric=metric)) == pairs(exact[0])


def test_new_clips_are_found_beside_an_index(tmp_path, indexed):
    import shutil

    index.drop_indexes(indexed)
    index.build_indexes(indexed, recall=0.99)
    shutil.copytree(indexed.uri, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    new = clip_rows(61, 4)[-4:].with_columns(clip_id=pl.Series([f"{9_000_000 + i:020x}" for i in range(4)]))
    lake.clips.add(new)
    clip = lake.vectors().ids()[40]
    vector = np.repeat(lake.vectors().take([clip]).vectors, 4, axis=0)
    lake.vectors().add(new["clip_id"].to_list(), [vector], [vector], [1] * 4)
    assert pairs(index.similar(lake, clip, k=3))[0] == (new["clip_id"][0], 4)


def test_ties_are_counted_and_ordered_as_the_lake(lake):
    """All clips are equal: every song's first clip is its best moment, and all of its clips are as near as the last song."""
    lake.clips.add(clip_rows(9, 30))
    space = lake.spaces.make(Space(
        name="flat", revision="1", sample_rate=24_000, layers=("0",), dims=(4,), window_s=30.0, hop_s=30.0, precision="float32"
    ))
    same = np.ones((270, 4), np.float32)
    ids = lake.clips.ids().to_list()
    lake.vectors(space).add(ids, [same], [same], [1] * 270)
    assert pairs(index.similar(lake, np.ones(4, np.float32), k=3)) == [(ids[0], 30), (ids[30], 30), (ids[60], 30)]


# -- paths and typical songs


def test_a_path_of_songs_repeats_none_and_takes_the_best_assignment(filled):
    ids, vectors = filled.vectors().layer(1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    songs = read_songs(filled.clips).of(ids)
    found = index.path(filled, ids[3], ids[200], steps=3, layer=1, where="start_s < 20 AND year < 1968")
    clips = filled.clips.ids("start_s < 20 AND year < 1968")
    allowed = np.array([row for row, one in enumerate(ids) if one in set(clips) and songs[row] not in songs[[3, 200]]])
    angle = np.arccos(unit[3] @ unit[200])
    points = [(np.sin((1 - t) * angle) * unit[3] + np.sin(t * angle) * unit[200]) / np.sin(angle) for t in (0.25, 0.5, 0.75)]
    scores = np.stack(points) @ unit.T
    of_song = {song: allowed[songs[allowed] == song] for song in songs[allowed]}
    best = max(permutations(of_song, 3), key=lambda some: sum(scores[i, of_song[one]].max() for i, one in enumerate(some)))
    expected = [ids[int(of_song[one][scores[i, of_song[one]].argmax()])] for i, one in enumerate(best)]
    assert found["clip_id"].to_list() == [ids[3], *expected, ids[200]]
    assert found["clips"].to_list() == [1, *(len(of_song[one]) for one in best), 1]
    assert index.path(filled, ids[0], ids[239], steps=20, layer=1)["track"].n_unique() == 22


def test_typical_lists_a_song_once(filled):
    found = index.typical(filled, "artist", "Artist 2", layer="high", k=3)
    clips = index.typical(filled, "artist", "Artist 2", layer="high", k=20, clips=True)
    assert len(found) == 4 and found["track"].n_unique() == 4 and found["clips"].to_list() == [10] * 4
    assert found["kind"].to_list() == ["typical"] * 2 + ["unusual"] * 2
    assert found["clip_id"][0] == clips["clip_id"][0]
    left = clips.filter(~pl.col("track").is_in(found["track"][:2].implode()))
    assert found["clip_id"][2] == left.sort("score")["clip_id"][0]


# -- walks


def test_a_walk_visits_every_hit_once_and_is_no_longer_than_by_rank():
    for seed in range(5):
        points = np.random.default_rng(seed).standard_normal((40, 3))
        similarities = -np.linalg.norm(points[:, None] - points[None], axis=2)
        order = walk(similarities)
        assert order[0] == 0 and sorted(order) == list(range(40)) and (walk(similarities) == order).all()
        assert similarities[order[:-1], order[1:]].sum() > similarities[np.arange(39), np.arange(1, 40)].sum()
        near = [0]                       # the nearest that is left, without improvement
        while len(near) < 40:
            near.append(max(set(range(40)) - set(near), key=lambda one: similarities[near[-1], one]))
        assert similarities[order[:-1], order[1:]].sum() >= similarities[near[:-1], near[1:]].sum()


def test_a_walk_along_a_line_is_the_line():
    place = np.random.default_rng(1).permutation(12)
    place = np.concatenate([[-1], place]).astype(float)              # the first hit lies at its end
    assert place[walk(-np.abs(place[:, None] - place[None]))].tolist() == sorted(place)
    assert walk(np.zeros((0, 0))).tolist() == [] and walk(np.zeros((1, 1))).tolist() == [0]


def test_hits_as_a_walk_are_the_hits_in_another_order(filled):
    clip = filled.vectors().ids()[9]
    for how in ({"layer": 0}, {"layer": 0, "metric": "l2"}, {"layers": "all"}, {"layer": 1, "like": "tags"}):
        hits, walked = (index.similar(filled, clip, k=15, order=order, **how) for order in ("nearest", "walk"))
        assert walked.sort("rank").equals(hits) and walked["rank"][0] == 1 and walked["rank"].to_list() != list(range(1, 16))
    with pytest.raises(InputError, match="order 'random'"):
        index.similar(filled, clip, order="random")


# -- what a query is


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_vector_that_is_not_finite_is_refused(filled, value):
    query = np.ones(4)
    query[2] = value
    for metric in index.METRICS:
        with pytest.raises(InputError, match="1 of 1 vectors hold NaN or infinity"):
            index.similar(filled, query, layer=0, metric=metric)
    with pytest.raises(InputError, match="1 of 2 vectors hold NaN"):
        index.similar_many(filled, np.stack([np.ones(4), query]), layer=0)


def test_not_same_says_where_it_has_no_effect(filled, caplog):
    caplog.set_level(logging.INFO, "tonelake")
    query = np.ones(4, np.float32)
    index.similar(filled, query, layer=0, not_same="artist")
    assert "no artist of the query is known, so nothing is excluded" in caplog.text
    index.similar(filled, query, layer=0, not_same="track")
    assert "the query is not a song of this lake" in caplog.text
    caplog.clear()
    index.similar(filled, filled.vectors().ids()[0], layer=0, not_same="album")
    assert "no album of the query is known" in caplog.text
    caplog.clear()
    index.similar(filled, filled.vectors().ids()[0], layer=0, not_same="artist")
    assert caplog.text == ""


def test_not_same_artist_excludes_each_of_several_artists(lake):
    fill(lake, tracks=6, clips_a_track=2, seed=0)
    clips = lake.clips.read().sort("track")
    names = [["Ada", "Bo"], ["Bo"], ["Cy"], ["Ada"], ["Di", "Bo"], None]
    lake.clips.set_labels(clips.select(
        "clip_id", artist=pl.Series([" & ".join(some or ["Eve"]) for some in names for _ in range(2)]),
        artists=pl.Series([some for some in names for _ in range(2)]),
    ))
    hits = index.similar(lake, clips["clip_id"][0], layer=0, not_same="artist")
    assert set(hits["track"]) == {"track002", "track005"}


@pytest.fixture(scope="module")
def short_lake(tmp_path_factory):
    """Six songs of ten seconds in space `spectral`, with the folder of their files."""
    from tonelake.embed import EmbedSettings, embed_lake

    folder = tmp_path_factory.mktemp("short")
    for number in range(6):
        write(folder / "music" / f"song{number}.wav", melody(10, seed=number, rate=24_000), rate=24_000)
    lake = Lake(folder / "lake")
    ingest_folder(lake, folder / "music", seconds=5)
    embed_lake(lake, EmbedSettings("spectral"), read_clips)
    return lake, folder


def test_a_file_of_the_lake_is_named_and_is_that_song(short_lake, caplog):
    caplog.set_level(logging.INFO, "tonelake")
    lake, folder = short_lake
    hits = index.similar(lake, folder / "music" / "song2.wav", k=10, layer="chroma")
    assert "song2.wav: this file is in the lake as 'song2.wav'" in caplog.text
    assert len(hits) == 5 and "song2.wav" not in set(hits["track"])
    read = index.read_query(lake, folder / "music" / "song2.wav")
    assert len(read.notes) == 1 and len(read.own) == 2


def test_a_short_sound_is_repeated_and_the_note_says_so(short_lake, tmp_path, caplog):
    caplog.set_level(logging.INFO, "tonelake")
    lake, _ = short_lake
    sound = melody(10, seed=3, rate=24_000)
    short = write(tmp_path / "kick.wav", sound[: round(0.4 * 24_000)], rate=24_000)
    long = write(tmp_path / "long.wav", np.tile(sound[: round(0.4 * 24_000)], (3, 1))[:24_000], rate=24_000)
    hits = index.similar(lake, short, k=6, layer="chroma")
    assert "kick.wav: 0.40 s long; repeated up to 1 s" in caplog.text
    assert hits.equals(index.similar(lake, long, k=6, layer="chroma"))
    caplog.clear()                       # a file without tags: no artist of it is known
    assert index.similar(lake, index.read_query(lake, short), k=6, layer="chroma", not_same="artist").equals(hits)
    assert "--not-same artist: no artist of the query is known, so nothing is excluded" in caplog.text


def test_a_long_query_says_how_much_is_compared(short_lake, tmp_path, caplog, monkeypatch):
    from tonelake.index.search import file_vectors

    monkeypatch.setattr(file_vectors, "MAX_QUERY_S", 6.0)
    caplog.set_level(logging.INFO, "tonelake")
    lake, _ = short_lake
    mix = np.concatenate([melody(6, seed=1, rate=24_000), melody(10, seed=4, rate=24_000)])
    index.similar(lake, write(tmp_path / "mix.wav", mix, rate=24_000), k=1, layer="chroma")
    assert "mix.wav: 0:16 long; only the first 0:06 is compared" in caplog.text
