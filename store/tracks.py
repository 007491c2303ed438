"""Tracks of clips: clips belong to one track by its name and by confirmed duplicates."""

from __future__ import annotations

import numpy as np
import polars as pl

DUPLICATE_COLUMN = "same_as"             # column of clips: the first clip of the set of duplicates that the clip belongs to


def track_numbers(clips: pl.DataFrame) -> np.ndarray:
    """(clip,) int: equal for clips of one track and of tracks that share a duplicate clip."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    track = (clips["track"].rank("dense") - 1).to_numpy().astype(np.int64)
    if DUPLICATE_COLUMN not in clips.columns:
        return track
    marked = clips[DUPLICATE_COLUMN].is_not_null().to_numpy()
    sets = clips[DUPLICATE_COLUMN].filter(pl.Series(marked)).rank("dense").to_numpy().astype(np.int64) - 1
    tracks = int(track.max()) + 1
    nodes = tracks + (int(sets.max()) + 1 if len(sets) else 0)
    graph = sparse.coo_array((np.ones(len(sets)), (track[marked], tracks + sets)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][track].astype(np.int64)


def rows_of(ids: pl.Series, wanted: pl.Series) -> np.ndarray:
    """(wanted,) int: the index of each wanted id in `ids`, -1 for an unknown one."""
    numbered = pl.DataFrame({"clip_id": ids}).with_row_index("row")
    asked = pl.DataFrame({"clip_id": wanted})
    return asked.join(numbered, on="clip_id", how="left", maintain_order="left")["row"].cast(pl.Int64).fill_null(-1).to_numpy()
