"""Maps: neighbours stay neighbours, a seed reproduces, new clips are placed, and layers start from each other."""

from __future__ import annotations

import json
import math
import shutil
import warnings

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from fakes import clip_rows, fill
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.index.maps.clusters import characteristic_values, describe_clusters, find_clusters
from tonelake.index.maps.layout import align_points, lay_out
from tonelake.index.maps.umap import EPOCHS
from tonelake.index.search.neighbour_graph import neighbour_graph
from tonelake.store import InputError, Lake, Space

DIM, KINDS, CLIPS_PER_TRACK = 32, 6, 10


def add(lake, space, rows, seed):
    """Add clips of six kinds, labelled as genres, that are well separated in both layers."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(77).standard_normal((KINDS, DIM)) * 3
    kind = np.array([int(t[-3:]) % KINDS for t in rows["track"]])
    lake.clips.add(rows.with_columns(genre=pl.Series([f"genre {k}" for k in kind])))
    layers = [(centres[kind] + rng.standard_normal((len(rows), DIM)) * noise).astype(np.float32) for noise in (1.0, 1.1)]
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, layers, [1] * len(rows))


@pytest.fixture(scope="module")
def kinds_lake(tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("kinds") / "lake")
    space = lake.spaces.make(Space(
        name="kinds", revision="1", sample_rate=24_000, layers=("a", "b"), dims=(DIM, DIM),
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    add(lake, space, clip_rows(60, CLIPS_PER_TRACK), seed=0)
    return lake


@pytest.fixture
def kinds(kinds_lake, tmp_path):
    """A copy of `kinds_lake` that a test may change."""
    return Lake(shutil.copytree(kinds_lake.uri, tmp_path / "lake"))


@pytest.fixture(scope="module")
def mapped_lake(kinds_lake, tmp_path_factory):
    """`kinds_lake` with the map of its default layer.  Do not change it."""
    lake = Lake(shutil.copytree(kinds_lake.uri, tmp_path_factory.mktemp("mapped") / "lake"))
    assert index.make_map(lake).done == "made"
    return lake


@pytest.fixture
def mapped(mapped_lake, tmp_path):
    """A copy of `mapped_lake` that a test may change."""
    return Lake(shutil.copytree(mapped_lake.uri, tmp_path / "lake"))


def points(made):
    return made.points.select("projection_x", "projection_y").to_numpy()


def genres(lake, made):
    return lake.clips.take(made.points["clip_id"].to_list(), ["genre"])["genre"]


def agreement(lake, made, k=10):
    """Return the mean share of a point's nearest points with its genre."""
    at, genre = points(made), genres(lake, made).to_numpy()
    far = np.linalg.norm(at[:, None] - at[None], axis=2)
    near = np.argsort(far, axis=1)[:, 1 : k + 1]
    return (genre[near] == genre[:, None]).mean()


def test_a_map_keeps_kinds_together_and_labels_their_clusters(kinds):
    made = index.make_map(kinds)
    assert made.done == "made"
    assert agreement(kinds, made) > 0.98
    assert len(made.clusters) == KINDS
    found = [next(label for label in labels if label.startswith("genre")) for labels in made.clusters["labels"]]
    assert sorted(found) == [f"genre genre {k} (100%)" for k in range(KINDS)]
    assert made.points["clip_id"].to_list() == kinds.vectors().ids().to_list()


