"""Embedded clips with a label column: which clips share a label, a track or audio.

Two clips share a label if their values are equal or, in a list column, have an element in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.store import InputError, Lake, Space, can_group, read_songs, to_nfc, value_rows

PAIRS = 4_000                            # clip pairs of one group, and as many of different groups, for training and for test
MIN_GROUPS = 4                           # two to train on, two to evaluate on


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Embedded clips that have a label, in the order of `ids`."""

    column: str
    ids: pl.Series
    names: list[str]                     # the groups, sorted
    member: sparse.csr_array             # (clip, group) float32: 1 where a clip belongs to a group
    track: np.ndarray                    # (clip,) int: clips of one song (`store.read_songs`) share a number
    start_s: np.ndarray                  # (clip,)
    end_s: np.ndarray                    # (clip,)

    def subset(self, rows: np.ndarray) -> Labelled:
        """Keep only these clips; groups keep their numbers, even those left without clips."""
        return replace(
            self, ids=self.ids.gather(rows), member=self.member[rows], track=self.track[rows], start_s=self.start_s[rows],
            end_s=self.end_s[rows],
        )

    def same(self, queries: np.ndarray) -> np.ndarray:
        """Return (query, clip) bool: whether two clips share a label."""
        if self.member.nnz == len(self.ids):             # one group per clip
            code = self.member.indices
            return code[queries, None] == code[None, :]
        return (self.member[queries] @ self.member.T).toarray() > 0

    def same_track(self, queries: np.ndarray) -> np.ndarray:
        """Return (query, clip) bool: whether two clips belong to one track; true for a clip with itself."""
        return self.track[queries, None] == self.track[None, :]

    def overlap(self, queries: np.ndarray) -> np.ndarray:
        """Return (query, clip) bool: whether two clips share audio; true for a clip with itself."""
        apart = (self.end_s[None, :] <= self.start_s[queries, None]) | (self.start_s[None, :] >= self.end_s[queries, None])
        return self.same_track(queries) & ~apart

    def clips_of_groups(self) -> np.ndarray:
        """Return (group,) int: the number of clips of each group."""
        return np.bincount(self.member.indices, minlength=len(self.names))

    def parts(self) -> tuple[np.ndarray, sparse.csr_array]:
        """Divide each group by track: return (part,) the group of each part, and (part, clip) float32 with 1 for its clips."""
        clip, group = self.member.nonzero()
        pairs, part = np.unique(np.stack([group, self.track[clip]]), axis=1, return_inverse=True)
        ones = np.ones(len(clip), np.float32)
        return pairs[0], sparse.csr_array((ones, (part, clip)), shape=(pairs.shape[1], len(self.ids)))

    def track_members(self) -> sparse.csr_array:
        """Return (track, group): how many clips of each track belong to each group."""
        clip, group = self.member.nonzero()
        shape = (int(self.track.max()) + 1, len(self.names))
        return sparse.csr_array((np.ones(len(clip)), (self.track[clip], group)), shape=shape)

    def only_groups(self, groups: np.ndarray) -> Labelled:
        """Keep only these groups and the clips that belong to at least one of them."""
        member = self.member[:, groups]
        rows = np.flatnonzero(np.asarray(member.sum(axis=1)).ravel() > 0)
        kept = replace(self, names=[self.names[g] for g in groups], member=member)
        return kept.subset(rows)

    def tracks_of_groups(self) -> np.ndarray:
        """Return (group,) int: the number of tracks of each group."""
        return np.bincount(self.parts()[0], minlength=len(self.names))


def read_labelled(lake: Lake, space: Space, column: str, where: str | None = None) -> Labelled:
    """Read the embedded clips that have a value in `column`.  Raises InputError if there are none."""
    lake.clips.check_column(column)
    columns = list(dict.fromkeys(["clip_id", "start_s", "duration_s", column]))
    clips = lake.clips.read(columns, where=where).drop_nulls(column)
    if not len(clips):
        raise InputError(f"no clip has a value in column {column!r}" + (f" where {where}" if where else ""))
    if not can_group(clips[column].dtype):
        raise InputError(f"column {column!r}: holds decimal numbers. Groups need names or whole numbers")
    embedded = pl.DataFrame({"clip_id": lake.vectors(space).ids()}).unique(maintain_order=True)
    clips = embedded.join(clips, on="clip_id", how="inner", maintain_order="left")
    if not len(clips):
        raise InputError(f"no clip with a value in {column!r} is embedded in space {space.name!r}. Run `tonelake embed`")
    rows = value_rows(clips[column]).rename({"value": "name"}).with_columns(pl.col("name").cast(pl.String))
    names = sorted(rows["name"].unique())
    number = {name: i for i, name in enumerate(names)}
    rows = rows.unique(maintain_order=True)
    group = rows["name"].replace_strict(number, return_dtype=pl.Int64).to_numpy()
    ones = np.ones(len(rows), np.float32)
    member = sparse.csr_array((ones, (rows["row"].to_numpy(), group)), shape=(len(clips), len(names)))
    start_s = clips["start_s"].to_numpy()
    return Labelled(
        column=column, ids=clips["clip_id"], names=names, member=member,
        track=read_songs(lake.clips).dense(clips["clip_id"]), start_s=start_s, end_s=start_s + clips["duration_s"].to_numpy(),
    )


