"""Groups of clips divided into units, which is what intervals of their similarity are over, and sizes are counted in.

A unit is a track or, where every group is one track, a clip; each unit counts once, by the mean of its clips' vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from tonelake.evaluate import Labelled

OVER = ("track", "clip")


@dataclass(frozen=True, kw_only=True)
class GroupUnits:
    """The units of every group, group by group."""

    labelled: Labelled
    clips: np.ndarray                    # (clip, dim) float32, of unit length
    over: str                            # what a unit is: one of OVER
    group: np.ndarray                    # (unit,) the group of each, ascending
    track: np.ndarray                    # (unit,) the track of each
    weights: sparse.csr_array            # (unit, clip) float32: 1 / clips of the unit for each of its clips
    size: int                            # units of a group at which groups are compared

    @cached_property
    def vectors(self) -> np.ndarray:
        """(unit, dim) float32: the mean vector of each unit's clips."""
        return self.weights @ self.clips

    @cached_property
    def counts(self) -> np.ndarray:
        """(group,) int: the number of units."""
        return np.bincount(self.group, minlength=len(self.labelled.names))

    @cached_property
    def starts(self) -> np.ndarray:
        """(group + 1,) int: the first unit of each group."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def means(self) -> np.ndarray:
        """(group, dim) float32: the mean of the units' vectors."""
        totals = np.add.reduceat(self.vectors, self.starts[:-1], axis=0, dtype=np.float64)
        return (totals / self.counts[:, None]).astype(np.float32)

    @cached_property
    def lengths(self) -> Lengths:
        return lengths_of_groups(self.vectors, self.group, self.means, self.counts, self.size)

    @cached_property
    def cohesion(self) -> np.ndarray:
        """(group,) the mean product of two units' vectors; of clips, of two clips of different tracks.  NaN without a pair."""
        if self.over == "track":
            return self.lengths.cohesion
        number = len(self.counts)
        tracks, part = np.unique(np.stack([self.group, self.track]), axis=1, return_inverse=True)
        sums = np.zeros((tracks.shape[1], self.clips.shape[1]))
        np.add.at(sums, part, self.vectors)
        within = np.bincount(tracks[0], np.square(sums).sum(axis=1), number)
        pairs = self.counts**2 - np.bincount(tracks[0], np.bincount(part) ** 2, number)
        total = np.square(self.means, dtype=np.float64).sum(axis=1) * self.counts**2
        return np.divide(total - within, pairs, out=np.full(number, np.nan), where=pairs > 0)

    @cached_property
    def in_several_groups(self) -> bool:
        """Whether a track is in several groups."""
        pairs = np.unique(np.stack([self.track, self.group]), axis=1)
        return len(np.unique(pairs[0])) < pairs.shape[1]

    def rows(self, group: int) -> slice:
        """The units of a group."""
        return slice(self.starts[group], self.starts[group + 1])

    def sharing(self, group: int) -> np.ndarray:
        """The other groups that have a track in common with this one."""
        if not self.in_several_groups:
            return np.empty(0, np.int64)
        found = np.unique(self.group[np.isin(self.track, self.track[self.rows(group)])])
        return found[found != group]


def divide(labelled: Labelled, clips: np.ndarray, over: str, size: int | None = None) -> GroupUnits:
    """Divide the groups into units.  `size`: by default the number of units of the smallest group."""
    if over == "clip":
        clip, group = labelled.member.nonzero()
        order = np.lexsort((clip, group))
        clip, group = clip[order], group[order]
        ones = np.ones(len(clip), np.float32)
        weights = sparse.csr_array((ones, (np.arange(len(clip)), clip)), shape=(len(clip), len(labelled.ids)))
    else:
        group, part = labelled.parts()
        several = np.asarray(part.sum(axis=1)).ravel()
        weights = sparse.csr_array(part.multiply((1 / several)[:, None])).astype(np.float32)
    counts = np.bincount(group, minlength=len(labelled.names))
    return GroupUnits(
        labelled=labelled, clips=clips, over=over, group=group, track=labelled.track[weights.indices[weights.indptr[:-1]]],
        weights=weights, size=int(counts.min()) if size is None else size,
    )


@dataclass(frozen=True)
class Lengths:
    """Squared lengths of the groups' mean vectors as expected at equal size, and cohesion: the mean product of two units."""

    squared: np.ndarray                  # (group,)
    squared_without: np.ndarray          # (unit,) of the unit's group without it; NaN for a group of two units or fewer
    cohesion: np.ndarray                 # (group,) NaN for a group of one unit
    cohesion_without: np.ndarray         # (unit,)


def lengths_of_groups(vectors: np.ndarray, group: np.ndarray, means: np.ndarray, counts: np.ndarray, size: int) -> Lengths:
    """Return expected squared lengths of means of `size` units, and cohesion, of groups and of groups without each unit."""
    number, count = len(counts), counts.astype(np.float64)
    own = np.square(vectors, dtype=np.float64).sum(axis=1)                            # (unit,)
    squares = np.bincount(group, own, number)
    total = np.square(means, dtype=np.float64).sum(axis=1) * count**2                 # (group,) squared length of the sum
    along = np.einsum("ud,ud->u", vectors, means[group], dtype=np.float64) * count[group]
    total_without, squares_without, count_without = total[group] - 2 * along + own, squares[group] - own, count[group] - 1

    def both(total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            cohesion = np.where(count > 1, (total - squares) / (count * (count - 1)), np.nan)
            share = 1 - 1 / size
            squared = squares / count / size + (share * cohesion if share else 0.0)
        return np.maximum(squared, np.finfo(np.float32).tiny), cohesion

    squared, cohesion = both(total, squares, count)
    squared_without, cohesion_without = both(total_without, squares_without, count_without)
    return Lengths(squared, squared_without, cohesion, cohesion_without)


@dataclass(frozen=True)
class Row:
    """Similarities of one group to every group; NaN where two groups have only shared tracks."""

    values: np.ndarray                   # (group,)
    shared: np.ndarray                   # (unit of the one group, group) without each of its units
    others: np.ndarray                   # (unit,) similarity to the unit's group without it
