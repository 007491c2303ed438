"""Answers against brute force: NumPy for neighbours and groups, scikit-learn for ranking."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill
from scipy.stats import skew
from sklearn.metrics import average_precision_score, roc_auc_score
from sounds import melody, write

import embed.registry
import index
from index import flat
from index.labels import read_labelled
from index.layer_report import excluded, spans_tracks
from index.retrieval import bootstrap_means, rank, resample_weights
from ingest import Cut, ingest_folder, read_clips
from store import ClipNotFound, FilterError, InputError, SpaceMismatch, SpaceNotFound


def brute_force(lake, query: np.ndarray, layer: int, metric: str, allowed) -> list[tuple[str, float]]:
    """(clip id, score) of allowed clips, nearest first, by NumPy in float64 over the float16 values."""
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
    """Both ways of searching: FAISS, and NumPy where FAISS is not installed."""
    if request.param == "numpy":
        monkeypatch.setattr(flat, "faiss_module", lambda: None)
    else:
        assert flat.faiss_module() is not None
    return request.param


@pytest.mark.parametrize("metric", index.METRICS)
@pytest.mark.parametrize("layer", [0, 1])
def test_neighbours_equal_brute_force_in_ids_and_scores(filled, engine, metric, layer):
    ids, vectors = filled.vectors().layer(layer)
    for row in (0, 57, 239):
        hits = index.similar(filled, ids[row], layer=layer, k=12, metric=metric)
        expected = brute_force(filled, vectors[row], layer, metric, lambda clip, own=ids[row]: clip != own)[:12]
        assert hits["clip_id"].to_list() == [clip for clip, _ in expected]
        score = hits["distance" if metric == "l2" else "score"]
        np.testing.assert_allclose(score, [s for _, s in expected], rtol=1e-5, atol=1e-6)
        assert hits["rank"].to_list() == list(range(1, 13))


@pytest.mark.parametrize("where", ["year > 1970", "artist = 'Artist 3'", "year = 1977 AND start_s >= 40", "start_s = 0"])
def test_a_filter_is_kept_exactly_however_rare(filled, engine, where):
    ids, vectors = filled.vectors().layer(1)
    kept = set(filled.clips.read(["clip_id"], where=where)["clip_id"])
    hits = index.similar(filled, ids[100], where=where, k=30)
    expected = brute_force(filled, vectors[100], 1, "cosine", lambda clip: clip in kept and clip != ids[100])[:30]
    assert hits["clip_id"].to_list() == [clip for clip, _ in expected]


def test_hits_differ_from_the_query_where_asked(filled):
    query = filled.clips.read().row(0, named=True)
    assert query["track"] in set(index.similar(filled, query["clip_id"], layer=0, k=9)["track"])
    assert query["track"] not in set(index.similar(filled, query["clip_id"], layer=0, k=100, not_same="track")["track"])
    assert query["artist"] not in set(index.similar(filled, query["clip_id"], k=200, not_same="artist")["artist"])
    others = index.similar(filled, query["clip_id"], k=240, not_same="tags")["clip_id"]
    tags = filled.clips.take(others.to_list(), ["tags"])["tags"]
    assert len(others) > 0
    assert not any(set(t) & set(query["tags"]) for t in tags)


def test_fewer_hits_than_asked_only_where_there_are_no_more(filled):
    clip = filled.clips.read()["clip_id"][0]
    assert len(index.similar(filled, clip, k=10_000)) == 239
    assert len(index.similar(filled, clip, k=5, where="year = 1")) == 0


def test_excluding_many_rows_gives_the_same_as_excluding_few(filled):
    """Both ways of leaving rows out: a subset, and asking for more neighbours."""
    layer = flat.load_layer(filled, filled.spaces.get(), 1)
    rng = np.random.default_rng(3)
    vectors = flat.unit(rng.standard_normal((5_000, 8)).astype(np.float32))
    big = flat.FlatLayer("cosine", pl.Series([str(i) for i in range(5_000)]), vectors)
    for share in (0.001, 0.3, 0.7, 0.999):
        allowed = rng.random(5_000) > share
        rows, scores = big.search(big.vectors[0] * 3, 10, allowed)
        expected = np.flatnonzero(allowed)[np.argsort(-(big.vectors[allowed] @ big.vectors[0]), kind="stable")[:10]]
        assert rows.tolist() == expected.tolist()
        assert (np.diff(scores) <= 0).all()
    assert layer.search(layer.vectors[0], 3, np.zeros(240, bool))[0].tolist() == []


def test_an_index_is_never_stale(lake):
    space = fill(lake, 4, 3, seed=0)
    clip = lake.clips.read()["clip_id"][0]
    assert len(index.similar(lake, clip, k=100)) == 11
    lake.clips.add(clip_rows(5, 3))
    new = clip_rows(5, 3)["clip_id"].to_list()[12:]
    vector = np.repeat(lake.vectors(space).take([clip], 1).vectors, 3, axis=0)
    low = np.zeros((3, 4), np.float32)
    lake.vectors(space).add(new, [low, vector], [low, vector], [1] * 3)
    hits = index.similar(lake, clip, k=100)
    assert len(hits) == 14
    assert set(hits["clip_id"][:3]) == set(new)
    lake.clips.table.delete("track = 'track004'")
    assert len(index.similar(lake, clip, k=100)) == 11


# -- queries


@pytest.fixture
def heard(lake, music, monkeypatch):
    """The music in a lake, in space `fake`, whose encoder can be loaded again for queries."""
    from embed import embed_clips, settings

    original = embed.registry.load_encoder
    monkeypatch.setattr(
        settings, "load_encoder", lambda name, **how: FakeEncoder() if name == "fake" else original(name, **how)
    )
    ingest_folder(lake, music, Cut(4.5))
    space = lake.spaces.make(settings.describe_space(FakeEncoder(), "fake", 30.0))
    embed_clips(lake, space, FakeEncoder(), read_clips)
    return lake


def test_a_file_that_is_not_in_the_lake_is_embedded_on_the_fly(heard, music, tmp_path):
    """A differently stored copy of a song finds that song's clips first."""
    copy = write(tmp_path / "copy.wav", melody(4.5, seed=3, channels=2), subtype="FLOAT")
    hits = index.similar(heard, str(copy), k=3)
    assert hits["track"][0] == "Ada/song3.ogg"
    assert hits["start_s"][0] == 0
    assert hits["score"][0] > 0.99


