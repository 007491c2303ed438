"""Songs: which clips belong to one piece of music.

A song is a track by its name, joined with the tracks that share a confirmed duplicate with it.  A name that labels gave holds
within one data set (column `dataset`): two sets can both have a track 1.  `track_numbers` alone decides
this; comparisons that exclude pairs of one song, lists with one row a song, splits and statistics all use it, most of them
through `read_songs`, which looks at every clip of the lake: two clips can be joined by a third one that a filter leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl

from tonelake.store.clips import Clips
from tonelake.store.columns import SEPARATED_FROM
from tonelake.store.key_rows import KeyRows

DUPLICATE_COLUMN = "same_as"             # column of clips: the first clip of the set of duplicates that the clip belongs to
SONG_COLUMNS = ("clip_id", "track", DUPLICATE_COLUMN, "dataset")         # columns that `track_numbers` reads
SCOPE_COLUMNS = ("labelled", "recording", SEPARATED_FROM)                # and those where there are several data sets


def track_numbers(clips: pl.DataFrame) -> np.ndarray:
    """(clip,) int: equal for clips of one track and of tracks that share a duplicate clip.

    `clips` has `track`, and those of SONG_COLUMNS and SCOPE_COLUMNS that the lake has.
    """
    track = _names_by_set(clips) if _has_sets(clips) else (clips["track"].rank("dense") - 1).to_numpy().astype(np.int64)
    if DUPLICATE_COLUMN not in clips.columns:
        return track
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    marked = clips[DUPLICATE_COLUMN].is_not_null().to_numpy()
    sets = clips[DUPLICATE_COLUMN].filter(pl.Series(marked)).rank("dense").to_numpy().astype(np.int64) - 1
    tracks = int(track.max(initial=-1)) + 1
    nodes = tracks + (int(sets.max()) + 1 if len(sets) else 0)
    graph = sparse.coo_array((np.ones(len(sets)), (track[marked], tracks + sets)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][track].astype(np.int64)


def _has_sets(clips: pl.DataFrame) -> bool:
    """Whether names can be those of several data sets."""
    return {"dataset", "labelled", "recording"} <= set(clips.columns) and clips["dataset"].n_unique() > 1


def _names_by_set(clips: pl.DataFrame) -> np.ndarray:
    """(clip,) int: equal for clips whose track has one name, which labels gave in one data set, or which a path gave.

    All clips of one name and recording are together, whatever their data sets; stems belong to the clip that they are from.
    """
    labelled = pl.col("labelled").list.contains("track").fill_null(False)
    rows = clips.select(
        "track", "recording", pl.int_range(pl.len()).alias("row"), scope=pl.when(labelled).then("dataset"),
        clip="clip_id" if "clip_id" in clips.columns else pl.lit(None, pl.String),
        mix=SEPARATED_FROM if SEPARATED_FROM in clips.columns else pl.lit(None, pl.String),
    )
    mixes = rows.select(mix="clip", mix_recording="recording").drop_nulls("mix")
    rows = rows.join(mixes, on="mix", how="left", maintain_order="left")
    rows = rows.with_columns(recording=pl.coalesce("mix_recording", "recording", "scope", pl.lit("")))
    scope = pl.when(pl.col("mix_recording").is_null()).then("scope")
    first = rows.group_by("track", "recording").agg(scope=scope.drop_nulls().min())
    rows = rows.drop("scope").join(first, on=["track", "recording"], how="left", maintain_order="left")
    return (rows.select(pl.struct("track", "scope").rank("dense")).to_series() - 1).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class Songs:
    """The song of every clip of a lake, by number."""

    rows: KeyRows                        # clip id -> index into `numbers`
    numbers: np.ndarray                  # (clip,) int64

    def of(self, ids: Sequence[str] | pl.Series) -> np.ndarray:
        """(id,) int64: the song of each clip; clips that are no longer in the lake get a negative number each."""
        return self.of_rows(self.rows.of(ids))

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """(row,) int64: as `of`, by the clips' row numbers; -1 for a clip that is no longer in the lake."""
        return np.where(rows >= 0, self.numbers[rows] if len(self.numbers) else -1, -1 - np.arange(len(rows)))

    def count(self) -> int:
        """Number of songs."""
        return pl.Series(self.numbers).n_unique()

    def dense(self, ids: Sequence[str] | pl.Series) -> np.ndarray:
        """(id,) int64: the song of each clip, numbered from 0 among these clips."""
        return np.unique(self.of(ids), return_inverse=True)[1].astype(np.int64)


_read: WeakKeyDictionary[Clips, tuple[int, Songs]] = WeakKeyDictionary()         # with the version of the table of clips


def read_songs(clips: Clips) -> Songs:
    """The song of every clip of a lake, cached until clips change."""
    version = clips.table.version
    known = _read.get(clips)
    if known is None or known[0] != version:
        table = clips.read(song_columns(clips))
        rows = clips.key_rows() if clips.ids().equals(table["clip_id"]) else KeyRows(table["clip_id"])
        known = _read[clips] = (version, Songs(rows, track_numbers(table)))
    return known[1]


def song_columns(clips: Clips) -> list[str]:
    """The columns that `track_numbers` needs of these clips."""
    present = clips.columns()
    several = "dataset" in present and clips.read(["dataset"])["dataset"].n_unique() > 1
    return [name for name in (*SONG_COLUMNS, *(SCOPE_COLUMNS if several else ())) if name in present]


def rows_of(ids: pl.Series, wanted: pl.Series) -> np.ndarray:
    """(wanted,) int: the index of each wanted id in `ids`, -1 for an unknown one."""
    numbered = pl.DataFrame({"clip_id": ids}).with_row_index("row")
    asked = pl.DataFrame({"clip_id": wanted})
    return asked.join(numbered, on="clip_id", how="left", maintain_order="left")["row"].cast(pl.Int64).fill_null(-1).to_numpy()
