"""Find the clips nearest to clips, files or a vector, in one layer of a space or in a mixture of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.search.exact import ExactLayer, cache_version, load_layer
from tonelake.index.search.facets import load_faceted
from tonelake.index.search.mixture import Weights, learn_weights, normalized, parse_weights
from tonelake.index.search.query import Query, QueryPart, resolve
from tonelake.index.search.stored_index import find_index, search_stored
from tonelake.store import InputError, KeyRows, Lake, Snapshot, Space, is_list, rows_of

CACHED_ORDERS = 4                        # entries of `_embedded`
SHOWN = ("artist", "title", "track", "start_s", "duration_s", "flag", "source")

_embedded: dict[tuple, Embedded] = {}


def similar(
    lake: Lake, query: QueryPart | Sequence[QueryPart], *, minus: Sequence[QueryPart] = (), space: str | None = None,
    layer: int | str | None = None, layers: str | Mapping[int | str, float] | None = None, k: int = 10,
    where: str | None = None, metric: str = "cosine", not_same: str | None = None, like: str | None = None,
    unlike: str | None = None, explain: bool = False,
) -> pl.DataFrame:
    """Return the k clips nearest to `query`: a clip id (or its first digits), an audio file, a (dim,) vector, or several.

    Several parts are searched by the mean of their directions, less that of `minus`.  `layers` mixes layers by weight:
    `"3:0.5,11:0.5"`, a mapping, `"all"`, or `"auto:COLUMN"` (see `index.search.mixture`).  `where`: an SQL filter over clip
    columns, applied exactly.  `like` and `unlike`: label columns; compare only along the directions that separate their
    groups, or without these directions (see `index.search.facets`).  `not_same`: a column in which a hit must differ from
    the query, such as `track` or `artist`.  A file that is not in the lake is embedded with the space's encoder; the query's
    own clips are never among the hits.

    Returns rank, score (or distance, for l2), clip_id and columns that describe the clip; with `explain` also `by_layer` and
    `usual`, structs with one field per layer: the hit's cosine to the query, and the mean cosine of all clips.
    Raises InputError for arguments that exclude each other, and as `resolve`.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    chosen = lake.spaces.get(space)
    weights = choose_layers(lake, chosen, layer, layers)
    if len(weights) > 1 and metric != "cosine":
        raise InputError(f"a mixture of layers is a sum of cosines. Leave out --metric {metric}")
    if (like or unlike) and metric != "cosine":
        raise InputError(f"a facet compares by cosine. Leave out --metric {metric}")
    for column in (not_same, like, unlike):
        if column is not None:
            lake.clips.check_column(column)
    needed = range(len(chosen.layers)) if explain else weights
    resolved = resolve(lake, query, chosen, list(dict.fromkeys([*weights, *needed])), minus=minus)
    search = Search(lake=lake, space=chosen, metric=metric, like=like, unlike=unlike)
    ids, rows, scores = find_nearest(search, weights, resolved, k, where, not_same)
    found = ids.gather(rows)
    hits = pl.DataFrame({
        "rank": np.arange(1, len(rows) + 1),
        "distance" if metric == "l2" else "score": scores,
        "clip_id": found,
    })
    if explain:
        hits = hits.with_columns(explanation(lake, chosen, resolved, found))
    return hits.join(lake.clips.take(found.to_list(), SHOWN), on="clip_id", how="left", maintain_order="left")


def choose_layers(
    lake: Lake, space: Space, layer: int | str | None, layers: str | Mapping[int | str, float] | None
) -> Weights:
    """Return the arguments `layer` (by default the space's) or `layers` of `similar` as weights by layer number."""
    if layers is None:
        return {space.layer_index(layer): 1.0}
    if layer is not None:
        raise InputError("--layer names one layer, --layers a mixture. Give one of them")
    if isinstance(layers, Mapping):
        return normalized({space.layer_index(name): float(weight) for name, weight in layers.items()}, str(dict(layers)))
    if layers.startswith("auto:"):
        return learn_weights(lake, layers.removeprefix("auto:"), space=space.name).weights
    return parse_weights(layers, space)


@dataclass(frozen=True, kw_only=True)
class Search:
    """The space, metric and facets of a search."""

    lake: Lake
    space: Space
    metric: str = "cosine"
    like: str | None = None
    unlike: str | None = None

    def load(self, layer: int) -> ExactLayer:
        """Load a layer for a scan, mapped by the facets if there are any."""
        if self.like or self.unlike:
            return load_faceted(self.lake, self.space, layer, like=self.like, unlike=self.unlike)
        return load_layer(self.lake, self.space, layer, metric=self.metric)

    def scores(self, weights: Weights, vectors: Mapping[int, np.ndarray]) -> tuple[pl.Series, np.ndarray]:
        """Return (ids of all embedded clips, (clip,) float32 weighted sums of their cosines to a query in each layer)."""
        while True:
            layers = {layer: self.load(layer) for layer in weights}
            ids = next(iter(layers.values())).ids
            if all(layer.ids.equals(ids) for layer in layers.values()):      # else clips were added or removed meanwhile
                break
        total = np.zeros(len(ids), np.float32)
        for layer, weight in weights.items():
            total += np.float32(weight) * layers[layer].scores(vectors[layer])
        return ids, total


