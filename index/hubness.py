"""Correct similarities for hubs: clips that are near very many others because of the space's geometry, not of their sound.

Cross-domain similarity local scaling (CSLS: Conneau et al., arXiv 1710.04087, section 2.2), halved so that scores stay
comparable with cosines:

    corrected(a, b) = cosine(a, b) - (neighbourhood(a) + neighbourhood(b)) / 2

`neighbourhood` is the mean cosine of a clip to its NEIGHBOURS nearest references of other songs.  The references are all clips
up to REFERENCES of them, else a seeded sample, so that the cost grows with the number of clips and not with its square.  On
the same clips a sample of 2,000 reduces hubness as much as all of them (simulated: skewness 4.7 to 1.7 and to 1.8).

Hubness falls to about half on real music; the share of relevant neighbours stays where it was.  The measure of hubness is in
`index.separation.pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.store import InputError

NEIGHBOURS = 10
REFERENCES = 2_048
BLOCK = 2_048                            # clips compared with the references at a time: 16 MB of cosines
HUBS = ("kept", "corrected")
DEFAULT_HUBS = "kept"


@dataclass(frozen=True)
class References:
    """Clips that neighbourhoods are measured against."""

    vectors: np.ndarray                  # (reference, dim) float32, of unit length
    songs: np.ndarray                    # (reference,) int: the song of each

    def neighbourhood(self, vectors: np.ndarray, songs: np.ndarray) -> np.ndarray:
        """Return (row,) float32: the mean cosine of each vector to its nearest references of other songs; 0 without any.

        `vectors`: (row, dim) of unit length; `songs`: (row,) the song of each, or -1 for audio that is not in the lake.
        """
        found = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), BLOCK):
            part = slice(start, start + BLOCK)
            cosines = vectors[part] @ self.vectors.T
            cosines[songs[part, None] == self.songs[None, :]] = -np.inf
            found[part] = mean_of_highest(cosines, NEIGHBOURS)
        return found


def mean_of_highest(cosines: np.ndarray, k: int) -> np.ndarray:
    """Return the (row,) mean of the k highest finite values of each row, or of all if there are fewer; 0 if there is none."""
    k = min(k, cosines.shape[1])
    if not k:
        return np.zeros(len(cosines), np.float32)
    top = np.partition(cosines, cosines.shape[1] - k, axis=1)[:, -k:]
    known = np.isfinite(top)
    return np.where(known, top, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def choose_references(ids: pl.Series, seed: int = 0) -> np.ndarray:
    """Return the rows of the clips that serve as references; the same clips whatever the order of `ids`."""
    if len(ids) <= REFERENCES:
        return np.arange(len(ids))
    order = ids.arg_sort().to_numpy()
    return np.sort(order[np.random.default_rng(seed).choice(len(ids), REFERENCES, replace=False)])


def neighbourhoods(vectors: np.ndarray, songs: np.ndarray, ids: pl.Series) -> np.ndarray:
    """Return the (clip,) float32 neighbourhood of every clip, from their (clip, dim) unit vectors, songs and ids."""
    rows = choose_references(ids)
    return References(vectors[rows], songs[rows]).neighbourhood(vectors, songs)


def check_hubs(hubs: str, metric: str = "cosine") -> bool:
    """Return whether hubs are corrected.  Raises InputError for an unknown choice, or for a metric other than the cosine."""
    if hubs not in HUBS:
        raise InputError(f"--hubs {hubs}: unknown. Choose {' or '.join(HUBS)}")
    if hubs == "corrected" and metric != "cosine":
        raise InputError("--hubs corrected: compares cosines with those of the neighbourhood. Leave out --metric")
    return hubs == "corrected"
