"""What sounds like this: the clips nearest to a clip, a file or a vector, in one layer of one space, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from index.flat import FlatLayer, load_layer
from index.query import Query, resolve
from store import InputError, Lake

SHOWN = ("artist", "title", "track", "start_s", "duration_s", "flag", "source")


def similar(
    lake: Lake, query: str | Path | np.ndarray, *, space: str | None = None, layer: int | str | None = None, k: int = 10,
    where: str | None = None, metric: str = "cosine", not_same: str | None = None, stat: str = "mean",
) -> pl.DataFrame:
    """The k clips nearest to `query`: a clip id (or its first digits), an audio file, or a (dim,) vector.

    `where`: an SQL filter over clip columns, kept exactly.  `not_same`: a column in which a hit must differ from the
    query, as `track` or `artist`.  A file that is not in the lake is embedded with the space's encoder; the query's own
    clips are never among the answers.

    Returns rank, score (or distance, for l2), clip_id and what tells a person which clip that is.
    """
    if k < 1:
        raise InputError(f"-k {k}: ask for at least one neighbour")
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    if not_same is not None:
        lake.clips.check_column(not_same)
    index = load_layer(lake, chosen, number, metric=metric, stat=stat)
    asked = resolve(lake, query, chosen, number, stat)
    rows, scores = index.search(asked.vector, k, allowed_rows(lake, index, asked, where, not_same))
    ids = index.ids.gather(rows)
    hits = pl.DataFrame({
        "rank": np.arange(1, len(rows) + 1),
        "distance" if metric == "l2" else "score": scores,
        "clip_id": ids,
    })
    return hits.join(lake.clips.take(ids.to_list(), SHOWN), on="clip_id", how="left", maintain_order="left")


def allowed_rows(
    lake: Lake, index: FlatLayer, query: Query, where: str | None, not_same: str | None
) -> np.ndarray | None:
    """(clip,) bool over the rows of an index: what may be an answer.  None where everything may."""
    keep: pl.Series | None = None
    if where is not None:
        keep = index.ids.is_in(lake.clips.read(["clip_id"], where=where)["clip_id"].implode())
    if query.own:
        others = ~index.ids.is_in(list(query.own))
        keep = others if keep is None else keep & others
    if not_same is not None and query.labels.get(not_same) is not None:
        column = lake.clips.read(["clip_id", not_same])
        same = column.filter(_shares(column[not_same], query.labels[not_same]))["clip_id"]
        differs = ~index.ids.is_in(same.implode())
        keep = differs if keep is None else keep & differs
    return None if keep is None else keep.to_numpy()


def _shares(column: pl.Series, value: Any) -> pl.Series:
    """Which rows have the value, or, of a list column, any of its values."""
    if isinstance(column.dtype, pl.List):
        return column.list.set_intersection(pl.Series([list(value)])).list.len().fill_null(0) > 0
    return (column == value).fill_null(False)
