"""Which layer tells the groups of a column apart: a report over all layers of a space, each figure with its interval.

What would make every layer look good is left out: pairs of one track where groups span tracks (an artist), and pairs
that share audio where a group is a track (a piece).  Duplicates count as one track where they are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import Labelled, bootstrap_means, read_labelled, resample_weights
from tonelake.index.separation.pairs import PAIR_FIGURES, PREPARATIONS, Separation, figures, retrieval_of, separate
from tonelake.store import InputError, Lake, Progress, Space, silent_progress

PAIR_BUDGET = 30_000_000                 # query-clip pairs a layer: 5 s on 2 cores; queries are sampled beyond it
DRAWS = 1_000                            # of the bootstrap
BLOCK = 256                              # queries looked at at a time
HISTOGRAM_BINS = 50


@dataclass(frozen=True)
class LayerReport:
    """One row a layer, and what follows from it."""

    column: str
    space: str
    prepared: str            # what was done to vectors before: one of PREPARATIONS
    table: pl.DataFrame      # layer, name, each of FIGURES with _low and _high, best
    histograms: pl.DataFrame # layer, name, low, high, same, different: shares of the pairs of either kind by cosine
    recommended: str         # name of the layer with the highest mAP
    equals: list[str]        # layers whose mAP the bootstrap does not tell from it
    clips: int
    groups: int
    queries: int
    chance: float            # share of a query's candidates that belong to its group: the mAP of a random order
    left_out: str            # which pairs do not count

    def summary(self) -> str:
        """The finding in a few sentences."""
        best = self.table.filter("best").row(0, named=True)
        text = f"Layer {self.recommended} separates {self.column} best ({self.queries} queries, {self.groups} groups"
        text += f", {self.clips} clips; {self.left_out} do not count)"
        if self.equals:
            text += f"; not told apart from it at 95 %: {', '.join(self.equals)}"
        text += (
            f".  There the nearest clip is of the same {self.column} in {best['recall_1']:.0%} of cases, one of the ten "
            f"nearest in {best['recall_10']:.0%}, and mAP is {best['map']:.3f} where a random order gives {self.chance:.3f}."
        )
        return text


@dataclass(frozen=True)
class Question:
    """What layers are asked: the labelled clips, which of them are queries, and which pairs do not count."""

    labelled: Labelled
    across: bool
    queries: np.ndarray
    unit_of: np.ndarray                  # (query,) the number of its track
    weights: np.ndarray                  # (draw, track) of the bootstrap

    def measure(self, lake: Lake, space: Space, layer: int, prepare: str, stat: str) -> Separation:
        """One layer, its vectors prepared."""
        stored = lake.vectors(space).take(self.labelled.ids.to_list(), layer, stat=stat).vectors
        return separate(PREPARATIONS[prepare](stored), self.labelled, self.queries, self.unit_of, self.excluded)

    def excluded(self, labelled: Labelled, block: np.ndarray) -> np.ndarray:
        return excluded(labelled, block, self.across)


def ask(labelled: Labelled, seed: int) -> Question:
    """Raises InputError where the groups allow no comparison."""
    across = spans_tracks(labelled)
    queries = choose_queries(labelled, across, seed)
    tracks, unit_of = np.unique(labelled.track[queries], return_inverse=True)
    return Question(labelled, across, queries, unit_of, resample_weights(len(tracks), DRAWS, seed))


def layers(
    lake: Lake, column: str, *, space: str | None = None, where: str | None = None, prepare: str = "l2", stat: str = "mean",
    seed: int = 0, progress: Progress = silent_progress,
) -> LayerReport:
    """The report for one column.  Raises InputError where its groups allow no comparison."""
    check_preparation(prepare)
    chosen = lake.spaces.get(space)
    question = ask(read_labelled(lake, chosen, column, where), seed)
    rows, precision, histograms = [], [], []
    for number in progress(range(len(chosen.layers)), len(chosen.layers), f"comparing layers by {column}"):
        found = question.measure(lake, chosen, number, prepare, stat)
        rows.append({"layer": number, "name": chosen.layers[number]} | with_intervals(found, question))
        precision.append(retrieval_of(found)[-1])
        histograms.append(histogram(found).select(
            pl.lit(number).alias("layer"), pl.lit(chosen.layers[number]).alias("name"), pl.all()
        ))
    best, lead = lead_of(np.stack(precision), question)
    table = pl.DataFrame(rows).with_columns(best=pl.col("layer") == best)
    labelled = question.labelled
    return LayerReport(
        column, chosen.name, prepare, table, pl.concat(histograms), chosen.layers[best],
        [name for i, name in enumerate(chosen.layers) if i != best and lead[i] <= 0], len(labelled.ids), len(labelled.names),
        len(question.queries), chance_of(labelled, question.queries, question.across),
        "pairs of one track" if question.across else "pairs that share audio",
    )


def retrieval_at(
    lake: Lake, column: str, space: str, layer: int, *, where: str | None = None, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """mAP, recall@1 and R-precision of one layer, each with its interval.  Raises as `layers`."""
    chosen = lake.spaces.get(space)
    question = ask(read_labelled(lake, chosen, column, where), seed)
    row = with_intervals(question.measure(lake, chosen, layer, "l2", "mean"), question)
    return {name: (row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("map", "recall_1", "r_precision")}


def effects(
    lake: Lake, column: str, *, space: str | None = None, where: str | None = None, stat: str = "mean", seed: int = 0,
    progress: Progress = silent_progress,
) -> pl.DataFrame:
    """What centring, whitening and normalising do to each layer: a row a layer and preparation.

    Columns: layer, name, prepared (see `index.separation.pairs.PREPARATIONS`), each of map, recall_1, anisotropy and hubness with
    its interval, and gain, the mAP less that of plain cosines on the same queries, with its paired interval.
    """
    chosen = lake.spaces.get(space)
    question = ask(read_labelled(lake, chosen, column, where), seed)
    shown = ("map", "recall_1", "anisotropy", "hubness")
    rows = []
    pairs = [(layer, prepare) for layer in range(len(chosen.layers)) for prepare in PREPARATIONS]
    plain = np.empty(0)
    for layer, prepare in progress(pairs, len(pairs), f"comparing preparations by {column}"):
        found = question.measure(lake, chosen, layer, prepare, stat)
        precision = retrieval_of(found)[-1]
        if prepare == "l2":              # the first of each layer
            plain = precision
        row = with_intervals(found, question)
        low, high = np.percentile(bootstrap_means(precision - plain, question.unit_of, question.weights), [2.5, 97.5])
        rows.append(
            {"layer": layer, "name": chosen.layers[layer], "prepared": prepare}
            | {f"{name}{end}": row[f"{name}{end}"] for name in shown for end in ("", "_low", "_high")}
            | {"gain": float((precision - plain).mean()), "gain_low": float(low), "gain_high": float(high)}
        )
    return pl.DataFrame(rows)


def with_intervals(found: Separation, question: Question) -> dict[str, float]:
    """Each of FIGURES as three columns."""
    values = figures(found, question.unit_of, question.weights)
    return {f"{name}{end}": values[name][i] for name in PAIR_FIGURES for i, end in enumerate(("", "_low", "_high"))}


def lead_of(precision: np.ndarray, question: Question) -> tuple[int, np.ndarray]:
    """Of (layer, query) average precisions: the best layer, and how far ahead of each other it is at least (at 95 %)."""
    best = int(np.argmax(precision.mean(axis=1)))
    draws = bootstrap_means(precision[best] - precision, question.unit_of, question.weights)     # (draw, layer)
    return best, np.percentile(draws, 2.5, axis=0)


def histogram(found: Separation) -> pl.DataFrame:
    """low, high, same, different: shares of pairs by cosine, over the range that has any."""
    totals = found.histograms.sum(axis=1)                            # (kind, bin)
    used = np.flatnonzero(totals.sum(axis=0))
    low, high = found.edges[used[0]], found.edges[used[-1] + 1]
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    middles = (found.edges[:-1] + found.edges[1:]) / 2
    shares = [np.histogram(middles, edges, weights=one)[0] / max(one.sum(), 1) for one in totals]
    return pl.DataFrame({"low": edges[:-1], "high": edges[1:], "same": shares[0], "different": shares[1]})


def check_preparation(prepare: str) -> None:
    if prepare not in PREPARATIONS:
        raise InputError(f"no preparation {prepare!r}: choose {', '.join(PREPARATIONS)}")


def spans_tracks(labelled: Labelled) -> bool:
    """Whether groups are made of several tracks: at least half of the clips are in such a group."""
    several = (labelled.tracks_of_groups() > 1).astype(np.float32)
    return bool((labelled.member @ several > 0).mean() >= 0.5)


def excluded(labelled: Labelled, queries: np.ndarray, across: bool) -> np.ndarray:
    """(query, clip) bool: pairs that do not count."""
    return labelled.same_track(queries) if across else labelled.overlap(queries)
def choose_queries(labelled: Labelled, across: bool, seed: int) -> np.ndarray:
    """Rows that are asked: all clips that have another of their group to find, or a seeded sample of them."""
    most = max(200, PAIR_BUDGET // len(labelled.ids))
    order = np.random.default_rng(seed).permutation(len(labelled.ids))
    found: list[np.ndarray] = []
    for block in blocks(order):
        if sum(map(len, found)) >= most:
            break
        same, counted = labelled.same(block), ~excluded(labelled, block, across)
        found.append(block[(same & counted).any(axis=1) & (~same & counted).any(axis=1)])
    queries = np.sort(np.concatenate(found)[:most])
    if not len(queries):
        kind = "of another track" if across else "that does not share its audio"
        raise InputError(
            f"column {labelled.column!r} has {len(labelled.names)} groups over {len(labelled.ids)} clips, and no clip has "
            f"both another of its group {kind} and one of another group: layers cannot be compared by it"
        )
    return queries


def chance_of(labelled: Labelled, queries: np.ndarray, across: bool) -> float:
    """Mean share of a query's candidates that belong to its group."""
    shares = []
    for block in blocks(queries):
        counted = ~excluded(labelled, block, across)
        shares.append((labelled.same(block) & counted).sum(axis=1) / counted.sum(axis=1))
    return float(np.concatenate(shares).mean())


def blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Rows, `BLOCK` at a time."""
    return [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
