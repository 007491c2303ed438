"""Compare groups of clips (artists, pieces, tunes): their similarity, cohesion, and typical clips.

Cohesion is the mean cosine of two clips of a group from different tracks; null for a group of one track.  The similarity of
two groups depends on the measure (`index.separation.group_similarity`).  Clips of one track, and known duplicates, are never
compared: what two groups share says nothing about their similarity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import Labelled, find_group, read_labelled
from tonelake.index.search.similar import SHOWN
from tonelake.index.separation.group_similarity import DEFAULT_MEASURE, MEASURES
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake


@dataclass(frozen=True)
class GroupVectors:
    """The groups of a column that have enough clips, with their vectors in one layer."""

    labelled: Labelled
    vectors: np.ndarray                  # (clip, dim) float32 of unit length
    cohesion: np.ndarray                 # (group,) float; NaN for a group of one track

    @property
    def names(self) -> list[str]:
        return self.labelled.names

    def similarity(self, measure: str, wanted: np.ndarray | None = None) -> np.ndarray:
        """Return (wanted group, group) similarities, by default of all groups; NaN if two groups have only shared tracks."""
        rows = np.arange(len(self.names)) if wanted is None else wanted
        return MEASURES[measure](self.labelled, self.vectors, rows)


def group_vectors(
    lake: Lake, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None,
    min_clips: int = 1, measure: str = DEFAULT_MEASURE,
) -> GroupVectors:
    """Read the groups of a column that have `min_clips` clips or more.

    Raises InputError if there are fewer than two, or for an unknown measure.
    """
    if measure not in MEASURES:
        raise InputError(f"no measure {measure!r}: choose {', '.join(MEASURES)}")
    if min_clips < 1:
        raise InputError(f"--min-clips {min_clips}: must be at least 1")
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    labelled = read_labelled(lake, chosen, column, where)
    enough = np.flatnonzero(labelled.clips_of_groups() >= min_clips)
    if len(labelled.names) > 1 and len(enough) < 2:
        raise InputError(
            f"{len(enough)} of {len(labelled.names)} groups of {column!r} have {min_clips} clips or more, and comparing needs "
            "two. Choose a smaller --min-clips"
        )
    if len(enough) < len(labelled.names):
        labelled = labelled.only_groups(enough)
    if len(labelled.names) < 2:
        raise InputError(f"column {column!r} has one value only, {labelled.names[0]!r}, and comparing needs two")
    vectors = unit(lake.vectors(chosen).take(labelled.ids.to_list(), number).vectors)
    return GroupVectors(labelled, vectors, cohesion_of_groups(labelled, vectors))


def cohesion_of_groups(labelled: Labelled, vectors: np.ndarray) -> np.ndarray:
    """Return (group,) mean cosines of two clips of a group from different tracks; NaN without such pairs.

    Computed for all pairs at once: the sum of the cosines of all pairs of a set is |Σv|², so a group's sum over pairs of
    different tracks is that of the group minus those of its tracks.
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
    layer: int | str | None = None, where: str | None = None, measure: str = DEFAULT_MEASURE, min_clips: int = 1,
) -> pl.DataFrame:
    """With a name, return the groups nearest to it, nearest first (group, similarity, clips, tracks).

    Without a name, return every group with its clips, tracks, cohesion and nearest other group.  Groups of fewer than
    `min_clips` clips are left out.
    """
    if k is not None and k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    found = group_vectors(lake, column, space=space, layer=layer, where=where, min_clips=min_clips, measure=measure)
    clips, tracks = found.labelled.clips_of_groups(), found.labelled.tracks_of_groups()
    if name is not None:
        row = find_group(found.labelled, name)
        similarity = found.similarity(measure, np.array([row]))[0]
        similarity[row] = np.nan
        order = np.argsort(-similarity, kind="stable")[: int(np.isfinite(similarity).sum())][: k or 10]
        return pl.DataFrame({
            column: [found.names[i] for i in order], "similarity": similarity[order], "clips": clips[order],
            "tracks": tracks[order],
        })
    matrix = found.similarity(measure)
    np.fill_diagonal(matrix, np.nan)
    nearest = np.where(np.isfinite(matrix), matrix, -np.inf).argmax(axis=1)
    similarity = pl.Series(matrix[np.arange(len(nearest)), nearest]).fill_nan(None)
    table = pl.DataFrame({
        column: found.names, "clips": clips, "tracks": tracks, "cohesion": pl.Series(found.cohesion).fill_nan(None),
        "nearest": [found.names[i] for i in nearest], "similarity": similarity,
    }).with_columns(nearest=pl.when(pl.col("similarity").is_not_null()).then("nearest"))
    return table if k is None else table.head(k)


