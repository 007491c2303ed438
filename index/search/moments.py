"""The moments of a song that are nearest to other clips: to the hits of a search, or to a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from tonelake.index.vectors import unit
from tonelake.store import Lake, Space

MOMENTS = 3
SCHEMA = {"clip_id": pl.String, "start_s": pl.Float64, "duration_s": pl.Float64, "score": pl.Float32}


def best_moments(
    lake: Lake, space: Space, weights: Mapping[int, float], clips: pl.DataFrame, others: Sequence[str], *, count: int = MOMENTS
) -> pl.DataFrame:
    """Return the clips of a song that are nearest to `others`, clips of other songs, best first.

    At most `count`, and at most a third of the song's clips: the best of a few would be all of it.

    `weights`: by layer number, as of a mixture; one layer has weight 1.  `clips`: clip_id, start_s and duration_s of the song's
    clips.  A clip's score is its mean cosine to `others`.  Clips that overlap a better one are left out, and so are clips that
    are not embedded.  A song with one clip has no best moment.
    Returns clip_id, start_s, duration_s and score.
    """
    clips = clips.filter(pl.col("clip_id").is_in(embedded_ids(lake, space, clips["clip_id"]).implode()))
    others = embedded_ids(lake, space, pl.Series(others, dtype=pl.String)).to_list()
    if len(clips) < 2 or not others:
        return pl.DataFrame(schema=SCHEMA)
    score = np.zeros(len(clips), np.float32)
    for layer, weight in weights.items():
        own = unit(lake.vectors(space).take(clips["clip_id"].to_list(), layer).vectors)          # (clip, dim)
        score += np.float32(weight) * (own @ unit(lake.vectors(space).take(others, layer).vectors).mean(axis=0))
    ranked = clips.select("clip_id", "start_s", "duration_s").with_columns(score=score).sort(
        "score", "start_s", descending=[True, False]
    )
    kept: list[tuple] = []
    for row in ranked.iter_rows():
        start, end = row[1], row[1] + row[2]
        if all(end <= one[1] or start >= one[1] + one[2] for one in kept):
            kept.append(row)
        if len(kept) >= min(count, max(1, len(clips) // 3)):
            break
    return pl.DataFrame(kept, schema=SCHEMA, orient="row")


def embedded_ids(lake: Lake, space: Space, ids: pl.Series) -> pl.Series:
    """Return those of some clip ids that are embedded in a space, in their order."""
    known = lake.vectors(space).table.take(ids.unique().to_list(), ["clip_id"])
    return ids.filter(ids.is_in(pl.Series(known.column("clip_id").to_pylist(), dtype=pl.String).implode()))
