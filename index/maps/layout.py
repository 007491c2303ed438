"""Lay out vectors as points of a plane: (clip, dim) unit vectors -> (clip, 2) float32.

UMAP (McInnes et al., arXiv 1802.03426) on our own neighbour graph: FAISS searches candidates among vectors reduced to 200
dimensions, faster than umap-learn's own search, and ranks them by the full vectors.  umap-learn, or `large` for many clips,
optimises the points from an initial layout (two principal components, or the map of another layer).  t-SNE optimises the points
from the same graph and initial layout.  A seed reproduces a layout: all random steps are seeded and run on one thread.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tonelake.index.maps import tsne, umap
from tonelake.index.search.faiss import nearest_batch
from tonelake.index.search.neighbour_graph import neighbour_graph
from tonelake.index.vectors import unit

REDUCED = 200                            # dimensions in which neighbours are searched
MOST_LOST = 0.2                          # share of the variance; if reduced vectors lose more, they lose neighbours as well
HARD_ROWS = 50_000                       # of such vectors, compared exactly: a graph takes as long and misses most neighbours
SAMPLE = 50_000                          # rows that principal components are computed from
LAID_OUT_FIRST = 50_000                  # clips whose layout is the start of a large map
EXTENT = 10.0                            # largest coordinate of the initial layout, as in umap-learn
PLACED_BY = 5                            # neighbours whose points are averaged for a new point
METHODS = ("umap", "tsne", "pca")
LEAST_ROWS = 6                           # of t-SNE


class Layout(NamedTuple):
    """Points, with the neighbour graph they were laid out from."""

    points: np.ndarray                   # (clip, 2) float32
    nearest: np.ndarray                  # (clip, k) int64 rows, nearest first
    cosines: np.ndarray                  # (clip, k) float32


def lay_out(
    vectors: np.ndarray, *, method: str = "umap", neighbours: int = 15, min_dist: float = 0.1, seed: int = 0,
    perplexity: float | None = None, start: np.ndarray | None = None,
) -> Layout:
    """Lay out (clip, dim) unit vectors; `start`: (clip, 2) initial points, to which the result is aligned.

    `perplexity`: of t-SNE, by default `neighbours`; at most that of a graph of all clips.  Fewer clips than a graph needs are
    laid out by principal components.
    """
    rng = np.random.default_rng(seed)
    rows = len(vectors)
    components = principal(vectors, 2, rng) if start is None else np.zeros((rows, 2), np.float32)
    if method == "tsne" and rows >= LEAST_ROWS:
        wanted = min(neighbours if perplexity is None else perplexity, tsne.largest_perplexity(rows))
        needed = max(neighbours, tsne.neighbours_needed(wanted))
    else:
        wanted, needed = 0.0, neighbours
    nearest, cosines = nearest_others(vectors, min(needed, max(rows - 1, 0)), rng)
    kept = Layout(np.empty((0, 2), np.float32), nearest[:, :neighbours], cosines[:, :neighbours])
    if method == "pca" or rows < (LEAST_ROWS if method == "tsne" else neighbours + 2):
        return kept._replace(points=components if start is None else start.astype(np.float32))
    from_map = start is not None
    if start is None:
        start = components / max(np.abs(components).max(), 1e-9) * EXTENT
        start = start + 1e-4 * rng.standard_normal(start.shape)      # separates the points of equal clips
    distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
    if method == "tsne":
        points = tsne.optimise(nearest, distances, start, wanted, seed, from_map=from_map)
    else:
        known = None
        if rows > umap.LARGE_ROWS and not from_map:
            sample = np.sort(rng.choice(rows, LAID_OUT_FIRST, replace=False))
            first = lay_out(vectors[sample], neighbours=neighbours, min_dist=min_dist, seed=seed, start=start[sample])
            known = sample, first.points
        points = umap.optimise(nearest, distances, start, min_dist, seed, known)
    return kept._replace(points=align_points(points, start))


def nearest_others(vectors: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest other clips of each clip, (clip, k) int64 rows and (clip, k) float32 cosines, nearest first."""
    if vectors.shape[1] <= REDUCED:
        return neighbour_graph(vectors, k, repeatable=True)
    directions, lost = principal_directions(sampled(vectors, rng), REDUCED)
    if lost > MOST_LOST:
        return neighbour_graph(vectors, k, exact=True if len(vectors) <= HARD_ROWS else None, repeatable=True)
    return neighbour_graph(vectors, k, repeatable=True, reduced=unit(vectors @ directions))


def principal(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return (row, count) float32 coordinates along the directions in which vectors vary most."""
    sample = sampled(vectors, rng)
    centre = sample.mean(axis=0)
    best, _ = principal_directions(sample - centre, count)
    found = vectors @ best - centre @ best                           # avoids a centred copy of all vectors
    return found if found.shape[1] >= count else np.pad(found, ((0, 0), (0, count - found.shape[1])))


def sampled(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a sample of the rows of large sets, all rows of others."""
    return vectors[np.sort(rng.choice(len(vectors), min(SAMPLE, len(vectors)), replace=False))]


def principal_directions(sample: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Return (dim, count) float32 directions that preserve inner products best, and the share of the variance beyond them."""
    wide = sample.astype(np.float64)
    products = wide.T @ wide
    centre = wide.mean(axis=0)
    values, directions = np.linalg.eigh(products)
    best = directions[:, ::-1][:, :count]
    best = best * np.where(best[np.abs(best).argmax(axis=0), np.arange(best.shape[1])] < 0, -1, 1)       # fixes the sign
    variance = max(float(np.trace(products) - len(wide) * centre @ centre), 1e-12)
    return best.astype(np.float32), max(float(values[: len(values) - best.shape[1]].sum()), 0.0) / variance


def align_points(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Translate, rotate or mirror points as a whole to lie as near to `target` as possible (orthogonal Procrustes)."""
    from scipy.linalg import orthogonal_procrustes

    centre, towards = points.mean(axis=0), target.mean(axis=0)
    rotation, _ = orthogonal_procrustes((points - centre).astype(np.float64), (target - towards).astype(np.float64))
    return ((points - centre) @ rotation + towards).astype(np.float32)


def place_new(vectors: np.ndarray, known: np.ndarray, points: np.ndarray, k: int) -> Layout:
    """Place new clips on an unchanged map, each at the weighted mean of its nearest clips' points.

    Shapes: (new, dim) and (known, dim) unit vectors, (known, 2) points; the result's neighbours are rows of `known`.
    """
    nearest, cosines = nearest_batch(vectors, known, min(k, len(known)))
    some = slice(0, PLACED_BY)
    distances = np.sqrt(np.maximum(2 - 2 * cosines[:, some], 0))
    weight = np.exp(-(distances - distances[:, :1]) / np.maximum(distances.mean(axis=1, keepdims=True), 1e-6))
    at = (points[nearest[:, some]] * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return Layout(at.astype(np.float32), nearest, cosines)
