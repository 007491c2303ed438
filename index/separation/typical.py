"""List the songs of a group that are nearest to the rest of it, and those that are farthest from it."""

from __future__ import annotations

import numpy as np
import polars as pl

from tonelake.evaluate import find_group
from tonelake.index.search.similar import SHOWN
from tonelake.index.separation.groups import read_group_vectors
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake


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
    labelled, vectors = read_group_vectors(lake, column, space=space, layer=layer, where=where, min_clips=min_clips)
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
        column: [labelled.names[g] for g in part_group[parts[chosen]]], "score": scores[chosen],
        "nearest": [labelled.names[g] for g in nearest], "clip_id": labelled.ids.gather(rows[chosen]),
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
