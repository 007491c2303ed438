"""Maps of many clips: a sample is laid out first, then all, with repulsion among nearby points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from tonelake.index.maps import layout, umap
from tonelake.index.maps.layout import align_points, lay_out, nearest_others
from tonelake.index.search import neighbour_graph as graphs

ROWS, KINDS = 3_000, 6


def clips(seed: int, dim: int = 24, rows: int = ROWS, noise: float = 0.3) -> np.ndarray:
    """Return unit vectors of six clusters; of every seed around equal centres."""
    centres = np.random.default_rng(0).standard_normal((KINDS, dim))
    rng = np.random.default_rng(seed)
    found = centres[np.arange(rows) % KINDS] + noise * rng.standard_normal((rows, dim)) * 0.9 ** np.arange(dim)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def recall(points: np.ndarray, true: np.ndarray) -> float:
    """Return the share of each clip's true neighbours that are as many nearest on the map."""
    count = true.shape[1]
    near = np.stack([np.linalg.norm(points - point, axis=1).argsort()[1 : count + 1] for point in points[::10]])
    return float(np.mean([len(np.intersect1d(a, b)) / count for a, b in zip(near, true[::10], strict=True)]))


@pytest.fixture
def large(monkeypatch):
    """Have maps of more than 500 clips laid out as large ones, with blocks of 400 points."""
    monkeypatch.setattr("tonelake.index.maps.large.BLOCK", 400)
    monkeypatch.setattr(umap, "LARGE_ROWS", 500)
    monkeypatch.setattr(layout, "LAID_OUT_FIRST", 500)


@pytest.mark.slow                        # compiles the epochs of large maps
def test_a_large_map_keeps_more_neighbours_is_reproduced_and_starts_from_another(large, monkeypatch):
    vectors = clips(1)
    first = lay_out(vectors)
    np.testing.assert_array_equal(first.points, lay_out(vectors).points)
    assert not np.array_equal(first.points, lay_out(vectors, seed=1).points)
    kind = np.arange(ROWS) % KINDS
    near = np.stack([np.linalg.norm(first.points - point, axis=1).argsort()[1:11] for point in first.points[::10]])
    assert (kind[near] == kind[::10, None]).mean() > 0.98
    other = clips(1) + 0.02 * np.random.default_rng(9).standard_normal(vectors.shape).astype(np.float32)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    radius = np.linalg.norm(first.points - first.points.mean(axis=0), axis=1).mean()
    moved = {}
    for name, start in (("chained", first.points), ("alone", None)):
        points = align_points(lay_out(other, start=start).points, first.points)
        moved[name] = np.median(np.linalg.norm(points - first.points, axis=1)) / radius
    assert moved["chained"] < 0.7 * moved["alone"]
    monkeypatch.setattr(umap, "LARGE_ROWS", ROWS)
    plain = lay_out(vectors).points
    assert recall(first.points, first.nearest) > recall(plain, first.nearest)


def test_clips_are_placed_between_their_neighbours_of_the_sample():
    from tonelake.index.maps.large import interpolated

    edges = np.array([[0, 1, 3], [1, 2, 1], [2, 3, 1], [4, 5, 1]])            # 4 and 5 have no way to the sample, 0 and 2
    graph = csr_array((edges[:, 2].astype(np.float32), edges[:, :2].T), shape=(6, 6))
    start = np.arange(12, dtype=np.float32).reshape(6, 2)
    found = interpolated((graph + graph.T).tocsr(), start, np.array([0, 2]), np.array([[0, 0], [4, 8]], np.float32))
    np.testing.assert_allclose(found, [[0, 0], [1, 2], [4, 8], [4, 8], [8, 9], [10, 11]], atol=1e-3)


def test_blocks_of_points_are_compact():
    from tonelake.index.maps.large import spatial_order

    points = np.random.default_rng(0).random((4_100, 2)).astype(np.float32)
    order, place = spatial_order(points, 100, 0.7)
    np.testing.assert_array_equal(order[place], np.arange(4_100))
    spreads = [points[order[start : start + 100]].std(axis=0).max() for start in range(0, 4_000, 100)]
    assert np.median(spreads) < 0.1                                           # of all points: 0.29


def test_neighbours_found_in_reduced_vectors_are_ranked_by_the_full_ones(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = clips(2, dim=300, rows=1_500, noise=9)
    true, products = graphs.neighbour_graph(vectors, 15, exact=True)
    found, cosines = nearest_others(vectors, 15, np.random.default_rng(0))
    shares = [np.mean([len(np.intersect1d(a, b)) / 15 for a, b in zip(found, true, strict=True)])]
    np.testing.assert_allclose(cosines[:, 0], products[:, 0], atol=1e-5)
    monkeypatch.setattr(graphs, "EXACT_ROWS", 1_000)                           # by the graph, of rows in another order
    found, cosines = nearest_others(vectors, 15, rng)
    np.testing.assert_allclose(cosines, np.take_along_axis(vectors @ vectors.T, found, 1), atol=1e-5)
    assert not (found == np.arange(1_500)[:, None]).any()
    shares.append(np.mean([len(np.intersect1d(a, b)) / 15 for a, b in zip(found, true, strict=True)]))
    assert min(shares) > 0.97
    monkeypatch.setattr(graphs, "faiss_module", lambda: None)
    same = graphs.products_with(vectors[:50], vectors, found[:50])
    np.testing.assert_allclose(same, cosines[:50], atol=1e-5)


def test_vectors_that_do_not_shrink_are_searched_in_full():
    sphere = np.random.default_rng(0).standard_normal((800, 500)).astype(np.float32)
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    found, _ = nearest_others(sphere, 15, np.random.default_rng(0))
    np.testing.assert_array_equal(found, graphs.neighbour_graph(sphere, 15, exact=True)[0])
