"""What a probe is to learn: label columns -> targets, one a clip that is embedded and has a label.

- multiclass: a clip has one of several values (text or whole numbers); target (clip,) int64, the number of its class;
- multilabel: a list column; target (clip, tag) float32, 1 where a clip has the tag;
- regression: one or several columns of decimal numbers; target (clip, column) float32.

What is left out on the way (clips without a label, without vectors, numbers that are not finite) is told in `notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.store import InputError, Lake, Space, track_numbers

UNUSED = ("source", "digest", "cut", "added_at")     # of clips: long, and no group
TARGET_KINDS = ("multiclass", "multilabel", "regression")


@dataclass(frozen=True)
class Targets:
    """Embedded clips and what is to be told of each."""

    kind: str
    columns: tuple[str, ...]
    names: tuple[str, ...]               # classes, tags, or target columns
    clips: pl.DataFrame                  # every column of `clips`, a row each, in the order of the targets
    targets: np.ndarray
    track: np.ndarray                    # (clip,) int: clips of one track, duplicates counted in, share a number
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> pl.Series:
        return self.clips["clip_id"]

    @property
    def title(self) -> str:
        return ", ".join(self.columns)

    def __len__(self) -> int:
        return len(self.clips)

    def subset(self, rows: np.ndarray, *notes: str) -> Targets:
        """Only these clips; classes keep their numbers."""
        return replace(
            self, clips=self.clips[rows], targets=self.targets[rows], track=self.track[rows], notes=(*self.notes, *notes)
        )

    def labels(self) -> sparse.csr_array:
        """(clip, label) 1 where a clip has it: by these clips are spread evenly over the sides of a split.  Classes, tags, or
        the fifths of the first target's range."""
        if self.kind == "multilabel":
            return sparse.csr_array((self.targets > 0).astype(np.float64))
        numbers, count = self.targets, len(self.names)
        if self.kind == "regression":
            numbers, count = np.searchsorted(np.quantile(self.targets[:, 0], [0.2, 0.4, 0.6, 0.8]), self.targets[:, 0]), 5
        return sparse.csr_array((np.ones(len(self)), numbers, np.arange(len(self) + 1)), shape=(len(self), count))


def read_targets(
    lake: Lake, space: Space, columns: Sequence[str], *, kind: str | None = None, where: str | None = None
) -> Targets:
    """The task that label columns set; `kind` (one of KINDS) by default follows from their type.

    Raises InputError where a column does not exist or cannot set such a task, or where nothing is left to learn from.
    """
    if not columns:
        raise InputError("name the label column to learn")
    for column in columns:
        lake.clips.check_column(column)
    clips = lake.clips.read([name for name in lake.clips.columns() if name not in UNUSED or name in columns], where=where)
    filtered = f" where {where}" if where else ""
    if not len(clips):
        raise InputError(f"the lake has no clips{filtered}")
    chosen = choose_kind(clips, columns, kind)
    labelled = clips.drop_nulls(list(columns))
    if not len(labelled):
        raise InputError(f"no clip has a value in {' and '.join(map(repr, columns))}{filtered}")
    notes = [f"{len(clips) - len(labelled):,} clips without a label are left out"] if len(labelled) < len(clips) else []
    stored = pl.DataFrame({"clip_id": lake.vectors(space).ids()}).unique(maintain_order=True)
    known = stored.join(labelled, on="clip_id", how="inner", maintain_order="left")
    if not len(known):
        raise InputError(f"no clip with a label is embedded in space {space.name!r}: run `tonelake embed --space {space.name}`")
    if len(known) < len(labelled):
        notes.append(f"{len(labelled) - len(known):,} labelled clips are not embedded yet and are left out")
    task = TARGETS[chosen](known, tuple(columns))
    return replace(task, notes=(*notes, *task.notes))