def test_a_file_that_is_in_the_lake_is_not_its_own_answer(heard, music, monkeypatch):
    monkeypatch.setattr("index.query.encoder_of", lambda space, home: pytest.fail("its vectors are stored"))
    path = music / "Ada" / "song0.wav"
    hits = index.similar(heard, path, k=20)
    assert len(hits) == 10
    assert "Ada/song0.wav" not in set(hits["track"])
    assert "Ada" not in set(index.similar(heard, path, k=20, not_same="artist")["artist"])
    stored = heard.clips.read(["clip_id"], where="track = 'Ada/song0.wav'")["clip_id"].to_list()
    mean = heard.vectors().take(stored, 1).vectors.mean(axis=0)
    assert hits["clip_id"].to_list() == [c for c, _ in brute_force(heard, mean, 1, "cosine", lambda clip: clip not in stored)]


def test_a_file_with_tags_can_leave_its_artist_out(heard, music, tmp_path):
    other = Path(shutil.copy(music / "Cleo" / "song2.mp3", tmp_path / "x.mp3"))
    with other.open("ab") as file:
        file.write(b"\0" * 200)          # other bytes, so it is not known by content
    assert "Cleo" not in set(index.similar(heard, other, k=20, not_same="artist")["artist"])


def test_a_query_that_cannot_be_is_named(heard, music, tmp_path):
    from ingest import AudioError

    with pytest.raises(ClipNotFound, match="is neither a file nor a clip id"):
        index.similar(heard, "no such file.mp3")
    with pytest.raises(ClipNotFound, match="no clip 'ffffffff'"):
        index.similar(heard, "ffffffff")
    (tmp_path / "page.mp3").write_text("<html>")
    with pytest.raises(AudioError, match=r"page\.mp3: is not audio"):
        index.similar(heard, tmp_path / "page.mp3")
    clip = heard.clips.read()["clip_id"][0]
    for wrong in ({"k": 0}, {"metric": "manhattan"}, {"layer": 9}, {"not_same": "colour"}):
        with pytest.raises(InputError):
            index.similar(heard, clip, **wrong)
    with pytest.raises(FilterError):
        index.similar(heard, clip, where="colour = 'red'")
    with pytest.raises(SpaceNotFound, match="no space 'other'"):
        index.similar(heard, clip, space="other")


