"""Search corrected for hubs, against brute force in NumPy: scans, facets, mixtures and stored indexes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows
from scipy.stats import skew
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.embed.settings import describe_space
from tonelake.index import hubness
from tonelake.index.search import corrected, exact
from tonelake.index.search.facets import load_faceted
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake

DIM, TRACKS, CLIPS = 32, 300, 4


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """1,200 clips of 300 tracks around a common direction, which makes those near it hubs; and their unit vectors."""
    lake = Lake(tmp_path_factory.mktemp("hubs") / "lake")
    rows = clip_rows(TRACKS, CLIPS)
    lake.clips.add(rows)
    space = lake.spaces.make(replace(describe_space(FakeEncoder(), "hubs", 30.0), dims=(DIM, DIM)))
    rng = np.random.default_rng(3)
    track = np.repeat(np.arange(TRACKS), CLIPS)
    layers = [
        (1.0 + rng.standard_normal((TRACKS, DIM))[track] + 0.7 * rng.standard_normal((len(track), DIM))).astype(np.float32)
        for _ in range(2)
    ]
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, layers, [1] * len(track))
    return lake, [unit(lake.vectors(space).layer(layer).vectors.astype(np.float64)) for layer in range(2)], track


def neighbourhood(vectors: np.ndarray, track: np.ndarray) -> np.ndarray:
    """Return the mean cosine of each clip to its ten nearest clips of other tracks."""
    cosines = np.where(track[:, None] == track[None, :], -np.inf, vectors @ vectors.T)
    return np.sort(cosines, axis=1)[:, -10:].mean(axis=1)


def brute_force(vectors: np.ndarray, track: np.ndarray, query: int) -> np.ndarray:
    """Return the corrected scores of all clips for a query, its own track last."""
    local = neighbourhood(vectors, track)
    scores = vectors @ vectors[query] - (local + local[query]) / 2
    return np.where(track == track[query], -np.inf, scores)


def test_corrected_clips_equal_brute_force(hubs):
    lake, vectors, track = hubs
    ids = lake.vectors().ids()
    changed = 0
    for row in (0, 500, 1199):
        expected = brute_force(vectors[0], track, row)
        order = np.argsort(-expected)[:12]
        hits = index.similar(lake, ids[row], layer=0, k=12, hubs="corrected", clips=True, not_same="track")
        assert hits["clip_id"].to_list() == ids.gather(order).to_list()
        np.testing.assert_allclose(hits["score"], expected[order], atol=1e-5)
        changed += hits["clip_id"].to_list() != index.similar(
            lake, ids[row], layer=0, k=12, clips=True, not_same="track"
        )["clip_id"].to_list()
    assert changed


def test_corrected_songs_and_mixtures_equal_brute_force(hubs):
    lake, vectors, track = hubs
    ids = lake.vectors().ids()
    expected = 0.25 * brute_force(vectors[0], track, 40) + 0.75 * brute_force(vectors[1], track, 40)
    best = pl.DataFrame({"track": track, "score": expected, "id": ids}).sort("score", descending=True)
    best = best.unique("track", keep="first", maintain_order=True).head(10)
    hits = index.similar(lake, ids[40], layers={0: 1, 1: 3}, k=10, hubs="corrected")
    assert hits["clip_id"].to_list() == best["id"].to_list()
    np.testing.assert_allclose(hits["score"], best["score"], atol=1e-5)


def test_a_corrected_score_is_the_same_in_both_directions(hubs):
    lake = hubs[0]
    ids = lake.vectors().ids()
    there = index.similar(lake, ids[7], layer=1, k=5, hubs="corrected", clips=True, not_same="track")
    back = index.similar(lake, there["clip_id"][2], layer=1, k=1200, hubs="corrected", clips=True)
    assert back.filter(clip_id=ids[7])["score"].item() == pytest.approx(there["score"][2], abs=1e-5)


def test_correction_halves_hubness(hubs):
    _, vectors, track = hubs
    cosines = np.where(track[:, None] == track[None, :], -np.inf, vectors[0] @ vectors[0].T)
    local = hubness.neighbourhoods(vectors[0].astype(np.float32), track, pl.Series([f"{i:05}" for i in range(len(track))]))

    def skewness(scores: np.ndarray) -> float:
        return float(skew(np.bincount(np.argsort(-scores, axis=1)[:, :10].ravel(), minlength=len(scores))))

    assert skewness(cosines - local[None, :] / 2) < skewness(cosines) / 2


def test_references_are_a_sample_that_does_not_depend_on_the_order(monkeypatch):
    monkeypatch.setattr(hubness, "REFERENCES", 50)
    ids = pl.Series([f"clip{i:04}" for i in range(400)])
    chosen = set(ids.gather(hubness.choose_references(ids)))
    mixed = ids.shuffle(seed=1)
    assert len(chosen) == 50 and set(mixed.gather(hubness.choose_references(mixed))) == chosen


def test_a_stored_index_finds_the_corrected_hits_of_a_scan(hubs, monkeypatch):
    lake = hubs[0]
    ids = lake.vectors().ids()
    monkeypatch.setattr(hubness, "REFERENCES", 500)
    monkeypatch.setattr(corrected, "_references", {})
    monkeypatch.setattr(exact, "_cache", OrderedDict())
    queries = ids.gather(range(0, 1200, 60)).to_list()
    scans = [index.similar(lake, clip, layer=0, k=10, hubs="corrected") for clip in queries]
    called = []
    original = corrected.nearest_stored_corrected
    monkeypatch.setattr(
        "tonelake.index.search.similar.nearest_stored_corrected",
        lambda *given: called.append(original(*given)) or called[-1],
    )
    index.build_indexes(lake, [0], recall=0.99)
    found = [index.similar(lake, clip, layer=0, k=10, hubs="corrected") for clip in queries]
    assert len(called) == len(queries) and all(one is not None for one in called)
    same = [len(set(a["clip_id"]) & set(b["clip_id"])) / 10 for a, b in zip(scans, found, strict=True)]
    assert np.mean(same) > 0.95
    both = scans[0].join(found[0], on="clip_id", suffix="_stored")
    np.testing.assert_allclose(both["score"], both["score_stored"], atol=1e-3)
    index.drop_indexes(lake)


def test_facets_and_caps_can_be_corrected(hubs):
    lake = hubs[0]
    clip = lake.vectors().ids()[0]
    hits = index.similar(lake, clip, layer=0, k=8, hubs="corrected", like="artist", per=("artist", 1))
    assert hits["artist"].n_unique() == 8
    assert hits["score"].is_sorted(descending=True)


def test_only_cosines_are_corrected(hubs):
    lake = hubs[0]
    with pytest.raises(InputError, match="--hubs corrected: compares cosines"):
        index.similar(lake, lake.vectors().ids()[0], metric="l2", hubs="corrected")
    with pytest.raises(InputError, match=r"--hubs gone: unknown\. Choose kept or corrected"):
        index.similar(lake, lake.vectors().ids()[0], hubs="gone")


def test_the_command_corrects(hubs):
    lake = hubs[0]
    clip = lake.vectors().ids()[5]
    words = ["similar", clip, "--hubs", "corrected", "-k", "4", "--layer", "1", "--lake", lake.uri, "--csv"]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines()[1].split(",")[2] == index.similar(lake, clip, layer=1, k=4, hubs="corrected")["clip_id"][0]


def test_several_queries_at_once_score_as_one_after_the_other(filled):
    space = filled.spaces.get()
    plain = exact.load_layer(filled, space, 0, metric="cosine")
    queries = [filled.vectors(space).layer(0).vectors[row] for row in (0, 50, 200)]
    faceted = load_faceted(filled, space, 0, like="artist")
    for layer in (plain, faceted, corrected.corrected_layer(filled, space, 0, plain, None, None)):
        assert np.allclose(layer.scores_of(queries), [layer.scores(query) for query in queries], atol=1e-6)
