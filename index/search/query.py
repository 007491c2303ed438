"""What a user asks with -> vectors of the space: clips by id, files, a vector, several together, less others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake.embed import ClipVectors, encode_clips, encoder_of
from tonelake.index.vectors import unit
from tonelake.ingest import DecoderPool, to_source
from tonelake.store import InputError, Lake, Space, SpaceMismatch, is_projection, read_projection

MAX_QUERY_S = 600.0                      # of a file that is not in the lake, so much is listened to


@dataclass(frozen=True)
class Query:
    """A query as a vector in each layer asked for, and what is known of the clip or file it came from."""

    vectors: dict[int, np.ndarray]       # by number of the layer: (dim,) float32
    own: frozenset[str] = frozenset()    # clips that are the query itself, and no answer to it
    labels: tuple[dict[str, Any], ...] = field(default=())           # of each clip or file that is wanted
    fingerprint: str = ""                # of the space, where it was heard to be asked with several times


QueryPart = str | Path | np.ndarray | Query


def read_query(lake: Lake, path: Path, *, space: str | None = None, stat: str = "mean") -> Query:
    """A file, listened to once, to ask `similar` with any number of times, in any layer of the space.

    Raises AudioError where it cannot be heard.
    """
    chosen = lake.spaces.get(space)
    return replace(resolve_one(lake, path, chosen, range(len(chosen.layers)), stat), fingerprint=chosen.fingerprint)


def resolve(
    lake: Lake, wanted: QueryPart | Sequence[QueryPart], space: Space, layers: Sequence[int], stat: str, *, minus: Sequence[QueryPart] = ()
) -> Query:
    """The vectors of a query in some layers of a space.

    Of several, the mean of their directions; less the mean direction of `minus`.  One alone stays as it is.
    Raises ClipNotFound or AudioError for what cannot be found or heard, SpaceMismatch for a vector of another width,
    InputError where nothing is wanted, or where what is subtracted leaves nothing.
    """
    many = [wanted] if isinstance(wanted, str | Path | np.ndarray | Query) else list(wanted)
    if not many:
        raise InputError("a query needs at least one clip, file or vector")
    found = [resolve_one(lake, one, space, layers, stat) for one in many]
    if len(found) == 1 and not minus:
        return found[0]
    less = [resolve_one(lake, one, space, layers, stat) for one in minus]
    vectors = {}
    for layer in layers:
        direction = unit(np.stack([one.vectors[layer] for one in found])).mean(axis=0)
        if less:
            direction = direction - unit(np.stack([one.vectors[layer] for one in less])).mean(axis=0)
        if np.linalg.norm(direction) < 1e-6:
            raise InputError("what is subtracted is all that was asked for: nothing is left to search with")
        vectors[layer] = direction
    return Query(
        vectors, frozenset().union(*(one.own for one in (*found, *less))), tuple(label for one in found for label in one.labels)
    )


def resolve_one(lake: Lake, query: QueryPart, space: Space, layers: Sequence[int], stat: str) -> Query:
    """The vectors of one clip, file or vector, or what was heard before."""
    if isinstance(query, Query):
        if query.fingerprint != space.fingerprint:
            raise SpaceMismatch(f"this query was heard in another space than {space.name!r}: hear it again with that one")
        return query
    if isinstance(query, np.ndarray):
        for layer in layers:
            if query.shape != (space.dims[layer],):
                raise SpaceMismatch(
                    f"the query vector has shape {query.shape}, layer {space.layers[layer]} of space {space.name!r} holds "
                    f"vectors of {space.dims[layer]}: embed the query with space {space.name!r}"
                )
        if len(layers) > 1:
            raise InputError("a vector belongs to one layer: name it with layer=, without a mixture")
        return Query({layers[0]: query.astype(np.float32)})
    if is_file(query):
        return _resolve_file(lake, Path(query), space, layers, stat)
    clip = lake.clips.find(str(query))
    table = lake.vectors(space)
    vectors = {layer: table.take([clip["clip_id"]], layer, stat=stat).vectors[0] for layer in layers}
    return Query(vectors, frozenset([clip["clip_id"]]), (clip,))


def is_file(query: str | Path) -> bool:
    """Whether a query names a file rather than a clip."""
    try:
        return isinstance(query, Path) or Path(query).is_file()
    except (OSError, ValueError):
        return False


def _resolve_file(lake: Lake, path: Path, space: Space, layers: Sequence[int], stat: str) -> Query:
    source = to_source(path)
    with DecoderPool(1) as pool:
        digest = pool.ask({"do": "digest", "source": source})["digest"]
        stored = lake.clips.read(where=f"digest = '{digest}'")
        known = pl.DataFrame({"clip_id": lake.vectors(space).ids()})
        embedded = stored.join(known, on="clip_id", how="semi", maintain_order="left")["clip_id"].to_list()
        if embedded:
            # The file is in the lake: its clips' mean, without listening again.
            vectors = {layer: lake.vectors(space).take(embedded, layer, stat=stat).vectors for layer in layers}
            pooled = {layer: v.mean(axis=0) if stat == "mean" else v.max(axis=0) for layer, v in vectors.items()}
            return Query(pooled, frozenset(stored["clip_id"]), (stored.row(0, named=True),))
        projection = read_projection(lake, space) if is_projection(space) else None
        heard, tags = hear_file(lake, path, lake.spaces.get(projection.parent) if projection else space, pool)
    values = heard.mean if stat == "mean" else heard.max
    if projection is not None:
        joined = np.concatenate([values[layer] for layer in projection.layers])
        return Query({0: projection.apply(joined[None])[0]}, labels=(tags,))
    return Query({layer: values[layer] for layer in layers}, labels=(tags,))


def hear_file(
    lake: Lake, path: Path, space: Space, pool: DecoderPool, frames: Sequence[int] = ()
) -> tuple[ClipVectors, dict[str, Any]]:
    """A file's vectors in a space, with the frames of these layers, and its tags."""
    source = to_source(path)
    scanned = pool.ask({"do": "scan", "source": source})
    encoder = encoder_of(space, home=lake.uri)
    length_s = min(scanned["scan"]["duration_s"], MAX_QUERY_S)
    request = {"do": "read", "source": source, "start_s": 0.0, "duration_s": length_s, "rate": encoder.sample_rate}
    samples = pool.ask(request)["samples"]
    return encode_clips(encoder, [samples], space.window_s, space.hop_s, tuple(frames))[0], scanned["tags"]
