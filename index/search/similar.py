"""Find the songs or clips nearest to clips, files or a vector, in one layer of a space or in a mixture of layers.

Modules that few searches need are imported within the functions, so that a short command starts sooner.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.index.hubness import DEFAULT_HUBS, check_hubs
from tonelake.index.search.candidates import Embedded, allowed_rows, embedded_in_layer, embedded_in_snapshot
from tonelake.index.search.corrected import corrected_layer, layer_references, nearest_stored_corrected, query_neighbourhood
from tonelake.index.search.described_index import StoredIndex, find_index
from tonelake.index.search.exact import ExactLayer, highest, load_layer
from tonelake.index.search.mixture import Weights, learn_weights, normalized, parse_weights
from tonelake.index.search.narrow import exceeds_memory, read_allowed
from tonelake.index.search.query import Query, QueryPart, resolve
from tonelake.index.search.songs import nearest_songs, nearest_songs_stored, read_cap
from tonelake.index.search.stored_index import search_stored
from tonelake.index.search.walk import ORDERS, walk
from tonelake.index.vectors import check_metric, prepare
from tonelake.store import InputError, Lake, Snapshot, Space, SpaceWeights, is_local, read_songs, rows_of

SHOWN = ("artist", "title", "track", "start_s", "duration_s", "flag", "state", "source")

log = logging.getLogger(__name__)


def similar(
    lake: Lake, query: QueryPart | Sequence[QueryPart] = (), *, minus: Sequence[QueryPart] = (),
    text: str | Sequence[str] = (), space: str | None = None, layer: int | str | None = None,
    layers: str | Mapping[int | str, float] | None = None, spaces: SpaceWeights | None = None, k: int = 10,
    where: str | None = None, metric: str = "cosine", not_same: str | None = None, like: str | None = None,
    unlike: str | None = None, explain: bool = False, clips: bool = False, per: tuple[str, int] | None = None,
    order: str = "nearest", hubs: str = DEFAULT_HUBS, described: bool = True,
) -> pl.DataFrame:
    """Return the k songs nearest to `query`: a clip id (or its first digits), an audio file, a (dim,) vector, or several.

    `text`: words, alone or with clips: a prompt such as "slow piano", or several; those with a leading minus are
    subtracted.  They are answered by a space whose encoder understands words, or names tags (see `index.search.words`).

    A song is a track joined with its confirmed duplicates (`store.read_songs`); its row shows the clip nearest to the query,
    its best moment.  With `clips`, return the k nearest clips instead.  `per`: a column and the number of hits that may share
    one of its values, for example ("artist", 2).  `order`: "nearest", or "walk" (see `index.search.walk`).

    `hubs`: "corrected" lowers the score of clips that are near very many others (see `index.hubness`); this roughly
    halves hubness on real music and leaves the share of relevant hits where it was.

    Several parts are searched by one vector, which depends on the metric (`index.search.query.combine`): under cosine the mean
    of their directions, less that of `minus`.  `layers` mixes layers by weight:
    `"3:0.5,11:0.5"`, a mapping, `"all"`, or `"auto:COLUMN"` (see `index.search.mixture`).  `spaces` mixes spaces, each at its
    default layer or a named one: `"A:0.7,B/3:0.3"` or a mapping; the score is then a weighted sum of z-scores, and `cosine` has
    the cosine in each space (see `index.search.space_mixture`).  `where`: an SQL filter over clip columns, applied exactly.
    `like` and `unlike`: label columns; compare only along the directions that separate their groups, or without these
    directions (see `index.search.facets`).  `not_same`: a column in which a hit must differ from
    the query, such as `track` or `artist`.  A file that is not in the lake is embedded with the space's encoder; the query's
    own clips are never among the hits, nor are its own songs unless `clips` is True.

    Returns rank, score (or distance, for l2), clip_id, clips (unless `clips` is True: how many clips of the song are at least
    as near as the last song listed) and, with `described`, columns that describe the clip; with `explain` also `by_layer` and
    `usual`, structs with one field per layer: the hit's cosine to the query, and the mean cosine of all clips; and `heard`, a
    list of the hit's likeliest tags, if the space's encoder names tags.
    Raises InputError for arguments that exclude each other, and as `resolve`.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    if order not in ORDERS:
        raise InputError(f"order {order!r}: unknown. Choose {' or '.join(ORDERS)}")
    check_metric(metric)
    corrected = check_hubs(hubs, metric)
    worded = isinstance(text, str) or len(text) > 0
    if spaces is not None:
        from tonelake.index.search.spaces import refuse_with_spaces, similar_in_spaces

        refuse_with_spaces(
            space=space, layer=layer is not None, layers=layers, metric=metric != "cosine", like=like, unlike=unlike,
            hubs=corrected, explain=explain, text=worded,
        )
        if not_same is not None:
            lake.clips.check_column(not_same)
        hits = similar_in_spaces(
            lake, query, spaces, minus=minus, k=k, where=where, not_same=not_same, clips=clips, per=per, order=order
        )
        return describe_hits(lake, hits) if described else hits
    if worded:
        from tonelake.index.search.words import refuse_with_words, resolve_words

        refuse_with_words(metric=metric, layers=layers, like=like, unlike=unlike, explain=explain)
        chosen, number, resolved = resolve_words(lake, text, query, minus, space=space, layer=layer, corrected=corrected)
        weights = {number: 1.0}
    else:
        chosen = lake.spaces.get(space)
        weights = choose_layers(lake, chosen, layer, layers)
    check_options(lake, weights, metric, like, unlike, not_same)
    if not worded:
        explained = range(len(chosen.layers)) if explain else ()
        resolved = resolve(lake, query, chosen, list(weights), minus=minus, metric=metric, described=explained)
    for note in resolved.notes:
        log.info("%s", note)
    search = Search(lake=lake, space=chosen, metric=metric, like=like, unlike=unlike, corrected=corrected)
    found = find_nearest(search, weights, resolved, k, where, not_same, clips=clips, per=per)
    hits = rank_hits(search, weights, resolved, found)
    if explain:
        hits = hits.with_columns(explanation(lake, chosen, resolved, hits["clip_id"]))
    if order == "walk":
        hits = hits[walk(search.similarities(weights, hits["clip_id"]))]
    return describe_hits(lake, hits) if described else hits


