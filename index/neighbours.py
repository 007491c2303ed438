"""What sounds like this: the clips nearest to clips, files or a vector, in one layer of a space or in a mixture, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from index.flat import load_layer
from index.mixture import Weights, learn_weights, normalized, parse_weights
from index.query import One, Query, resolve
from index.saved import find_saved, search_saved
from store import InputError, Lake, Space

SHOWN = ("artist", "title", "track", "start_s", "duration_s", "flag", "source")


def similar(
    lake: Lake, query: One | Sequence[One], *, minus: Sequence[One] = (), space: str | None = None,
    layer: int | str | None = None, layers: str | Mapping[int | str, float] | None = None, k: int = 10,
    where: str | None = None, metric: str = "cosine", not_same: str | None = None, stat: str = "mean", explain: bool = False,
) -> pl.DataFrame:
    """The k clips nearest to `query`: a clip id (or its first digits), an audio file, a (dim,) vector, or several.

    Several count as the mean of their directions; those of `minus` are taken away from it.  `layers` mixes layers by
    weight: `"3:0.5,11:0.5"`, a mapping, `"all"`, or `"auto:COLUMN"` (see `index.mixture`).  `where`: an SQL filter over
    clip columns, kept exactly.  `not_same`: a column in which a hit must differ from the query, as `track` or `artist`.
    A file that is not in the lake is embedded with the space's encoder; the query's own clips are never among the answers.

    Returns rank, score (or distance, for l2), clip_id and what tells a person which clip that is; with `explain` also
    `by_layer` and `usual`, structs with a field a layer: the hit's cosine to the query, and that of the average clip.
    """
    if k < 1:
        raise InputError(f"-k {k}: ask for at least one neighbour")
    chosen = lake.spaces.get(space)
    weights = choose_layers(lake, chosen, layer, layers, stat)
    if len(weights) > 1 and metric != "cosine":
        raise InputError(f"a mixture of layers is a sum of cosines: leave out --metric {metric}")
    if not_same is not None:
        lake.clips.check_column(not_same)
    everything = range(len(chosen.layers)) if explain else weights
    asked = resolve(lake, query, chosen, list(dict.fromkeys([*weights, *everything])), stat, minus=minus)
    ids, rows, scores = search(lake, chosen, weights, asked, k, where, metric, not_same, stat)
    found = ids.gather(rows)
    hits = pl.DataFrame({
        "rank": np.arange(1, len(rows) + 1),
        "distance" if metric == "l2" else "score": scores,
        "clip_id": found,
    })
    if explain:
        hits = hits.with_columns(explained(lake, chosen, asked, found, stat))
    return hits.join(lake.clips.take(found.to_list(), SHOWN), on="clip_id", how="left", maintain_order="left")


def choose_layers(
    lake: Lake, space: Space, layer: int | str | None, layers: str | Mapping[int | str, float] | None, stat: str
) -> Weights:
    """What is asked for, as weights: one layer, by default the space's, or a mixture."""
    if layers is None:
        return {space.layer_index(layer): 1.0}
    if layer is not None:
        raise InputError("--layer names one layer, --layers a mixture: give one of them")
    if isinstance(layers, Mapping):
        return normalized({space.layer_index(name): float(weight) for name, weight in layers.items()}, str(dict(layers)))
    if layers.startswith("auto:"):
        return learn_weights(lake, space, layers.removeprefix("auto:"), stat=stat).weights
    return parse_weights(layers, space)


def search(
    lake: Lake, space: Space, weights: Weights, asked: Query, k: int, where: str | None, metric: str, not_same: str | None,
    stat: str,
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """(ids of all embedded clips, rows of the k nearest, their scores), nearest first."""
    first, *others = weights
    if not others:
        saved = find_saved(lake, space, first, metric=metric, stat=stat)
        if saved is not None:
            snapshot = lake.vectors(space).table.snapshot()
            ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
            allowed = allowed_rows(lake, ids, asked, where, not_same)
            found = search_saved(lake, space, saved, asked.vectors[first], k, allowed, snapshot)
            if found is not None:
                return ids, *found
    index = load_layer(lake, space, first, metric=metric, stat=stat)
    allowed = allowed_rows(lake, index.ids, asked, where, not_same)
    if not others:
        rows, scores = index.search(asked.vectors[first], k, allowed)
        return index.ids, rows, scores
    total = weights[first] * index.scores(asked.vectors[first])
    for layer in others:
        other = load_layer(lake, space, layer, metric=metric, stat=stat)
        if not other.ids.equals(index.ids):          # clips came or went while the layers were read
            return search(lake, space, weights, asked, k, where, metric, not_same, stat)
        total += weights[layer] * other.scores(asked.vectors[layer])
    candidates = np.arange(len(total)) if allowed is None else np.flatnonzero(allowed)
    if k < len(candidates):
        candidates = candidates[np.argpartition(-total[candidates], k - 1)[:k]]
    order = np.lexsort((candidates, -total[candidates]))
    return index.ids, candidates[order], total[candidates[order]].astype(np.float32)


def explained(lake: Lake, space: Space, asked: Query, hits: pl.Series, stat: str) -> list[pl.Series]:
    """At every layer, each hit's cosine to the query and the mean cosine of all clips: `by_layer` and `usual`."""
    alike = np.empty((len(hits), len(space.layers)), np.float32)
    usual = np.empty(len(space.layers), np.float32)
    ids: pl.Series | None = None
    for layer in range(len(space.layers)):
        index = load_layer(lake, space, layer, stat=stat)
        if ids is None or not ids.equals(index.ids):                 # once, unless clips came or went meanwhile
            ids = index.ids
            row = dict(zip(ids, range(len(ids)), strict=True))
            rows = [row[clip] for clip in hits]
        scores = index.scores(asked.vectors[layer])
        alike[:, layer] = scores[rows]
        usual[layer] = scores.mean()
    by_layer = pl.DataFrame(alike, schema=list(space.layers)).to_struct("by_layer")
    return [by_layer, pl.DataFrame(np.tile(usual, (len(hits), 1)), schema=list(space.layers)).to_struct("usual")]


def allowed_rows(
    lake: Lake, ids: pl.Series, query: Query, where: str | None, not_same: str | None
) -> np.ndarray | None:
    """(clip,) bool over the embedded clips: what may be an answer.  None where everything may."""
    keep: pl.Series | None = None
    clips = lake.clips.ids(where)
    if not ids.equals(clips):            # a filter, or vectors of clips that are no longer in the lake
        keep = ids.is_in(clips.implode())
    if query.own:
        others = ~ids.is_in(list(query.own))
        keep = others if keep is None else keep & others
    if not_same is not None:
        column = lake.clips.read(["clip_id", not_same])
        for value in (labels[not_same] for labels in query.labels if labels.get(not_same) is not None):
            same = column.filter(_shares(column[not_same], value))["clip_id"]
            differs = ~ids.is_in(same.implode())
            keep = differs if keep is None else keep & differs
    return None if keep is None else keep.to_numpy()


def _shares(column: pl.Series, value: Any) -> pl.Series:
    """Which rows have the value, or, of a list column, any of its values."""
    if isinstance(column.dtype, pl.List):
        return column.list.set_intersection(pl.Series([list(value)])).list.len().fill_null(0) > 0
    return (column == value).fill_null(False)
