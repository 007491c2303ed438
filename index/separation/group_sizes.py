"""Count the songs and clips of each group of a column, without reading a vector."""

from __future__ import annotations

import polars as pl

from tonelake.evaluate import read_labelled
from tonelake.store import Lake


def group_sizes(lake: Lake, column: str, *, space: str | None = None, where: str | None = None) -> pl.DataFrame:
    """Return group, tracks, clips and units of each group among the embedded clips, those with most units first.

    `units` is what `groups` compares groups over, and what its `min_tracks` counts: tracks or, where every group is one track,
    clips.  Raises InputError as `groups`, but not if there is a single group.
    """
    labelled = read_labelled(lake, lake.spaces.get(space), column, where)
    tracks, clips = labelled.tracks_of_groups(), labelled.clips_of_groups()
    units = clips if tracks.max() < 2 else tracks
    found = pl.DataFrame({"group": labelled.names, "tracks": tracks, "clips": clips, "units": units})
    return found.sort("units", "group", descending=[True, False])