def rank_hits(search: Search, weights: Weights, query: Query, found: Nearest) -> pl.DataFrame:
    """Return rank, score (or distance, for l2), clip_id and, for songs, clips of what was found."""
    scores = found.scores - search.query_half(weights, query) if search.corrected else found.scores
    return pl.DataFrame({
        "rank": np.arange(1, len(found.rows) + 1),
        "distance" if search.metric == "l2" else "score": scores.astype(np.float32),
        "clip_id": found.ids.gather(found.rows),
    } | ({} if found.clips is None else {"clips": found.clips}))


def check_options(
    lake: Lake, weights: Weights, metric: str, like: str | None, unlike: str | None, not_same: str | None
) -> None:
    """Raise InputError for a metric that a mixture or facet does not have, and for columns that do not exist."""
    if len(weights) > 1 and metric != "cosine":
        raise InputError(f"a mixture of layers is a sum of cosines. Leave out --metric {metric}")
    if (like or unlike) and metric != "cosine":
        raise InputError(f"a facet compares by cosine. Leave out --metric {metric}")
    for column in (not_same, like, unlike):
        if column is not None:
            lake.clips.check_column(column)


def describe_hits(lake: Lake, hits: pl.DataFrame) -> pl.DataFrame:
    """Add the columns that describe a hit's clip."""
    return hits.join(lake.clips.take(hits["clip_id"].to_list(), SHOWN), on="clip_id", how="left", maintain_order="left")


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
    """The space, metric and facets of a search, and whether hubs are corrected."""

    lake: Lake
    space: Space
    metric: str = "cosine"
    like: str | None = None
    unlike: str | None = None
    corrected: bool = False

    def load(self, layer: int) -> ExactLayer:
        """Load a layer for a scan, mapped by the facets if there are any, its scores corrected for hubs on request."""
        if self.corrected:
            return corrected_layer(self.lake, self.space, layer, self.plain_layer(layer), self.like, self.unlike)
        return self.plain_layer(layer)

    def plain_layer(self, layer: int) -> ExactLayer:
        """Load a layer for a scan, mapped by the facets if there are any."""
        if self.like or self.unlike:
            from tonelake.index.search.facets import load_faceted  # imports scipy

            return load_faceted(self.lake, self.space, layer, like=self.like, unlike=self.unlike)
        return load_layer(self.lake, self.space, layer, metric=self.metric)

    def query_half(self, weights: Weights, query: Query) -> float:
        """Return half the neighbourhood of a query, by weight of layer: what its corrected scores still lack."""
        own = read_songs(self.lake.clips).of(list(query.own)) if query.own else np.empty(0, np.int64)
        total = 0.0
        for layer, weight in weights.items():
            if self.like or self.unlike:
                loaded = corrected_layer(self.lake, self.space, layer, self.plain_layer(layer), self.like, self.unlike)
                prepared, references = loaded.prepare_query(query.vectors[layer]), loaded.references
            else:
                prepared = prepare(query.vectors[layer][None], self.metric)[0]
                references = layer_references(self.lake, self.space, layer)
            total += weight * query_neighbourhood(prepared, own, references) / 2
        return total

    def scores(self, weights: Weights, vectors: Mapping[int, np.ndarray]) -> tuple[pl.Series, np.ndarray]:
        """Return (ids of all embedded clips, (clip,) float32 weighted sums of their cosines to a query in each layer)."""
        ids, layers = self.load_all(weights)
        total = np.zeros(len(ids), np.float32)
        for layer, weight in weights.items():
            total += np.float32(weight) * layers[layer].scores(vectors[layer])
        return ids, total

    def scores_of(
        self, weights: Weights, queries: Sequence[Mapping[int, np.ndarray]]
    ) -> tuple[pl.Series, np.ndarray]:
        """As `scores` for several queries: (ids, (query, clip) float32)."""
        ids, layers = self.load_all(weights)
        total = np.zeros((len(queries), len(ids)), np.float32)
        for layer, weight in weights.items():
            total += np.float32(weight) * layers[layer].scores_of([vectors[layer] for vectors in queries])
        return ids, total

    def load_all(self, weights: Weights) -> tuple[pl.Series, dict[int, ExactLayer]]:
        """Load several layers of the same clips; return the clips' ids and the layers by number."""
        while True:
            layers = {layer: self.load(layer) for layer in weights}
            ids = next(iter(layers.values())).ids
            if all(layer.ids.equals(ids) for layer in layers.values()):      # else clips were added or removed meanwhile
                return ids, layers

    def exceeds_memory(self, weights: Weights) -> bool:
        """Whether a scan would first read a layer from a local disk that memory cannot hold."""
        rows = self.lake.vectors(self.space).count()
        return any(exceeds_memory(self.lake, self.space, layer, self.metric, rows) for layer in weights)

    def nearness_of_allowed(
        self, weights: Weights, query: Query, known: Embedded, allowed: np.ndarray, snapshot: Snapshot,
        stored: StoredIndex | None,
    ) -> np.ndarray | None:
        """Return (row,) float32: the nearness of the rows that a mask keeps, by weight of layer; -inf for the others.

        Only these rows are read.  Returns None, and the caller searches, where whole layers are needed, or as `read_allowed`.
        """
        if self.like or self.unlike or query.score:
            return None
        rows = np.flatnonzero(allowed)
        total = np.zeros(len(rows), np.float32)
        for layer, weight in weights.items():
            vectors = read_allowed(self.lake, self.space, layer, self.metric, allowed, snapshot, stored)
            if vectors is None:
                return None
            found = ExactLayer(self.metric, known.ids.gather(rows), vectors).nearness(query.vectors[layer])
            if self.corrected:
                references = layer_references(self.lake, self.space, layer)
                found -= references.neighbourhood(vectors, known.songs.numbers[rows]) / 2
            total += np.float32(weight) * found
        nearness = np.full(len(allowed), -np.inf, np.float32)
        nearness[rows] = total
        return nearness

    def similarities(self, weights: Weights, ids: pl.Series) -> np.ndarray:
        """Return (clip, clip) float32: the similarity of every two clips, higher is nearer, in each layer by weight."""
        total = np.zeros((len(ids), len(ids)), np.float32)
        for layer, weight in weights.items():
            if self.like or self.unlike:
                loaded = self.load(layer)
                vectors = loaded.vectors[rows_of(loaded.ids, ids)]
            else:
                vectors = prepare(self.lake.vectors(self.space).take(ids.to_list(), layer).vectors, self.metric)
            if self.metric == "l2":
                total -= np.float32(weight) * np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
            else:
                total += np.float32(weight) * (vectors @ vectors.T)
        return total


