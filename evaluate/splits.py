"""Split clips into training, validation and test set.

    random              random clips: training and test set can share a track, which inflates results (see `leaks`)
    by:COLUMN           whole groups of a column, such as by:track, by:piece or by:artist
    column:COLUMN       as given by a column: train, valid (or val, validation, dev), test; without valid, a share of train
                        (`val_share`), whole tracks, becomes the validation set
    column:COLUMN+GROUP likewise, and clips without a value are added to train and valid (`val_share` of them) by whole groups,
                        such as track: a benchmark with additional data, its test set unchanged
    folds:K             K folds of clips, each tested once; folds:K:COLUMN of whole groups

Groups of `by` and of folds are closed over tracks and duplicates, so that none is in two sets.  Labels are balanced by
iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), also for groups and for several labels a clip.
scikit-learn's StratifiedGroupKFold is not used: it knows no shares, no multilabel targets and no validation set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.evaluate.jackknife import counted, plural
from tonelake.evaluate.targets import Targets
from tonelake.store import DUPLICATE_COLUMN, InputError, is_list, value_rows

DEFAULT_SPLIT = "by:track"
SHARES = (0.7, 0.1, 0.2)                 # of clips in the training, validation and test set
VAL_SHARE = 0.125                        # validation share of the clips that a split column leaves to divide
SIDES = ("train", "valid", "test")
SIDE_NAMES = {
    "train": 0, "training": 0, "learn": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2, "eval": 2,
}
PASSES, MAX_MOVES = 5, 300_000           # passes over all units, and units moved in total: five seconds
LEAK_COLUMNS = ("piece", "tune", "artist", "album")     # checked for leaks, besides tracks and duplicates


@dataclass(frozen=True)
class Split:
    """Rows of a task in the training, validation and test set of one fold."""

    train: np.ndarray
    valid: np.ndarray                    # may be empty
    test: np.ndarray

    def __str__(self) -> str:
        return f"{len(self.train):,} training, {len(self.valid):,} validation and {len(self.test):,} test clips"


def make_splits(
    task: Targets, how: str = DEFAULT_SPLIT, *, seed: int = 0, shares: Sequence[float] = SHARES, val_share: float = VAL_SHARE
) -> tuple[list[Split], list[str]]:
    """Return the folds of a task (one, except for `folds:K`) and notes for the report.

    `shares`: of random and by:COLUMN.  `val_share`: of column:COLUMN, the validation share of added clips, and of the training
    clips if the column names no validation clips.  Raises InputError if the split is unknown or one of its sets would be empty.
    """
    check_shares(shares)
    check_val_share(val_share, how)
    kind, _, rest = how.partition(":")
    if kind == "column":
        splits, notes = split_by_column(task, rest, seed, val_share)
    elif kind == "folds":
        splits, notes = make_folds(task, how, seed)
    elif kind in ("random", "by") and (kind == "by") == bool(rest):
        unit = np.arange(len(task)) if kind == "random" else closed_groups(task, rest)
        wanted = [share for share in shares if share > 0]
        if unit.max() + 1 < len(wanted):
            raise InputError(
                f"--split {how}: {unit.max() + 1} groups without a common track or duplicate cannot fill {len(wanted)} sets. "
                "Split by another column, or at random"
            )
        side = stratify(task, unit, shares, seed)
        splits, notes = [Split(*(np.flatnonzero(side == s) for s in range(3)))], []
    else:
        raise InputError(f"--split {how}: unknown. Choose random, by:COLUMN, column:COLUMN, folds:K or folds:K:COLUMN")
    for split in splits:
        check_sides(task, split, how)
    return splits, [*notes, *notes_on_unseen_labels(task, splits)]


def check_shares(shares: Sequence[float]) -> None:
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or shares[2] <= 0 or not np.isclose(sum(shares), 1):
        raise InputError(f"shares {tuple(shares)}: must sum to 1 over train, valid and test, and only valid may be 0")


def check_val_share(share: float, how: str) -> None:
    """Raise InputError if the validation share is not between 0 and 1, or is given for a split that has none."""
    if not 0 < share < 1:
        raise InputError(f"--val-share {share:g}: is out of range. Give a share above 0 and below 1")
    if share != VAL_SHARE and not how.startswith("column:"):
        raise InputError(f"--val-share: applies to --split column:COLUMN, not to {how}. Use --shares train,valid,test")


def closed_groups(task: Targets, column: str) -> np.ndarray:
    """Return (clip,) int: the group of each clip, where groups that share a track or a duplicate are merged.

    Clips without a value form a group per track.
    """
    from scipy.sparse.csgraph import connected_components

    if column not in task.clips.columns:
        raise InputError(f"--split by {column!r}: no column {column!r}. Clips have {', '.join(task.clips.columns)}")
    values = task.clips[column]
    pairs = value_rows(values)
    tracks = int(task.track.max()) + 1
    rows = pairs["row"].to_numpy()
    group = pairs["value"].rank("dense").to_numpy().astype(np.int64) - 1 if len(pairs) else np.zeros(0, np.int64)
    nodes = tracks + (int(group.max()) + 1 if len(group) else 0)
    graph = sparse.coo_array((np.ones(len(rows)), (task.track[rows], tracks + group)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][task.track]
    return np.unique(component, return_inverse=True)[1]


def stratify(task: Targets, unit: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return (clip,) int: the set of each clip; units stay whole, labels are balanced as far as possible.

    Iterative stratification: units of the rarest label go first, large before small, each to the set with the largest
    deficit of that label, then the largest deficit of clips, then at random.  Afterwards units are moved one at a time while
    that brings the sets nearer to their shares, of each label and of clips.
    """
    rng = np.random.default_rng(seed)
    units = int(unit.max()) + 1
    labels = task.labels()
    clip, label = labels.nonzero()
    counts = sparse.coo_array((np.ones(len(clip)), (unit[clip], label)), shape=(units, labels.shape[1])).tocsr()
    counts = sparse.csr_array(sparse.hstack([counts, np.bincount(unit, minlength=units)[:, None]]))    # last column: clips
    by_label = counts.tocsc()
    wanted = np.outer(np.asarray(shares, float), counts.sum(axis=0))             # (side, label)
    deficit, usable = wanted.copy(), np.asarray(shares) > 0
    side = np.full(units, -1)
    tie_break = rng.permutation(units)
    for rarest in np.argsort(np.diff(by_label.indptr), kind="stable"):           # every unit has the last one
        column = slice(by_label.indptr[rarest], by_label.indptr[rarest + 1])
        members, amounts = by_label.indices[column], by_label.data[column]
        for one in members[np.lexsort((tie_break[members], -amounts))]:
            if side[one] < 0:
                side[one] = np.lexsort([rng.random(len(shares)), deficit[:, -1], deficit[:, rarest], usable])[-1]
                row = slice(counts.indptr[one], counts.indptr[one + 1])
                deficit[side[one], counts.indices[row]] -= counts.data[row]
    for _ in range(min(PASSES, MAX_MOVES // units)):
        if not improve_balance(side, counts, wanted, deficit, usable, rng.permutation(units)):
            break
    return side[unit]


def improve_balance(
    side: np.ndarray, counts: sparse.csr_array, wanted: np.ndarray, deficit: np.ndarray, usable: np.ndarray, order: np.ndarray
) -> int:
    """Move each unit to the set that minimises the squared relative deficits; return how many were moved."""
    sides, moved = np.flatnonzero(usable), 0
    for one in order:
        row = slice(counts.indptr[one], counts.indptr[one + 1])
        own, amount = counts.indices[row], counts.data[row]
        scale = np.maximum(wanted[np.ix_(sides, own)], 1e-9)
        gap =  deficit[np.ix_(sides, own)]
        gap[sides == side[one]] += amount               # as if removed
        gain = ((gap**2 - (gap - amount) ** 2) / scale).sum(axis=1)
        best = sides[gain.argmax()]
        if best != side[one] and gain.max() > gain[sides == side[one]][0] + 1e-9:
            deficit[side[one], own] += amount
            deficit[best, own] -= amount
            side[one] = best
            moved += 1
    return moved


def split_by_column(task: Targets, column: str, seed: int, val_share: float) -> tuple[list[Split], list[str]]:
    """Read the split from a column.  If it has no valid, a share of train, whole tracks, becomes the validation set."""
    column, _, group = column.partition("+")
    if column not in task.clips.columns:
        raise InputError(f"--split by {column!r}: no column {column!r}. Clips have {', '.join(task.clips.columns)}")
    values = task.clips[column].cast(pl.String)
    known = {value: SIDE_NAMES.get(value.strip().casefold()) for value in values.drop_nulls().unique()}
    strange = sorted(value for value, side in known.items() if side is None)
    if strange or not known:
        held = ", ".join(strange[:5]) or "nothing"
        raise InputError(f"column {column!r}: holds {held}. A split column holds train, valid or test")
    side = values.replace_strict(known, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy().copy()
    notes = []
    if group:
        notes += add_unassigned_clips(task, side, group, seed, val_share)
    if (side < 0).any():
        notes.append(f"{int((side < 0).sum()):,} clips without a value in {column!r} are left out")
    if not (side == 1).any() and (side == 0).any():
        train = np.flatnonzero(side == 0)
        part = task.subset(train)
        unit = np.unique(part.track, return_inverse=True)[1]
        inner = stratify(part, unit, (1 - val_share, val_share, 0.0), seed)
        side[train] = inner
        taken = int((inner == 1).sum())
        notes.append(f"column {column!r} has no valid: {taken:,} clips of train, whole tracks, are used instead")
    return [Split(*(np.flatnonzero(side == s) for s in range(3)))], notes


def add_unassigned_clips(task: Targets, side: np.ndarray, group: str, seed: int, val_share: float) -> list[str]:
    """Add the clips of set -1 to train and valid, `val_share` of them to the latter; groups with clips in test are left out."""
    unit = closed_groups(task, group)
    added = np.flatnonzero((side < 0) & ~np.isin(unit, unit[side == 2]))
    kept_out = int((side < 0).sum()) - len(added)
    notes = [f"{kept_out:,} added clips share a {group} or a duplicate with the test set and are left out"] if kept_out else []
    if len(added):
        # A group already in a set of the given split goes to that set.
        for number in (0, 1):
            side[added[np.isin(unit[added], unit[side == number])]] = number
        free = added[side[added] < 0]
        if len(free):
            part = task.subset(free)
            shares = (1 - val_share, val_share, 0.0)
            side[free] = stratify(part, np.unique(unit[free], return_inverse=True)[1], shares, seed)
        notes.append(
            f"{len(added):,} clips are added to train and valid, whole {plural(group)}, {int((side[added] == 1).sum()):,} of "
            "them to valid; test is unchanged"
        )
    return notes


def make_folds(task: Targets, how: str, seed: int) -> tuple[list[Split], list[str]]:
    """Read `folds:K` or `folds:K:COLUMN`: fold i is tested on part i, validated on the next part, trained on the others."""
    _, number, *column = how.split(":")
    if not number.isdecimal() or int(number) < 3 or len(column) > 1:
        raise InputError(f"--split {how}: K must be 3 or more. Write folds:K or folds:K:COLUMN")
    k = int(number)
    unit = closed_groups(task, column[0]) if column else np.arange(len(task))
    if unit.max() + 1 < k:
        raise InputError(f"--split {how}: {unit.max() + 1} groups without a common track or duplicate cannot make {k} folds")
    part = stratify(task, unit, [1 / k] * k, seed)
    found = []
    for i in range(k):
        after = (i + 1) % k
        found.append(Split(*(np.flatnonzero(mine) for mine in ((part != i) & (part != after), part == after, part == i))))
    return found, []


def check_sides(task: Targets, split: Split, how: str) -> None:
    """Raise InputError if the training or test set is empty or holds no usable label."""
    for name, rows in (("training", split.train), ("test", split.test)):
        if not len(rows):
            raise InputError(
                f"--split {how}: the {name} set is empty; perhaps each label has only one group. Split by another column, "
                "or use --split random and check the reported leaks"
            )
    if task.kind == "regression":
        return
    seen = task.labels()[split.train].sum(axis=0) > 0
    if task.kind == "multiclass" and seen.sum() < 2:
        raise InputError(f"--split {how}: the training set has only one class. Split by another column, or at random")
    if task.kind == "multiclass" and not seen[task.targets[split.test]].any():
        raise InputError(
            f"--split {how}: no value of {task.title!r} in the test set occurs in the training set. Split by another column, "
            "or use --split random and check the reported leaks"
        )


def notes_on_unseen_labels(task: Targets, splits: Sequence[Split]) -> list[str]:
    """Return a note on labels that occur in the test set but not in the training set, if there are any."""
    if task.kind == "regression":
        return []
    labels = task.labels()
    unseen, clips = set(), 0
    for split in splits:
        absent = np.flatnonzero((labels[split.test].sum(axis=0) > 0) & (labels[split.train].sum(axis=0) == 0))
        unseen |= set(absent)
        clips += int((labels[split.test][:, absent].sum(axis=1) > 0).sum())
    if not unseen:
        return []
    named = ", ".join(task.names[i] for i in sorted(unseen)[:5]) + (" …" if len(unseen) > 5 else "")
    judged = "count as wrong" if task.kind == "multiclass" else "cannot be predicted"
    tested = "1 test clip is" if clips == 1 else f"{clips:,} test clips are"
    return [f"{tested} of {counted(len(unseen), task.title)} without training clips ({named}): these {judged}"]


def leaks(task: Targets, splits: Sequence[Split]) -> pl.DataFrame:
    """Return what training and test set share: a row for track, duplicate, audio and each group column present.

    Columns: column, groups (number in both), clips (test clips of such groups), share (of the test clips).  The validation
    set counts as training.  The task's own column is left out: its classes have to be in both.
    """
    columns: dict[str, Any] = {"track": pl.Series("track", task.track)}
    if DUPLICATE_COLUMN in task.clips.columns:
        columns["duplicate"] = task.clips[DUPLICATE_COLUMN]
    columns |= {c: task.clips[c] for c in LEAK_COLUMNS if c in task.clips.columns and c not in task.columns}
    tested = sum(len(split.test) for split in splits)
    rows: list[tuple[str, int | None, int, float]] = []
    for name, values in columns.items():
        if name in task.columns or is_list(values.dtype) or not len(values.drop_nulls()):
            continue
        groups: set[Any] = set()
        clips = 0
        for split in splits:
            known = values.gather(np.concatenate([split.train, split.valid])).drop_nulls().unique()
            both = values.gather(split.test).is_in(known.implode()).fill_null(False)
            clips += int(both.sum())
            groups |= set(values.gather(split.test).filter(both).unique())
        rows.append((name, len(groups), clips, clips / tested))
    overlapping = sum(count_overlapping_clips(task, split) for split in splits)
    rows.append(("audio", None, overlapping, overlapping / tested))
    schema = {"column": pl.String, "groups": pl.Int64, "clips": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def count_overlapping_clips(task: Targets, split: Split) -> int:
    """Count the test clips that overlap in time with a training or validation clip of their track."""
    clips = task.clips.select("start_s", end_s=pl.col("start_s") + pl.col("duration_s")).with_columns(
        track=pl.Series(task.track), side=pl.lit(0), row=pl.int_range(pl.len())
    )
    trained = clips[np.concatenate([split.train, split.valid])].sort("track", "start_s")
    tested = clips[split.test]
    # `reach`: the latest end of a track's training clips that begin before the test clip ends.  Past its start, they overlap.
    reach = trained.with_columns(reach=pl.col("end_s").cum_max().over("track")).sort("start_s")
    found = tested.sort("end_s").join_asof(
        reach.select("track", "start_s", "reach"), left_on="end_s", right_on="start_s", by="track", strategy="backward",
        allow_exact_matches=False, check_sortedness=False,
    )
    return int((found["reach"] > found["start_s"]).fill_null(False).sum())
