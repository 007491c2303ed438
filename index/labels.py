"""A label column beside the vectors of a space: which clips belong together, and which share audio.

Two clips "belong together" where they have the same value, or, of a list column, a value in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from store import InputError, Lake, Space


@dataclass(frozen=True)
class Labelled:
    """Embedded clips that have a label, in the order of `ids`."""

    column: str
    ids: pl.Series
    names: list[str]                     # the groups, sorted
    member: np.ndarray                   # (clip, group) bool
    track: np.ndarray                    # (clip,) int: clips of one track share a number
    start_s: np.ndarray                  # (clip,)
    end_s: np.ndarray                    # (clip,)

    def same(self, queries: np.ndarray) -> np.ndarray:
        """(query, clip) bool: whether two clips belong together."""
        if (self.member.sum(axis=1) == 1).all():
            code = self.member.argmax(axis=1)
            return code[queries, None] == code[None, :]
        weight = self.member.astype(np.float32)
        return weight[queries] @ weight.T > 0

    def same_track(self, queries: np.ndarray) -> np.ndarray:
        """(query, clip) bool: whether two clips are of one track; a clip with itself is."""
        return self.track[queries, None] == self.track[None, :]

    def overlap(self, queries: np.ndarray) -> np.ndarray:
        """(query, clip) bool: whether two clips share audio; a clip with itself does."""
        apart = (self.end_s[None, :] <= self.start_s[queries, None]) | (self.start_s[None, :] >= self.end_s[queries, None])
        return self.same_track(queries) & ~apart

    def tracks_of_groups(self) -> np.ndarray:
        """(group,) int: how many tracks each group has."""
        return np.array([len(np.unique(self.track[members])) for members in self.member.T])


def read_labelled(lake: Lake, space: Space, column: str, where: str | None = None) -> Labelled:
    """Embedded clips with a value in `column`.  Raises InputError where there are none."""
    lake.clips.check_column(column)
    columns = list(dict.fromkeys(["clip_id", "track", "start_s", "duration_s", column]))
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
    member = np.zeros((len(clips), len(names)), bool)
    member[rows["row"].to_numpy(), [number[name] for name in rows["name"]]] = True
    start_s = clips["start_s"].to_numpy()
    return Labelled(
        column, clips["clip_id"], names, member, clips["track"].rank("dense").to_numpy().astype(np.int64),
        start_s, start_s + clips["duration_s"].to_numpy(),
    )


def find_group(labelled: Labelled, name: str) -> int:
    """The number of a group, by its name in any case.  Raises InputError with the names that come near."""
    import difflib

    folded = [known.casefold() for known in labelled.names]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    near = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    shown = [labelled.names[folded.index(n)] for n in near] or labelled.names[:5]
    raise InputError(f"no {labelled.column} {name!r} among {len(labelled.names)}: did you mean {', '.join(map(repr, shown))}?")
