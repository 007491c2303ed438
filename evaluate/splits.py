"""Which clips a probe learns from, is stopped by, and is judged on.

    random              clips at random: clips of one track may stand on both sides, which flatters (see `leaks`)
    by:COLUMN           whole groups of a column, say by:track, by:piece or by:artist
    column:COLUMN       as a column says: train, valid (or val, validation, dev), test
    column:COLUMN+GROUP the same, and clips without a value are added to train and valid by whole groups, say of track:
                        a benchmark with more data, its test side untouched
    folds:K             K folds of clips, each judged once; folds:K:COLUMN of whole groups

Groups of `by` and of folds are closed over tracks and duplicates, so that none stands on two sides.  Labels are spread
evenly by iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), also of groups and of several labels a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from tonelake.evaluate.targets import Targets
from tonelake.store import DUPLICATE_COLUMN, InputError

DEFAULT_SPLIT = "by:track"
SHARES = (0.7, 0.1, 0.2)                 # of clips to learn from, to be stopped by, to be judged on
SIDES = ("train", "valid", "test")
SIDE_NAMES = {
    "train": 0, "training": 0, "learn": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2, "eval": 2,
}
PASSES, MOST_MOVES = 5, 300_000          # of moving units, at most so many in all: five seconds
GROUP_COLUMNS = ("piece", "tune", "artist", "album")     # besides tracks and duplicates, what a leak is looked for by


@dataclass(frozen=True)
class Split:
    """Rows of a task: what one fold learns from, is stopped by and is judged on."""

    train: np.ndarray
    valid: np.ndarray                    # empty where none is wanted
    test: np.ndarray

    def __str__(self) -> str:
        return f"{len(self.train):,} clips to learn from, {len(self.valid):,} to stop by, {len(self.test):,} to judge on"


def make_splits(
    task: Targets, how: str = DEFAULT_SPLIT, *, seed: int = 0, shares: Sequence[float] = SHARES
) -> tuple[list[Split], list[str]]:
    """The folds of a task, one but for `folds:K`, and what is to be said of them.

    Raises InputError where there is no such split, or one of its sides would be empty.
    """
    check_shares(shares)
    kind, _, rest = how.partition(":")
    if kind == "column":
        splits, notes = by_column(task, rest, seed)
    elif kind == "folds":
        splits, notes = folds(task, how, seed)
    elif kind in ("random", "by") and (kind == "by") == bool(rest):
        unit = np.arange(len(task)) if kind == "random" else closed_groups(task, rest)
        wanted = [share for share in shares if share > 0]
        if unit.max() + 1 < len(wanted):
            raise InputError(
                f"--split {how}: {unit.max() + 1} groups that share no track and no duplicate cannot stand on "
                f"{len(wanted)} sides: split by another column, or at random"
            )
        side = spread(task, unit, shares, seed)
        splits, notes = [Split(*(np.flatnonzero(side == s) for s in range(3)))], []
    else:
        raise InputError(f"no split {how!r}: choose random, by:COLUMN, column:COLUMN, folds:K or folds:K:COLUMN")
    for split in splits:
        check_sides(task, split, how)
    return splits, [*notes, *unseen(task, splits)]


def check_shares(shares: Sequence[float]) -> None:
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or shares[2] <= 0 or not np.isclose(sum(shares), 1):
        raise InputError(f"shares {tuple(shares)}: give those of train, valid and test, which sum to 1; only valid may be 0")


def closed_groups(task: Targets, column: str) -> np.ndarray:
    """(clip,) int: the group of each clip, groups that share a track or a duplicate counted as one.

    A clip without a value is a group of its own with its track.
    """
    if column not in task.clips.columns:
        raise InputError(f"clips have no column {column!r} to split by: they have {', '.join(task.clips.columns)}")
    values = task.clips[column]
    pairs = pl.DataFrame({"row": np.arange(len(task)), "value": values})
    pairs = (pairs.explode("value") if isinstance(values.dtype, pl.List) else pairs).drop_nulls()
    tracks = int(task.track.max()) + 1
    rows = pairs["row"].to_numpy()
    group = pairs["value"].rank("dense").to_numpy().astype(np.int64) - 1 if len(pairs) else np.zeros(0, np.int64)
    nodes = tracks + (int(group.max()) + 1 if len(group) else 0)
    graph = sparse.coo_array((np.ones(len(rows)), (task.track[rows], tracks + group)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][task.track]
    return np.unique(component, return_inverse=True)[1]


def spread(task: Targets, unit: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """(clip,) int: the side of each clip, whole units on one side, labels as evenly as can be.

    Iterative stratification: units of the rarest label go first, large ones before small ones, each to the side that lacks
    that label most; of sides that lack it equally, to that which lacks most in all, then by chance.  Units are then moved
    one at a time as long as that brings sides nearer to their shares: of every label, and of clips.
    """
    rng = np.random.default_rng(seed)
    units = int(unit.max()) + 1
    labels = task.labels()
    clip, label = labels.nonzero()
    counts = sparse.coo_array((np.ones(len(clip)), (unit[clip], label)), shape=(units, labels.shape[1])).tocsr()
    counts = sparse.csr_array(sparse.hstack([counts, np.bincount(unit, minlength=units)[:, None]]))    # last: its clips
    by_label = counts.tocsc()
    wanted = np.outer(np.asarray(shares, float), counts.sum(axis=0))             # (side, label)
    lacking, usable = wanted.copy(), np.asarray(shares) > 0
    side = np.full(units, -1)
    place = rng.permutation(units)
    for rarest in np.argsort(np.diff(by_label.indptr), kind="stable"):           # all units have the last one
        column = slice(by_label.indptr[rarest], by_label.indptr[rarest + 1])
        members, amounts = by_label.indices[column], by_label.data[column]
        for one in members[np.lexsort((place[members], -amounts))]:
            if side[one] < 0:
                side[one] = np.lexsort([rng.random(len(shares)), lacking[:, -1], lacking[:, rarest], usable])[-1]
                row = slice(counts.indptr[one], counts.indptr[one + 1])
                lacking[side[one], counts.indices[row]] -= counts.data[row]
    for _ in range(min(PASSES, MOST_MOVES // units)):
        if not even_out(side, counts, wanted, lacking, usable, rng.permutation(units)):
            break
    return side[unit]


def even_out(
    side: np.ndarray, counts: sparse.csr_array, wanted: np.ndarray, lacking: np.ndarray, usable: np.ndarray, order: np.ndarray
) -> int:
    """Move each unit to where the squared lacks, each by what was wanted, come to least; how many were moved."""
    sides, moved = np.flatnonzero(usable), 0
    for one in order:
        row = slice(counts.indptr[one], counts.indptr[one + 1])
        own, amount = counts.indices[row], counts.data[row]
        scale = np.maximum(wanted[np.ix_(sides, own)], 1e-9)
        lack = lacking[np.ix_(sides, own)]
        lack[sides == side[one]] += amount               # without it
        gain = ((lack**2 - (lack - amount) ** 2) / scale).sum(axis=1)
        best = sides[gain.argmax()]
        if best != side[one] and gain.max() > gain[sides == side[one]][0] + 1e-9:
            lacking[side[one], own] += amount
            lacking[best, own] -= amount
            side[one] = best
            moved += 1
    return moved


def by_column(task: Targets, column: str, seed: int) -> tuple[list[Split], list[str]]:
    """The split that a column gives.  Without valid, an eighth of the tracks of train becomes it."""
    column, _, group = column.partition("+")
    if column not in task.clips.columns:
        raise InputError(f"clips have no column {column!r} to split by: they have {', '.join(task.clips.columns)}")
    values = task.clips[column].cast(pl.String)
    known = {value: SIDE_NAMES.get(value.strip().casefold()) for value in values.drop_nulls().unique()}
    strange = sorted(value for value, side in known.items() if side is None)
    if strange or not known:
        held = ", ".join(strange[:5]) or "nothing"
        raise InputError(f"column {column!r} holds {held}: a split column says train, valid or test")
    side = values.replace_strict(known, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy().copy()
    notes = []
    if group:
        notes += add_clips(task, side, group, seed)
    if (side < 0).any():
        notes.append(f"{int((side < 0).sum()):,} clips without a value in {column!r} are left out")
    if not (side == 1).any() and (side == 0).any():
        train = np.flatnonzero(side == 0)
        part = task.subset(train)
        unit = np.unique(part.track, return_inverse=True)[1]
        inner = spread(part, unit, (0.875, 0.125, 0.0), seed)
        side[train] = inner
        taken = int((inner == 1).sum())
        notes.append(f"column {column!r} has no valid: {taken:,} clips of train, whole tracks, are taken for it")
    return [Split(*(np.flatnonzero(side == s) for s in range(3)))], notes


def add_clips(task: Targets, side: np.ndarray, group: str, seed: int) -> list[str]:
    """Give the clips of side -1 to train and valid, an eighth to the latter; groups that reach into test stay out."""
    unit = closed_groups(task, group)
    added = np.flatnonzero((side < 0) & ~np.isin(unit, unit[side == 2]))
    kept_out = int((side < 0).sum()) - len(added)
    notes = [f"{kept_out:,} added clips share a {group} or a duplicate with the test side and stay out"] if kept_out else []
    if len(added):
        # A group that the given split has on a side already goes to that side.
        for number in (0, 1):
            side[added[np.isin(unit[added], unit[side == number])]] = number
        free = added[side[added] < 0]
        if len(free):
            part = task.subset(free)
            side[free] = spread(part, np.unique(unit[free], return_inverse=True)[1], (0.875, 0.125, 0.0), seed)
        notes.append(f"{len(added):,} clips are added to train and valid, whole {group}s; test stays as it was")
    return notes


def folds(task: Targets, how: str, seed: int) -> tuple[list[Split], list[str]]:
    """`folds:K` or `folds:K:COLUMN`: fold i is judged on part i, stopped by the next part, learned from the others."""
    _, number, *column = how.split(":")
    if not number.isdecimal() or int(number) < 3 or len(column) > 1:
        raise InputError(f"--split {how}: write folds:K with K of 3 or more, or folds:K:COLUMN")
    k = int(number)
    unit = closed_groups(task, column[0]) if column else np.arange(len(task))
    if unit.max() + 1 < k:
        raise InputError(f"--split {how}: {unit.max() + 1} groups that share no track and no duplicate cannot make {k} folds")
    part = spread(task, unit, [1 / k] * k, seed)
    found = []
    for i in range(k):
        after = (i + 1) % k
        found.append(Split(*(np.flatnonzero(mine) for mine in ((part != i) & (part != after), part == after, part == i))))
    return found, []


def check_sides(task: Targets, split: Split, how: str) -> None:
    """Raise InputError where there is nothing to learn from or to be judged on."""
    for name, rows in (("learn from", split.train), ("judge on", split.test)):
        if not len(rows):
            raise InputError(
                f"--split {how} leaves no clip to {name}, as if each label had one group only: split by another column, or use "
                "--split random, and mind what it says of leaks"
            )
    if task.kind == "regression":
        return
    seen = task.labels()[split.train].sum(axis=0) > 0
    if task.kind == "multiclass" and seen.sum() < 2:
        raise InputError(f"--split {how} leaves clips of one class only to learn from: split by another column, or at random")
    if task.kind == "multiclass" and not seen[task.targets[split.test]].any():
        raise InputError(
            f"--split {how} judges only values of {task.title!r} that are never learned from: split by another column, or use "
            "--split random, and mind what it says of leaks"
        )


def unseen(task: Targets, splits: Sequence[Split]) -> list[str]:
    """What is to be said of labels that are judged but never learned from."""
    if task.kind == "regression":
        return []
    labels = task.labels()
    lost, clips = set(), 0
    for split in splits:
        absent = np.flatnonzero((labels[split.test].sum(axis=0) > 0) & (labels[split.train].sum(axis=0) == 0))
        lost |= set(absent)
        clips += int((labels[split.test][:, absent].sum(axis=1) > 0).sum())
    if not lost:
        return []
    named = ", ".join(task.names[i] for i in sorted(lost)[:5]) + (" …" if len(lost) > 5 else "")
    counted = "count as wrong" if task.kind == "multiclass" else "cannot be found"
    return [f"{clips:,} clips to judge on are of {len(lost)} {task.title}s never learned from ({named}): these {counted}"]


def leaks(task: Targets, splits: Sequence[Split]) -> pl.DataFrame:
    """What stands on both sides: a row for each of track, duplicate, audio and the group columns there are.

    Columns: column, groups (that stand on both sides), clips (judged, of such groups), share (of the clips judged).  What
    is learned from includes what is stopped by.  A column that is the task itself is left out: its classes have to be on
    both sides.
    """
    columns: dict[str, Any] = {"track": task.clips["track"]}
    if DUPLICATE_COLUMN in task.clips.columns:
        columns["duplicate"] = task.clips[DUPLICATE_COLUMN]
    columns |= {c: task.clips[c] for c in GROUP_COLUMNS if c in task.clips.columns and c not in task.columns}
    judged = sum(len(split.test) for split in splits)
    rows: list[tuple[str, int | None, int, float]] = []
    for name, values in columns.items():
        if name in task.columns or isinstance(values.dtype, pl.List) or not len(values.drop_nulls()):
            continue
        groups: set[Any] = set()
        clips = 0
        for split in splits:
            known = values.gather(np.concatenate([split.train, split.valid])).drop_nulls().unique()
            both = values.gather(split.test).is_in(known.implode()).fill_null(False)
            clips += int(both.sum())
            groups |= set(values.gather(split.test).filter(both).unique())
        rows.append((name, len(groups), clips, clips / judged))
    overlapping = sum(shared_audio(task, split) for split in splits)
    rows.append(("audio", None, overlapping, overlapping / judged))
    schema = {"column": pl.String, "groups": pl.Int64, "clips": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def shared_audio(task: Targets, split: Split) -> int:
    """How many clips that are judged overlap in time with one of the same track that is learned from."""
    clips = task.clips.select("start_s", end_s=pl.col("start_s") + pl.col("duration_s")).with_columns(
        track=pl.Series(task.clips["track"]), side=pl.lit(0), row=pl.int_range(pl.len())
    )
    learned = clips[np.concatenate([split.train, split.valid])].sort("track", "start_s")
    tested = clips[split.test]
    # The longest reach of all clips of a track that begin before a judged one ends: beyond its start, they overlap.
    reach = learned.with_columns(reach=pl.col("end_s").cum_max().over("track")).sort("start_s")
    found = tested.sort("end_s").join_asof(
        reach.select("track", "start_s", "reach"), left_on="end_s", right_on="start_s", by="track", strategy="backward",
        allow_exact_matches=False, check_sortedness=False,
    )
    return int((found["reach"] > found["start_s"]).fill_null(False).sum())
