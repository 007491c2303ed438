"""What sounds like this: the clips nearest to clips, files or a vector, in one layer of a space or in a mixture, exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.search.exact import FlatLayer, load_layer, version_of
from tonelake.index.search.facets import load_faceted
from tonelake.index.search.mixture import Weights, learn_weights, normalized, parse_weights
from tonelake.index.search.query import Query, QueryPart, resolve
from tonelake.index.search.stored_index import find_saved, search_saved
from tonelake.store import InputError, KeyRows, Lake, Snapshot, Space, rows_of

KEPT_ORDERS = 4                          # of the ids of embedded clips
SHOWN = ("artist", "title", "track", "start_s", "duration_s", "flag", "source")

_embedded: dict[tuple, Embedded] = {}


def similar(
    lake: Lake, query: QueryPart | Sequence[QueryPart], *, minus: Sequence[QueryPart] = (), space: str | None = None,
    layer: int | str | None = None, layers: str | Mapping[int | str, float] | None = None, k: int = 10,
    where: str | None = None, metric: str = "cosine", not_same: str | None = None, like: str | None = None,
    unlike: str | None = None, stat: str = "mean", explain: bool = False,
) -> pl.DataFrame:
    """The k clips nearest to `query`: a clip id (or its first digits), an audio file, a (dim,) vector, or several.

    Several count as the mean of their directions; those of `minus` are taken away from it.  `layers` mixes layers by
    weight: `"3:0.5,11:0.5"`, a mapping, `"all"`, or `"auto:COLUMN"` (see `index.search.mixture`).  `where`: an SQL filter over
    clip columns, kept exactly.  `like` and `unlike`: label columns, to look only at what their groups differ by, or to
    leave it out (see `index.search.facets`).  `not_same`: a column in which a hit must differ from the query, as `track` or `artist`.
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
    if (like or unlike) and metric != "cosine":
        raise InputError(f"a facet compares by cosine: leave out --metric {metric}")
    for column in (not_same, like, unlike):
        if column is not None:
            lake.clips.check_column(column)
    everything = range(len(chosen.layers)) if explain else weights
    asked = resolve(lake, query, chosen, list(dict.fromkeys([*weights, *everything])), stat, minus=minus)
    seek = Search(lake, chosen, metric, stat, like, unlike)
    ids, rows, scores = search(seek, weights, asked, k, where, not_same)
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


@dataclass(frozen=True)
class Search:
    """Where a search looks, and through what."""

    lake: Lake
    space: Space
    metric: str = "cosine"
    stat: str = "mean"
    like: str | None = None
    unlike: str | None = None

    def load(self, layer: int) -> FlatLayer:
        """A layer to be scanned."""
        if self.like or self.unlike:
            return load_faceted(self.lake, self.space, layer, like=self.like, unlike=self.unlike, stat=self.stat)
        return load_layer(self.lake, self.space, layer, metric=self.metric, stat=self.stat)

    def scores(self, weights: Weights, vectors: Mapping[int, np.ndarray]) -> tuple[pl.Series, np.ndarray]:
        """(ids of all embedded clips, (clip,) float32): the weighted sum of their cosines to a query in each layer."""
        while True:
            layers = {layer: self.load(layer) for layer in weights}
            ids = next(iter(layers.values())).ids
            if all(layer.ids.equals(ids) for layer in layers.values()):      # else clips came or went while they were read
                break
        total = np.zeros(len(ids), np.float32)
        for layer, weight in weights.items():
            total += np.float32(weight) * layers[layer].scores(vectors[layer])
        return ids, total