def find_nearest(
    search: Search, weights: Weights, query: Query, k: int, where: str | None, not_same: str | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """Return (ids of all embedded clips, rows of the k nearest, their scores), nearest first.

    One layer is searched by its stored index, if there is one, else by a scan; a mixture always by a scan.
    """
    lake, space = search.lake, search.space
    first, *others = weights
    if not others:
        stored = None if search.like or search.unlike else find_index(lake, space, first, metric=search.metric)
        if stored is not None:
            snapshot = lake.vectors(space).table.snapshot()
            known = embedded_in_snapshot(lake, space, snapshot)
            allowed = allowed_rows(lake, known, query, where, not_same)
            found = search_stored(lake, space, stored, query.vectors[first], k, allowed, snapshot)
            if found is not None:
                return known.ids, *found
        layer = search.load(first)
        allowed = allowed_rows(lake, embedded_in_layer(lake, space, layer.ids), query, where, not_same)
        rows, scores = layer.search(query.vectors[first], k, allowed)
        return layer.ids, rows, scores
    ids, total = search.scores(weights, query.vectors)
    rows = highest(total, k, allowed_rows(lake, embedded_in_layer(lake, space, ids), query, where, not_same))
    return ids, rows, total[rows]


def highest(scores: np.ndarray, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return the rows of the k highest scores among those allowed, highest first, equal scores in row order."""
    rows = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    if k < len(rows):
        rows = rows[np.argpartition(-scores[rows], k - 1)[:k]]
    return rows[np.lexsort((rows, -scores[rows]))]


def explanation(lake: Lake, space: Space, query: Query, hits: pl.Series) -> list[pl.Series]:
    """Return `by_layer` and `usual`: each hit's cosine to the query at every layer, and the mean cosine of all clips."""
    cosines = np.empty((len(hits), len(space.layers)), np.float32)
    usual = np.empty(len(space.layers), np.float32)
    ids: pl.Series | None = None
    for layer in range(len(space.layers)):
        index = load_layer(lake, space, layer)
        if ids is None or not ids.equals(index.ids):                 # once, unless clips were added or removed meanwhile
            ids = index.ids
            rows = rows_of(ids, hits)
        scores = index.scores(query.vectors[layer])
        cosines[:, layer] = scores[rows]
        usual[layer] = scores.mean()
    by_layer = pl.DataFrame(cosines, schema=list(space.layers)).to_struct("by_layer")
    return [by_layer, pl.DataFrame(np.tile(usual, (len(hits), 1)), schema=list(space.layers)).to_struct("usual")]


@dataclass(frozen=True)
class Embedded:
    """The embedded clips in the order of a layer or table, with lookups that every search needs."""

    ids: pl.Series
    rows: KeyRows                        # clip id -> row
    removed: np.ndarray                  # rows of clips that are no longer in the lake


def embedded_in_layer(lake: Lake, space: Space, ids: pl.Series) -> Embedded:
    """Return the clips of a loaded layer, cached until clips or vectors change."""
    return cached_embedded((*cache_version(lake, space), "layer"), lake, lambda: ids)


def embedded_in_snapshot(lake: Lake, space: Space, snapshot: Snapshot) -> Embedded:
    """Return the clips of one version of a space's table, in its order, cached."""
    version = 0 if snapshot.dataset is None else snapshot.dataset.version
    key = (lake.uri, space.fingerprint, version, lake.clips.table.version, "table")
    return cached_embedded(key, lake, lambda: pl.Series("clip_id", snapshot.keys, dtype=pl.String))


def cached_embedded(key: tuple, lake: Lake, read: Callable[[], pl.Series]) -> Embedded:
    """Return clips from the cache, or read and cache them."""
    found = _embedded.get(key)
    # A concurrent writer can make a layer older than the versions in the key, so compare its ids as well.
    if found is None or (key[-1] == "layer" and found.ids is not (ids := read()) and not found.ids.equals(ids)):
        ids, clips = read(), lake.clips.ids()
        removed = np.empty(0, np.int64) if ids.equals(clips) else (~ids.is_in(clips.implode())).arg_true().to_numpy()
        found = _embedded[key] = Embedded(ids, KeyRows(ids), removed)
        while len(_embedded) > CACHED_ORDERS:
            _embedded.pop(next(iter(_embedded)), None)
    return found


def allowed_rows(
    lake: Lake, known: Embedded, query: Query, where: str | None, not_same: str | None
) -> np.ndarray | None:
    """Return a (clip,) bool mask of the embedded clips that may be hits; None if all may."""
    forbidden = [known.removed, known.rows.of(list(query.own))]
    if not_same is not None:
        column = lake.clips.read(["clip_id", not_same])
        for value in (labels[not_same] for labels in query.labels if labels.get(not_same) is not None):
            forbidden.append(known.rows.of(column.filter(_shares(column[not_same], value))["clip_id"]))
    if where is None and not any(len(rows) for rows in forbidden):
        return None
    keep = np.ones(len(known.ids), bool)
    if where is not None:
        wanted = known.rows.of(lake.clips.ids(where))
        keep[:] = False
        keep[wanted[wanted >= 0]] = True
    for rows in forbidden:
        keep[rows[rows >= 0]] = False
    return keep


def _shares(column: pl.Series, value: Any) -> pl.Series:
    """Return a mask of the rows that have the value or, in a list column, any of its values."""
    if is_list(column.dtype):
        return column.list.set_intersection(pl.Series([list(value)])).list.len().fill_null(0) > 0
    return (column == value).fill_null(False)