@dataclass(frozen=True)
class Nearest:
    """Hits of a search, nearest first."""

    ids: pl.Series                       # of all embedded clips
    rows: np.ndarray                     # (hit,) rows of `ids`
    scores: np.ndarray                   # (hit,) scores, or distances for l2
    clips: np.ndarray | None = None      # (hit,) for songs: clips at least as near as the last hit


def find_nearest(
    search: Search, weights: Weights, query: Query, k: int, where: str | None, not_same: str | None, *, clips: bool = True,
    per: tuple[str, int] | None = None,
) -> Nearest:
    """Return the k nearest songs or, with `clips`, the k nearest clips.

    One layer is searched by its stored index, if there is one, else by a scan; a mixture always by a scan.  Where a filter
    keeps few clips, of a lake on an object store or a layer that memory cannot hold only their vectors are compared.
    """
    lake, space = search.lake, search.space
    first, *others = weights
    scan = others or search.like or search.unlike or query.score
    stored = None if scan else find_index(lake, space, first, metric=search.metric)
    by_rows = where is not None and (not is_local(lake.uri) or search.exceeds_memory(weights))
    if stored is not None or by_rows:
        snapshot = lake.vectors(space).table.snapshot()
        known = embedded_in_snapshot(lake, space, snapshot)
        allowed = allowed_rows(lake, known, query, where, not_same, own_songs=not clips)
        if by_rows and allowed is not None:
            nearness = search.nearness_of_allowed(weights, query, known, allowed, snapshot, stored)
            if nearness is not None:
                return take_nearest(search, known, nearness, k, allowed, clips, per)
    if stored is not None:
        songs = known.each_clip if clips else known.songs
        if search.corrected:
            cap = read_cap(lake, per, known.ids_of, known.songs.numbers) if per else None
            corrected = nearest_stored_corrected(
                lake, space, stored, query.vectors[first], k, allowed, snapshot, songs, known.songs.numbers, cap
            )
            if corrected is not None:
                rows, counts, scores = corrected
                return Nearest(known.ids, rows, scores, None if clips else counts)
        elif clips and per is None:
            found = search_stored(lake, space, stored, query.vectors[first], k, allowed, snapshot)
            if found is not None:
                return Nearest(known.ids, *found)
        else:
            cap = read_cap(lake, per, known.ids_of, known.songs.numbers) if per else None
            folded = nearest_songs_stored(lake, space, stored, query.vectors[first], k, allowed, snapshot, songs, cap)
            if folded is not None:
                rows, counts, scores = folded
                return Nearest(known.ids, rows, scores, None if clips else counts)
    if clips and per is None and not others and query.score is None:
        layer = search.load(first)
        allowed = allowed_rows(lake, embedded_in_layer(lake, space, layer.ids), query, where, not_same)
        return Nearest(layer.ids, *layer.search(query.vectors[first], k, allowed))
    if others:
        ids, nearness = search.scores(weights, query.vectors)
    else:
        layer = search.load(first)
        ids, nearness = layer.ids, query.score(layer) if query.score else layer.nearness(query.vectors[first])
    known = embedded_in_layer(lake, space, ids)
    allowed = allowed_rows(lake, known, query, where, not_same, own_songs=not clips)
    return take_nearest(search, known, nearness, k, allowed, clips, per)