def test_a_query_of_another_space_is_refused(filled, lake):
    with pytest.raises(SpaceMismatch, match=r"shape \(4,\), layer high of space 'fake' holds vectors of 6"):
        index.similar(filled, np.zeros(4, np.float32), layer="high")
    lake.clips.add(clip_rows(1, 2))
    fill(lake, 1, 1, seed=0)
    with pytest.raises(InputError, match="not embedded in space 'fake'"):
        index.similar(lake, lake.clips.read()["clip_id"][1])


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
        assert row["nearest"] == names[others[matrix[i, others].argmax()]]
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


def test_groups_of_a_list_column_share_clips(filled):
    table = index.groups(filled, "tags", layer=0)
    assert dict(table.select("tags", "clips").iter_rows()) == {"even": 120, "odd": 120, "tag0": 80, "tag1": 80, "tag2": 80}


def test_a_group_of_one_track_has_no_cohesion(filled):
    assert index.groups(filled, "track")["cohesion"].null_count() == 24


@pytest.mark.parametrize(
    ("column", "name", "words"),
    [
        ("colour", None, "clips have no column 'colour'"),
        ("album", None, "no clip has a value in column 'album'"),
        ("cut", None, "has one value only, '10s/5s'"),
        ("start_s", None, "holds decimal numbers"),
        ("artist", "Artist 33", "did you mean 'Artist 3'"),
    ],
)
def test_a_column_or_name_that_cannot_be_compared_is_named(filled, column, name, words):
    with pytest.raises(InputError, match=words):
        index.groups(filled, column, name)


# -- layers


def test_ranking_agrees_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    for _ in range(100):
        size = rng.integers(2, 40)
        scores = np.round(rng.standard_normal(size), rng.integers(0, 3)).astype(np.float32)
        positive = rng.random(size) < 0.4
        positive[0] = True
        found = rank(scores, positive)
        assert found.precision == pytest.approx(average_precision_score(positive, scores), abs=1e-9)
        assert found.recall[0] == pytest.approx(positive[scores == scores.max()].mean())