def search(
    seek: Search, weights: Weights, asked: Query, k: int, where: str | None, not_same: str | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """(ids of all embedded clips, rows of the k nearest, their scores), nearest first."""
    lake, space = seek.lake, seek.space
    first, *others = weights
    if not others:
        saved = None if seek.like or seek.unlike else find_saved(lake, space, first, metric=seek.metric, stat=seek.stat)
        if saved is not None:
            snapshot = lake.vectors(space).table.snapshot()
            known = embedded_at(lake, space, snapshot)
            allowed = allowed_rows(lake, known, asked, where, not_same)
            found = search_saved(lake, space, saved, asked.vectors[first], k, allowed, snapshot)
            if found is not None:
                return known.ids, *found
        index = seek.load(first)
        allowed = allowed_rows(lake, embedded_of(lake, space, index.ids), asked, where, not_same)
        rows, scores = index.search(asked.vectors[first], k, allowed)
        return index.ids, rows, scores
    ids, total = seek.scores(weights, asked.vectors)
    rows = best(total, k, allowed_rows(lake, embedded_of(lake, space, ids), asked, where, not_same))
    return ids, rows, total[rows]


def best(scores: np.ndarray, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Rows of the k highest scores among those allowed, highest first, equal ones in their order."""
    rows = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    if k < len(rows):
        rows = rows[np.argpartition(-scores[rows], k - 1)[:k]]
    return rows[np.lexsort((rows, -scores[rows]))]


def explained(lake: Lake, space: Space, asked: Query, hits: pl.Series, stat: str) -> list[pl.Series]:
    """At every layer, each hit's cosine to the query and the mean cosine of all clips: `by_layer` and `usual`."""
    alike = np.empty((len(hits), len(space.layers)), np.float32)
    usual = np.empty(len(space.layers), np.float32)
    ids: pl.Series | None = None
    for layer in range(len(space.layers)):
        index = load_layer(lake, space, layer, stat=stat)
        if ids is None or not ids.equals(index.ids):                 # once, unless clips came or went meanwhile
            ids = index.ids
            rows = rows_of(ids, hits)
        scores = index.scores(asked.vectors[layer])
        alike[:, layer] = scores[rows]
        usual[layer] = scores.mean()
    by_layer = pl.DataFrame(alike, schema=list(space.layers)).to_struct("by_layer")
    return [by_layer, pl.DataFrame(np.tile(usual, (len(hits), 1)), schema=list(space.layers)).to_struct("usual")]


@dataclass(frozen=True)
class Embedded:
    """The embedded clips in the order of an index or of a table, and what every search asks of them."""

    ids: pl.Series
    places: KeyRows
    gone: np.ndarray                     # rows of clips that are no longer in the lake


def embedded_of(lake: Lake, space: Space, ids: pl.Series) -> Embedded:
    """The clips of a loaded layer; kept for the searches that follow, until clips or vectors change."""
    return keep_embedded((*version_of(lake, space), "layer"), lake, lambda: ids)


def embedded_at(lake: Lake, space: Space, snapshot: Snapshot) -> Embedded:
    """The same for one version of a space's table, in its order."""
    version = 0 if snapshot.dataset is None else snapshot.dataset.version
    key = (lake.uri, space.fingerprint, version, lake.clips.table.version, "table")
    return keep_embedded(key, lake, lambda: pl.Series("clip_id", snapshot.keys, dtype=pl.String))


def keep_embedded(key: tuple, lake: Lake, read: Callable[[], pl.Series]) -> Embedded:
    found = _embedded.get(key)
    # A layer may be older than the versions in the key, where a writer came between: being equal is what counts.
    if found is None or (key[-1] == "layer" and found.ids is not (ids := read()) and not found.ids.equals(ids)):
        ids, clips = read(), lake.clips.ids()
        gone = np.empty(0, np.int64) if ids.equals(clips) else (~ids.is_in(clips.implode())).arg_true().to_numpy()
        found = _embedded[key] = Embedded(ids, KeyRows(ids), gone)
        while len(_embedded) > KEPT_ORDERS:
            _embedded.pop(next(iter(_embedded)), None)
    return found


def allowed_rows(
    lake: Lake, known: Embedded, query: Query, where: str | None, not_same: str | None
) -> np.ndarray | None:
    """(clip,) bool over the embedded clips: what may be an answer.  None where everything may."""
    forbidden = [known.gone, known.places.of(list(query.own))]
    if not_same is not None:
        column = lake.clips.read(["clip_id", not_same])
        for value in (labels[not_same] for labels in query.labels if labels.get(not_same) is not None):
            forbidden.append(known.places.of(column.filter(_shares(column[not_same], value))["clip_id"]))
    if where is None and not any(len(rows) for rows in forbidden):
        return None
    keep = np.ones(len(known.ids), bool)
    if where is not None:
        wanted = known.places.of(lake.clips.ids(where))
        keep[:] = False
        keep[wanted[wanted >= 0]] = True
    for rows in forbidden:
        keep[rows[rows >= 0]] = False
    return keep


def _shares(column: pl.Series, value: Any) -> pl.Series:
    """Which rows have the value, or, of a list column, any of its values."""
    if isinstance(column.dtype, pl.List):
        return column.list.set_intersection(pl.Series([list(value)])).list.len().fill_null(0) > 0
    return (column == value).fill_null(False)
