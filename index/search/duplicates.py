"""Find near-identical recordings: one recording under two names, with another cut, at another level, or encoded again.

Candidates are neighbours in an embedding of centred vectors, whose cosine is rarely high for different recordings.  They
are confirmed on the audio (`index.search.same_audio`): the normalised cross-correlation of the two waveforms must also be
high, at the best lag of up to two and a half seconds.  Two performances of one piece are not duplicates, nor are clips that
cannot be heard.

Saved sets become the label column `same_as`: clips of one set then count as one song wherever pairs of one song are
excluded, and splits keep them on one side.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from tonelake.embed import ReadClips
from tonelake.index.search.neighbour_graph import neighbour_search
from tonelake.index.search.same_audio import Heard, Pair, components_of, hear_pairs
from tonelake.index.search.similar import SHOWN
from tonelake.index.vectors import unit
from tonelake.ingest import read_clips
from tonelake.store import DUPLICATE_COLUMN, InputError, Lake, Space

NEIGHBOURS = 10                          # of other sources
COSINE, CORRELATION = 0.9, 0.8
BLOCK = 4096                             # rows whose neighbours are searched at a time
# Copies that are alone in a lake have no common direction left once their mean is subtracted, so that the vectors of this many
# sources are also compared as they are, with fewer neighbours: nearly all of these cosines are high.
FEW_SOURCES, FEW_NEIGHBOURS = 3, 2
LAYER = "chroma"                         # default layer in a space that has it: the other descriptors change with the level
SMALL_SET = 8                            # clips; every pair of a smaller saved set is heard again

SCHEMA: dict[str, Any] = {
    "set": pl.Int64, "clip_id": pl.String, "compared_with": pl.String, "cosine": pl.Float64, "correlation": pl.Float64,
    "offset_s": pl.Float64, "clips": pl.Int64,
}

log = logging.getLogger(__name__)


def duplicates(
    lake: Lake, *, space: str | None = None, layer: int | str | None = None, cosine: float = COSINE,
    correlation: float = CORRELATION, confirm: bool = True, where: str | None = None, save: bool = False,
    workers: int | None = None, read: ReadClips = read_clips, clips: bool = False,
) -> pl.DataFrame:
    """Return sets of duplicates, largest first: set, clip_id, compared_with (an earlier clip of the set), the cosine and
    correlation of the two, offset_s (how much later the same audio starts), clips (unless `clips` is True: how many clips of
    the recording have a duplicate in another one), and columns that describe the clip.

    A row is a recording, shown by the clip with the highest correlation; with `clips`, a row is a clip.  `read` decodes clips.
    Clips of one source are never compared.  Pairs whose audio cannot be read are left out; a warning counts them.  Without
    `confirm` the embedding alone decides, and correlation and offset_s are null.  `layer`: by default chroma, if the space has
    it, else the space's default layer.

    `save` stores the confirmed sets as the column `same_as`.  Only clips that this call heard change: stored sets with clips
    that `where` leaves out or that cannot be read stay as they are, and join new ones that they share a clip with.
    Raises InputError if fewer than two clips match `where`, for thresholds out of range, or for `save` without `confirm`.
    """
    if not -1 <= cosine <= 1 or not 0 < correlation <= 1:
        raise InputError(f"cosine {cosine:g}, correlation {correlation:g}: must be -1 to 1, and above 0 to 1")
    if save and not confirm:
        raise InputError("--save: stores only duplicates that the audio confirms. Leave out --no-audio")
    chosen = lake.spaces.get(space)
    ids, vectors = lake.vectors(chosen).layer(copies_layer(chosen, layer), where=where)
    if len(ids) < 2:
        raise InputError(f"only {len(ids)} clips in space {chosen.name!r} match; at least 2 are needed")
    known = lake.clips.take(ids.to_list(), ["source", "digest", "start_s", "duration_s", "flag"])
    pairs = candidates(vectors, known, cosine)
    if confirm:
        marks = read_marks(lake)
        if save:
            pairs = pairs + saved_pairs(ids, vectors, marks, pairs)
        heard = hear_pairs(pairs, known, read, correlation, workers, lake.progress)
        report_unheard(heard, known)
    else:
        heard = Heard(tuple(pairs), (), {})
    if save:
        lake.clips.set_labels(new_marks(ids, marks, heard))
    unit_of = np.arange(len(ids)) if clips else source_numbers(known)
    found = duplicate_sets(heard.same, ids, unit_of)
    shown = lake.clips.take(found["clip_id"].to_list(), SHOWN)
    found = found.join(shown, on="clip_id", how="left", maintain_order="left")
    return found.drop("clips") if clips else found


def copies_layer(space: Space, layer: int | str | None) -> int:
    """The number of the layer that duplicates are searched in."""
    return space.layer_index(LAYER if layer is None and LAYER in space.layers else layer)


def source_numbers(clips: pl.DataFrame) -> np.ndarray:
    """(clip,) int: the number of each clip's source."""
    return (clips["source"].rank("dense") - 1).to_numpy().astype(np.int64)


