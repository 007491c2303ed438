"""t-SNE's layout of a neighbour graph (van der Maaten and Hinton 2008), by scikit-learn's Barnes-Hut approximation.

Its time grows with n log n, but it takes a thousand steps, each slower than one of UMAP's: 10,000 clips take a minute.
"""

from __future__ import annotations

import numpy as np

from tonelake.store import InputError

NEIGHBOURS_PER_PERPLEXITY = 3            # as in the author's implementation: further ones have no weight
DEVIATION = 0.01                         # of the initial points: at 0.0001, scikit-learn's, layouts of few clips lose the start
EXAGGERATION = 12.0                      # of early attraction; scikit-learn's default
EXAGGERATION_FROM_MAP = 4.0              # the paper's value; with 12, small maps often lose the order of the start
MOST_PERPLEXITY = 500.0                  # 1,501 neighbours of each clip
SLOW_ROWS = 20_000
MOST_ROWS = 200_000                      # takes an hour or more


def optimise(
    nearest: np.ndarray, distances: np.ndarray, start: np.ndarray, perplexity: float, seed: int, *, from_map: bool = False
) -> np.ndarray:
    """Optimise (clip, 2) points from `start` for a graph of (clip, k) `nearest` rows and distances: (clip, 2) float32.

    `from_map`: whether `start` is another map, near which points are to stay.

    `k` has to be at least `neighbours_needed`.  The result is reproducible: everything runs on one thread.
    """
    from scipy.sparse import csr_array
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows, k = nearest.shape
    own = np.arange(rows)[:, None]
    # scikit-learn wants each row's distance to itself in the graph too.
    near, apart = np.hstack([own, nearest]), np.hstack([np.zeros((rows, 1)), distances])
    graph = csr_array((apart.ravel(), near.ravel(), np.arange(rows + 1) * (k + 1)), shape=(rows, rows))
    spread = max(float(start.std(axis=0).max()), 1e-12)
    scaled = ((start - start.mean(axis=0)) * (DEVIATION / spread)).astype(np.float32)
    model = TSNE(
        perplexity=perplexity, metric="precomputed", init=scaled, learning_rate="auto", random_state=seed, n_jobs=1,
        early_exaggeration=EXAGGERATION_FROM_MAP if from_map else EXAGGERATION,
    )
    with threadpool_limits(1, user_api="openmp"):
        return np.asarray(model.fit_transform(graph), np.float32)


def neighbours_needed(perplexity: float) -> int:
    """Return the number of neighbours that a layout with this perplexity needs of each clip."""
    return int(NEIGHBOURS_PER_PERPLEXITY * perplexity + 1)


def largest_perplexity(rows: int) -> float:
    """Return the largest perplexity of this many clips: that of a graph of all of them."""
    return (rows - 1) / NEIGHBOURS_PER_PERPLEXITY


def check_tsne(rows: int, perplexity: float) -> list[str]:
    """Return sentences for the user on a layout of this many clips.  Raises InputError above MOST_ROWS."""
    if rows > MOST_ROWS:
        raise InputError(f"--method tsne: lays out up to {MOST_ROWS:,} clips, and the space has {rows:,}. Choose umap")
    found = []
    if rows > SLOW_ROWS:
        found.append(f"t-SNE of {rows:,} clips takes many minutes; --method umap is faster")
    if perplexity > largest_perplexity(rows):
        found.append(f"perplexity {largest_perplexity(rows):.3g} is used, the largest for {rows} clips")
    return found
