"""Artists, pieces, tunes as sets of clips: which are near each other, and how much of one kind each of them is.

A group is the mean of its clips' vectors, each of unit length first; two groups are as similar as the cosine of these
means.  Cohesion is the mean cosine of two clips of a group that are of different tracks; null for a group of one track.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from index.flat import unit
from index.labels import Labelled, find_group, read_labelled
from store import InputError, Lake


class GroupVectors(NamedTuple):
    """The groups of a column in one layer."""

    names: list[str]
    centroids: np.ndarray                # (group, dim) float32 of unit length
    clips: np.ndarray                    # (group,) int
    tracks: np.ndarray                   # (group,) int
    cohesion: np.ndarray                 # (group,) float; NaN for a group of one track
    labelled: Labelled


def group_vectors(
    lake: Lake, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None,
    stat: str = "mean",
) -> GroupVectors:
    """The centroid of every group of a column."""
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    labelled = read_labelled(lake, chosen, column, where)
    if len(labelled.names) < 2:
        raise InputError(f"column {column!r} has one value only, {labelled.names[0]!r}: there is nothing to compare")
    vectors = unit(lake.vectors(chosen).take(labelled.ids.to_list(), number, stat=stat).vectors)
    return GroupVectors(
        labelled.names, unit(labelled.member.T @ vectors), labelled.clips_of_groups(), labelled.tracks_of_groups(),
        cohesion_of_groups(labelled, vectors), labelled,
    )


def cohesion_of_groups(labelled: Labelled, vectors: np.ndarray) -> np.ndarray:
    """(group,) the mean cosine of two clips of a group that are of different tracks; NaN where there are none.

    All pairs at once: the sum of the cosines of all pairs of a set is |Σv|², so a group's sum over pairs of different
    tracks is that of the group less those of its tracks.
    """
    group, part = labelled.parts()

    def pairs(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.square(sums.astype(np.float64)).sum(axis=1), counts.astype(np.float64) ** 2

    total, total_pairs = pairs(labelled.member.T @ vectors, labelled.clips_of_groups())
    within, within_pairs = pairs(part @ vectors, part.sum(axis=1))
    number = len(labelled.names)
    across = total_pairs - np.bincount(group, within_pairs, number)
    summed = total - np.bincount(group, within, number)
    return np.divide(summed, across, out=np.full(number, np.nan), where=across > 0)


def groups(
    lake: Lake, column: str, name: str | None = None, *, k: int | None = None, space: str | None = None,
    layer: int | str | None = None, where: str | None = None,
) -> pl.DataFrame:
    """With a name: the groups nearest to it, nearest first (group, similarity, clips, tracks).

    Without: every group with its clips, tracks, cohesion and nearest other group.
    """
    if k is not None and k < 1:
        raise InputError(f"-k {k}: ask for at least one group")
    found = group_vectors(lake, column, space=space, layer=layer, where=where)
    matrix = found.centroids @ found.centroids.T
    np.fill_diagonal(matrix, -np.inf)
    if name is not None:
        row = find_group(found.labelled, name)
        order = np.argsort(-matrix[row], kind="stable")[: min(k or 10, len(found.names) - 1)]
        return pl.DataFrame({
            column: [found.names[i] for i in order], "similarity": matrix[row, order],
            "clips": found.clips[order], "tracks": found.tracks[order],
        })
    nearest = matrix.argmax(axis=1)
    table = pl.DataFrame({
        column: found.names, "clips": found.clips, "tracks": found.tracks,
        "cohesion": pl.Series(found.cohesion).fill_nan(None),
        "nearest": [found.names[i] for i in nearest], "similarity": matrix[np.arange(len(nearest)), nearest],
    })
    return table if k is None else table.head(k)


def group_matrix(
    lake: Lake, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None
) -> pl.DataFrame:
    """The similarity of every pair of groups: a first column of names, then one column a group."""
    found = group_vectors(lake, column, space=space, layer=layer, where=where)
    matrix = found.centroids @ found.centroids.T
    first = column if column not in found.names else f"{column} "
    return pl.DataFrame({first: found.names} | {name: matrix[:, i] for i, name in enumerate(found.names)})
