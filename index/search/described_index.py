"""Descriptions of a lake's approximate indexes: one small JSON file for each, written last, when the index is complete.

    indexes/<space>/<column>-<metric>-<kind>.json

A description names the files of a FAISS index, or the index inside a space's table, and holds what was asked and measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tonelake.index.search.approximate import RECALL_AT
from tonelake.store import Lake, LakeError, Space, check_types, is_local, look_once

STAT = "mean"                            # vectors pooled by the mean are indexed; descriptions and file names say so
LANCE = "lance"                          # the kind that is part of the space's table; all other kinds are FAISS's
AWAY_S = 2.0                             # after this time descriptions on an object store are read again: some requests

_away: dict[tuple[str, str], tuple[float, list[StoredIndex]]] = {}


@dataclass(frozen=True, kw_only=True)
class StoredIndex:
    """Description of an index; its fields are the keys of the JSON file."""

    space: str
    fingerprint: str
    layer: int
    stat: str
    metric: str
    kind: str
    factory: str
    rows: int
    dim: int
    width: int                           # lists or graph nodes visited by a search
    recall: float                        # recall@10 measured at build time
    asked: float                         # requested recall
    table_version: int                   # first version of the table that the index can answer for
    faiss: str                           # FAISS's version; empty for an index of Lance
    built_at: float                      # seconds since 1970
    build_seconds: float
    files: tuple[str, ...]               # FAISS index, row ids; none for an index of Lance
    bytes: int
    refine: int = 1                      # Lance: candidates for each hit, scored again by their stored vectors
    lance_name: str = ""                 # Lance: name of the index in the table; a rebuilt index has another one


def index_name(stored: StoredIndex) -> str:
    """Return the common stem of an index's file names."""
    return f"{stored.stat}_{stored.layer:02d}-{stored.metric}-{stored.kind}"


def read_indexes(lake: Lake, space: Space) -> list[StoredIndex]:
    """Return the readable indexes of a space.  Unreadable ones are skipped, and replaced when the index is built again.

    On an object store, an index that another process builds or drops is noticed within AWAY_S.
    """
    return look_once(("indexes", lake.uri, space.name), lambda: _read_indexes(lake, space))


def _read_indexes(lake: Lake, space: Space) -> list[StoredIndex]:
    key = (lake.identity, space.name)
    if not is_local(lake.uri):
        read_at, known = _away.get(key, (-AWAY_S, []))
        if time.monotonic() - read_at < AWAY_S:
            return known
    files, found = lake.files(f"indexes/{space.name}"), []
    for name in files.names():
        try:
            values = json.loads(files.read(name) or "")
            values["files"] = tuple(values["files"])
            check_types(StoredIndex, values)
            found.append(StoredIndex(**values))
        except (OSError, ValueError, TypeError, KeyError, LakeError):
            continue
    if not is_local(lake.uri):
        _away[key] = (time.monotonic(), found)
    return found


def forget_descriptions(lake: Lake, space: Space) -> None:
    """Have the next search read the descriptions again; call after changing one."""
    _away.pop((lake.identity, space.name), None)


def is_described(lake: Lake, space: Space, stored: StoredIndex) -> bool:
    """Whether a description equals that on disk now; it does not if another process has rebuilt or dropped the index."""
    forget_descriptions(lake, space)
    return stored in _read_indexes(lake, space)


def find_index(lake: Lake, space: Space, layer: int, *, metric: str) -> StoredIndex | None:
    """Return the index of a layer, None unless one was built for this space's fingerprint."""
    wanted = (space.fingerprint, layer, STAT, metric)
    return next((s for s in read_indexes(lake, space) if (s.fingerprint, s.layer, s.stat, s.metric) == wanted), None)


def damaged(stored: StoredIndex, reason: object) -> LakeError:
    """Return the LakeError for an index that cannot be used, with the commands that rebuild it."""
    return LakeError(
        f"the index {index_name(stored)}.json is damaged ({reason}). Drop and build it again with `tonelake index drop "
        f"--space {stored.space}` and `tonelake index build`"
    )


def describe_index(stored: StoredIndex, done: str, layers: Sequence[str]) -> str:
    """Return a one-line summary of an index for people."""
    reached = "" if stored.recall >= stored.asked else f", below the requested {stored.asked:g} even with the widest search"
    return (
        f"layer {layers[stored.layer]}, {stored.metric}: {done}; {stored.kind} of {stored.rows:,} clips, "
        f"recall@{RECALL_AT} {stored.recall:.3f}{reached}; {stored.bytes / 1e6:,.0f} MB in {stored.build_seconds:.1f} s"
    )
