"""Maps by t-SNE: the layout is scikit-learn's, a seed reproduces it, and it starts from other maps."""

from __future__ import annotations

import functools

import numpy as np
import polars as pl
import pytest
import sklearn
from commands import run
from fakes import clip_rows
from sklearn import manifold

from tonelake import index
from tonelake.index.maps import tsne
from tonelake.index.maps.layout import lay_out
from tonelake.store import InputError, Lake, Space

DIM, CLIPS = 16, 120


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """A fifth of the steps: a second less in each test, and kinds are separated by then."""
    monkeypatch.setattr(manifold, "TSNE", functools.partial(manifold.TSNE, max_iter=250))
    monkeypatch.setattr(manifold._t_sne.TSNE, "_EXPLORATION_MAX_ITER", 150)


def vectors_of(seed=0, clips=CLIPS):
    """Return unit vectors of four kinds, one after the other."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((4, DIM)) * 2
    found = (centres[np.arange(clips) % 4] + rng.standard_normal((clips, DIM))).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def lake(tmp_path):
    """A lake of four kinds of clips in two layers."""
    lake = Lake(tmp_path / "lake")
    rows = clip_rows(CLIPS, 1)
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="kinds", revision="1", sample_rate=24_000, layers=("a", "b"), dims=(DIM, DIM), window_s=30.0, hop_s=30.0,
        precision="float32",
    ))
    layers = [vectors_of(0), vectors_of(1)]
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, layers, [1] * CLIPS)
    return lake


def points(made):
    return made.points.select("projection_x", "projection_y").to_numpy()


def test_the_layout_equals_scikit_learns_own_for_the_same_start(monkeypatch):
    """A few steps only, since any rounding error grows with each."""
    monkeypatch.setattr(manifold._t_sne.TSNE, "_EXPLORATION_MAX_ITER", 5)
    with sklearn.config_context(skip_parameter_validation=True):
        monkeypatch.setattr(manifold, "TSNE", functools.partial(manifold._t_sne.TSNE, max_iter=5))
        vectors, start = vectors_of(), np.random.default_rng(3).standard_normal((CLIPS, 2)) * [5, 1]
        found = lay_out(vectors, method="tsne", start=start, neighbours=9, perplexity=7.0)
        scaled = ((start - start.mean(axis=0)) * (tsne.DEVIATION / start[:, 0].std())).astype(np.float32)
        theirs = manifold.TSNE(perplexity=7.0, init=scaled, early_exaggeration=4.0).fit_transform(vectors)
    apart = [np.linalg.norm(at[:, None] - at[None], axis=2) for at in (found.points, theirs)]
    np.testing.assert_allclose(apart[0], apart[1], atol=1e-3 * apart[1].max())
    exact = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1:10]
    assert found.nearest.shape == (CLIPS, 9) and (found.nearest == exact).mean() > 0.99


def test_kinds_are_separated_and_a_seed_reproduces_the_map(lake, caplog):
    made = index.make_map(lake, "a", method="tsne")
    at, kind = points(made), np.arange(CLIPS) % 4
    far = np.linalg.norm(at[:, None] - at[None], axis=2)
    near = np.argsort(far, axis=1)[:, 1:6]
    assert (kind[near] == kind[:, None]).mean() > 0.95
    assert made.settings["method"] == "tsne" and made.settings["perplexity"] == 15.0
    assert index.make_map(lake, "a", method="tsne").done == "unchanged"
    assert (points(index.make_map(lake, "a", method="tsne", again=True)) == at).all()
    caplog.set_level("INFO", "tonelake")
    assert index.make_map(lake, "a", method="tsne", perplexity=200).done == "made"
    assert "perplexity 39.7 is used, the largest for 120 clips" in caplog.text


def test_new_clips_are_placed_and_the_others_stay(lake):
    made = index.make_map(lake, "a", method="tsne")
    rows = clip_rows(CLIPS + 8, 1)[CLIPS:]
    lake.clips.add(rows)
    old = vectors_of(0)
    lake.vectors(lake.spaces.get()).add(rows["clip_id"].to_list(), [old[:8]] * 2, [old[:8]] * 2, [1] * 8)
    grown = index.make_map(lake, "a", method="tsne")
    assert grown.done == "8 new clips placed"
    joined = made.points.join(grown.points, on="clip_id", suffix="_now")
    assert (joined["projection_x"] == joined["projection_x_now"]).all() and len(joined) == CLIPS
    placed = grown.points.filter(pl.col("clip_id").is_in(rows["clip_id"].implode()))
    np.testing.assert_allclose(
        placed.select("projection_x", "projection_y"), points(made)[:8], atol=0.1 * np.abs(points(made)).max()
    )


def test_a_map_starts_from_that_of_another_layer_or_method(lake):
    """A clip moves less between chained maps than between independent ones."""
    def moved(a, b):
        return np.median(np.linalg.norm(a - b, axis=1)) / np.linalg.norm(a - a.mean(axis=0), axis=1).mean()

    first = points(index.make_map(lake, "a", method="tsne", neighbours=8))
    chained = points(index.make_map(lake, "b", method="tsne", neighbours=8))
    alone = lay_out(vectors_of(1), method="tsne", neighbours=8).points
    assert moved(first, chained) < 0.6 and moved(first, chained) < moved(first, alone)
    for seed in (4, 6, 8):               # with scikit-learn's early exaggeration, up to 0.84
        start = lay_out(vectors_of(seed), method="tsne", neighbours=8).points
        assert moved(start, lay_out(vectors_of(seed + 1), method="tsne", neighbours=8, start=start).points) < 0.5
    other = points(index.make_map(lake, "b", method="umap", neighbours=8))
    assert moved(chained / np.abs(chained).max(), other / np.abs(other).max()) < 0.6
    assert np.abs(other).max() < 30          # from the extent of an initial layout, not of t-SNE's


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 12])
def test_few_or_equal_clips_have_a_layout_too(count):
    found = lay_out(vectors_of(clips=count), method="tsne")
    assert found.points.shape == (count, 2) and np.isfinite(found.points).all()
    same = lay_out(np.repeat(vectors_of(clips=1), count, axis=0), method="tsne")
    assert np.isfinite(same.points).all()


def test_settings_that_do_not_fit_are_named(lake, monkeypatch):
    with pytest.raises(InputError, match=r"--perplexity 30: belongs to --method tsne"):
        index.make_map(lake, perplexity=30)
    with pytest.raises(InputError, match=r"--perplexity 0.5: must be 1 to 500"):
        index.make_map(lake, method="tsne", perplexity=0.5)
    monkeypatch.setattr(tsne, "MOST_ROWS", 100)
    with pytest.raises(InputError, match=r"lays out up to 100 clips, and the space has 120\. Choose umap"):
        index.make_map(lake, method="tsne")
    monkeypatch.setattr(tsne, "MOST_ROWS", 1_000)
    monkeypatch.setattr(tsne, "SLOW_ROWS", 100)
    done = run("map", "--method", "tsne", "--perplexity", "8", lake=lake.uri)
    assert done.returncode == 0 and "t-SNE of 120 clips takes many minutes; --method umap is faster" in done.stderr