@pytest.mark.parametrize("lists", [False, True])
def test_characteristic_values_equal_the_papers_formula(lists):
    rng = np.random.default_rng(0)
    cluster = np.repeat([0, 1, 2, -1], [150, 40, 20, 30])
    names = np.array(["a", "b", "c"])[rng.integers(3, size=240)]
    names[:150:2], names[150:170] = "a", "b"
    values = pl.Series("mood", [["all", name] for name in names] if lists else names)
    found = {(one.cluster, one.value): (one.score, str(one)) for one in characteristic_values(values, cluster)}
    wanted = {}
    for which, size in ((0, 150), (1, 40), (2, 20)):
        for name in "abc":
            mass = min(size, 100)
            prior = mass * float((names == name).mean())
            inside = int((names[cluster == which] == name).sum())
            outside = int((names[cluster != which] == name).sum())
            odds = [(n + prior) / (of + mass - n - prior) for n, of in ((inside, size), (outside, 240 - size))]
            z = math.log(odds[0] / odds[1]) / math.sqrt(1 / (inside + prior) + 1 / (outside + prior))
            if z > 2:
                wanted[which, name] = (pytest.approx(z), f"mood {name} ({inside / size:.0%})")
    assert {(0, "a"), (1, "b")} <= wanted.keys() and found == wanted             # a value of every clip characterises none


def test_the_file_has_the_columns_that_other_viewers_read(kinds):
    made = index.make_map(kinds, layer="b")
    assert made.file == f"{kinds.uri}/maps/kinds/01.parquet"
    table = pq.read_table(made.file)
    assert {"clip_id", "projection_x", "projection_y", "neighbors", "cluster", "artist", "title"} <= set(table.column_names)
    row = table.slice(7, 1).to_pylist()[0]
    vectors = kinds.vectors().layer("b").vectors.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[7]
    cosines[7] = -1
    assert row["neighbors"]["ids"] == np.argsort(-cosines, kind="stable")[:15].tolist()
    np.testing.assert_allclose(row["neighbors"]["distances"], 1 - np.sort(cosines)[::-1][:15], atol=1e-5)
    assert json.loads(table.schema.metadata[b"tonelake"])["fingerprint"] == kinds.spaces.get(None).fingerprint


def test_a_seed_reproduces_and_an_existing_map_is_reused(mapped):
    first = index.make_map(mapped)
    assert first.done == "unchanged"
    again = index.make_map(mapped, again=True)
    assert again.done == "made"
    np.testing.assert_array_equal(points(first), points(again))
    other = index.make_map(mapped, again=True, seed=1)
    assert not np.array_equal(points(first), points(other))


def test_new_clips_are_placed_and_the_others_stay(mapped):
    before = index.make_map(mapped)
    rows = clip_rows(66, CLIPS_PER_TRACK)
    add(mapped, mapped.spaces.get(None), rows.filter(pl.col("track") > "track059"), seed=5)
    after = index.make_map(mapped)
    assert after.done == "60 new clips placed"
    np.testing.assert_array_equal(points(after)[:600], points(before))
    assert agreement(mapped, after) > 0.98
    mapped.clips.table.delete("track = 'track000'")
    gone = index.make_map(mapped)
    assert len(gone.points) == 650
    assert not set(gone.points["clip_id"]) & set(rows.filter(track="track000")["clip_id"])
    assert max(max(ids) for ids in gone.points["neighbors"].struct["ids"]) < 650
    add(mapped, mapped.spaces.get(None), clip_rows(120, CLIPS_PER_TRACK).filter(pl.col("track") > "track065"), seed=6)
    assert index.make_map(mapped).done == "made"


