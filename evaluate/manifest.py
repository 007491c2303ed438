"""Parts of a run's manifest that its clips decide: a digest each of clips, targets, names, sets, songs, duplicates and groups.

Columns that a run only groups by (songs, duplicates, albums) count by their partition of the clips: a renamed album changes
nothing, a clip that moves to another album does.  Buffers of Arrow and NumPy are hashed, so a million clips take about half a
second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.evaluate.splits import LEAK_COLUMNS, Split, closed_groups
from tonelake.evaluate.targets import Targets
from tonelake.store import COLUMN_PART, DUPLICATE_COLUMN, MOST_NAMES, Manifest, is_list


def make_manifest(
    settings: Mapping[str, Any], code: int, space: str, task: Targets, splits: Sequence[Split], *,
    groups: Sequence[str] = LEAK_COLUMNS, more: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the manifest of a run on a task.

    `settings`: those that decide the result.  `code`: version of what computes it.  `space`: fingerprint of the space, in which
    a clip's vector never changes.  `groups`: columns that the run reports or averages over.  `more`: digests of further parts.
    """
    parts = {"code": str(code), "space": space, **task_parts(task, splits, groups), **(more or {})}
    return Manifest(
        settings=settings, parts=parts, clips=len(task),
        names=tuple(task.names) if len(task.names) <= MOST_NAMES else (),
    )


def task_parts(task: Targets, splits: Sequence[Split], groups: Sequence[str] = LEAK_COLUMNS) -> dict[str, str]:
    """Return the digest of each part of a task and its splits; see `store.manifest.PARTS`."""
    targets = np.packbits(task.targets > 0, axis=None) if task.kind == "multilabel" else task.targets
    parts = {
        "clips": digest_text(task.ids),
        "targets": digest(task.kind, np.array(task.targets.shape), targets),
        "names": digest_text(pl.Series(list(task.names), dtype=pl.String)),
        "sides": digest(*(rows.astype(np.int64) for split in splits for rows in sides_of(split))),
        "songs": digest(partition(task.track)),
    }
    columns = task.clips.columns
    if {"start_s", "duration_s"} <= set(columns):
        parts["times"] = digest(*(task.clips[name].to_numpy() for name in ("start_s", "duration_s")))
    if DUPLICATE_COLUMN in columns and task.clips[DUPLICATE_COLUMN].count():
        parts["duplicates"] = digest(partition(task.clips[DUPLICATE_COLUMN]))
    for name in dict.fromkeys(groups):
        if name in columns and name not in task.columns and task.clips[name].count():
            values = task.clips[name]
            parts[COLUMN_PART + name] = digest(partition(closed_groups(task, name) if is_list(values.dtype) else values))
    return parts


def sides_of(split: Split) -> list[np.ndarray]:
    """Return the rows of the three sets, each preceded by their number."""
    return [part for rows in (split.train, split.valid, split.test) for part in (np.array([len(rows)]), rows)]


def partition(values: pl.Series | np.ndarray) -> np.ndarray:
    """Return (clip,) int32: equal for equal values, numbered by first appearance; -1 for null.

    >>> partition(pl.Series(["b", "a", None, "b"])).tolist()
    [0, 1, -1, 0]
    """
    found: Any = values.to_arrow() if isinstance(values, pl.Series) else pa.array(values)
    return found.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)


def digest(*parts: str | np.ndarray) -> str:
    """Return 32 hex digits over texts and arrays, in this order."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            hasher.update(part.encode() + b"\0")
        else:
            hasher.update(f"{part.dtype.str} {part.shape}\0".encode())
            hasher.update(np.ascontiguousarray(part).data)
    return hasher.hexdigest()


def digest_text(values: pl.Series) -> str:
    """Return 32 hex digits over texts without nulls, in this order."""
    lengths = values.str.len_bytes().to_numpy()
    _, offsets, text = values.rechunk().cast(pl.String).to_arrow().cast(pa.large_string()).buffers()
    ends = np.frombuffer(offsets, np.int64)[: len(values) + 1]
    whole = np.frombuffer(text, np.uint8)[ends[0] : ends[-1]] if text is not None else np.zeros(0, np.uint8)
    return digest(lengths, whole)