def take_nearest(
    search: Search, known: Embedded, nearness: np.ndarray, k: int, allowed: np.ndarray | None, clips: bool,
    per: tuple[str, int] | None,
) -> Nearest:
    """Return the k nearest songs or clips by the (row,) nearness of every clip."""
    if clips and per is None:
        rows, counts = highest(nearness, k, allowed), None
    else:
        cap = read_cap(search.lake, per, known.ids_of, known.songs.numbers) if per else None
        songs = known.each_clip if clips else known.songs
        rows, counts = nearest_songs(nearness, songs.numbers, k, allowed, cap)
    scores = nearness[rows] if search.metric != "l2" else -nearness[rows]
    return Nearest(known.ids, rows, scores, None if clips else counts)


def explanation(lake: Lake, space: Space, query: Query, hits: pl.Series) -> list[pl.Series]:
    """Return `by_layer` and `usual`: each hit's cosine to the query at every layer, and the mean cosine of all clips.

    In a space whose encoder names tags also `heard`, the likeliest tags of each hit.
    """
    from tonelake.index.search.hit_tags import tags_of_hits

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
    usual_by_layer = pl.DataFrame(np.tile(usual, (len(hits), 1)), schema=list(space.layers)).to_struct("usual")
    return [by_layer, usual_by_layer, *tags_of_hits(lake, space, hits)]