def test_recall_and_r_precision_are_the_means_over_every_order_of_ties():
    rng = np.random.default_rng(1)
    for scores, positive in [
        ([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4], [1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ([1] * 12 + [2] * 3, [1, 1] + [0] * 13),
        ([5, 5, 5], [1, 0, 0]),
    ]:
        scores, positive = np.array(scores, np.float32), np.array(positive, bool)
        orders = np.stack([np.lexsort((rng.random(len(scores)), -scores)) for _ in range(4000)])
        ranked = positive[orders]
        found = rank(scores, positive)
        assert found.recall == pytest.approx([ranked[:, :k].any(axis=1).mean() for k in (1, 10)], abs=0.03)
        assert found.r_precision == pytest.approx(ranked[:, : positive.sum()].mean(), abs=0.03)


@pytest.mark.parametrize(("column", "where"), [
    ("artist", None), ("track", None), ("tags", None),
    ("artist", "start_s < 10 AND track IN ('track000', 'track001', 'track004', 'track005')"),    # fewer than the nearest ten
])
def test_the_layer_report_equals_brute_force(filled, column, where):
    """Second opinion: all pairs, one by one, and scikit-learn's curves."""
    report = index.layers(filled, column, where=where)
    rows = filled.clips.read(where=where).to_dicts()
    across = column != "track"
    for number in range(2):
        ids, vectors = filled.vectors().take([r["clip_id"] for r in rows], number)[:2]
        assert ids.to_list() == [r["clip_id"] for r in rows]
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        kinds, scores, precision, first, tenth, r_precision = [], [], [], [], [], []
        times = np.zeros(len(rows))
        for i, a in enumerate(rows):
            same, score, other = [], [], []
            for j, b in enumerate(rows):
                apart = abs(a["start_s"] - b["start_s"]) >= 10 - 1e-9
                if a["track"] == b["track"] and (across or not apart):
                    continue
                same.append(bool(set(a["tags"]) & set(b["tags"])) if column == "tags" else a[column] == b[column])
                score.append(float(unit[i] @ unit[j]))
                other.append(j)
            order = np.argsort(-np.array(score), kind="stable")
            tenth.append(any(np.array(same)[order[:10]]))
            r_precision.append(np.array(same)[order[: sum(same)]].mean())
            times[np.array(other)[order[:10]]] += 1
            kinds += same
            scores += score
            precision.append(average_precision_score(same, score))
            first.append(same[int(np.argmax(score))])
        kinds, scores = np.array(kinds), np.array(scores)
        row = report.table.row(number, named=True)
        assert row["same"] == pytest.approx(scores[kinds].mean(), abs=1e-5)
        assert row["different"] == pytest.approx(scores[~kinds].mean(), abs=1e-5)
        assert row["span"] == pytest.approx(row["same"] - row["different"])
        assert row["auc"] == pytest.approx(roc_auc_score(kinds, scores), abs=1e-4)
        assert row["map"] == pytest.approx(np.mean(precision), abs=1e-4)
        assert row["recall_1"] == pytest.approx(np.mean(first), abs=1e-3)
        assert row["recall_10"] == pytest.approx(np.mean(tenth), abs=1e-3)
        assert row["r_precision"] == pytest.approx(np.mean(r_precision), abs=1e-3)
        assert row["anisotropy"] == pytest.approx(scores.mean(), abs=1e-5)
        assert row["hubness"] == pytest.approx(skew(times) if np.ptp(times) else 0, abs=1e-3)
        for figure in ("span", "auc", "recall_1", "recall_10", "r_precision", "map", "anisotropy", "hubness"):
            assert row[f"{figure}_low"] <= row[figure] <= row[f"{figure}_high"], figure
        drawn = report.histograms.filter(layer=number)
        assert drawn["same"].sum() == pytest.approx(1) == drawn["different"].sum()
        middle = (drawn["low"] + drawn["high"]) / 2
        assert (drawn["same"] * middle).sum() == pytest.approx(row["same"], abs=0.02)
    assert report.chance == pytest.approx(kinds.mean(), abs=0.01)


def test_preparations_do_what_they_say(filled):
    from index.separation import PREPARATIONS

    vectors = filled.vectors().layer("high").vectors
    assert PREPARATIONS["raw"](vectors) is vectors
    np.testing.assert_allclose(np.linalg.norm(PREPARATIONS["l2"](vectors), axis=1), 1, atol=1e-6)
    away = vectors - vectors.mean(axis=0)
    np.testing.assert_allclose(PREPARATIONS["centred"](vectors), away / np.linalg.norm(away, axis=1, keepdims=True), atol=1e-6)
    many = (np.random.default_rng(0).standard_normal((20_000, 3)) * [1, 5, 0.2] + 4).astype(np.float32)
    white = PREPARATIONS["whitened"](many)
    inverse = np.linalg.inv(np.cov(many.T))                          # cosines there are Mahalanobis' inner products
    a, b = (many[i].astype(np.float64) - many.mean(axis=0) for i in (3, 8))
    mahalanobis = a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))
    assert white[3] @ white[8] == pytest.approx(mahalanobis, abs=0.01)


def test_effects_tell_what_preparations_gain(lake):
    """All vectors lean one way, and what tells artists apart is small: centring and whitening bring it out."""
    rows = clip_rows(24, 6)
    lake.clips.add(rows)
    from store import Space

    space = lake.spaces.make(Space("lean", "1", 24_000, ("a",), (16,), 30.0, 30.0, "float32"))
    rng = np.random.default_rng(2)
    track = np.repeat(np.arange(24), 6)
    vectors = 8 + 3 * rng.standard_normal((144, 1)) * rng.standard_normal(16) + rng.standard_normal((6, 16))[track // 4]
    vectors = (vectors + 0.4 * rng.standard_normal((144, 16))).astype(np.float32)
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors], [vectors], [1] * 144)
    table = index.effects(lake, "artist")
    row = {r["prepared"]: r for r in table.to_dicts()}
    assert list(row) == ["l2", "raw", "centred", "whitened"]
    assert row["l2"]["gain"] == 0
    assert row["whitened"]["gain_low"] > 0.1
    assert row["l2"]["anisotropy"] > 0.6 > 0.2 > abs(row["centred"]["anisotropy"])
    report = index.layers(lake, "artist", prepare="whitened")
    assert report.table["map"][0] == pytest.approx(row["whitened"]["map"])
    assert row["whitened"]["gain"] == pytest.approx(row["whitened"]["map"] - row["l2"]["map"])
    with pytest.raises(InputError, match="no preparation 'pca'"):
        index.layers(lake, "artist", prepare="pca")


def test_the_jackknife_gives_the_standard_error_of_a_mean():
    from index.separation import jackknife

    values = np.random.default_rng(0).standard_normal(40)
    error = jackknife(lambda left: left @ values / left.sum(axis=1), 40)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(40))


