"""Neighbours and groups against brute force in NumPy."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill
from sounds import encode, melody, write
from tagged import info_of, with_chunks

from tonelake import embed, index
from tonelake.index.search import exact, faiss, file_vectors, narrow, similar
from tonelake.index.vectors import unit
from tonelake.ingest import ingest_folder, read_clips
from tonelake.store import ClipNotFound, FilterError, InputError, Lake, SpaceMismatch, SpaceNotFound


def brute_force(lake, query: np.ndarray, layer: int, metric: str, allowed) -> list[tuple[str, float]]:
    """Return (clip id, score) of allowed clips, nearest first, by NumPy in float64 over the float16 values."""
    ids, vectors = lake.vectors().layer(layer)
    vectors, query = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        scores = np.sqrt(((vectors - query) ** 2).sum(axis=1))
        order = np.argsort(scores, kind="stable")
    else:
        scores = vectors @ query
        if metric == "cosine":
            scores /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
        order = np.argsort(-scores, kind="stable")
    return [(ids[int(i)], scores[i]) for i in order if allowed(ids[int(i)])]


@pytest.fixture(params=["faiss", "numpy"])
def engine(request, monkeypatch):
    """Run with FAISS, and with NumPy as if FAISS were not installed."""
    if request.param == "numpy":
        monkeypatch.setattr(faiss, "faiss_module", lambda: None)
    else:
        assert faiss.faiss_module() is not None
    return request.param


@pytest.mark.parametrize("metric", index.METRICS)
@pytest.mark.parametrize("layer", [0, 1])
def test_neighbours_equal_brute_force_in_ids_and_scores(filled, engine, metric, layer):
    ids, vectors = filled.vectors().layer(layer)
    for row in (0, 57, 239):
        hits = index.similar(filled, ids[row], layer=layer, k=12, metric=metric, clips=True)
        expected = brute_force(filled, vectors[row], layer, metric, lambda clip, own=ids[row]: clip != own)[:12]
        assert hits["clip_id"].to_list() == [clip for clip, _ in expected]
        score = hits["distance" if metric == "l2" else "score"]
        np.testing.assert_allclose(score, [s for _, s in expected], rtol=1e-5, atol=1e-6)
        assert hits["rank"].to_list() == list(range(1, 13))


@pytest.mark.parametrize("where", ["year > 1970", "artist = 'Artist 3'", "year = 1977 AND start_s >= 40", "start_s = 0"])
def test_a_filter_is_exact_even_if_few_clips_match(filled, engine, where):
    ids, vectors = filled.vectors().layer(1)
    kept = set(filled.clips.read(["clip_id"], where=where)["clip_id"])
    hits = index.similar(filled, ids[100], where=where, k=30, clips=True)
    expected = brute_force(filled, vectors[100], 1, "cosine", lambda clip: clip in kept and clip != ids[100])[:30]
    assert hits["clip_id"].to_list() == [clip for clip, _ in expected]


def test_a_narrow_filter_compares_only_its_clips_where_memory_cannot_hold_the_layer(filled, monkeypatch):
    ids = filled.vectors().ids()
    ways = ({"clips": True}, {}, {"hubs": "corrected"}, {"metric": "l2"}, {"layers": "0:0.5,1:0.5"}, {"per": ("artist", 1)})
    expected = [index.similar(filled, ids[100], where="year = 1977", **way) for way in ways]
    exact._cache.clear()
    monkeypatch.setattr(narrow, "memory_bytes", lambda: 1)
    monkeypatch.setattr(similar, "load_layer", None)         # so that calling it fails
    for way, found in zip(ways, expected, strict=True):
        again = index.similar(filled, ids[100], where="year = 1977", **way)
        scored = [name for name in ("score", "distance") if name in found.columns]
        assert again.drop(scored).equals(found.drop(scored))
        np.testing.assert_allclose(again[scored[0]], found[scored[0]], atol=1e-6)


def test_a_filter_is_looked_up_once_until_clips_change(lake, monkeypatch):
    fill(lake, tracks=4, clips_a_track=3, seed=0)
    clip, asked, ids = lake.clips.ids()[0], [], lake.clips.ids
    monkeypatch.setattr(lake.clips, "ids", lambda where=None, **how: asked.append(where) or ids(where, **how))
    found = [set(index.similar(lake, clip, where="year = 1962", clips=True)["track"]) for _ in range(2)]
    assert found == [{"track002"}] * 2
    assert asked.count("year = 1962") == 1
    lake.clips.update(pl.DataFrame({"clip_id": [ids()[-1]], "year": [1962]}))
    assert set(index.similar(lake, clip, where="year = 1962", clips=True)["track"]) == {"track002", "track003"}
    for _ in range(2):                   # what passes this filter depends on the time
        index.similar(lake, clip, where="added_at < now()", clips=True)
    assert asked.count("added_at < now()") == 2


def test_not_same_excludes_hits_that_share_the_querys_value(filled):
    query = filled.clips.read().row(0, named=True)
    assert query["track"] in set(index.similar(filled, query["clip_id"], layer=0, k=9, clips=True)["track"])
    others = index.similar(filled, query["clip_id"], layer=0, k=100, not_same="track", clips=True)
    assert query["track"] not in set(others["track"])
    assert query["artist"] not in set(index.similar(filled, query["clip_id"], k=200, not_same="artist", clips=True)["artist"])
    others = index.similar(filled, query["clip_id"], k=240, not_same="tags", clips=True)["clip_id"]
    tags = filled.clips.take(others.to_list(), ["tags"])["tags"]
    assert len(others) > 0
    assert not any(set(t) & set(query["tags"]) for t in tags)


def test_fewer_than_k_hits_only_if_there_are_no_more(filled):
    clip = filled.clips.read()["clip_id"][0]
    assert len(index.similar(filled, clip, k=10_000, clips=True)) == 239
    assert len(index.similar(filled, clip, k=5, where="year = 1", clips=True)) == 0


def test_excluding_many_rows_and_few_rows_give_equal_results(filled):
    """Covers both ways to exclude rows: searching a subset, and searching for more neighbours."""
    layer = exact.load_layer(filled, filled.spaces.get(), 1)
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((5_000, 8)).astype(np.float32))
    big = exact.ExactLayer("cosine", pl.Series([str(i) for i in range(5_000)]), vectors)
    for share in (0.001, 0.3, 0.7, 0.999):
        allowed = rng.random(5_000) > share
        rows, scores = big.search(big.vectors[0] * 3, 10, allowed)
        expected = np.flatnonzero(allowed)[np.argsort(-(big.vectors[allowed] @ big.vectors[0]), kind="stable")[:10]]
        assert rows.tolist() == expected.tolist()
        assert (np.diff(scores) <= 0).all()
    assert layer.search(layer.vectors[0], 3, np.zeros(240, bool))[0].tolist() == []


def test_search_sees_new_and_deleted_clips(lake):
    space = fill(lake, 4, 3, seed=0)
    clip = lake.clips.read()["clip_id"][0]
    assert len(index.similar(lake, clip, k=100, clips=True)) == 11
    lake.clips.add(clip_rows(5, 3))
    new = clip_rows(5, 3)["clip_id"].to_list()[12:]
    vector = np.repeat(lake.vectors(space).take([clip], 1).vectors, 3, axis=0)
    low = np.zeros((3, 4), np.float32)
    lake.vectors(space).add(new, [low, vector], [low, vector], [1] * 3)
    hits = index.similar(lake, clip, k=100, clips=True)
    assert len(hits) == 14
    assert set(hits["clip_id"][:3]) == set(new)
    lake.clips.table.delete("track = 'track004'")
    assert len(index.similar(lake, clip, k=100, clips=True)) == 11


# -- queries


@pytest.fixture(scope="module")
def music_lake(tmp_path_factory, music):
    """A lake of the music in space `fake`.  Do not change it."""
    from tonelake.embed import embed_clips, settings

    lake = Lake(tmp_path_factory.mktemp("music_lake") / "lake")
    ingest_folder(lake, music, seconds=4.5)
    space = lake.spaces.make(settings.describe_space(FakeEncoder(), "fake", 30.0))
    embed_clips(lake, space, FakeEncoder(), read_clips)
    return lake


@pytest.fixture
def embedded(music_lake, monkeypatch):
    """`music_lake`, whose encoder can be loaded again for queries."""
    from tonelake.embed import settings

    original = embed.encoders.registry.load_encoder
    monkeypatch.setattr(
        settings, "load_encoder", lambda name, **how: FakeEncoder() if name == "fake" else original(name, **how)
    )
    return music_lake


def test_a_file_that_is_not_in_the_lake_is_embedded_on_the_fly(embedded, music, tmp_path):
    """A copy of a song in another format finds that song's clips first."""
    copy = write(tmp_path / "copy.wav", melody(4.5, seed=3, channels=2), subtype="FLOAT")
    hits = index.similar(embedded, str(copy), k=3, clips=True)
    assert hits["track"][0] == "Ada/song3.ogg"
    assert hits["start_s"][0] == 0
    assert hits["score"][0] > 0.99