def candidates(vectors: np.ndarray, clips: pl.DataFrame, cosine: float) -> list[Pair]:
    """Return near neighbours from different sources; silent clips are left out."""
    source, silent = source_numbers(clips), (clips["flag"] == "silent").fill_null(False).to_numpy()
    found: dict[tuple[int, int], float] = {}
    compared = [(unit(vectors - vectors.mean(axis=0)), NEIGHBOURS)]
    if len(np.unique(source)) <= FEW_SOURCES:
        compared.append((unit(vectors), FEW_NEIGHBOURS))
    for directions, count in compared:
        for row, other, score in near_others(directions, source, cosine, count):
            if not silent[row] and not silent[other]:
                pair = (min(row, other), max(row, other))
                found[pair] = max(score, found.get(pair, -1.0))
    return [Pair(first=a, second=b, cosine=score) for (a, b), score in sorted(found.items())]


def near_others(directions: np.ndarray, source: np.ndarray, cosine: float, count: int) -> list[tuple[int, int, float]]:
    """Return (row, other row, cosine) of the `count` nearest rows of other sources, down to a cosine.

    A row's own source can fill its nearest places, as with clips that overlap: then it is searched wider.
    """
    search = neighbour_search(directions)
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(directions), BLOCK):
        rows, width = np.arange(start, min(start + BLOCK, len(directions))), count + 1
        while len(rows):
            width = min(width, len(directions))
            others, scores = search(directions[rows], width)
            near = (scores >= cosine) & (source[others] != source[rows][:, None]) & (others >= 0)
            near &= np.cumsum(near, axis=1) <= count
            done = (near.sum(axis=1) == count) | (scores[:, -1] < cosine) | (width == len(directions))
            row, column = np.nonzero(near & done[:, None])
            found += zip(rows[row].tolist(), others[row, column].tolist(), scores[row, column].tolist(), strict=True)
            rows, width = rows[~done], width * 4
    return found


def report_unheard(heard: Heard, clips: pl.DataFrame) -> None:
    """Log how many pairs could not be compared, with the reason of one."""
    if heard.unheard:
        row, error = next(iter(heard.errors.items()))
        log.warning(
            "%d pairs could not be compared, because the audio of %d clips cannot be read, such as %s (%s). They are neither "
            "listed nor stored; connect the disk, or ingest changed files again",
            len(heard.unheard), len(heard.errors), clips["source"][row], error,
        )


def duplicate_sets(same: Sequence[Pair], ids: pl.Series, unit_of: np.ndarray) -> pl.DataFrame:
    """Return rows of SCHEMA, one a unit (`unit_of`: (clip,) number of its recording, or of itself), the largest set first;
    within a set, units in the order of the lake.

    A unit is shown by its clip with the highest correlation to an earlier unit of its set; the first unit by the clip that
    others are compared with.
    """
    first_row = {int(number): row for row, number in reversed(list(enumerate(unit_of)))}
    component = components_of([(unit_of[pair.first], unit_of[pair.second]) for pair in same], int(unit_of.max()) + 1)
    best: dict[int, Pair] = {}           # by unit: the best pair with an earlier unit
    partners: dict[int, Pair] = {}       # by unit: the best pair with a later one
    copies: dict[int, set[int]] = {}     # by unit: its clips that have duplicates
    for pair in sorted(same, key=lambda pair: (-(pair.correlation or pair.cosine), pair.first, pair.second)):
        one, other = int(unit_of[pair.first]), int(unit_of[pair.second])
        for number, row in ((one, pair.first), (other, pair.second)):
            copies.setdefault(number, set()).add(row)
        if first_row[one] > first_row[other]:
            pair = replace(pair, first=pair.second, second=pair.first, offset_s=negative(pair.offset_s))
            one, other = other, one
        best.setdefault(other, pair)
        partners.setdefault(one, pair)
    sets: dict[int, list[int]] = {}
    for number in sorted(copies, key=lambda number: first_row[number]):
        sets.setdefault(int(component[number]), []).append(number)
    ordered = sorted(sets.values(), key=lambda one: (-len(one), first_row[one[0]]))
    rows: list[tuple[Any, ...]] = []
    for number, members in enumerate(ordered, start=1):
        for member in members:
            found = best.get(member)
            if found is None:
                rows.append((number, ids[partners[member].first], None, None, None, None, len(copies[member])))
            else:
                values = (ids[found.second], ids[found.first], found.cosine, found.correlation, found.offset_s)
                rows.append((number, *values, len(copies[member])))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def negative(value: float | None) -> float | None:
    return None if value is None else -value