def test_layers_start_from_each_other(mapped):
    """A clip moves little between chained maps, and at most 0.05 more than between independent ones."""
    def moved(a, b):
        a, b = points(a), points(b)
        b = align_points(b, a)
        return np.median(np.linalg.norm(a - b, axis=1)) / np.linalg.norm(a - a.mean(axis=0), axis=1).mean()

    first = index.make_map(mapped, layer="a")
    chained = index.make_map(mapped, layer="b")
    vectors = mapped.vectors().layer("b").vectors
    alone = lay_out(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    own = chained.__class__(**{**vars(chained), "points": chained.points.with_columns(
        projection_x=pl.Series(alone.points[:, 0]), projection_y=pl.Series(alone.points[:, 1]))})
    assert moved(first, chained) < 0.4
    assert moved(first, chained) <= moved(first, own) + 0.05
    assert agreement(mapped, chained) > 0.98
    assert index.mapped_layers(mapped, mapped.spaces.get(None)) == [0, 1]


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_the_layout_equals_that_of_umap_learn_for_the_same_neighbours(spread):
    """Distances must match to the last bit, since any difference grows within a few epochs."""
    vectors = np.random.default_rng(2).standard_normal((200, 12)) * 0.9 ** np.arange(12) + 0.3
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    start = np.random.default_rng(3).standard_normal((200, 2)) * 5
    found = lay_out(vectors, start=start, neighbours=9, min_dist=spread, seed=4)
    near = np.hstack([np.arange(200)[:, None], found.nearest])
    far = np.sqrt(2 - 2 * np.hstack([np.ones((200, 1), np.float32), found.cosines]))
    np.testing.assert_allclose(far, np.linalg.norm(vectors[:, None] - vectors[near], axis=2), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        umap = UMAP(10, min_dist=spread, init=start.astype(np.float32), n_epochs=EPOCHS, random_state=4, n_jobs=1,
                    precomputed_knn=(near, far.astype(np.float32)), force_approximation_algorithm=True)
        theirs = umap.fit_transform(vectors)
    inner = np.linalg.norm(theirs[:, None] - theirs[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(found.points[:, None] - found.points[None], axis=2), inner, atol=1e-4)


def test_principal_components_on_request(kinds):
    from sklearn.decomposition import PCA

    made = index.make_map(kinds, method="pca")
    vectors = kinds.vectors().layer(None).vectors.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    theirs = PCA(2).fit_transform(vectors)
    for mine, other in zip(points(made).T, theirs.T, strict=True):
        assert abs(np.corrcoef(mine, other)[0, 1]) > 0.9999



def test_a_map_shows_the_titles_that_the_lake_has_now(kinds):
    """Titles corrected after a map was made: in its points, its file, and the app's search."""
    from tonelake.ui.points import Points

    made = index.make_map(kinds, "a", method="pca")
    space = kinds.spaces.get()
    clips = kinds.clips.read(["clip_id"])
    points = Points(kinds, space, 0)
    assert len(points.search("corrected")) == 0
    kinds.clips.set_labels(clips.with_columns(title=pl.format("Corrected {}", pl.int_range(pl.len()))))
    expected = dict(kinds.clips.read(["clip_id", "title"]).iter_rows())
    read = index.read_map(kinds, layer="a").points
    assert dict(read.select("clip_id", "title").iter_rows()) == expected
    assert len(points.search("corrected")) == len(clips) and points.frame["title"].str.starts_with("Corrected").all()
    again = index.make_map(kinds, "a", method="pca")
    assert again.done == f"names of {len(clips):,} clips updated"
    stored = pl.read_parquet(made.file)
    assert dict(stored.select("clip_id", "title").iter_rows()) == expected
    assert stored.select("projection_x", "projection_y", "cluster").equals(made.points.select(
        "projection_x", "projection_y", "cluster"
    ))
    assert index.make_map(kinds, "a", method="pca").done == "unchanged"


@pytest.mark.parametrize(("tracks", "clips"), [(1, 1), (1, 2), (2, 4), (5, 4)])
def test_few_clips_have_a_map_too(lake, tracks, clips):
    fill(lake, tracks, clips, seed=0)
    made = index.make_map(lake)
    assert len(made.points) == tracks * clips
    assert np.isfinite(points(made)).all()


def test_equal_clips_do_not_break_a_map(lake):
    rows = clip_rows(10, 10)
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="same", revision="1", sample_rate=24_000, layers=("a",), dims=(4,), window_s=30.0, hop_s=30.0, precision="float32"
    ))
    same = np.ones((100, 4), np.float32)
    lake.vectors(space).add(rows["clip_id"].to_list(), [same], [same], [1] * 100)
    assert np.isfinite(points(index.make_map(lake))).all()


def test_a_damaged_or_foreign_file_is_made_again(mapped):
    from pathlib import Path

    made = index.make_map(mapped)
    Path(made.file).write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="has no map: run `tonelake map"):
        index.read_map(mapped)
    assert index.make_map(mapped).done == "made"
    assert len(index.read_map(mapped).points) == 600


