"""Choose which pairs of clips a comparison of layers is about: queries, the pairs that are left out, and the jackknife's units.

What is left out follows from the question.  With `across` a column, pairs that share its value are left out, and pairs of one
track always are; with `none`, pairs that share audio are.  By default it is `track`; where no group has two tracks (a piece
that is one recording), that would leave nothing, and it is `none`.  With `within` a column, only clips that share its value
are compared (artists within one genre).  The rule in use is part of every report.

Intervals are over units, drawn from a population: by default the values of `across` (other tracks of the same artists), or
those of any column (`over` artist: other artists).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.evaluate import (
    MOST_FOLDS,
    Folds,
    Labelled,
    Units,
    chance_of_ranks,
    make_units,
    plural,
    read_clip_values,
)
from tonelake.store import InputError, Lake, is_list, value_rows

PAIR_BUDGET = 30_000_000                 # query-clip pairs per layer; beyond it queries are sampled
LEAST_QUERIES = 200
BLOCK = 256                              # queries processed at a time, at most
BLOCK_PAIRS = 1_500_000                  # of the scores of a block: 6 MB
RANK_CELLS = 300_000_000                 # hits × folds per layer; beyond it there are fewer folds
LEAST_FOLDS = 20                         # t quantile 2.09
BLOCK_CELLS = 2_000_000                  # hits × folds of a block: 8 MB
PARTS = 2                                # halves of the folds, for cross-fitting
NONE, TRACK = "none", "track"
FEW_QUERIES = 0.5                        # share of clips; below it a report says how few there are


@dataclass(frozen=True, kw_only=True)
class PairBlock:
    """Some queries with the clips of their group, and the clips that are left out."""

    rows: np.ndarray                     # (query,) clips
    hits: tuple[np.ndarray, np.ndarray]  # (pair,) query of the block, and clip
    excluded: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Queries and candidates drawn from labelled clips, with the pairs that are left out and the units of the jackknife."""

    labelled: Labelled
    across: str                          # the column whose pairs are left out, or `none`
    chosen: bool                         # whether `across` was chosen by the user
    within: str | None                   # the column whose value compared clips share; None: any clips
    units: Units                         # of clips
    blocks: list[PairBlock]

    @cached_property
    def rows(self) -> np.ndarray:
        """(query,) clips, in the order of the blocks."""
        return np.concatenate([block.rows for block in self.blocks])

    @cached_property
    def folds(self) -> Folds:
        number, strata = self.units.folds, self.units.strata
        parts = np.arange(number) % PARTS
        if strata is not None:           # of every group in equal shares
            parts[np.argsort(strata, kind="stable")] = np.arange(number) % PARTS
        return Folds(self.units.of, number, parts)

    @cached_property
    def pair_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(fold, fold) numbers of pairs of one group, and of all pairs, by the folds of the query and of the candidate."""
        number = self.units.folds
        of_clips = np.bincount(self.units.of, minlength=number).astype(np.float64)
        of_queries = np.bincount(self.units.of[self.rows], minlength=number).astype(np.float64)
        return self.count_pairs("hits"), np.outer(of_queries, of_clips) - self.count_pairs("excluded")

    def count_pairs(self, kind: str) -> np.ndarray:
        number, of = self.units.folds, self.units.of
        counts = np.zeros(number * number)
        for block in self.blocks:
            rows, columns = getattr(block, kind)
            counts += np.bincount(of[block.rows[rows]] * number + of[columns], minlength=number * number)
        return counts.reshape(number, number)

    @property
    def left_out(self) -> str:
        """The pairs that are left out."""
        apart = f", and of two {plural(self.within)}" if self.within else ""
        if self.across == NONE:
            return f"pairs that share audio{apart}"
        return ("pairs of one track" if self.across == TRACK else f"pairs of one {self.across} or track") + apart

    @property
    def rule(self) -> str:
        """A sentence on what is left out and why, on the units, and on how few clips are queries."""
        reason = "" if self.chosen else " by default" if self.across == TRACK else (
            f", since no {self.labelled.column} has two tracks")
        text = f"Pairs{self.left_out.removeprefix('pairs')} are left out{reason}; intervals {self.units}."
        clips = len(self.labelled.ids)
        if self.is_whole and len(self.rows) < FEW_QUERIES * clips:
            text += (
                f"  Only {len(self.rows):,} of {clips:,} clips have another clip of their {self.labelled.column} to find"
                + (". Leave out only pairs that share audio to compare clips of one track too." if self.across != NONE else ".")
            )
        return text

    @property
    def is_whole(self) -> bool:
        """Whether queries are all clips that can be one, and not a sample."""
        return len(self.rows) < most_queries(len(self.labelled.ids))

    @cached_property
    def chances(self) -> dict[str, float]:
        """Expectation of each figure in random order, exactly."""
        hits, excluded = (np.concatenate([
            np.bincount(getattr(block, kind)[0], minlength=len(block.rows)) for block in self.blocks
        ]) for kind in ("hits", "excluded"))
        return {"auc": 0.5} | chance_of_ranks(hits, len(self.labelled.ids) - excluded)


def choose_pairs(
    lake: Lake, labelled: Labelled, *, across: str | None = None, over: str | None = None, within: str | None = None,
    seed: int = 0,
) -> PairSet:
    """Choose the queries, the pairs that are left out and the units of a comparison by the groups of `labelled`.

    Raises InputError if the groups allow no comparison, or for a column that does not exist or cannot divide clips.
    """
    chosen = across is not None
    across = across or default_across(labelled)
    across = TRACK if across == "tracks" else across
    sharing = None if across in (NONE, TRACK) else members_of(read_clip_values(lake, labelled, across))
    inside = None if within is None else members_of(read_clip_values(lake, labelled, within))
    blocks = choose_queries(labelled, across, sharing, inside, seed)
    cells = sum(len(block.hits[0]) for block in blocks)
    folds = int(np.clip(RANK_CELLS // max(cells, 1), LEAST_FOLDS, MOST_FOLDS))
    values, word = unit_values(lake, labelled, across, over)
    nested = values is labelled.track and labelled.member.nnz == len(labelled.ids) and not group_is_track(labelled)
    units = make_units(values, word, most=folds, strata=labelled.member.indices if nested else None)
    return PairSet(
        labelled=labelled, across=across, chosen=chosen, within=within, units=units, blocks=divide_blocks(blocks, units.folds)
    )


def default_across(labelled: Labelled) -> str:
    """Return `track`, or `none` if no group has two tracks."""
    return TRACK if labelled.column != TRACK and (labelled.tracks_of_groups() > 1).any() else NONE


def members_of(values: pl.Series) -> sparse.csr_array:
    """Return (clip, value) 0 or 1 from a column of values or lists; a clip without a value has none."""
    rows = value_rows(values).drop_nulls().with_columns(pl.col("value").cast(pl.String)).unique()
    numbers = np.unique(rows["value"].to_numpy(), return_inverse=True)[1].ravel()
    shape = (len(values), int(numbers.max(initial=-1)) + 1)
    return sparse.csr_array((np.ones(len(rows), np.float32), (rows["row"].to_numpy(), numbers)), shape=shape)


def unit_values(lake: Lake, labelled: Labelled, across: str, over: str | None) -> tuple[np.ndarray, str]:
    """Return a number for each clip's jackknife unit, and the plural of what it is.

    Clips without a value of the column are units by track.  Raises InputError for a column of lists.
    """
    column = over or (across if across != NONE else TRACK)
    if column in (TRACK, "tracks"):
        named = over is None and across == NONE and group_is_track(labelled)
        return labelled.track, plural(labelled.column) if named else "tracks"
    values = read_clip_values(lake, labelled, column)
    if is_list(values.dtype):
        if over is None:
            return labelled.track, "tracks"
        raise InputError(f"--over {column}: clips have several values. Choose a column with one value a clip, e.g. track")
    names = values.cast(pl.String)
    numbers = names.fill_null("").rank("dense").to_numpy().astype(np.int64)
    numbers = np.where(names.is_null().to_numpy(), -1 - labelled.track, numbers)
    return numbers, plural(column)


def group_is_track(labelled: Labelled) -> bool:
    """Return whether every group is exactly one track."""
    return labelled.member.nnz == len(labelled.ids) and len(np.unique(labelled.track)) == len(labelled.names) == int(
        (labelled.tracks_of_groups() == 1).sum()
    )


def choose_queries(
    labelled: Labelled, across: str, sharing: sparse.csr_array | None, inside: sparse.csr_array | None, seed: int
) -> list[PairBlock]:
    """Return all clips with another clip of their group to find, or a seeded sample of them, in blocks.

    Raises InputError if there is none.
    """
    most = most_queries(len(labelled.ids))
    order = np.random.default_rng(seed).permutation(len(labelled.ids))
    size = max(1, min(BLOCK, BLOCK_PAIRS // len(order)))
    found: list[PairBlock] = []
    number = 0
    for start in range(0, len(order), size):
        if number >= most:
            break
        block = order[start : start + size]
        same, left_out = labelled.same(block), excluded(labelled, block, across, sharing, inside)
        same &= ~left_out
        hits = same.sum(axis=1)
        kept = np.flatnonzero((hits > 0) & (hits + left_out.sum(axis=1) < len(order)))[: most - number]
        number += len(kept)
        if len(kept):
            found.append(PairBlock(rows=block[kept], hits=as_cells(same[kept]), excluded=as_cells(left_out[kept])))
    if not found:
        kind = "that does not share its audio" if across == NONE else (
            "of another track" if across == TRACK else f"of another track and {across}")
        raise InputError(
            f"column {labelled.column!r}: layers cannot be compared by it, because no clip among {len(labelled.ids)} in "
            f"{len(labelled.names)} groups has both another clip of its group {kind} and one of another group"
            + ("" if across == NONE or len(labelled.names) < 2 else f". With --across {NONE}, clips of one track are compared")
        )
    return found


def as_cells(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(mask)
    return rows.astype(np.int32), columns.astype(np.int32)


def most_queries(clips: int) -> int:
    return max(LEAST_QUERIES, PAIR_BUDGET // clips)


def excluded(
    labelled: Labelled, queries: np.ndarray, across: str, sharing: sparse.csr_array | None = None,
    inside: sparse.csr_array | None = None,
) -> np.ndarray:
    """Return a (query, clip) bool mask of the pairs that are left out.

    `sharing` and `inside`: (clip, value) of the columns of `across` and `within`.
    """
    left_out = labelled.overlap(queries) if across == NONE else labelled.same_track(queries)
    if sharing is not None:
        left_out |= (sharing[queries] @ sharing.T).toarray() > 0
    if inside is not None:
        left_out |= (inside[queries] @ inside.T).toarray() == 0
    return left_out


def divide_blocks(blocks: list[PairBlock], folds: int) -> list[PairBlock]:
    """Arrange queries by their number of hits, in blocks whose rankings fit into BLOCK_CELLS."""
    rows = np.concatenate([block.rows for block in blocks])
    starts = np.cumsum([0, *(len(block.rows) for block in blocks)])[:-1]
    joined = {}
    for kind in ("hits", "excluded"):
        cells = [getattr(block, kind) for block in blocks]
        query = np.concatenate([one[0] + start for one, start in zip(cells, starts, strict=True)])
        column = np.concatenate([one[1] for one in cells])
        joined[kind] = sparse.csr_array((np.ones(len(query), bool), (query, column)), shape=(len(rows), int(column.max()) + 1))
    found = np.diff(joined["hits"].indptr)
    order = np.argsort(found, kind="stable")
    size = max(len(block.rows) for block in blocks)
    result, start = [], 0
    while start < len(order):
        stop = start + 1
        while stop < min(start + size, len(order)) and (stop + 1 - start) * found[order[stop]] * folds <= BLOCK_CELLS:
            stop += 1
        part = order[start:stop]
        hits, left_out = (cells_of(joined[kind][part]) for kind in ("hits", "excluded"))
        result.append(PairBlock(rows=rows[part], hits=hits, excluded=left_out))
        start = stop
    return result


def cells_of(rows: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return the (cell,) rows and columns of a sparse matrix."""
    numbers = np.repeat(np.arange(rows.shape[0], dtype=np.int32), np.diff(rows.indptr))
    return numbers, rows.indices