def read_clip_values(lake: Lake, labelled: Labelled, column: str) -> pl.Series:
    """Return the (clip,) values of another column for labelled clips, null where a clip has none.

    Raises InputError if the column does not exist, or holds decimal numbers.
    """
    lake.clips.check_column(column)
    values = lake.clips.take(labelled.ids.to_list(), [column])[column]
    if not can_group(values.dtype):
        raise InputError(f"column {column!r}: holds decimal numbers. Groups need names or whole numbers")
    return values


class GroupNames:
    """Look up groups by name: as written, else ignoring case if one group has the name so.  Names are compared in NFC."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {to_nfc(name): row for row, name in enumerate(names)}
        self._folded: dict[str, list[int]] = {}
        for name, row in self._exact.items():
            self._folded.setdefault(name.casefold(), []).append(row)

    def find(self, name: str) -> list[int]:
        """Return the rows of the groups that a name can mean: one, none, or several that differ from each other by case."""
        written = to_nfc(name)
        return [self._exact[written]] if written in self._exact else self._folded.get(written.casefold(), [])


def find_group(labelled: Labelled, name: str) -> int:
    """Return the number of a group by its name, as written, else ignoring case.

    Raises InputError that suggests similar names, or names the groups that differ by case only.
    """
    import difflib

    rows = GroupNames(labelled.names).find(name)
    if len(rows) == 1:
        return rows[0]
    if rows:
        shown = [labelled.names[row] for row in rows]
        raise InputError(f"{labelled.column} {name!r}: is {' or '.join(map(repr, shown))}. Write it as one of these")
    folded = [to_nfc(known).casefold() for known in labelled.names]
    near = difflib.get_close_matches(to_nfc(name).casefold(), folded, n=3, cutoff=0.5)
    shown = [labelled.names[folded.index(n)] for n in near] or labelled.names[:5]
    raise InputError(
        f"{labelled.column} {name!r}: not among the {len(labelled.names)} in the lake. "
        f"Did you mean {', '.join(map(repr, shown))}?"
    )


def halve_groups(labelled: Labelled, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split the groups of two or more tracks into two random halves, as numbers of groups: to train on and to evaluate on.

    `probes.metric_learning.hold_out_groups` differs: it makes three parts and trains on the remaining groups as well.
    Raises InputError if there are fewer than MIN_GROUPS.
    """
    usable = np.flatnonzero(labelled.tracks_of_groups() >= 2)
    if len(usable) < MIN_GROUPS:
        raise InputError(
            f"column {labelled.column!r}: {len(usable)} groups have clips of two or more tracks; learning weights needs "
            f"{MIN_GROUPS}. Choose another column"
        )
    mixed = rng.permutation(usable)
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def sample_pairs(
    labelled: Labelled, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw pairs of clips of some groups: (pair,) first rows, (pair,) second rows, and whether they share the group.

    Half of the pairs share a group; groups are drawn equally often, and no pair is of one track.
    """
    members = [members for members in (labelled.member[:, [group]].nonzero()[0] for group in groups) if len(members)]
    pool = np.unique(np.concatenate(members))
    first, second = [], []
    for _ in range(8):                   # pairs of one track are dropped, so several rounds are drawn
        which = rng.integers(len(members), size=PAIRS)
        for group in which:
            a, b = rng.choice(members[group], 2)
            first.append(a)
            second.append(b)
        keep = labelled.track[first] != labelled.track[second]
        if keep.sum() >= PAIRS:
            break
    a, b = np.array(first)[keep][:PAIRS], np.array(second)[keep][:PAIRS]
    c, d = rng.choice(pool, 4 * PAIRS), rng.choice(pool, 4 * PAIRS)
    apart = labelled.track[c] != labelled.track[d]
    apart &= np.asarray(labelled.member[c].multiply(labelled.member[d]).sum(axis=1)).ravel() == 0
    c, d = c[apart][: len(a)], d[apart][: len(a)]
    return np.concatenate([a, c]), np.concatenate([b, d]), np.arange(len(a) + len(c)) < len(a)
