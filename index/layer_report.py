"""Which layer tells the groups of a column apart: a report over all layers of a space.

For each layer: the mean cosine of two clips of one group and of two groups, their difference (span), the area under the
ROC curve of telling the two kinds of pairs apart, and, with every clip as a query, recall@1 and mean average precision
with 95 % bootstrap intervals.

What would make every layer look good is left out: pairs of one track where groups span tracks (an artist), and pairs
that share audio where a group is a track (a piece).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from index.flat import unit
from index.labels import Labelled, read_labelled
from index.retrieval import bootstrap_means, rank, resample_weights
from store import InputError, Lake, Space

PAIR_BUDGET = 30_000_000                 # query-clip pairs a layer: 5 s on 2 cores; queries are sampled beyond it
AUC_PAIRS = 500_000                      # sampled for the ROC curve, whose error is then below 0.001
DRAWS = 1_000                            # of the bootstrap
BLOCK = 256                              # queries compared at a time


@dataclass(frozen=True)
class LayerReport:
    """One row a layer, and what follows from it."""

    column: str
    space: str
    table: pl.DataFrame      # layer, name, same, different, span, auc, recall_1, recall_1_low/_high, map, map_low/_high, best
    recommended: str         # name of the layer with the highest mAP
    equals: list[str]        # layers whose mAP the bootstrap does not tell from it
    clips: int
    groups: int
    queries: int
    chance: float            # share of a query's candidates that belong to its group: the mAP of a random order
    left_out: str            # which pairs do not count

    def summary(self) -> str:
        """The finding in one or two sentences."""
        text = f"layer {self.recommended} separates {self.column} best ({self.queries} queries, {self.groups} groups"
        text += f", {self.clips} clips; {self.left_out} do not count)"
        if self.equals:
            text += f"; not told apart from it at 95 %: {', '.join(self.equals)}"
        return text + "."


def layers(
    lake: Lake, column: str, *, space: str | None = None, where: str | None = None, stat: str = "mean", seed: int = 0
) -> LayerReport:
    """The report for one column.  Raises InputError where its groups allow no comparison."""
    chosen = lake.spaces.get(space)
    labelled = read_labelled(lake, chosen, column, where)
    across = spans_tracks(labelled)
    queries = choose_queries(labelled, across, seed)
    tracks, unit_of = np.unique(labelled.track[queries], return_inverse=True)
    rows, precision = [], []
    for number, name in enumerate(chosen.layers):
        row, average_precision, first = measure_layer(lake, chosen, number, labelled, queries, across, stat, seed)
        rows.append({"layer": number, "name": name} | row | {"recall_1": first.mean(), "map": average_precision.mean()})
        precision.append(np.stack([first, average_precision]))
    draws = bootstrap_means(np.stack(precision), unit_of, resample_weights(len(tracks), DRAWS, seed))    # (draw, layer, 2)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    best = int(np.argmax(np.stack(precision)[:, 1].mean(axis=1)))
    lead = np.percentile(draws[:, best, 1][:, None] - draws[:, :, 1], 2.5, axis=0)
    table = pl.DataFrame(rows).with_columns(
        recall_1_low=pl.Series(low[:, 0]), recall_1_high=pl.Series(high[:, 0]),
        map_low=pl.Series(low[:, 1]), map_high=pl.Series(high[:, 1]), best=pl.col("layer") == best,
    ).select(
        "layer", "name", "same", "different", "span", "auc", "recall_1", "recall_1_low", "recall_1_high",
        "map", "map_low", "map_high", "best",
    )
    equals = [name for i, name in enumerate(chosen.layers) if i != best and lead[i] <= 0]
    return LayerReport(
        column, chosen.name, table, chosen.layers[best], equals, len(labelled.ids), len(labelled.names), len(queries),
        chance_of(labelled, queries, across), "pairs of one track" if across else "pairs that share audio",
    )


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


def measure_layer(
    lake: Lake, space: Space, number: int, labelled: Labelled, queries: np.ndarray, across: bool, stat: str, seed: int
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """(same, different, span, auc; average precision of each query; recall@1 of each query) of one layer."""
    from sklearn.metrics import roc_auc_score

    vectors = unit(lake.vectors(space).take(labelled.ids.to_list(), number, stat=stat).vectors)
    rng = np.random.default_rng(seed)
    share = min(1.0, AUC_PAIRS / (len(queries) * len(labelled.ids)))
    sums, counts = np.zeros(2), np.zeros(2)
    sampled: list[tuple[np.ndarray, np.ndarray]] = []
    rankings = []
    for block in blocks(queries):
        scores = vectors[block] @ vectors.T                          # (query, clip)
        same, counted = labelled.same(block), ~excluded(labelled, block, across)
        for i, mask in enumerate((same & counted, ~same & counted)):
            sums[i] += scores[mask].sum(dtype=np.float64)
            counts[i] += mask.sum()
        picked = counted if share == 1.0 else counted & (rng.random(counted.shape, np.float32) < share)
        sampled.append((same[picked], scores[picked]))
        rankings += [rank(scores[i, counted[i]], same[i, counted[i]]) for i in range(len(block))]
    kinds, values = (np.concatenate(part) for part in zip(*sampled, strict=True))
    auc = float(roc_auc_score(kinds, values)) if 0 < kinds.sum() < len(kinds) else float("nan")
    mean_same, mean_different = sums / counts
    row = {"same": mean_same, "different": mean_different, "span": mean_same - mean_different, "auc": auc}
    return row, np.array([r.precision for r in rankings]), np.array([r.first for r in rankings])


def blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Rows, `BLOCK` at a time."""
    return [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