# -- stored sets


def read_marks(lake: Lake) -> pl.DataFrame:
    """Return clip_id and same_as of the clips that belong to a stored set."""
    if DUPLICATE_COLUMN not in lake.clips.columns():
        return pl.DataFrame(schema={"clip_id": pl.String, DUPLICATE_COLUMN: pl.String})
    return lake.clips.read(["clip_id", DUPLICATE_COLUMN], where=f"{DUPLICATE_COLUMN} IS NOT NULL")


def stored_sets(marks: pl.DataFrame) -> list[list[str]]:
    """Return the clip ids of each stored set of two clips or more."""
    sets = marks.group_by(DUPLICATE_COLUMN, maintain_order=True).agg("clip_id")["clip_id"].to_list()
    return [one for one in sets if len(one) > 1]


def saved_pairs(ids: pl.Series, vectors: np.ndarray, marks: pl.DataFrame, pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs of stored sets that are not among `pairs`, to be heard again: only the audio can part what it has joined."""
    row_of = {clip_id: row for row, clip_id in enumerate(ids)}
    known = {(pair.first, pair.second) for pair in pairs}
    wanted: set[tuple[int, int]] = set()
    for one in stored_sets(marks):
        rows = sorted(row_of[clip_id] for clip_id in one if clip_id in row_of)
        wanted |= set(combinations(rows, 2)) if len(rows) <= SMALL_SET else {(rows[0], row) for row in rows[1:]}
    directions = unit(vectors - vectors.mean(axis=0)) if wanted else vectors
    return [
        Pair(first=a, second=b, cosine=float(directions[a] @ directions[b])) for a, b in sorted(wanted - known)
    ]


def new_marks(ids: pl.Series, marks: pl.DataFrame, heard: Heard) -> pl.DataFrame:
    """Return clip_id and same_as, the id of the first clip of each clip's set, for the clips whose mark changes.

    Stored sets are replaced by what was heard if each of their clips was examined.  The others stay whole.  A clip that leaves
    its set gets its own id.
    """
    row_of = {clip_id: row for row, clip_id in enumerate(ids)}
    unheard = {row for pair in heard.unheard for row in (pair.first, pair.second)}
    strangers = [clip_id for clip_id in marks["clip_id"] if clip_id not in row_of]
    names = [*ids, *strangers]
    row_of |= {clip_id: len(ids) + number for number, clip_id in enumerate(strangers)}
    edges = [(pair.first, pair.second) for pair in heard.same]
    for one in stored_sets(marks):
        rows = [row_of[clip_id] for clip_id in one]
        if any(row >= len(ids) or row in unheard for row in rows):
            edges += [(rows[0], row) for row in rows[1:]]
    component = components_of(edges, len(names))
    before = dict(marks.iter_rows())
    size = np.bincount(component)
    first: dict[int, int] = {}           # by set: its first clip
    for row, number in enumerate(component):
        first.setdefault(int(number), row)
    changed = []
    for row, clip_id in enumerate(names):
        number = int(component[row])
        mark = names[first[number]] if size[number] > 1 else clip_id if clip_id in before else None
        if mark is not None and before.get(clip_id) != mark:
            changed.append((clip_id, mark))
    return pl.DataFrame(changed, schema={"clip_id": pl.String, DUPLICATE_COLUMN: pl.String}, orient="row")
