"""Resolve a query (clips, files or vectors, with optional subtraction) to one vector per layer of a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.names.rank import Song
from tonelake.index.names.songs import clips_of_song
from tonelake.index.search.exact import ExactLayer
from tonelake.index.search.names import find_named
from tonelake.index.vectors import check_finite, comparable, unit
from tonelake.store import InputError, Lake, Space, SpaceMismatch


@dataclass(frozen=True)
class Query:
    """A query as one vector per requested layer, with the clips it came from and their labels."""

    vectors: dict[int, np.ndarray]       # by layer number: (dim,) float32
    own: frozenset[str] = frozenset()    # ids of clips that are the query itself, and therefore no hits
    labels: tuple[dict[str, Any], ...] = field(default=())           # of each clip or file in the query
    fingerprint: str = ""                # of the space, for a query from `read_query`
    notes: tuple[str, ...] = ()          # sentences for the user: which song of the lake it is, how much of it is compared
    score: Callable[[ExactLayer], np.ndarray] | None = None          # of every clip of a layer, for a query without a vector


QueryPart = str | Path | np.ndarray | Song | Query


def read_query(lake: Lake, path: Path, *, space: str | None = None) -> Query:
    """Encode a file once, for any number of calls to `similar` in any layer of the space.

    Raises AudioError if the file cannot be decoded.
    """
    chosen = lake.spaces.get(space)
    return replace(resolve_one(lake, path, chosen, range(len(chosen.layers))), fingerprint=chosen.fingerprint)


def resolve(
    lake: Lake, wanted: QueryPart | Sequence[QueryPart], space: Space, layers: Sequence[int], *,
    minus: Sequence[QueryPart] = (), metric: str = "cosine", described: Sequence[int] = (),
) -> Query:
    """Resolve a query to its vectors in some layers of a space, and in layers that are only `described`, not searched.

    Several parts, and those of `minus`, are combined as the metric measures (`combine`).  A single part is left unchanged.
    Raises ClipNotFound or AudioError for a part that cannot be found or decoded, SpaceMismatch for a vector of the wrong
    width, InputError without any part, for a vector that cannot be compared, or if the subtraction leaves nothing.
    """
    parts = [wanted] if isinstance(wanted, str | Path | np.ndarray | Song | Query) else list(wanted)
    if not parts:
        raise InputError("a query needs at least one clip, file or vector")
    every = list(dict.fromkeys([*layers, *described]))
    found, subtracted = (
        [to_compare(resolve_one(lake, part, space, every), space, layers, metric) for part in some] for some in (parts, minus)
    )
    if len(found) == 1 and not subtracted:
        return found[0]

    def stacked(some: Sequence[Query], layer: int) -> np.ndarray:
        return np.stack([one.vectors[layer] for one in some]) if some else np.empty((0, space.dims[layer]), np.float32)

    vectors = {layer: combine(stacked(found, layer), stacked(subtracted, layer), metric) for layer in every}
    for layer in layers:
        longest = max(np.linalg.norm(one.vectors[layer]) for one in (*found, *subtracted)) if metric != "cosine" else 1.0
        left = vectors[layer] if metric != "l2" or not subtracted else vectors[layer] - stacked(found, layer).mean(axis=0)
        if (metric != "l2" or subtracted) and np.linalg.norm(left) < 1e-6 * longest:
            cancel = "what is subtracted equals the rest" if subtracted else "its parts are opposite"
            raise InputError(f"query: {cancel}, so nothing is left to search with. Leave one of them out")
    return Query(
        vectors, own=frozenset().union(*(one.own for one in (*found, *subtracted))),
        labels=tuple(label for one in found for label in one.labels),
        notes=tuple(note for one in (*found, *subtracted) for note in one.notes),
    )


def to_compare(query: Query, space: Space, layers: Sequence[int], metric: str) -> Query:
    """Return a query whose vectors in these layers can be compared by a metric.  Raises InputError as `comparable`."""
    vectors = {layer: comparable(query.vectors[layer][None], metric, space.layers[layer])[0] for layer in layers}
    return replace(query, vectors=query.vectors | vectors)


def combine(wanted: np.ndarray, minus: np.ndarray, metric: str) -> np.ndarray:
    """Combine (part, dim) vectors, less those of `minus`, to one (dim,) query of a metric.

    cosine: the mean direction, less the mean direction of `minus`.
    ip: the sum, less the sum of `minus`: a clip's score is the sum of its products, less those with `minus`.
    l2: the mean, the point with the least mean square distance to all parts.  `minus` moves it straight away from the mean of
    `minus`, to twice the distance: the weights, 2 and -1, sum to one, so that the point does not depend on the space's origin.

    >>> a, b = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[2.0, 1.0]])
    >>> [combine(a, b, metric).tolist() for metric in ("ip", "l2")]
    [[2.0, -1.0], [2.0, -1.0]]
    """
    if metric == "cosine":
        wanted, minus = unit(wanted), unit(minus)
    pool = np.sum if metric == "ip" else np.mean
    pooled = pool(wanted, axis=0)
    if not len(minus):
        return pooled
    return (2 * pooled if metric == "l2" else pooled) - pool(minus, axis=0)


def resolve_one(lake: Lake, query: QueryPart, space: Space, layers: Sequence[int]) -> Query:
    """Resolve one clip, song, file or vector, or check that an encoded query belongs to this space.

    Text is a file if one exists, else a clip id or its first digits, else the name of a song, whose clips are averaged.
    """
    if not isinstance(query, QueryPart):
        raise InputError(f"query {query!r}: not a clip, a file or a vector. Give a vector as a NumPy array")
    if isinstance(query, Query):
        if query.fingerprint != space.fingerprint:
            raise SpaceMismatch(f"this query was encoded in a space other than {space.name!r}. Encode it again in that space")
        return query
    if isinstance(query, np.ndarray):
        for layer in layers:
            if query.shape != (space.dims[layer],):
                raise SpaceMismatch(
                    f"the query vector has shape {query.shape}, layer {space.layers[layer]} of space {space.name!r} holds "
                    f"vectors of {space.dims[layer]}: embed the query with space {space.name!r}"
                )
        if len(layers) > 1:
            raise InputError("query vector: it belongs to one layer, and several are searched. Name its layer with layer=")
        check_finite(query)
        return Query({layers[0]: query.astype(np.float32)})
    if not isinstance(query, Song):
        if is_file(query):
            return _resolve_file(lake, Path(query), space, layers)
        found = find_named(lake, str(query))
        if not isinstance(found, Song):
            vectors = {layer: lake.vectors(space).take([found["clip_id"]], layer).vectors[0] for layer in layers}
            return Query(vectors, own=frozenset([found["clip_id"]]), labels=(found,))
        query = found
    return _resolve_song(lake, query, space, layers)


def _resolve_song(lake: Lake, song: Song, space: Space, layers: Sequence[int]) -> Query:
    """Resolve a song to the mean of its embedded clips, with the labels of its first clip of each track."""
    clips = clips_of_song(lake, song)
    known = pl.DataFrame({"clip_id": lake.vectors(space).ids()})
    embedded = clips.join(known, on="clip_id", how="semi", maintain_order="left")["clip_id"].to_list()
    if not embedded:
        raise InputError(f"{song}: none of its clips is embedded in space {space.name!r}. Run `tonelake embed`")
    vectors = {layer: lake.vectors(space).take(embedded, layer).vectors.mean(axis=0) for layer in layers}
    labels = clips.unique("track", keep="first", maintain_order=True)
    return Query(vectors, own=frozenset(clips["clip_id"]), labels=tuple(labels.iter_rows(named=True)))


def is_file(query: str | Path) -> bool:
    """Return whether a query names a file rather than a clip or song."""
    try:
        return isinstance(query, Path) or Path(query).is_file()
    except (OSError, ValueError):
        return False


def _resolve_file(lake: Lake, path: Path, space: Space, layers: Sequence[int]) -> Query:
    """Resolve a file; it is in the lake if a clip has its bytes or, whatever its name, tags and container, its audio."""
    from tonelake.index.search.file_vectors import encode_file  # imports encoders, which other queries do without
    from tonelake.ingest import DecoderPool, to_source

    source = to_source(path)
    with DecoderPool(1) as pool:
        file = pool.ask({"do": "identify", "source": source})
        same_audio = f" OR recording = '{file['recording']}'" if "recording" in lake.clips.table.schema.names else ""
        stored = lake.clips.read(where=f"digest = '{file['digest']}'{same_audio}")
        known = pl.DataFrame({"clip_id": lake.vectors(space).ids()})
        embedded = stored.join(known, on="clip_id", how="semi", maintain_order="left")["clip_id"].to_list()
        if embedded:
            # The file is in the lake: use the mean of its clips, without encoding it again.
            pooled = {layer: lake.vectors(space).take(embedded, layer).vectors.mean(axis=0) for layer in layers}
            note = f"{path.name}: this file is in the lake as {song_name(stored.row(0, named=True))}"
            return Query(pooled, own=frozenset(stored["clip_id"]), labels=(stored.row(0, named=True),), notes=(note,))
        encoded, tags, notes = encode_file(lake, path, space, pool)
    labels = (stored.row(0, named=True),) if len(stored) else (tags,)
    vectors = {layer: encoded.mean[layer] for layer in layers}
    if len(stored):
        notes = (f"{path.name}: this file is in the lake as {song_name(labels[0])}, not embedded in this space yet", *notes)
    return Query(vectors, own=frozenset(stored["clip_id"]), labels=labels, notes=notes)


def song_name(clip: Mapping[str, Any]) -> str:
    """Return the name of a clip's song for people: its title, or its track, and the artist.

    >>> song_name({"title": "Feeling Good", "artist": "Nina Simone", "track": "01.flac"})
    "'Feeling Good' by Nina Simone"
    >>> song_name({"title": None, "artist": None, "track": "01.flac"})
    "'01.flac'"
    """
    by = f" by {clip['artist']}" if clip.get("artist") else ""
    return f"{clip.get('title') or clip['track']!r}{by}"
