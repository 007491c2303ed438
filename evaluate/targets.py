"""Prediction targets from label columns, for clips that are embedded and have a label.

- multiclass: one of several values a clip (text or whole numbers); target (clip,) int64, the number of its class;
- multilabel: a list column; target (clip, tag) float32, 1 if the clip has the tag;
- regression: one or several columns of decimal numbers; target (clip, column) float32.

`notes` reports the clips left out: without a label, without vectors, of other classes, or with numbers that are not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.store import InputError, Lake, Space, is_list, is_number, kind_of, read_songs, value_rows

UNUSED = ("source", "digest", "cut", "added_at")     # clip columns that are long and not groups
TARGET_KINDS = ("multiclass", "multilabel", "regression")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Embedded clips with the target of each."""

    kind: str
    columns: tuple[str, ...]
    names: tuple[str, ...]               # classes, tags, or target columns
    clips: pl.DataFrame                  # all columns of `clips`, in the order of `targets`
    targets: np.ndarray
    track: np.ndarray                    # (clip,) int: clips of one song (`store.read_songs`) share a number
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
        """Keep only these clips; classes keep their numbers."""
        return replace(
            self, clips=self.clips[rows], targets=self.targets[rows], track=self.track[rows], notes=(*self.notes, *notes)
        )

    def labels(self) -> sparse.csr_array:
        """Return (clip, label), 1 if a clip has the label, for stratified splits.  Labels are classes, tags, or the quintiles
        of the first regression target."""
        if self.kind == "multilabel":
            return sparse.csr_array((self.targets > 0).astype(np.float64))
        numbers, count = self.targets, len(self.names)
        if self.kind == "regression":
            numbers, count = np.searchsorted(np.quantile(self.targets[:, 0], [0.2, 0.4, 0.6, 0.8]), self.targets[:, 0]), 5
        return sparse.csr_array((np.ones(len(self)), numbers, np.arange(len(self) + 1)), shape=(len(self), count))


def read_targets(
    lake: Lake, space: Space, columns: Sequence[str], *, kind: str | None = None, where: str | None = None,
    classes: Sequence[str] | None = None,
) -> Targets:
    """Read the targets in label columns; `kind` (one of TARGET_KINDS) follows from the columns' types by default.

    `classes`: the known classes or tags, in the order of the outputs; see `keep_classes`.
    Raises InputError if a column does not exist or does not fit the kind, if a class has no clip, or if no clip is left.
    """
    if not columns:
        raise InputError("no label column given. Name the label column to learn")
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
        raise InputError(f"no clip with a label is embedded in space {space.name!r}. Run `tonelake embed --space {space.name}`")
    if len(known) < len(labelled):
        notes.append(f"{len(labelled) - len(known):,} labelled clips are not embedded yet and are left out")
    if classes is not None:
        known, more = keep_classes(known, columns[0], chosen, classes)
        notes += more
    task = order_outputs(READERS_BY_KIND[chosen](known, tuple(columns)), classes)
    return replace(task, track=read_songs(lake.clips).dense(task.ids), notes=(*notes, *task.notes))


def choose_kind(clips: pl.DataFrame, columns: Sequence[str], kind: str | None) -> str:
    """Return `kind` if given, else the kind that the columns' types suggest.  Raises InputError if they do not fit."""
    types = [clips[column].dtype for column in columns]
    if kind is not None and kind not in TARGET_KINDS:
        raise InputError(f"task {kind!r}: unknown. Choose {', '.join(TARGET_KINDS)}")
    lists = any(is_list(dtype) for dtype in types)
    numbers = kind_of(types[0]) == "decimal" or len(columns) > 1
    found = kind or ("multilabel" if lists else "regression" if numbers else "multiclass")
    if found != "regression" and len(columns) > 1:
        raise InputError(f"{len(columns)} columns: only regression predicts several at once. Name one column")
    if lists and found != "multilabel":
        raise InputError(f"column {columns[0]!r}: holds lists, so its task is multilabel, not {found}")
    if found == "multilabel" and not lists:
        raise InputError(
            f"column {columns[0]!r}: holds one value a clip, so its task is multiclass. Ingest it with --multi to split it"
        )
    if found == "regression" and not all(is_number(dtype) for dtype in types):
        text = next(column for column, dtype in zip(columns, types, strict=True) if not is_number(dtype))
        raise InputError(f"column {text!r}: does not hold numbers, which regression needs. Use --task multiclass for names")
    return found


