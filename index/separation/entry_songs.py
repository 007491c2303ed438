"""List the songs of one group by which to enter it from another: those nearest to the other group's songs.

A song is the mean vector of its clips in the group, and the score its cosine to the mean of the first group's songs, each
counted once.  Vectors are those that `groups` compares, centred where it centres them.  Songs that both groups share are left
out: they are known already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.index.search.similar import SHOWN
from tonelake.index.separation.groups import MIN_TRACKS, read_groups, row_of_group
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake


def entry_songs(
    lake: Lake, column: str, name: str, others: Sequence[str], *, k: int = 3, space: str | None = None,
    layer: int | str | None = None, where: str | None = None, min_clips: int = 1, min_tracks: int = MIN_TRACKS,
    over: str | None = None, centre: bool | None = None,
) -> pl.DataFrame:
    """Return, for each group in `others`, the k of its songs that are nearest to the songs of group `name`, nearest first.

    Columns: group (the other one), rank, score (cosine), clip_id (the song's clip nearest to the first group), clips (of
    the song in the group), near_clip_id, near_title and near_source (the nearest song of the first group, by its first
    clip), and columns that describe the clip.  The other arguments are those of `groups`.

    Raises InputError for an unknown group, and as `groups`.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    found = read_groups(
        lake, column, space=space, layer=layer, where=where, min_clips=min_clips, min_tracks=min_tracks, over=over,
        centre=centre,
    )
    labelled, clips = found.labelled, found.units.clips
    part_group, part = labelled.parts()                              # a part: the clips of one song in one group
    counts = np.diff(part.indptr)
    means = (part @ clips) / counts[:, None]                         # (part, dim)
    songs = unit(means)
    track = labelled.track[part.indices[part.indptr[:-1]]]
    own = np.flatnonzero(part_group == row_of_group(found, name, min_tracks))
    middle = unit(means[own].mean(axis=0)[None])[0]
    rows = []
    for other in others:
        number = row_of_group(found, other, min_tracks)
        candidates = np.flatnonzero((part_group == number) & ~np.isin(track, track[own]))
        scores = songs[candidates] @ middle
        for rank, row in enumerate(np.argsort(-scores, kind="stable")[:k]):
            song = candidates[row]
            members = part.indices[part.indptr[song] : part.indptr[song + 1]]
            near = own[int((songs[own] @ songs[song]).argmax())]
            rows.append({
                "group": labelled.names[number], "rank": rank + 1, "score": float(scores[row]),
                "clip_id": labelled.ids[int(members[(clips[members] @ middle).argmax()])], "clips": len(members),
                "near_clip_id": labelled.ids[int(part.indices[part.indptr[near]])],
            })
    table = pl.DataFrame(rows, schema={
        "group": pl.String, "rank": pl.Int64, "score": pl.Float64, "clip_id": pl.String, "clips": pl.Int64,
        "near_clip_id": pl.String,
    })
    described = lake.clips.take(table["clip_id"].to_list(), SHOWN)
    near = lake.clips.take(table["near_clip_id"].unique(maintain_order=True).to_list(), ["title", "source"])
    return table.join(described, on="clip_id", how="left", maintain_order="left").join(
        near.rename(lambda label: f"near_{label}"), on="near_clip_id", how="left", maintain_order="left"
    )
