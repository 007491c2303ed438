"""Vectors to points of a plane: (clip, dim) unit vectors -> (clip, 2) float32.

UMAP (McInnes et al., arXiv 1802.03426) from our own neighbour graph: vectors reduced to 200 dimensions, their graph by
FAISS, the optimisation by umap-learn from a start that is already near the end (two principal components, or the map of
another layer).  A seed reproduces: what is random is seeded, and done by one thread.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tonelake.index.maps.umap import optimise
from tonelake.index.search.faiss import nearest_batch
from tonelake.index.search.neighbour_graph import neighbour_graph
from tonelake.index.vectors import unit

REDUCED = 200                            # dimensions: of 768, they keep 93 % of the neighbours at half the cost
SAMPLE = 50_000                          # rows that principal components are found from
EXTENT = 10.0                            # of the start, as umap-learn scales its own
PLACED_BY = 5                            # neighbours that a new point is placed by
METHODS = ("umap", "pca")


class Layout(NamedTuple):
    """Points, and the neighbours that they were laid out by."""

    points: np.ndarray                   # (clip, 2) float32
    near: np.ndarray                     # (clip, k) int64 rows, nearest first
    cosines: np.ndarray                  # (clip, k) float32


def lay_out(
    vectors: np.ndarray, *, method: str = "umap", neighbours: int = 15, min_dist: float = 0.1, seed: int = 0,
    start: np.ndarray | None = None,
) -> Layout:
    """Points for (clip, dim) unit vectors; `start`: (clip, 2) points to start from, which the result is turned to match.

    Fewer clips than a graph needs are laid out by principal components.
    """
    rng = np.random.default_rng(seed)
    rows = len(vectors)
    components = principal(vectors, 2, rng) if start is None else np.zeros((rows, 2), np.float32)
    reduced = unit(principal(vectors, REDUCED, rng, centred=False)) if vectors.shape[1] > REDUCED else vectors
    near, cosines = neighbour_graph(reduced, min(neighbours, max(rows - 1, 0)), repeatable=True)
    if method == "pca" or rows <= neighbours + 1:
        return Layout(components if start is None else start.astype(np.float32), near, cosines)
    if start is None:
        start = components / max(np.abs(components).max(), 1e-9) * EXTENT
        start = start + 1e-4 * rng.standard_normal(start.shape)      # two equal clips could never part
    points = optimise(near, np.sqrt(np.maximum(2 - 2 * cosines, 0)), start, min_dist, seed)
    return Layout(turned(points, start), near, cosines)


def principal(vectors: np.ndarray, count: int, rng: np.random.Generator, *, centred: bool = True) -> np.ndarray:
    """(row, count) float32: the coordinates along the directions in which vectors vary most.

    Not centred, products between vectors are kept as well as `count` directions can.
    """
    rows = np.sort(rng.choice(len(vectors), min(SAMPLE, len(vectors)), replace=False))
    centre = vectors[rows].mean(axis=0) if centred else np.zeros(vectors.shape[1], np.float32)
    sample = (vectors[rows] - centre).astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)
    best = directions[:, ::-1][:, :count]
    best = best * np.where(best[np.abs(best).argmax(axis=0), np.arange(best.shape[1])] < 0, -1, 1)       # one sign each time
    best = best.astype(np.float32)
    found = vectors @ best - centre @ best                           # without a centred copy of all
    return found if found.shape[1] >= count else np.pad(found, ((0, 0), (0, count - found.shape[1])))


def turned(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Points moved, turned or mirrored as a whole to lie as near to others as they can (orthogonal Procrustes)."""
    from scipy.linalg import orthogonal_procrustes

    centre, towards = points.mean(axis=0), target.mean(axis=0)
    rotation, _ = orthogonal_procrustes((points - centre).astype(np.float64), (target - towards).astype(np.float64))
    return ((points - centre) @ rotation + towards).astype(np.float32)


def place(vectors: np.ndarray, known: np.ndarray, points: np.ndarray, k: int) -> Layout:
    """New clips on a map that stays as it is: each at the weighted mean of its nearest clips' points.

    Shapes: (new, dim) and (known, dim) unit vectors, (known, 2) points; rows of the result's neighbours are of `known`.
    """
    near, cosines = nearest_batch(vectors, known, min(k, len(known)))
    some = slice(0, PLACED_BY)
    far = np.sqrt(np.maximum(2 - 2 * cosines[:, some], 0))
    weight = np.exp(-(far - far[:, :1]) / np.maximum(far.mean(axis=1, keepdims=True), 1e-6))
    at = (points[near[:, some]] * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return Layout(at.astype(np.float32), near, cosines)