def keep_classes(
    clips: pl.DataFrame, column: str, kind: str, classes: Sequence[str]
) -> tuple[pl.DataFrame, list[str]]:
    """Return the clips with the labels in `classes` only, and notes on what was left out.

    In a list column, other labels are dropped and their clips kept, with the rest of their labels or with none, which makes
    them negatives of every class.  In another column, clips of other classes are left out.
    Raises InputError for a regression, a repeated class, and a class without a clip.
    """
    if kind == "regression":
        raise InputError(f"--classes: column {column!r} is a regression target. Give --task multiclass, or leave --classes out")
    wanted = [str(name) for name in classes]
    if len(set(wanted)) < len(wanted) or not wanted:
        raise InputError(f"--classes {','.join(wanted)}: names a class twice, or none. Name each class once")
    rows = value_rows(clips[column]).with_columns(kept=pl.col("value").cast(pl.String).is_in(wanted))
    present = rows["value"].cast(pl.String).unique().sort()
    absent = [name for name in wanted if name not in present]
    if absent:
        held = ", ".join(present.head(12)) + (" …" if len(present) > 12 else "")
        raise InputError(
            f"class {absent[0]!r}: no clip has it in column {column!r}. Leave it out of --classes; the column holds {held}"
        )
    dropped, named = rows.filter(~pl.col("kept")), ", ".join(wanted)
    if not len(dropped):
        return clips, []
    if not is_list(clips[column].dtype):
        kept = clips.filter(pl.Series(rows["kept"]))
        return kept, [f"{len(dropped):,} clips of classes other than {named} are left out"]
    element = pl.element()
    filtered = clips.with_columns(pl.col(column).list.eval(element.filter(element.cast(pl.String).is_in(wanted))))
    emptied = int((filtered[column].list.len().gather(dropped["row"].unique()) == 0).sum())
    note = f"{len(dropped):,} labels other than {named} are dropped from {dropped['row'].n_unique():,} clips"
    if emptied:
        note += f"; {emptied:,} of these keep no label and count as negatives of every class"
    return filtered, [note]


def order_outputs(task: Targets, classes: Sequence[str] | None) -> Targets:
    """Return the task with its outputs in the order of `classes`; None leaves them sorted by name."""
    if classes is None:
        return task
    order = [task.names.index(str(name)) for name in classes]
    if task.kind == "multilabel":
        targets = np.ascontiguousarray(task.targets[:, order])
    else:
        targets = np.argsort(order)[task.targets]
    return replace(task, names=tuple(task.names[number] for number in order), targets=targets)


def make_targets(
    kind: str, columns: tuple[str, ...], names: Sequence[str] | pl.Series, clips: pl.DataFrame, targets: np.ndarray
) -> Targets:
    """Return targets whose tracks `read_targets` fills in."""
    unknown = np.full(len(clips), -1, np.int64)
    return Targets(kind=kind, columns=columns, names=tuple(names), clips=clips, targets=targets, track=unknown)


def read_multiclass(clips: pl.DataFrame, columns: tuple[str, ...]) -> Targets:
    values = clips[columns[0]].cast(pl.String)
    names = values.unique().sort()
    if len(names) < 2:
        raise InputError(f"all {len(clips)} clips have {columns[0]} {names[0]!r}: a probe needs two or more classes")
    if kind_of(clips[columns[0]].dtype) == "decimal" and len(names) > len(clips) // 2:
        raise InputError(f"column {columns[0]!r}: {len(names)} different numbers, too many for classes. Use --task regression")
    number = pl.DataFrame({"name": names, "number": np.arange(len(names))})
    targets = values.to_frame("name").join(number, on="name", how="left", maintain_order="left")["number"].to_numpy()
    return make_targets("multiclass", columns, names, clips, targets.astype(np.int64))


def read_multilabel(clips: pl.DataFrame, columns: tuple[str, ...]) -> Targets:
    rows = value_rows(clips[columns[0]]).select("row", name=pl.col("value").cast(pl.String))
    names = rows["name"].unique().sort()
    if len(names) < 1:
        raise InputError(f"no clip has a tag in {columns[0]!r}")
    number = dict(zip(names, range(len(names)), strict=True))
    targets = np.zeros((len(clips), len(names)), np.float32)
    targets[rows["row"].to_numpy(), rows["name"].replace_strict(number, return_dtype=pl.Int64).to_numpy()] = 1
    everywhere = [name for name, share in zip(names, targets.mean(axis=0), strict=True) if share == 1]
    if len(everywhere) == len(names):
        raise InputError(f"column {columns[0]!r}: every clip has the same tags, so there is nothing to learn")
    return make_targets("multilabel", columns, names, clips, targets)


def read_regression(clips: pl.DataFrame, columns: tuple[str, ...]) -> Targets:
    targets = clips.select(columns).cast(pl.Float64).to_numpy()
    finite = np.isfinite(targets).all(axis=1)
    if not finite.any():
        raise InputError(f"no clip has a finite number in {' and '.join(map(repr, columns))}")
    notes = () if finite.all() else (f"{int((~finite).sum()):,} clips whose numbers are not finite are left out",)
    kept, targets = clips.filter(pl.Series(finite)), targets[finite].astype(np.float32)
    for column, values in zip(columns, targets.T, strict=True):
        if np.ptp(values) == 0:
            raise InputError(f"all {len(kept)} clips have {column} {values[0]:g}: there is nothing to learn")
    return replace(make_targets("regression", columns, columns, kept, targets), notes=notes)


READERS_BY_KIND = {"multiclass": read_multiclass, "multilabel": read_multilabel, "regression": read_regression}
