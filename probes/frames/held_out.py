"""Splits of clips in which groups of a second column, such as timbres, are held out in the test set and in validation.

Tracks are divided into training, validation and test set as for other probes.  With `hold_out`, some groups of a column are
drawn for the test set alone and others for the validation set alone, so that layers, settings and thresholds are chosen for
groups that were not heard.  Tracks that occur only in such a group go to its set; clips that would carry a track or a group
into another set are left out.  Test and validation keep clips of the other groups as well, and both are reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import Split, Targets, closed_groups, make_splits
from tonelake.probes.frames.config import FrameProbeConfig
from tonelake.store import InputError, can_group, is_list

TEST_SHARE, VALID_SHARE = 0.25, 0.15     # of the groups, at least one each
FEWEST_GROUPS = 3                        # training, validation, test
ALL = "clips"                            # the only label where no column is held out: splits need one to balance
TRAIN, VALID, TEST = range(3)


@dataclass(frozen=True, kw_only=True)
class FrameSplit:
    """Rows of the training, validation and test set, and which clips belong to groups without training clips."""

    split: Split
    held_out: np.ndarray | None          # (clip,) bool; None without a column
    groups: pl.Series | None             # (clip,) the group of each clip
    notes: list[str]


def group_targets(clips: pl.DataFrame, hold_out: str | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and (clip, name) float32 indicators of the groups, by which splits are balanced."""
    if hold_out is None:
        return (ALL,), np.ones((len(clips), 1), np.float32)
    values = group_values(clips, hold_out)
    names = values.drop_nulls().unique().sort()
    return tuple(names), np.stack([(values == name).fill_null(False).to_numpy() for name in names], axis=1).astype(np.float32)


def group_values(clips: pl.DataFrame, column: str) -> pl.Series:
    """Return the group of each clip as text.  Raises InputError if the column does not exist or has no groups."""
    if column not in clips.columns:
        raise InputError(f"--hold-out {column}: no such column. Clips have {', '.join(clips.columns)}")
    if not can_group(clips[column].dtype) or is_list(clips[column].dtype):
        raise InputError(f"--hold-out {column}: does not hold one name a clip. Choose a column such as artist")
    return clips[column].cast(pl.String)


def make_frame_split(targets: Targets, config: FrameProbeConfig) -> FrameSplit:
    """Divide the clips of a task.  Raises InputError if there are too few tracks or groups."""
    found, notes = make_splits(targets, config.split, seed=config.split_seed, shares=config.shares)
    split = found[0]
    if config.hold_out is None:
        return FrameSplit(split=split, held_out=None, groups=None, notes=notes)
    values = group_values(targets.clips, config.hold_out)
    if not config.split.startswith("column:"):
        split, more = hold_out_groups(targets, split, values, config)
        notes = [*notes, *more]
    seen = values.gather(split.train).drop_nulls().unique()
    held = (values.is_not_null() & ~values.is_in(seen.implode())).to_numpy()
    for name, rows in (("validation", split.valid), ("test", split.test)):
        if not held[rows].any():
            notes.append(f"every {config.hold_out} of the {name} set also occurs in training, so none is held out there")
    return FrameSplit(split=split, held_out=held, groups=values, notes=notes)


def hold_out_groups(
    targets: Targets, split: Split, values: pl.Series, config: FrameProbeConfig
) -> tuple[Split, list[str]]:
    """Draw the groups that are held out, and return the split without clips that would mix the sets."""
    names = values.drop_nulls().unique().sort().to_list()
    if len(names) < FEWEST_GROUPS:
        raise InputError(
            f"--hold-out {config.hold_out}: has {len(names)} groups, and {FEWEST_GROUPS} are needed. Choose another column"
        )
    tested, validated = (max(round(share * len(names)), 1) for share in (TEST_SHARE, VALID_SHARE))
    mixed = np.random.default_rng([config.split_seed, 7]).permutation(len(names)).tolist()
    home = dict.fromkeys(names, TRAIN) | {names[i]: TEST for i in mixed[:tested]}
    home |= {names[i]: VALID for i in mixed[tested : tested + validated]}
    group_side = values.replace_strict(home, default=TRAIN, return_dtype=pl.Int64).fill_null(TRAIN).to_numpy()
    side = np.empty(len(targets), np.int64)
    for number, rows in enumerate((split.train, split.valid, split.test)):
        side[rows] = number
    kind, _, column = config.split.partition(":")
    unit = closed_groups(targets, column) if kind == "by" else targets.track
    for held in (VALID, TEST):                                       # tracks in held-out groups alone go to their set
        others = np.zeros(int(unit.max()) + 1, bool)
        others[unit[group_side != held]] = True
        side = np.where(others[unit], side, held)
    kept = (group_side == TRAIN) | (group_side == side)
    parts = [np.flatnonzero(kept & (side == number)) for number in range(3)]
    for name, rows in zip(("training", "validation", "test"), parts, strict=True):
        if not len(rows):
            raise InputError(
                f"--hold-out {config.hold_out}: leaves no clip in the {name} set. Give more tracks, another --split-seed, or "
                "other --shares"
            )
    heard = {number: [name for name in names if home[name] == number] for number in (VALID, TEST)}
    notes = [
        f"{config.hold_out} held out: {', '.join(heard[TEST])} in the test set, {', '.join(heard[VALID])} in validation",
    ]
    if not kept.all():
        notes.append(
            f"{int((~kept).sum()):,} clips would carry a track or a {config.hold_out} into another set and are left out"
        )
    return Split(*parts), notes