def test_maps_work_on_object_stores(s3):
    lake = Lake(f"{s3}/lake")
    fill(lake, 3, 4, seed=0)
    index.make_map(lake)
    assert len(index.read_map(lake).points) == 12
    assert index.mapped_layers(lake, lake.spaces.get(None)) == [1]


def test_invalid_settings_are_named(kinds):
    for how, message in [
        ({"method": "grid"}, "no method 'grid'"), ({"neighbours": 1}, "1 neighbours"), ({"min_dist": 2}, "0 to 1"),
        ({"layer": 9}, "layer"),
    ]:
        with pytest.raises(InputError, match=message):
            index.make_map(kinds, **how)


def test_the_approximate_graph_finds_nearly_all_true_neighbours(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, 24))[rng.integers(20, size=1500)] + rng.standard_normal((1500, 24))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    true, products = neighbour_graph(vectors, 15, exact=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_allclose(products, -np.sort(-cosines, axis=1)[:, :15], atol=1e-5)
    found, _ = neighbour_graph(vectors, 15, exact=False, repeatable=True)
    assert np.mean([len(np.intersect1d(a, b)) / 15 for a, b in zip(found, true, strict=True)]) > 0.97
    assert not (found == np.arange(1500)[:, None]).any()
    monkeypatch.setattr(index.search.neighbour_graph, "BLOCK", 1024)
    np.testing.assert_array_equal(true, neighbour_graph(vectors, 15, exact=True)[0])
    np.testing.assert_array_equal(found, neighbour_graph(vectors, 15, exact=False, repeatable=True)[0])


def test_a_graph_that_leads_to_too_few_rows_is_completed_exactly(monkeypatch):
    import faiss

    plain = faiss.IndexHNSWSQ.search

    def short(self, queries, k):
        products, found = plain(self, queries, k)
        found[::3, -2:] = -1
        return products, found

    monkeypatch.setattr(faiss.IndexHNSWSQ, "search", short)
    vectors = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_array_equal(*(neighbour_graph(vectors, 39, exact=exact)[0][::3] for exact in (True, False)))


def test_large_maps_are_clustered_by_a_sample(monkeypatch):
    monkeypatch.setattr("tonelake.index.maps.clusters.SAMPLE", 500)
    rng = np.random.default_rng(0)
    kind = rng.integers(4, size=3000)
    at = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[kind] + 0.3 * rng.standard_normal((3000, 2))
    found = find_clusters(at)
    assert found.max() == 3
    for k in range(4):
        assert (found[kind == k] == np.bincount(found[kind == k][found[kind == k] >= 0]).argmax()).mean() > 0.9


def test_only_labels_beyond_chance_characterise_a_cluster():
    rng = np.random.default_rng(0)
    cluster = rng.integers(-1, 3, 2000)
    label = pl.Series("mood", np.where((cluster == 1) & (rng.random(2000) < 0.7), "calm", "other"))
    found = {(one.cluster, one.value) for one in characteristic_values(label, cluster)}
    assert (1, "calm") in found
    assert {which for which, value in found if value == "calm"} == {1}
    assert characteristic_values(pl.Series("chance", rng.integers(0, 5, 2000).astype(str)), cluster) == []
    assert characteristic_values(pl.Series("number", rng.random(2000)), cluster) == []


def test_the_command(mapped, tmp_path):
    for colour in ([], ["--colour", "genre"]):
        run = CliRunner().invoke(app, ["map", "--picture", str(tmp_path / "m.png"), *colour, "--lake", mapped.uri])
        assert run.exit_code == 0, run.output
        assert json.loads(run.stdout.splitlines()[0])["clips"] == 100
        assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert "unchanged" in run.stderr


def named(labels: dict[str, list], cluster: list[int], songs: list[int] | None = None) -> list[str | None]:
    """Return the names of the clusters of some points on a line."""
    points = np.column_stack([np.arange(len(cluster)), np.zeros(len(cluster))])
    found = describe_clusters(points, np.array(cluster), pl.DataFrame(labels), None if songs is None else np.array(songs))
    return found["name"].to_list()


def test_clusters_are_named_by_what_sets_them_apart_not_by_ids():
    """Ids, numbers without words and values that nearly every song has do not name; a weak name is completed by a second."""
    cluster = [0] * 40 + [1] * 30 + [2] * 30
    number = [str(n) for n in range(100)]
    genre = ["folk"] * 40 + ["jazz"] * 15 + ["blues"] * 15 + [None] * 30
    year = [1950 + n % 20 for n in range(70)] + [1990 + n % 9 for n in range(30)]
    tune = ["0 7 4"] * 35 + ["0 2"] * 65
    labels = {"bwv": number, "tune": tune, "genre": genre, "year": year, "meter": ["4/4"] * 99 + ["3/4"]}
    first, second, third = named(labels, cluster)
    assert (first, third) == ("folk", "1990s")
    assert second in ("jazz · blues", "blues · jazz")
    # A tag of each song, from a list longer than half the songs' number, still names.
    tags = [["calm", f"t{n % 60}"] if n < 40 else [f"t{n % 60}"] for n in range(100)]
    assert named({"tags": tags}, cluster)[0] == "calm"


def test_a_small_cluster_without_labels_is_named_by_a_song():
    cluster, titles = [0] * 30 + [1] * 12 + [2] * 9, [f"Title {n}" for n in range(51)]
    assert named({"title": titles}, cluster) == [None, "near Title 35", "near Title 46"]
    # Clips of one song: its title, whatever labels it has.
    songs = [*range(30), *[30] * 12, *range(31, 40)]
    labels = {"title": titles[:30] + ["One"] * 12 + titles[42:], "genre": ["folk"] * 30 + ["jazz"] * 12 + ["folk"] * 9}
    assert named(labels, cluster, songs)[1] == "One"


def test_songs_count_once_however_many_clips_they_have():
    """One song of many clips says no more about a cluster than a song of one clip; a label of half its clips counts by half."""
    cluster = np.array([0] * 40 + [1] * 40)
    songs = np.array([0] * 31 + list(range(1, 10)) + list(range(10, 50)))
    mood = pl.Series("mood", ["calm"] * 31 + ["odd"] * 9 + ["even"] * 40)
    shares = {one.value: one.share for one in characteristic_values(mood, cluster, songs)}
    assert shares["odd"] == pytest.approx(0.9) and "calm" not in shares
    mixed = pl.Series("mood", ["calm", "loud"] * 20 + ["even"] * 40)
    twice = np.repeat(np.arange(40), 2)
    assert {one.value: one.share for one in characteristic_values(mixed, cluster, twice)}["calm"] == pytest.approx(0.5)


def test_a_song_is_drawn_at_its_clip_in_the_middle_and_names_are_placed_where_their_points_are():
    from tonelake.index import song_rows, value_places

    rng = np.random.default_rng(0)
    songs = rng.integers(0, 30, 400)
    at = rng.standard_normal((30, 2))[songs] * 9 + 0.3 * rng.standard_normal((400, 2))
    rows = song_rows(at, songs)
    assert songs[rows].tolist() == list(range(30))
    for song, row in enumerate(rows):
        own = np.flatnonzero(songs == song)
        assert row == own[np.linalg.norm(at[own] - at[own].mean(axis=0), axis=1).argmin()]
    assert len(song_rows(np.empty((0, 2)), np.empty(0, int))) == 0
    artists = pl.Series([f"Artist {song}" if song < 20 else ("everywhere" if song < 29 else None) for song in songs])
    places = value_places(at, artists, least=3)
    assert set(places["name"]) == {f"Artist {song}" for song in range(20)}            # not the one who is everywhere
    assert places["points"].is_sorted(descending=True) and places["points"].sum() == (songs < 20).sum()
    one = places.filter(name="Artist 3").row(0, named=True)
    assert (one["x"], one["y"]) == pytest.approx(tuple(np.median(at[songs == 3], axis=0)))
