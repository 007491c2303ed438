"""A label column beside the vectors of a space: which clips belong together, and which share audio.

Two clips "belong together" where they have the same value, or, of a list column, a value in common.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import sparse

from store import DUPLICATE_COLUMN, InputError, Lake, Space, track_numbers
from store.text import composed


@dataclass(frozen=True)
class Labelled:
    """Embedded clips that have a label, in the order of `ids`."""

    column: str
    ids: pl.Series
    names: list[str]                     # the groups, sorted
    member: sparse.csr_array             # (clip, group) float32: 1 where a clip belongs to a group
    track: np.ndarray                    # (clip,) int: clips of one track share a number
    start_s: np.ndarray                  # (clip,)
    end_s: np.ndarray                    # (clip,)

    def subset(self, rows: np.ndarray) -> Labelled:
        """Only these clips; groups keep their numbers, also those that are then empty."""
        return replace(
            self, ids=self.ids.gather(rows), member=self.member[rows], track=self.track[rows], start_s=self.start_s[rows],
            end_s=self.end_s[rows],
        )

    def same(self, queries: np.ndarray) -> np.ndarray:
        """(query, clip) bool: whether two clips belong together."""
        if self.member.nnz == len(self.ids):             # one group each
            code = self.member.indices
            return code[queries, None] == code[None, :]
        return (self.member[queries] @ self.member.T).toarray() > 0

    def same_track(self, queries: np.ndarray) -> np.ndarray:
        """(query, clip) bool: whether two clips are of one track; a clip with itself is."""
        return self.track[queries, None] == self.track[None, :]

    def overlap(self, queries: np.ndarray) -> np.ndarray:
        """(query, clip) bool: whether two clips share audio; a clip with itself does."""
        apart = (self.end_s[None, :] <= self.start_s[queries, None]) | (self.start_s[None, :] >= self.end_s[queries, None])
        return self.same_track(queries) & ~apart

    def clips_of_groups(self) -> np.ndarray:
        """(group,) int: how many clips each group has."""
        return np.bincount(self.member.indices, minlength=len(self.names))

    def parts(self) -> tuple[np.ndarray, sparse.csr_array]:
        """Each group's clips of one track are a part: (part,) the group of each part, and (part, clip) float32, 1 where
        a clip is in it."""
        clip, group = self.member.nonzero()
        pairs, part = np.unique(np.stack([group, self.track[clip]]), axis=1, return_inverse=True)
        ones = np.ones(len(clip), np.float32)
        return pairs[0], sparse.csr_array((ones, (part, clip)), shape=(pairs.shape[1], len(self.ids)))

    def track_members(self) -> sparse.csr_array:
        """(track, group): how many clips of a track are in a group."""
        clip, group = self.member.nonzero()
        shape = (int(self.track.max()) + 1, len(self.names))
        return sparse.csr_array((np.ones(len(clip)), (self.track[clip], group)), shape=shape)

    def only_groups(self, groups: np.ndarray) -> Labelled:
        """Only these groups, and the clips that are in one of them."""
        member = self.member[:, groups]
        rows = np.flatnonzero(np.asarray(member.sum(axis=1)).ravel() > 0)
        kept = replace(self, names=[self.names[g] for g in groups], member=member)
        return kept.subset(rows)

    def tracks_of_groups(self) -> np.ndarray:
        """(group,) int: how many tracks each group has."""
        return np.bincount(self.parts()[0], minlength=len(self.names))


def read_labelled(lake: Lake, space: Space, column: str, where: str | None = None) -> Labelled:
    """Embedded clips with a value in `column`.  Raises InputError where there are none."""
    lake.clips.check_column(column)
    same_as = [DUPLICATE_COLUMN] if DUPLICATE_COLUMN in lake.clips.columns() else []
    columns = list(dict.fromkeys(["clip_id", "track", "start_s", "duration_s", *same_as, column]))
    clips = lake.clips.read(columns, where=where).drop_nulls(column)
    if not len(clips):
        raise InputError(f"no clip has a value in column {column!r}" + (f" where {where}" if where else ""))
    if clips[column].dtype.is_float():
        raise InputError(f"column {column!r} holds decimal numbers: groups need names or whole numbers")
    embedded = pl.DataFrame({"clip_id": lake.vectors(space).ids()}).unique(maintain_order=True)
    clips = embedded.join(clips, on="clip_id", how="inner", maintain_order="left")
    if not len(clips):
        raise InputError(f"no clip with a value in {column!r} is embedded in space {space.name!r}: run `tonelake embed`")
    values = clips[column] if isinstance(clips[column].dtype, pl.List) else clips[column].cast(pl.String).reshape((-1, 1))
    rows = pl.DataFrame({"row": np.arange(len(clips)), "name": values.cast(pl.List(pl.String))}).explode("name").drop_nulls()
    names = sorted(rows["name"].unique())
    number = {name: i for i, name in enumerate(names)}
    rows = rows.unique(maintain_order=True)
    group = rows["name"].replace_strict(number, return_dtype=pl.Int64).to_numpy()
    ones = np.ones(len(rows), np.float32)
    member = sparse.csr_array((ones, (rows["row"].to_numpy(), group)), shape=(len(clips), len(names)))
    start_s = clips["start_s"].to_numpy()
    return Labelled(
        column, clips["clip_id"], names, member, track_numbers(clips), start_s, start_s + clips["duration_s"].to_numpy(),
    )


def find_group(labelled: Labelled, name: str) -> int:
    """The number of a group, by its name in any case.  Raises InputError with the names that come near."""
    import difflib

    folded, wanted = [composed(known).casefold() for known in labelled.names], composed(name).casefold()
    if wanted in folded:
        return folded.index(wanted)
    near = difflib.get_close_matches(wanted, folded, n=3, cutoff=0.5)
    shown = [labelled.names[folded.index(n)] for n in near] or labelled.names[:5]
    raise InputError(f"no {labelled.column} {name!r} among {len(labelled.names)}: did you mean {', '.join(map(repr, shown))}?")
