"""Similarity measures of groups of clips.  Each: (labelled, (clip, dim) unit vectors, wanted groups) -> (wanted, group)
similarities, float64; NaN if two groups have only shared tracks.

- `centroid`: the cosine of the groups' mean vectors.  Fast; ignores how widely the groups are spread.
- `mean`: the mean cosine of all pairs of clips, one of each group.
- `chamfer`: the soft maximum cosine of each clip to the other group, averaged over both groups (smooth Chamfer:
  arXiv 2211.16761, section 3.3).  High if every clip of either group has a counterpart in the other.

Pairs of clips of one track are excluded.
"""

from __future__ import annotations

import numpy as np

from tonelake.evaluate import Labelled
from tonelake.index.vectors import unit

DEFAULT_MEASURE = "centroid"
TEMPERATURE = 0.05                       # in cosines: a clip 0.05 further away has a third of the weight
BLOCK = 1024                             # clips compared at a time


def centroid(labelled: Labelled, vectors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the cosine of the groups' mean vectors; shared tracks of two groups are left out of both."""
    member = labelled.member
    centres = unit(member.T @ vectors)
    similarity = (centres[wanted] @ centres.T).astype(np.float64)
    tracks = labelled.track_members() > 0                            # (track, group)
    if tracks.sum(axis=1).max() < 2:     # no track is in two groups
        return similarity
    group, part = labelled.parts()
    track = labelled.track[part.indices[part.indptr[:-1]]]           # of each part
    for row, one in enumerate(wanted):
        own_tracks = track[group == one]
        counts = np.asarray(tracks[own_tracks].sum(axis=0)).ravel()
        for other in np.flatnonzero(counts):
            if other == one:             # a group's similarity to itself stays 1
                continue
            shared = np.intersect1d(own_tracks, track[group == other])
            sides = []
            for g in (one, other):
                left = (group == g) & ~np.isin(track, shared)
                sides.append(np.asarray(part[left].sum(axis=0)).ravel() @ vectors if left.any() else None)
            a, b = sides
            if a is None or b is None:
                similarity[row, other] = np.nan
            else:
                similarity[row, other] = (unit(a[None]) @ unit(b[None]).T).item()
    return similarity


def mean(labelled: Labelled, vectors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the mean cosine of all pairs of clips, computed from sums: all pairs minus the pairs of one track."""
    member = labelled.member.astype(np.float64)
    sums, counts = member.T @ vectors, labelled.clips_of_groups().astype(np.float64)
    total, pairs = sums[wanted] @ sums.T, np.outer(counts[wanted], counts)
    group, part = labelled.parts()
    track = labelled.track[part.indices[part.indptr[:-1]]]
    part_sums, part_counts = part.astype(np.float64) @ vectors, np.asarray(part.sum(axis=1)).ravel()
    row_of = {int(one): row for row, one in enumerate(wanted)}
    order = np.argsort(track, kind="stable")
    for together in np.split(order, np.flatnonzero(np.diff(track[order])) + 1):       # parts of one track
        for a in together:
            row = row_of.get(int(group[a]))
            if row is not None:
                total[row, group[together]] -= part_sums[together] @ part_sums[a]
                pairs[row, group[together]] -= part_counts[together] * part_counts[a]
    return np.divide(total, pairs, out=np.full(total.shape, np.nan), where=pairs > 0.5)


def chamfer(labelled: Labelled, vectors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the mean of the soft maximum cosines in both directions."""
    member = labelled.member
    number = len(labelled.names)
    similarity = np.empty((len(wanted), number))
    for row, one in enumerate(wanted):
        own = member[:, [one]].nonzero()[0]
        forward, forward_count = np.zeros(number), np.zeros(number)
        weight, weighed = np.zeros(len(vectors)), np.zeros(len(vectors))
        for start in range(0, len(own), BLOCK):
            some = own[start : start + BLOCK]
            cosines = (vectors[some] @ vectors.T).astype(np.float64)                      # (own clip, clip)
            soft = np.exp((cosines - 1) / TEMPERATURE)
            soft[labelled.same_track(some)] = 0
            weight += soft.sum(axis=0)
            weighed += (soft * cosines).sum(axis=0)
            total, best = soft @ member, (soft * cosines) @ member                        # (own clip, group)
            any_left = total > 0
            forward += np.divide(best, total, out=np.zeros_like(total), where=any_left).sum(axis=0)
            forward_count += any_left.sum(axis=0)
        has = weight > 0
        back = np.divide(weighed, weight, out=np.zeros_like(weight), where=has) @ member
        back_count = has.astype(np.float64) @ member
        both = (forward_count > 0) & (back_count > 0)
        means = forward / np.maximum(forward_count, 1) + back / np.maximum(back_count, 1)
        similarity[row] = np.where(both, means / 2, np.nan)
    return similarity


MEASURES = {"centroid": centroid, "mean": mean, "chamfer": chamfer}