def test_a_file_that_is_in_the_lake_is_not_its_own_hit(embedded, music, monkeypatch):
    monkeypatch.setattr(file_vectors, "encoder_of", lambda space, home: pytest.fail("its vectors are stored"))
    path = music / "Ada" / "song0.wav"
    hits = index.similar(embedded, path, k=20, clips=True)
    assert len(hits) == 10
    assert "Ada/song0.wav" not in set(hits["track"])
    assert "Ada" not in set(index.similar(embedded, path, k=20, not_same="artist", clips=True)["artist"])
    stored = embedded.clips.read(["clip_id"], where="track = 'Ada/song0.wav'")["clip_id"].to_list()
    mean = embedded.vectors().take(stored, 1).vectors.mean(axis=0)
    expected = brute_force(embedded, mean, 1, "cosine", lambda clip: clip not in stored)
    assert hits["clip_id"].to_list() == [clip for clip, _ in expected]


def test_a_file_with_other_tags_is_recognised_by_its_audio(embedded, music, tmp_path, monkeypatch):
    monkeypatch.setattr(file_vectors, "encoder_of", lambda space, home: pytest.fail("its vectors are stored"))
    sound = (music / "Ada" / "song0.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(with_chunks(sound, info_of({"title": "Other", "artist": "Other"})))
    hits = index.similar(embedded, tmp_path / "x.wav", k=20, not_same="artist", clips=True)
    assert hits.equals(index.similar(embedded, music / "Ada" / "song0.wav", k=20, not_same="artist", clips=True))


def test_a_files_own_artist_can_be_excluded_by_its_tags(embedded, tmp_path):
    other = encode(tmp_path / "x.mp3", melody(3, seed=50, channels=2), tags={"artist": "Cleo"})
    assert "Cleo" not in set(index.similar(embedded, other, k=20, not_same="artist", clips=True)["artist"])


def test_an_invalid_query_is_named(embedded, music, tmp_path):
    from tonelake.ingest import AudioError

    with pytest.raises(ClipNotFound, match="neither a file nor a clip id"):
        index.similar(embedded, "no such file.mp3", clips=True)
    with pytest.raises(ClipNotFound, match="clip 'ffffffff': not in this lake"):
        index.similar(embedded, "ffffffff", clips=True)
    (tmp_path / "page.mp3").write_text("<html>")
    with pytest.raises(AudioError, match=r"page\.mp3: is not audio"):
        index.similar(embedded, tmp_path / "page.mp3", clips=True)
    clip = embedded.clips.read()["clip_id"][0]
    for wrong in ({"k": 0}, {"metric": "manhattan"}, {"layer": 9}, {"not_same": "colour"}):
        with pytest.raises(InputError):
            index.similar(embedded, clip, **wrong, clips=True)
    with pytest.raises(FilterError):
        index.similar(embedded, clip, where="colour = 'red'", clips=True)
    with pytest.raises(SpaceNotFound, match="no space 'other'"):
        index.similar(embedded, clip, space="other", clips=True)


def test_a_query_that_is_no_query_is_an_error_not_a_surprise(filled):
    clip = filled.clips.ids()[0]
    for wrong in (np.array(["a"] * 6), np.ones(6, complex), np.array([None] * 6), np.ones(6, bool)):
        with pytest.raises(InputError, match=r"its values are of type .* Give real numbers"):
            index.similar(filled, wrong, layer="high")
        with pytest.raises(InputError, match="Give real numbers"):
            index.similar_many(filled, wrong[None], layer="high")
    with pytest.raises(InputError, match=r"query 1\.0: not a clip, a file or a vector"):
        index.similar(filled, [1.0] * 6)
    with pytest.raises(ClipNotFound, match="clip 'nope': not in this lake"):
        index.similar_many(filled, [clip, "nope"])
    assert index.similar_many(filled, clip, k=2).equals(index.similar_many(filled, [clip], k=2))
    twice = index.similar_many(filled, [clip, clip], k=3)
    assert twice["rank"].to_list() == [1, 2, 3] * 2 and twice["clip_id"].n_unique() == 3
    assert index.similar(filled, [clip, clip], k=5).equals(index.similar(filled, clip, k=5))
    assert len(index.similar(filled, np.ones(6, int), layer="high", k=3)) == 3


def test_a_query_of_another_space_is_refused(filled, lake):
    with pytest.raises(SpaceMismatch, match=r"shape \(4,\), layer high of space 'fake' holds vectors of 6"):
        index.similar(filled, np.zeros(4, np.float32), layer="high", clips=True)
    lake.clips.add(clip_rows(1, 2))
    fill(lake, 1, 1, seed=0)
    with pytest.raises(InputError, match="space 'fake': 1 of 1 clips are not embedded"):
        index.similar(lake, lake.clips.read()["clip_id"][1], clips=True)


# -- groups


def test_groups_equal_brute_force(filled):
    table = index.groups(filled, "artist", layer="high")
    ids, vectors = filled.vectors().layer("high")
    clips = filled.clips.take(ids.to_list(), ["artist", "track"])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    names = sorted(set(clips["artist"]))
    centroid = np.stack([unit[(clips["artist"] == n).to_numpy()].mean(axis=0) for n in names])
    centroid /= np.linalg.norm(centroid, axis=1, keepdims=True)
    matrix = centroid @ centroid.T
    for i, row in enumerate(table.iter_rows(named=True)):
        others = np.delete(np.arange(6), i)
        assert row["artist"] == names[i]
        assert (row["nearest"] or row["tied"][0]) == names[others[matrix[i, others].argmax()]]
        assert row["similarity"] == pytest.approx(matrix[i, others].max(), abs=1e-5)
        assert (row["clips"], row["tracks"]) == (40, 4)
        mine = np.flatnonzero((clips["artist"] == names[i]).to_numpy())
        pairs = [unit[a] @ unit[b] for a in mine for b in mine if clips["track"][int(a)] != clips["track"][int(b)]]
        assert row["cohesion"] == pytest.approx(np.mean(pairs), abs=1e-5)
    written = index.group_matrix(filled, "artist", layer="high")
    np.testing.assert_allclose(written.drop("artist").to_numpy(), matrix, atol=1e-5)
    near = index.groups(filled, "artist", "aRTIST 2", layer="high", k=3)
    others = np.delete(np.arange(6), 2)
    assert near["artist"].to_list() == [names[i] for i in others[np.argsort(-matrix[2, others])][:3]]


def test_groups_of_a_list_column_can_share_clips(filled):
    table = index.groups(filled, "tags", layer=0)
    assert dict(table.select("tags", "clips").iter_rows()) == {"even": 120, "odd": 120, "tag0": 80, "tag1": 80, "tag2": 80}


def test_a_group_of_one_track_has_no_cohesion(filled):
    assert index.groups(filled, "track")["cohesion"].null_count() == 24


@pytest.mark.parametrize(
    ("column", "name", "words"),
    [
        ("colour", None, "clips: no column 'colour'"),
        ("album", None, "no clip has a value in column 'album'"),
        ("cut", None, "has one value only, '10s/5s'"),
        ("start_s", None, "holds decimal numbers"),
        ("artist", "Artist 33", "Did you mean 'Artist 3'"),
    ],
)
def test_a_column_or_name_that_cannot_be_compared_is_named(filled, column, name, words):
    with pytest.raises(InputError, match=words):
        index.groups(filled, column, name)


def test_clips_without_vectors_do_not_hide_clips_with_vectors(lake):
    """One clip of the query's own track has no vector: the last row of the table must still be a hit."""
    space = fill(lake, 6, 4, seed=0)
    lake.clips.add(clip_rows(6, 5))
    ids = lake.vectors(space).ids().to_list()
    for last in (ids[-1], ids[0]):
        lake.vectors(space).table.delete(f"clip_id = '{ids[5]}'")
        hits = index.similar(lake, ids[8], layer="low", k=23, not_same="track", clips=True)
        track = lake.clips.find(ids[8])["track"]
        expected = set(lake.clips.read(where=f"track != '{track}'")["clip_id"]) & set(lake.vectors(space).ids())
        assert last in hits["clip_id"] and set(hits["clip_id"]) == expected


def test_layers_are_cached_within_the_memory_budget(lake, monkeypatch):
    space = fill(lake, 6, 4, seed=0)
    monkeypatch.setattr(exact, "_cache", type(exact._cache)())
    monkeypatch.setattr(exact, "memory_bytes", lambda: 1 << 30)
    low, high = (exact.load_layer(lake, space, layer) for layer in (0, 1))
    assert exact.load_layer(lake, space, 0) is low and exact.load_layer(lake, space, 1) is high
    monkeypatch.setattr(exact, "memory_bytes", lambda: 4 * (low.vectors.nbytes + high.vectors.nbytes - 1))
    exact.load_layer(lake, space, 0)      # most recently used: stays
    exact.load_layer(lake, space, 0, metric="ip")
    assert len(exact._cache) == 2 and exact.load_layer(lake, space, 0) is low
    assert exact.load_layer(lake, space, 1) is not high
