"""What a user asks with -> a vector of the space: a clip by id, a file, or a vector of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embed import encode_clips, encoder_of
from ingest import Workers, to_source
from store import Lake, Space, SpaceMismatch

MAX_QUERY_S = 600.0                      # of a file that is not in the lake, so much is listened to


@dataclass(frozen=True)
class Query:
    """A query as a vector, and what is known of the clip or file it came from."""

    vector: np.ndarray                   # (dim,) float32
    own: frozenset[str] = frozenset()    # clips that are the query itself, and no answer to it
    labels: dict[str, Any] = field(default_factory=dict)


def resolve(lake: Lake, query: str | Path | np.ndarray, space: Space, layer: int, stat: str) -> Query:
    """The vector of a query in one layer of a space.

    Raises ClipNotFound or AudioError for what cannot be found or heard, SpaceMismatch for a vector of another width.
    """
    if isinstance(query, np.ndarray):
        if query.shape != (space.dims[layer],):
            raise SpaceMismatch(
                f"the query vector has shape {query.shape}, layer {space.layers[layer]} of space {space.name!r} holds "
                f"vectors of {space.dims[layer]}: embed the query with space {space.name!r}"
            )
        return Query(query.astype(np.float32))
    if is_file(query):
        return _resolve_file(lake, Path(query), space, layer, stat)
    clip = lake.clips.find(str(query))
    vector = lake.vectors(space).take([clip["clip_id"]], layer, stat=stat).vectors[0]
    return Query(vector, frozenset([clip["clip_id"]]), clip)


def is_file(query: str | Path) -> bool:
    """Whether a query names a file rather than a clip."""
    try:
        return isinstance(query, Path) or Path(query).is_file()
    except (OSError, ValueError):
        return False


def _resolve_file(lake: Lake, path: Path, space: Space, layer: int, stat: str) -> Query:
    source = to_source(path)
    with Workers(1) as pool:
        digest = pool.ask({"do": "digest", "source": source})["digest"]
        stored = lake.clips.read(where=f"digest = '{digest}'")
        known = pl.DataFrame({"clip_id": lake.vectors(space).ids()})
        embedded = stored.join(known, on="clip_id", how="semi", maintain_order="left")
        if len(embedded):
            # The file is in the lake: its clips' mean, without listening again.
            vectors = lake.vectors(space).take(embedded["clip_id"].to_list(), layer, stat=stat).vectors
            vector = vectors.mean(axis=0) if stat == "mean" else vectors.max(axis=0)
            return Query(vector, frozenset(stored["clip_id"]), stored.row(0, named=True))
        scanned = pool.ask({"do": "scan", "source": source})
        encoder = encoder_of(space)
        length_s = min(scanned["scan"]["duration_s"], MAX_QUERY_S)
        request = {"do": "read", "source": source, "start_s": 0.0, "duration_s": length_s, "rate": encoder.sample_rate}
        samples = pool.ask(request)["samples"]
    pooled = encode_clips(encoder, [samples], space.window_s, space.hop_s)[0]
    return Query((pooled.mean if stat == "mean" else pooled.max)[layer], labels=scanned["tags"])
