"""Report how well each layer of a space separates the groups of a column, every figure with its interval.

Pairs that would make every layer look good are excluded: pairs of one track if groups span tracks (an artist), and pairs
that share audio if a group is a track (a piece).  Known duplicates count as one track.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import Labelled, bootstrap_means, percentile_interval, read_labelled, resample_weights
from tonelake.index.separation.pairs import (
    PAIR_FIGURES,
    PREPARATIONS,
    Separation,
    measure_separation,
    retrieval_of,
    separation_figures,
)
from tonelake.store import InputError, Lake, Space

PAIR_BUDGET = 30_000_000                 # query-clip pairs per layer, 5 s on 2 cores; beyond it queries are sampled
DRAWS = 1_000                            # of the bootstrap
BLOCK = 256                              # queries processed at a time
HISTOGRAM_BINS = 50


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """Figures of every layer, with the recommended layer."""

    column: str
    space: str
    prepared: str            # how vectors were prepared: one of PREPARATIONS
    table: pl.DataFrame      # layer, name, each of PAIR_FIGURES with _low and _high, best
    histograms: pl.DataFrame # layer, name, low, high, same, different: shares of pairs of each kind by cosine
    recommended: str         # name of the layer with the highest mAP
    equals: list[str]        # layers whose mAP does not differ from it significantly
    clips: int
    groups: int
    queries: int
    chance: float            # share of a query's candidates that belong to its group: mAP of a random order
    left_out: str            # which pairs are excluded

    def summary(self) -> str:
        """Summarise the report in a few sentences."""
        best = self.table.filter("best").row(0, named=True)
        text = f"Layer {self.recommended} separates {self.column} best ({self.queries} queries, {self.groups} groups"
        text += f", {self.clips} clips; {self.left_out} are excluded)"
        if self.equals:
            text += f"; no significant difference at 95 %: {', '.join(self.equals)}"
        text += (
            f".  In this layer the nearest clip is of the same {self.column} in {best['recall_1']:.0%} of cases, one of the "
            f"ten nearest in {best['recall_10']:.0%}; mAP is {best['map']:.3f}, and {self.chance:.3f} in random order."
        )
        return text


@dataclass(frozen=True, kw_only=True)
class QuerySet:
    """Queries drawn from labelled clips, with the rule for excluded pairs and the bootstrap weights."""

    labelled: Labelled
    across: bool                         # groups span tracks, and pairs of one track are excluded
    rows: np.ndarray                     # (query,) rows of `labelled`
    track_of: np.ndarray                 # (query,) number of its track
    weights: np.ndarray                  # (draw, track) of the bootstrap

    def measure(self, lake: Lake, space: Space, layer: int, prepare: str) -> Separation:
        """Measure one layer with its vectors prepared."""
        stored = lake.vectors(space).take(self.labelled.ids.to_list(), layer).vectors
        return measure_separation(PREPARATIONS[prepare](stored), self.labelled, self.rows, self.track_of, self.excluded)

    def excluded(self, labelled: Labelled, block: np.ndarray) -> np.ndarray:
        return excluded(labelled, block, self.across)


def choose_query_set(labelled: Labelled, seed: int) -> QuerySet:
    """Draw the queries of a report.  Raises InputError if the groups allow no comparison."""
    across = spans_tracks(labelled)
    rows = choose_queries(labelled, across, seed)
    tracks, track_of = np.unique(labelled.track[rows], return_inverse=True)
    return QuerySet(
        labelled=labelled, across=across, rows=rows, track_of=track_of, weights=resample_weights(len(tracks), DRAWS, seed)
    )


def layers(
    lake: Lake, column: str, *, space: str | None = None, where: str | None = None, prepare: str = "l2",
    seed: int = 0,
) -> LayerReport:
    """Report on all layers for one column.  Raises InputError if its groups allow no comparison."""
    check_preparation(prepare)
    chosen = lake.spaces.get(space)
    query_set = choose_query_set(read_labelled(lake, chosen, column, where), seed)
    rows, precision, histograms = [], [], []
    for number in lake.progress(range(len(chosen.layers)), len(chosen.layers), f"comparing layers by {column}"):
        found = query_set.measure(lake, chosen, number, prepare)
        rows.append({"layer": number, "name": chosen.layers[number]} | with_intervals(found, query_set))
        precision.append(retrieval_of(found)[-1])
        histograms.append(histogram(found).select(
            pl.lit(number).alias("layer"), pl.lit(chosen.layers[number]).alias("name"), pl.all()
        ))
    best, lead = lead_of_best(np.stack(precision), query_set)
    table = pl.DataFrame(rows).with_columns(best=pl.col("layer") == best)
    labelled, across = query_set.labelled, query_set.across
    return LayerReport(
        column=column, space=chosen.name, prepared=prepare, table=table, histograms=pl.concat(histograms),
        recommended=chosen.layers[best],
        equals=[name for i, name in enumerate(chosen.layers) if i != best and lead[i] <= 0],
        clips=len(labelled.ids), groups=len(labelled.names), queries=len(query_set.rows),
        chance=chance_map(labelled, query_set.rows, across),
        left_out="pairs of one track" if across else "pairs that share audio",
    )


def retrieval_at(
    lake: Lake, column: str, space: str, layer: int, *, where: str | None = None, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Return mAP, recall@1 and R-precision of one layer, each with its interval.  Raises as `layers`."""
    chosen = lake.spaces.get(space)
    query_set = choose_query_set(read_labelled(lake, chosen, column, where), seed)
    row = with_intervals(query_set.measure(lake, chosen, layer, "l2"), query_set)
    return {name: (row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("map", "recall_1", "r_precision")}


def effects(
    lake: Lake, column: str, *, space: str | None = None, where: str | None = None, seed: int = 0,
) -> pl.DataFrame:
    """Report how centring, whitening and normalising change each layer: one row per layer and preparation.

    Columns: layer, name, prepared (see `index.separation.pairs.PREPARATIONS`), each of map, recall_1, anisotropy and hubness
    with its interval, and gain, the mAP minus that of plain cosines on the same queries, with its paired interval.
    """
    chosen = lake.spaces.get(space)
    query_set = choose_query_set(read_labelled(lake, chosen, column, where), seed)
    shown = ("map", "recall_1", "anisotropy", "hubness")
    rows = []
    pairs = [(layer, prepare) for layer in range(len(chosen.layers)) for prepare in PREPARATIONS]
    plain = np.empty(0)
    for layer, prepare in lake.progress(pairs, len(pairs), f"comparing preparations by {column}"):
        found = query_set.measure(lake, chosen, layer, prepare)
        precision = retrieval_of(found)[-1]
        if prepare == "l2":              # the first preparation of each layer
            plain = precision
        row = with_intervals(found, query_set)
        low, high = percentile_interval(bootstrap_means(precision - plain, query_set.track_of, query_set.weights))
        rows.append(
            {"layer": layer, "name": chosen.layers[layer], "prepared": prepare}
            | {f"{name}{end}": row[f"{name}{end}"] for name in shown for end in ("", "_low", "_high")}
            | {"gain": float((precision - plain).mean()), "gain_low": low, "gain_high": high}
        )
    return pl.DataFrame(rows)


def with_intervals(found: Separation, query_set: QuerySet) -> dict[str, float]:
    """Return each of PAIR_FIGURES as three columns: the value, _low and _high."""
    values = separation_figures(found, query_set.track_of, query_set.weights)
    return {f"{name}{end}": values[name][i] for name in PAIR_FIGURES for i, end in enumerate(("", "_low", "_high"))}


def lead_of_best(precision: np.ndarray, query_set: QuerySet) -> tuple[int, np.ndarray]:
    """Return the layer with the best mean of (layer, query) precisions, and the 95 % lower bound of its lead over each."""
    best = int(np.argmax(precision.mean(axis=1)))
    draws = bootstrap_means(precision[best] - precision, query_set.track_of, query_set.weights)  # (draw, layer)
    return best, np.percentile(draws, 2.5, axis=0)


def histogram(found: Separation) -> pl.DataFrame:
    """Return low, high, same, different: shares of pairs by cosine, over the range with any pairs."""
    totals = found.histograms.sum(axis=1)                            # (kind, bin)
    used = np.flatnonzero(totals.sum(axis=0))
    low, high = found.edges[used[0]], found.edges[used[-1] + 1]
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    middles = (found.edges[:-1] + found.edges[1:]) / 2
    shares = [np.histogram(middles, edges, weights=one)[0] / max(one.sum(), 1) for one in totals]
    return pl.DataFrame({"low": edges[:-1], "high": edges[1:], "same": shares[0], "different": shares[1]})


def check_preparation(prepare: str) -> None:
    """Raise InputError unless `prepare` is one of PREPARATIONS."""
    if prepare not in PREPARATIONS:
        raise InputError(f"no preparation {prepare!r}: choose {', '.join(PREPARATIONS)}")


def spans_tracks(labelled: Labelled) -> bool:
    """Return whether at least half of the clips are in a group of several tracks."""
    several = (labelled.tracks_of_groups() > 1).astype(np.float32)
    return bool((labelled.member @ several > 0).mean() >= 0.5)


def excluded(labelled: Labelled, queries: np.ndarray, across: bool) -> np.ndarray:
    """Return a (query, clip) bool mask of the excluded pairs."""
    return labelled.same_track(queries) if across else labelled.overlap(queries)


def choose_queries(labelled: Labelled, across: bool, seed: int) -> np.ndarray:
    """Return the rows of queries: all clips with another clip of their group to find, or a seeded sample of them."""
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
            f"column {labelled.column!r}: layers cannot be compared by it, because no clip among {len(labelled.ids)} in "
            f"{len(labelled.names)} groups has both another clip of its group {kind} and one of another group"
        )
    return queries


def chance_map(labelled: Labelled, queries: np.ndarray, across: bool) -> float:
    """Return the mean share of a query's candidates that belong to its group."""
    shares = []
    for block in blocks(queries):
        counted = ~excluded(labelled, block, across)
        shares.append((labelled.same(block) & counted).sum(axis=1) / counted.sum(axis=1))
    return float(np.concatenate(shares).mean())


def blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Split rows into blocks of BLOCK."""
    return [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