def test_a_hub_shows(lake):
    """One clip that is near all others."""
    rows = clip_rows(40, 5)
    lake.clips.add(rows)
    from store import Space

    space = lake.spaces.make(Space("hub", "1", 24_000, ("even", "hub"), (32, 32), 30.0, 30.0, "float32"))
    vectors = np.random.default_rng(2).standard_normal((200, 32)).astype(np.float32)
    hub = vectors.copy()
    hub[::20] = vectors.mean(axis=0)
    hub += 0.5
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors, hub], [vectors, hub], [1] * 200)
    even, with_hub = index.layers(lake, "artist").table["hubness"]
    assert with_hub > even + 1


def test_the_recommended_layer_is_the_one_made_for_it(filled):
    assert index.layers(filled, "artist").recommended == "high"
    assert index.layers(filled, "track").recommended == "low"


def test_pairs_that_would_flatter_a_layer_do_not_count(filled):
    artists, tracks = (read_labelled(filled, filled.spaces.get(), c) for c in ("artist", "track"))
    assert spans_tracks(artists)
    assert not spans_tracks(tracks)
    assert excluded(artists, np.array([5]), True)[0].sum() == 10                 # its whole track
    assert excluded(tracks, np.array([5]), False)[0].nonzero()[0].tolist() == [4, 5, 6]      # 10 s every 5 s


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Means of 40 tracks of correlated queries: the 95 % interval holds the true mean in about 95 of 100 samples."""
    rng = np.random.default_rng(1)
    weights = resample_weights(40, 400, seed=0)
    unit_of = np.repeat(np.arange(40), 6)
    covered = 0
    for _ in range(200):
        values = np.repeat(rng.standard_normal(40), 6) + 0.3 * rng.standard_normal(240)
        low, high = np.percentile(bootstrap_means(values[None], unit_of, weights)[:, 0], [2.5, 97.5])
        covered += low < 0 < high
    assert 180 <= covered <= 199


def test_the_report_is_the_same_for_the_same_seed_and_samples_when_clips_are_many(filled, monkeypatch):
    assert index.layers(filled, "artist").table.equals(index.layers(filled, "artist").table)
    whole = index.layers(filled, "artist")
    monkeypatch.setattr("index.layer_report.PAIR_BUDGET", 1)
    sampled = index.layers(filled, "artist")
    assert (whole.queries, sampled.queries) == (240, 200)
    assert abs(whole.table["map"][1] - sampled.table["map"][1]) < 0.05


def test_a_column_without_two_groups_to_compare_says_so(filled, lake):
    with pytest.raises(InputError, match="layers cannot be compared by it"):
        index.layers(filled, "cut")
    with pytest.raises(InputError, match="layers cannot be compared by it"):
        index.layers(filled, "artist", where="start_s = 0 AND year IN (1960, 1964, 1968)")


def test_clips_that_are_not_embedded_hide_none_that_is(lake):
    """Of the query's own track one clip has no vector: the last row of the table is an answer all the same."""
    space = fill(lake, 6, 4, seed=0)
    lake.clips.add(clip_rows(6, 5))
    ids = lake.vectors(space).ids().to_list()
    for last in (ids[-1], ids[0]):
        lake.vectors(space).table.delete(f"clip_id = '{ids[5]}'")
        hits = index.similar(lake, ids[8], layer="low", k=23, not_same="track")
        track = lake.clips.find(ids[8])["track"]
        expected = set(lake.clips.read(where=f"track != '{track}'")["clip_id"]) & set(lake.vectors(space).ids())
        assert last in hits["clip_id"] and set(hits["clip_id"]) == expected


def test_layers_stay_in_memory_while_there_is_room(lake, monkeypatch):
    space = fill(lake, 6, 4, seed=0)
    monkeypatch.setattr(flat, "_kept", type(flat._kept)())
    monkeypatch.setattr(flat, "memory_bytes", lambda: 1 << 30)
    low, high = (flat.load_layer(lake, space, layer) for layer in (0, 1))
    assert flat.load_layer(lake, space, 0) is low and flat.load_layer(lake, space, 1) is high
    monkeypatch.setattr(flat, "memory_bytes", lambda: 4 * (low.vectors.nbytes + high.vectors.nbytes - 1))
    flat.load_layer(lake, space, 0)      # used last: stays
    flat.load_layer(lake, space, 0, metric="ip")
    assert len(flat._kept) == 2 and flat.load_layer(lake, space, 0) is low
    assert flat.load_layer(lake, space, 1) is not high
