"""UMAP's layout of a neighbour graph: by umap-learn, with its compiled functions cached on disk, or for many clips by `large`.

umap-learn has numba compile three functions at their first call, two thirds of the time of a small map, and does not cache
them.  Here numba caches them, beside umap-learn or in the user's cache, for every later process.  One process compiles at a
time: two at once can leave cache files that do not match each other (numba issue 10128).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.store import compiler_lock, explain_unwritable_cache, import_extra

EPOCHS = 200
LARGE_ROWS = 80_000                      # above, points are optimised by `large`
Known = tuple[np.ndarray, np.ndarray]    # (sample,) rows, and their (sample, 2) points
COMPILED = (                             # modules of umap-learn, with their functions that this layout uses
    ("umap_", ("smooth_knn_dist", "compute_membership_strengths")),
    ("layouts", ("_nb_optimize_layout_euclidean_single_epoch",)),
)


def optimise(
    nearest: np.ndarray, distances: np.ndarray, start: np.ndarray, min_dist: float, seed: int, known: Known | None = None
) -> np.ndarray:
    """Optimise (clip, 2) points from `start` for a graph of (clip, k) `nearest` rows and distances: (clip, 2) float32.

    `known`: points of a sample, from which more than LARGE_ROWS clips are placed; None if `start` is a finished map.
    """
    load_umap()
    return _optimise(nearest, distances, start, min_dist, seed, known)


@cache
def load_umap() -> None:
    """Import umap-learn and compile its functions.  The first call on a machine takes ten seconds longer.

    Raises TonelakeError if the compiled functions cannot be cached anywhere.
    """
    with warnings.catch_warnings(), explain_unwritable_cache():
        warnings.simplefilter("ignore")          # umap-learn warns that Tensorflow is missing
        import_extra("umap", "maps", "maps by UMAP")
        from umap import layouts, umap_

    modules: dict[str, Any] = {"umap_": umap_, "layouts": layouts}
    for module, names in COMPILED:
        for name in names:
            with suppress(AttributeError):       # another version of umap-learn
                getattr(modules[module], name).enable_caching()
    ring = np.arange(8)
    nearest = np.stack([(ring + 1) % 8, (ring - 1) % 8], axis=1)
    points = np.stack([np.cos(ring), np.sin(ring)], axis=1)
    with compiler_lock(Path(umap_.__file__)), keep_openmp_threads():
        _optimise(nearest, np.ones((8, 2), np.float32), points, 0.1, 0)


@cache
def load_large() -> Any:
    """Import `large` and compile its function.  The first call on a machine takes some seconds longer."""
    from scipy.sparse import csr_array

    import_extra("numba", "maps", "maps by UMAP")
    with compiler_lock(Path(__file__)), explain_unwritable_cache(), keep_openmp_threads():
        from tonelake.index.maps import large

        pair = csr_array(np.array([[0, 1], [1, 0]], np.float32))
        large.optimise(pair, np.eye(2, dtype=np.float32), 1.0, 1.0, 0)
    return large


@contextmanager
def keep_openmp_threads() -> Iterator[None]:
    """Restore OpenMP's number of threads, which numba raises when it starts its own: torch would use as many from then on."""
    from threadpoolctl import ThreadpoolController

    def libraries() -> list[Any]:
        return ThreadpoolController().select(user_api="openmp").lib_controllers

    before = {library.filepath: library.num_threads for library in libraries()}
    try:
        yield
    finally:
        explicit = os.environ.get("OMP_NUM_THREADS", "")
        for library in libraries():
            threads = before.get(library.filepath, int(explicit) if explicit.isdigit() else 0)
            if threads:
                library.set_num_threads(threads)


def _optimise(
    nearest: np.ndarray, distances: np.ndarray, start: np.ndarray, min_dist: float, seed: int, known: Known | None = None
) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")          # numba's warnings
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

        rows = len(nearest)
        own = np.arange(rows)[:, None]
        random = np.random.RandomState(seed)     # umap-learn takes no Generator
        graph, _, _ = fuzzy_simplicial_set(
            start, nearest.shape[1] + 1, random, "euclidean", knn_indices=np.hstack([own, nearest]).astype(np.int32),
            knn_dists=np.hstack([np.zeros((rows, 1)), distances]).astype(np.float32),
        )
        a, b = find_ab_params(1.0, min_dist)
        if rows > LARGE_ROWS:
            large, graph = load_large(), graph.tocsr()
            if known is not None:
                start = large.interpolated(graph, start, *known)
            return large.optimise(graph, start, a, b, seed, from_map=known is None)
        points, _ = simplicial_set_embedding(
            start, graph, 2, 1.0, a, b, 1.0, 5, EPOCHS, start.astype(np.float32), random, "euclidean", {}, False, {}, False,
            parallel=False,
        )
    return np.asarray(points, np.float32)
