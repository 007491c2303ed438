"""Maps of many equal clips, and of very few clips."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows

from tonelake.embed.settings import describe_space
from tonelake.index import make_map


def fill_with(lake, vectors: np.ndarray) -> None:
    rows = clip_rows(len(vectors), 1)
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    layers = [vectors[:, :dim] for dim in space.dims]
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, layers, [1] * len(vectors))


@pytest.mark.parametrize(("method", "copies", "share"), [
    ("pca", 60, 1e-3), ("pca", 200, 1e-3), ("umap", 60, 0.35), pytest.param("tsne", 60, 0.35, marks=pytest.mark.slow),
])
def test_equal_clips_share_a_place_and_are_not_their_own_neighbours(lake, method, copies, share):
    rng = np.random.default_rng(0)
    vectors = (np.repeat(rng.standard_normal((8, 6)), 50, axis=0) + 0.4 * rng.standard_normal((400, 6))).astype(np.float32)
    rows = np.sort(rng.choice(400, copies, replace=False))
    vectors[rows] = vectors[rows[0]]
    fill_with(lake, vectors)
    points = make_map(lake, "high", method=method).points
    ids = lake.clips.ids().gather(rows)
    places = points.filter(pl.col("clip_id").is_in(ids.implode())).select("projection_x", "projection_y").to_numpy()
    everything = points.select("projection_x", "projection_y").to_numpy()
    assert np.isfinite(everything).all() and len(places) == copies
    assert (np.ptp(places, axis=0) <= share * np.ptp(everything, axis=0)).all()
    for row, found in enumerate(points["neighbors"].to_list()):
        assert row not in found["ids"] and len(set(found["ids"])) == len(found["ids"])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_few_clips_can_be_mapped(lake, count):
    fill_with(lake, np.random.default_rng(count).standard_normal((count, 6)).astype(np.float32))
    points = make_map(lake, "high", method="pca").points
    assert len(points) == count and np.isfinite(points.select("projection_x", "projection_y").to_numpy()).all()
