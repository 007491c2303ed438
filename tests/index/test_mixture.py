"""Mixtures of layers, queries of several clips, and subtraction, against explicit sums in NumPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.cli.search import signed
from tonelake.index.search.mixture import learn_weights, parse_weights
from tonelake.index.search.query import Query, combine, resolve
from tonelake.store import InputError, SpaceMismatch


def cosines(lake, layer, query):
    """Return (clip,) float64 cosines of all clips with a vector."""
    vectors = lake.vectors().layer(layer).vectors.astype(np.float64)
    query = np.asarray(query, np.float64)
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


def vector(lake, layer, row):
    return lake.vectors().layer(layer).vectors[row].astype(np.float64)


def expect(lake, hits, scores, allowed, k):
    ids = lake.vectors().ids().to_list()
    order = [row for row in np.argsort(-scores, kind="stable") if allowed(ids[row])][:k]
    assert hits["clip_id"].to_list() == [ids[row] for row in order]
    np.testing.assert_allclose(hits["score"], scores[order], atol=2e-6)


@pytest.mark.parametrize(
    ("layers", "weights"),
    [("low:0.5,high:0.5", (0.5, 0.5)), ("0,1", (0.5, 0.5)), ("all", (0.5, 0.5)), ("0:3,1:1", (0.75, 0.25)),
     ({"high": 2, 0: -1}, (-1 / 3, 2 / 3))],
)
def test_a_mixture_is_the_weighted_sum_of_cosines(filled, layers, weights):
    ids = filled.vectors().ids().to_list()
    for row in (3, 120):
        scores = sum(w * cosines(filled, layer, vector(filled, layer, row)) for layer, w in enumerate(weights))
        hits = index.similar(filled, ids[row], layers=layers, k=15, clips=True)
        expect(filled, hits, scores, lambda clip, own=ids[row]: clip != own, 15)


def test_a_mixture_of_one_layer_is_that_layer(filled):
    clip = filled.vectors().ids()[7]
    one = index.similar(filled, clip, layer="low", k=20, clips=True)
    assert index.similar(filled, clip, layers="low", k=20, clips=True).equals(one)
    assert index.similar(filled, clip, layers={"low": 0.2, "high": 0}, k=20, clips=True).equals(one)


def test_filters_hold_in_mixtures(filled):
    ids = filled.vectors().ids().to_list()
    kept = set(filled.clips.read(["clip_id"], where="year > 1970")["clip_id"])
    scores = sum(0.5 * cosines(filled, layer, vector(filled, layer, 9)) for layer in (0, 1))
    hits = index.similar(filled, ids[9], layers="all", k=25, where="year > 1970", clips=True)
    expect(filled, hits, scores, lambda clip: clip in kept and clip != ids[9], 25)
    assert len(index.similar(filled, ids[9], layers="all", k=25, where="year = 1", clips=True)) == 0
    assert len(index.similar(filled, ids[9], layers="all", k=1_000, clips=True)) == 239


def test_several_clips_are_searched_by_their_mean_direction_and_none_is_a_hit(filled):
    ids = filled.vectors().ids().to_list()
    rows = (3, 50, 190)
    seeds = [vector(filled, 1, row) for row in rows]
    mean = np.mean([seed / np.linalg.norm(seed) for seed in seeds], axis=0)
    hits = index.similar(filled, [ids[row] for row in rows], layer=1, k=20, clips=True)
    expect(filled, hits, cosines(filled, 1, mean), lambda clip: clip not in {ids[row] for row in rows}, 20)


def test_a_subtracted_clip_is_subtracted_from_the_direction(filled):
    ids = filled.vectors().ids().to_list()
    plus, minus = vector(filled, 1, 3), vector(filled, 1, 100)
    direction = plus / np.linalg.norm(plus) - minus / np.linalg.norm(minus)
    hits = index.similar(filled, ids[3], minus=[ids[100]], layer=1, k=20, clips=True)
    expect(filled, hits, cosines(filled, 1, direction), lambda clip: clip not in (ids[3], ids[100]), 20)
    with pytest.raises(InputError, match="nothing is left to search with"):
        index.similar(filled, ids[3], minus=[ids[3]], clips=True)


def by_metric(vectors, wanted, minus, metric):
    """Return the rows that are no part of the query, nearest first, and the scores of all, by the definition of each metric."""
    if metric == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if metric == "l2" and not minus:     # the order by mean square distance is that by the distance to the mean
        scores = np.linalg.norm(vectors - vectors[wanted].mean(axis=0), axis=1)
        order = np.argsort(np.mean([((vectors - vectors[row]) ** 2).sum(axis=1) for row in wanted], axis=0), kind="stable")
    elif metric == "l2":                 # from the mean, as far again as it is from what is subtracted
        centre, away = vectors[wanted].mean(axis=0), vectors[minus].mean(axis=0)
        scores = np.linalg.norm(vectors - (centre + (centre - away)), axis=1)
        order = np.argsort(scores, kind="stable")
    elif metric == "ip":
        scores = sum(vectors @ vectors[row] for row in wanted) - sum((vectors @ vectors[row] for row in minus), 0.0)
        order = np.argsort(-scores, kind="stable")
    else:
        query = vectors[wanted].mean(axis=0) - (vectors[minus].mean(axis=0) if minus else 0.0)
        scores = vectors @ query / np.linalg.norm(query)
        order = np.argsort(-scores, kind="stable")
    return [row for row in order.tolist() if row not in (*wanted, *minus)], scores


@pytest.mark.parametrize("metric", index.METRICS)
@pytest.mark.parametrize(("wanted", "minus"), [((3, 50, 190), ()), ((3, 50), (190, 7, 100)), ((3,), (100,)), ((9, 9), ())])
def test_several_parts_are_combined_as_the_metric_measures(filled, metric, wanted, minus):
    ids = filled.vectors().ids().to_list()
    vectors = filled.vectors().layer(1).vectors.astype(np.float64)
    order, scores = by_metric(vectors, list(wanted), list(minus), metric)
    name = "distance" if metric == "l2" else "score"
    hits = index.similar(
        filled, [ids[row] for row in wanted], minus=[ids[row] for row in minus], layer=1, k=20, metric=metric, clips=True
    )
    assert hits["clip_id"].to_list() == [ids[row] for row in order[:20]]
    np.testing.assert_allclose(hits[name], scores[order[:20]], rtol=1e-5, atol=1e-5)
    songs = index.similar(
        filled, [vectors[row] for row in wanted], minus=[vectors[row] for row in minus], layer=1, k=24, metric=metric
    )
    best = (np.minimum if metric == "l2" else np.maximum).reduceat(scores, np.arange(0, 240, 10))
    np.testing.assert_allclose(songs[name], np.sort(best)[:: 1 if metric == "l2" else -1], rtol=1e-5, atol=1e-5)


def test_distances_to_several_parts_do_not_depend_on_the_origin():
    rng = np.random.default_rng(0)
    vectors, moved = rng.standard_normal((5, 4)), rng.standard_normal(4)
    for wanted, minus in ((vectors[:2], vectors[2:]), (vectors[:3], vectors[:0])):
        np.testing.assert_allclose(combine(wanted + moved, minus + moved, "l2"), combine(wanted, minus, "l2") + moved)


def test_a_query_without_a_direction_is_refused(filled):
    ids, zero, one = filled.vectors().ids().to_list(), np.zeros(6, np.float32), np.ones(6, np.float32)
    words = r"query: 1 of \d vectors are zero in layer high, as of silence"
    for metric in ("cosine", "ip"):
        for query, minus in ((zero, ()), ([one, zero], ()), (one, [zero])):
            with pytest.raises(InputError, match=words):
                index.similar(filled, query, minus=minus, layer="high", metric=metric)
        with pytest.raises(InputError, match=words):
            index.similar_many(filled, np.stack([one, zero]), metric=metric)
        with pytest.raises(InputError, match="its parts are opposite"):
            index.similar(filled, [one, -one], layer="high", metric=metric)
    for ends in ((zero, ids[0]), (ids[0], zero)):
        with pytest.raises(InputError, match=words):
            index.path(filled, *ends, layer="high")
    both = Query({0: np.ones(4, np.float32), 1: zero}, fingerprint=filled.spaces.get().fingerprint)
    with pytest.raises(InputError, match=words):
        index.similar(filled, both, layers="all")
    explained = index.similar(filled, both, layer="low", explain=True)               # only described by the other layer
    assert explained["by_layer"].struct.field("high").to_list() == [0.0] * 10
    near = index.similar(filled, zero, layer="high", metric="l2", k=3, clips=True)   # a point like any other
    vectors = filled.vectors().layer("high").vectors
    np.testing.assert_allclose(near["distance"], np.sort(np.linalg.norm(vectors, axis=1))[:3], rtol=1e-6)
    with pytest.raises(InputError, match="what is subtracted equals the rest"):
        index.similar(filled, ids[3], minus=[ids[3]], layer="high", metric="l2")


def test_the_length_of_a_query_matters_only_where_it_can(filled):
    """Squares of these values overflow or vanish in float32."""
    direction = np.array([1, 2, 0, -1, 0, 1], np.float32)
    for metric in index.METRICS:
        plain = index.similar(filled, direction, layer="high", metric=metric)
        for factor in (1e25, 1e-30):
            if metric == "cosine":
                assert index.similar(filled, direction * factor, layer="high")["clip_id"].equals(plain["clip_id"])
                many = index.similar_many(filled, np.stack([direction, direction * factor]), layer="high", k=5)
                assert many["clip_id"][:5].equals(many["clip_id"][5:])
            elif factor > 1:
                for search in (index.similar, lambda *given, **how: index.similar_many(given[0], given[1][None], **how)):
                    with pytest.raises(InputError, match="too long to be compared"):
                        search(filled, direction * factor, layer="high", metric=metric)


def test_not_same_excludes_the_values_of_every_query_part(filled):
    clips = filled.clips.read()
    seeds = [clips["clip_id"][0], clips["clip_id"][239]]
    artists = {clips["artist"][0], clips["artist"][239]}
    hits = index.similar(filled, seeds, k=240, not_same="artist", clips=True)
    assert len(artists) == 2 and not artists & set(hits["artist"])


def test_an_explanation_is_the_cosine_at_every_layer(filled):
    ids = filled.vectors().ids().to_list()
    hits = index.similar(filled, ids[5], layer="high", k=4, explain=True, clips=True)
    for layer, name in enumerate(("low", "high")):
        scores = cosines(filled, layer, vector(filled, layer, 5))
        for hit in hits.iter_rows(named=True):
            assert hit["by_layer"][name] == pytest.approx(scores[ids.index(hit["clip_id"])], abs=1e-5)
            assert hit["usual"][name] == pytest.approx(scores.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("layers", "problem"),
    [("3:0.5", "has no layer '3'"), ("low,low", "layer low is named twice"), ("low:x", "'x' is not a number"),
     ("low:0,high:0", "above zero"), ("low:-1", "above zero"), ("low:nan", "is not a number"), ("", "has no layer ''"),
     ({"low": np.nan, "high": 1}, "NaN or infinite"), ({"low": np.inf}, "NaN or infinite"), ({}, "above zero")],
)
def test_invalid_mixtures_are_refused(filled, layers, problem):
    with pytest.raises(InputError, match=problem):
        index.similar(filled, filled.vectors().ids()[0], layers=layers, clips=True)


def test_arguments_that_exclude_each_other_are_refused(filled):
    clip = filled.vectors().ids()[0]
    with pytest.raises(InputError, match="Give one of them"):
        index.similar(filled, clip, layer=1, layers="all", clips=True)
    with pytest.raises(InputError, match="Leave out --metric l2"):
        index.similar(filled, clip, layers="all", metric="l2", clips=True)
    with pytest.raises(InputError, match="at least one clip"):
        index.similar(filled, [], clips=True)
    with pytest.raises(SpaceMismatch, match="holds vectors of 6"):
        resolve(filled, np.ones(4), filled.spaces.get(), [0, 1])


# -- learned weights


def test_weights_go_to_the_layer_that_separates_the_groups(filled):
    """In the synthetic lake, layer `low` clusters tracks and layer `high` clusters artists."""
    space = filled.spaces.get()
    learned = learn_weights(filled, "artist", space=space.name)
    assert sum(learned.weights.values()) == pytest.approx(1)
    assert learned.weights[1] > 0.8
    assert learned.best_layer == 1
    assert learned.auc > 0.75
    assert learned.auc >= learned.best_auc - 0.02
    assert learn_weights(filled, "artist", space=space.name).weights == learned.weights             # a seed reproduces
    assert "held-out groups" in str(learned)


def test_weights_of_a_random_column_are_no_better_than_chance(filled):
    rng = np.random.default_rng(0)
    import shutil
    import tempfile

    from tonelake.store import Lake

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(filled.uri, folder, dirs_exist_ok=True)
        lake = Lake(folder)
        rows = lake.clips.read()
        lake.clips.add(rows.with_columns(coin=rng.integers(0, 8, len(rows))).drop("added_at"))
        learned = learn_weights(lake, "coin")
    assert 0.4 < learned.auc < 0.6
    assert sum(learned.weights.values()) == pytest.approx(1)


def test_weights_need_groups_of_several_tracks(filled):
    with pytest.raises(InputError, match="'track': 0 groups have clips of two or more tracks; learning weights needs 4"):
        learn_weights(filled, "track")


def test_learned_weights_mix_like_given_ones(filled):
    clip = filled.vectors().ids()[3]
    weights = learn_weights(filled, "artist").weights
    learned = index.similar(filled, clip, layers="auto:artist", clips=True)
    assert learned.equals(index.similar(filled, clip, layers=weights, clips=True))


def test_absolute_weights_sum_to_one(filled):
    space = filled.spaces.get()
    assert parse_weights("low:1,high:3", space) == {0: 0.25, 1: 0.75}
    assert parse_weights("low:1,high:-3", space) == {0: 0.25, 1: -0.75}
    assert parse_weights(" low , high ", space) == {0: 0.5, 1: 0.5}


# -- the command


@pytest.mark.parametrize(
    ("words", "wanted", "minus"),
    [(["a"], ["a"], []), (["a", "b"], ["a", "b"], []), (["a", "-", "b"], ["a"], ["b"]),
     (["a", "+", "b", "-", "c", "d"], ["a", "b", "d"], ["c"])],
)
def test_signs_belong_to_the_word_after_them(words, wanted, minus):
    assert signed(words) == (wanted, minus)


@pytest.mark.parametrize("words", [["-"], ["a", "-"], ["-", "a"], ["a", "-", "-"]])
def test_signs_without_a_word_are_refused(words):
    if words == ["a", "-", "-"]:
        assert signed(words) == (["a"], ["-"])           # a file may have this name
        return
    with pytest.raises(InputError, match="A - B"):
        signed(words)


def test_the_command_mixes_subtracts_and_explains(filled):
    ids = filled.vectors().ids().to_list()
    run = CliRunner().invoke(
        app, ["similar", ids[0], ids[1], "-", ids[99], "--layers", "auto:artist", "--explain", "-k", "3", "--lake", filled.uri]
    )
    assert run.exit_code == 0, run.output
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(rows) == 3
    assert set(rows[0]["by_layer"]) == {"low", "high"}
    assert "weights learned from artist" in run.stderr
    run = CliRunner().invoke(app, ["similar", ids[0], "--explain", "--csv", "--lake", filled.uri])
    assert "by_layer_low" in run.stdout.splitlines()[0]


def test_a_person_sees_the_layers_below_the_hits(filled, monkeypatch, capsys):
    from tonelake import views
    from tonelake.render import show_table

    hits = index.similar(filled, filled.vectors().ids()[0], k=7, explain=True, clips=True)
    shown = views.by_layer(hits)
    assert shown.columns == ["layer", "usual", "1", "2", "3", "4", "5"]
    assert shown["layer"].to_list() == ["low", "high"]
    show_table(shown)
    assert "usual" in capsys.readouterr().out
    assert views.by_layer(hits.head(0))["usual"].to_list() == [None, None]