def choose_kind(clips: pl.DataFrame, columns: Sequence[str], kind: str | None) -> str:
    """One of KINDS, that asked for or that which the columns' types suggest."""
    types = [clips[column].dtype for column in columns]
    if kind is not None and kind not in TARGET_KINDS:
        raise InputError(f"no task {kind!r}: choose {', '.join(TARGET_KINDS)}")
    lists = any(isinstance(t, pl.List) for t in types)
    found = kind or ("multilabel" if lists else "regression" if types[0].is_float() or len(columns) > 1 else "multiclass")
    if found != "regression" and len(columns) > 1:
        raise InputError(f"{len(columns)} columns at once can be learned by regression only: name one column")
    if lists and found != "multilabel":
        raise InputError(f"column {columns[0]!r} holds lists: its task is multilabel, not {found}")
    if found == "multilabel" and not lists:
        raise InputError(
            f"column {columns[0]!r} holds one value a clip: its task is multiclass; ingest it with --multi to split it"
        )
    if found == "regression" and not all(t.is_numeric() for t in types):
        text = next(c for c, t in zip(columns, types, strict=True) if not t.is_numeric())
        raise InputError(f"column {text!r} does not hold numbers: regression needs them; --task multiclass learns names")
    return found


def multiclass(clips: pl.DataFrame, columns: tuple[str, ...]) -> Targets:
    values = clips[columns[0]].cast(pl.String)
    names = values.unique().sort()
    if len(names) < 2:
        raise InputError(f"all {len(clips)} clips have {columns[0]} {names[0]!r}: a probe needs two classes or more")
    if clips[columns[0]].dtype.is_float() and len(names) > len(clips) // 2:
        raise InputError(f"{len(names)} different numbers in {columns[0]!r} are no classes: use --task regression")
    number = pl.DataFrame({"name": names, "number": np.arange(len(names))})
    targets = values.to_frame("name").join(number, on="name", how="left", maintain_order="left")["number"].to_numpy()
    return Targets("multiclass", columns, tuple(names), clips, targets.astype(np.int64), track_numbers(clips))


def multilabel(clips: pl.DataFrame, columns: tuple[str, ...]) -> Targets:
    lists = clips[columns[0]].cast(pl.List(pl.String))
    rows = pl.DataFrame({"row": np.arange(len(clips)), "name": lists}).explode("name").drop_nulls()
    names = rows["name"].unique().sort()
    if len(names) < 1:
        raise InputError(f"no clip has a tag in {columns[0]!r}")
    number = dict(zip(names, range(len(names)), strict=True))
    targets = np.zeros((len(clips), len(names)), np.float32)
    targets[rows["row"].to_numpy(), rows["name"].replace_strict(number, return_dtype=pl.Int64).to_numpy()] = 1
    everywhere = [name for name, share in zip(names, targets.mean(axis=0), strict=True) if share == 1]
    if len(everywhere) == len(names):
        raise InputError(f"every clip has the same tags in {columns[0]!r}: there is nothing to learn")
    return Targets("multilabel", columns, tuple(names), clips, targets, track_numbers(clips))


def regression(clips: pl.DataFrame, columns: tuple[str, ...]) -> Targets:
    targets = clips.select(columns).cast(pl.Float64).to_numpy()
    finite = np.isfinite(targets).all(axis=1)
    if not finite.any():
        raise InputError(f"no clip has a finite number in {' and '.join(map(repr, columns))}")
    notes = () if finite.all() else (f"{int((~finite).sum()):,} clips whose numbers are not finite are left out",)
    kept, targets = clips.filter(pl.Series(finite)), targets[finite].astype(np.float32)
    for column, values in zip(columns, targets.T, strict=True):
        if np.ptp(values) == 0:
            raise InputError(f"all {len(kept)} clips have {column} {values[0]:g}: there is nothing to learn")
    return Targets("regression", columns, columns, kept, targets, track_numbers(kept), notes)


TARGETS = {"multiclass": multiclass, "multilabel": multilabel, "regression": regression}