def group_matrix(
    lake: Lake, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None,
    measure: str = DEFAULT_MEASURE, min_clips: int = 1,
) -> pl.DataFrame:
    """Return the similarity of every pair of groups: a first column of names, then one column per group.

    Null for two groups with only shared tracks; so is a group of one track with itself.
    """
    found = group_vectors(lake, column, space=space, layer=layer, where=where, min_clips=min_clips, measure=measure)
    matrix = found.similarity(measure)
    first = column if column not in found.names else f"{column} "
    table = pl.DataFrame({first: found.names} | {name: matrix[:, i] for i, name in enumerate(found.names)})
    return table.with_columns(pl.selectors.float().fill_nan(None))


def typical(
    lake: Lake, column: str, name: str | None = None, *, k: int = 5, space: str | None = None,
    layer: int | str | None = None, where: str | None = None, min_clips: int = 1, clips: bool = False,
) -> pl.DataFrame:
    """Return the k most typical and the k most unusual songs of a group, or of all groups of a column.

    The score of a clip is its cosine to the centre of its group's other tracks, so that a track cannot make itself typical;
    clips of groups of one track are left out.  A song is listed once: among the typical ones with its most typical clip, or
    among the unusual ones with its most unusual clip.  With `clips`, clips are listed instead.
    Returns kind (typical or unusual), the group, score, nearest (the group whose centre is nearest to the clip: a different
    group suggests a wrong label), clip_id, clips (unless `clips` is True: how many clips of the song are in the group and were
    compared) and columns that describe the clip.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    found = group_vectors(lake, column, space=space, layer=layer, where=where, min_clips=min_clips)
    labelled, vectors = found.labelled, found.vectors
    part_group, part = labelled.parts()
    sums = labelled.member.T @ vectors                               # (group, dim)
    others = unit(sums[part_group] - part @ vectors)                 # (part, dim): the group without one track
    alone = (labelled.tracks_of_groups() < 2)[part_group]
    parts, rows = part.nonzero()
    scores = (others[parts] * vectors[rows]).sum(axis=1)
    usable = ~alone[parts]
    if name is not None:
        usable &= part_group[parts] == find_group(labelled, name)
    if not usable.any():
        subject = f"{column} {name!r} has" if name is not None else f"all groups of {column!r} have"
        raise InputError(f"{subject} clips of one track only; typical clips need groups of two tracks or more")
    parts, rows, scores = parts[usable], rows[usable], scores[usable]
    songs = np.arange(len(rows)) if clips else labelled.track[rows]
    first, last = most_typical(scores, songs, k)
    chosen = np.concatenate([first, last])
    nearest = (vectors[rows[chosen]] @ unit(sums).T).argmax(axis=1)
    table = pl.DataFrame({
        "kind": ["typical"] * len(first) + ["unusual"] * len(last),
        column: [found.names[g] for g in part_group[parts[chosen]]], "score": scores[chosen],
        "nearest": [found.names[g] for g in nearest], "clip_id": labelled.ids.gather(rows[chosen]),
    })
    if not clips:
        table = table.with_columns(clips=pl.Series(np.bincount(parts)[parts[chosen]], dtype=pl.Int64))
    shown = [label for label in SHOWN if label != column]
    described = lake.clips.take(table["clip_id"].to_list(), shown)
    return table.join(described, on="clip_id", how="left", maintain_order="left")


def most_typical(scores: np.ndarray, songs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (typical, unusual): the best clips of k songs, highest first, and the worst clips of k other songs, lowest first.

    `scores` and `songs`: (clip,).  With fewer than 2k songs, half of them are typical; a single song is typical.
    """
    order = np.argsort(-scores, kind="stable")
    first = order[np.sort(np.unique(songs[order], return_index=True)[1])]
    typical = first[: min(k, len(first) // 2 or 1)]
    left = order[::-1][~np.isin(songs[order[::-1]], songs[typical])]
    unusual = left[np.sort(np.unique(songs[left], return_index=True)[1])]
    return typical, unusual[: len(typical)]
