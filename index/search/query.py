"""Resolve a query (clips, files or vectors, with optional subtraction) to one vector per layer of a space."""

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

MAX_QUERY_S = 600.0                      # longest part of a file outside the lake that is encoded


@dataclass(frozen=True)
class Query:
    """A query as one vector per requested layer, with the clips it came from and their labels."""

    vectors: dict[int, np.ndarray]       # by layer number: (dim,) float32
    own: frozenset[str] = frozenset()    # ids of clips that are the query itself, and therefore no hits
    labels: tuple[dict[str, Any], ...] = field(default=())           # of each clip or file in the query
    fingerprint: str = ""                # of the space, for a query from `read_query`


QueryPart = str | Path | np.ndarray | Query


def read_query(lake: Lake, path: Path, *, space: str | None = None) -> Query:
    """Encode a file once, for any number of calls to `similar` in any layer of the space.

    Raises AudioError if the file cannot be decoded.
    """
    chosen = lake.spaces.get(space)
    return replace(resolve_one(lake, path, chosen, range(len(chosen.layers))), fingerprint=chosen.fingerprint)


def resolve(
    lake: Lake, wanted: QueryPart | Sequence[QueryPart], space: Space, layers: Sequence[int], *, minus: Sequence[QueryPart] = ()
) -> Query:
    """Resolve a query to its vectors in some layers of a space.

    Several parts give the mean of their directions, less the mean direction of `minus`.  A single part is left unchanged.
    Raises ClipNotFound or AudioError for a part that cannot be found or decoded, SpaceMismatch for a vector of the wrong
    width, InputError without any part, or if the subtraction leaves nothing.
    """
    parts = [wanted] if isinstance(wanted, str | Path | np.ndarray | Query) else list(wanted)
    if not parts:
        raise InputError("a query needs at least one clip, file or vector")
    found = [resolve_one(lake, part, space, layers) for part in parts]
    if len(found) == 1 and not minus:
        return found[0]
    subtracted = [resolve_one(lake, part, space, layers) for part in minus]
    vectors = {}
    for layer in layers:
        direction = unit(np.stack([one.vectors[layer] for one in found])).mean(axis=0)
        if subtracted:
            direction = direction - unit(np.stack([one.vectors[layer] for one in subtracted])).mean(axis=0)
        if np.linalg.norm(direction) < 1e-6:
            raise InputError("query: what is subtracted equals the rest, so nothing is left to search with. Subtract less")
        vectors[layer] = direction
    return Query(
        vectors, frozenset().union(*(one.own for one in (*found, *subtracted))),
        tuple(label for one in found for label in one.labels),
    )


def resolve_one(lake: Lake, query: QueryPart, space: Space, layers: Sequence[int]) -> Query:
    """Resolve one clip, file or vector, or check that an encoded query belongs to this space."""
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
        return Query({layers[0]: query.astype(np.float32)})
    if is_file(query):
        return _resolve_file(lake, Path(query), space, layers)
    clip = lake.clips.find(str(query))
    table = lake.vectors(space)
    vectors = {layer: table.take([clip["clip_id"]], layer).vectors[0] for layer in layers}
    return Query(vectors, frozenset([clip["clip_id"]]), (clip,))


def is_file(query: str | Path) -> bool:
    """Return whether a query names a file rather than a clip."""
    try:
        return isinstance(query, Path) or Path(query).is_file()
    except (OSError, ValueError):
        return False


def _resolve_file(lake: Lake, path: Path, space: Space, layers: Sequence[int]) -> Query:
    source = to_source(path)
    with DecoderPool(1) as pool:
        digest = pool.ask({"do": "digest", "source": source})["digest"]
        stored = lake.clips.read(where=f"digest = '{digest}'")
        known = pl.DataFrame({"clip_id": lake.vectors(space).ids()})
        embedded = stored.join(known, on="clip_id", how="semi", maintain_order="left")["clip_id"].to_list()
        if embedded:
            # The file is in the lake: use the mean of its clips, without encoding it again.
            pooled = {layer: lake.vectors(space).take(embedded, layer).vectors.mean(axis=0) for layer in layers}
            return Query(pooled, frozenset(stored["clip_id"]), (stored.row(0, named=True),))
        projection = read_projection(lake, space) if is_projection(space) else None
        encoded, tags = encode_file(lake, path, lake.spaces.get(projection.parent) if projection else space, pool)
    if projection is not None:
        joined = np.concatenate([encoded.mean[layer] for layer in projection.layers])
        return Query({0: projection.apply(joined[None])[0]}, labels=(tags,))
    return Query({layer: encoded.mean[layer] for layer in layers}, labels=(tags,))


def encode_file(
    lake: Lake, path: Path, space: Space, pool: DecoderPool, frames: Sequence[int] = ()
) -> tuple[ClipVectors, dict[str, Any]]:
    """Encode a file in a space; return its vectors, with the frames of the layers `frames`, and its tags."""
    source = to_source(path)
    scanned = pool.ask({"do": "scan", "source": source})
    encoder = encoder_of(space, home=lake.uri)
    length_s = min(scanned["scan"]["duration_s"], MAX_QUERY_S)
    request = {"do": "read", "source": source, "start_s": 0.0, "duration_s": length_s, "rate": encoder.sample_rate}
    samples = pool.ask(request)["samples"]
    return encode_clips(encoder, [samples], space.window_s, space.hop_s, tuple(frames))[0], scanned["tags"]
