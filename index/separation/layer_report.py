"""Report how well each layer of a space separates the groups of a column, every figure with its interval.

Pairs that would make every layer look good are left out, by a rule that is part of the report (`index.separation.pair_set`).
Intervals are a jackknife that leaves out a unit (a track, an artist) on both sides of every pair.  Known duplicates count as
one track.  Layers are compared with the best one by max-t over all layers.  Since the best is chosen by the same clips, its mAP
is too high; the report also has the mAP on units that took no part in the choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import Estimate, max_t, read_labelled, stack_replicates
from tonelake.index.hubness import DEFAULT_HUBS, check_hubs, neighbourhoods
from tonelake.index.separation.pair_set import PairSet, choose_pairs
from tonelake.index.separation.pairs import Separation, crossfit_map, measure_separation
from tonelake.index.separation.preparations import PREPARATIONS, check_preparation
from tonelake.index.separation.stored_report import BestLayer, store_best_layer, table_versions
from tonelake.store import InputError, Lake, Space

MOST_EXACT = 50_000_000                  # numbers prepared in float64: 400 MB
EFFECTS = ("map", "recall_1", "anisotropy", "hubness")
GAINS = {"gain": "map", "recall_1_gain": "recall_1", "hubness_gain": "hubness"}


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """Figures of every layer, with the recommended layer."""

    column: str
    space: str
    prepared: str            # how vectors were prepared: one of PREPARATIONS
    hubs: str                # whether scores were corrected for hubs: kept or corrected
    table: pl.DataFrame      # layer, name, each of PAIR_FIGURES with _low and _high, matrix_span, p_value, best
    histograms: pl.DataFrame # layer, name, low, high, same, different: shares of pairs of each kind by cosine
    recommended: str         # name of the layer with the highest mAP
    equals: list[str]        # layers whose mAP is not distinguishable from the highest, by max-t over all layers
    held_out: Estimate       # mAP of the chosen layer on units that took no part in the choice; NaN if they are too few
    clips: int
    groups: int
    queries: int
    chances: dict[str, float]            # figures of a random order, exactly: auc, recall_1, recall_10, r_precision, map
    across: str              # column whose pairs are left out, or `none`
    left_out: str            # which pairs are left out
    units: str               # what the intervals are over: "over 1,000 tracks in 100 folds"
    rule: str                # a sentence on `across`, and on the units

    @property
    def chance(self) -> float:
        """mAP of a random order."""
        return self.chances["map"]

    @property
    def best(self) -> BestLayer:
        """The recommended layer; its text is the report's answer in one sentence."""
        row = self.table.filter("best").row(0, named=True)
        return BestLayer(
            column=self.column, layer=self.recommended, figure=float("nan") if row["map"] is None else row["map"],
            low=row["map_low"], high=row["map_high"], chance=self.chance, stale=False,
        )

    def summary(self) -> str:
        """Summarise the report in a few sentences."""
        best, chance = self.table.filter("best").row(0, named=True), self.chances
        value = Estimate(*(float("nan") if best[name] is None else best[name] for name in ("map", "map_low", "map_high")))
        text = (
            f"Layer {self.recommended} separates {self.column} best ({self.queries} queries, {self.groups} groups, "
            f"{self.clips} clips; {self.left_out} are excluded)"
        )
        if 2 < len(self.table) == len(self.equals) + 1:
            text += "; no other layer is distinguishable from it at 95 %"
        elif self.equals:
            text += f"; not distinguishable from it at 95 %: {', '.join(self.equals)}"
        elif len(self.table) > 1:
            text += "; every other layer is distinguishable from it at 95 %"
        held_out = (
            f"if the layer is chosen on some {self.over} and measured on others, it is {self.held_out}"
            if np.isfinite(self.held_out.value)
            else f"there are too few {self.over} to choose the layer on half of them and measure it on the others"
        )
        return text + (
            f".  In this layer the nearest clip is of the same {self.column} in {best['recall_1']:.0%} of cases, one of the "
            f"ten nearest in {best['recall_10']:.0%} (in random order {chance['recall_1']:.1%} and {chance['recall_10']:.1%})."
            f"  Its mAP is {value}, in random order {chance['map']:.3f}; {held_out}.  {self.rule}"
        )

    @property
    def over(self) -> str:
        """The plural of a unit: "tracks"."""
        return self.units.removeprefix("over ").split(" in ")[0].split(" ", 1)[1]


def layers(
    lake: Lake, column: str, *, space: str | None = None, where: str | None = None, prepare: str = "l2",
    across: str | None = None, over: str | None = None, within: str | None = None, hubs: str = DEFAULT_HUBS, seed: int = 0,
) -> LayerReport:
    """Report on all layers for one column.  The best layer of a report of default settings is kept for `best_layer`.

    `across`: leave out pairs of clips that share this column's value (and those of one track), or with `none` only pairs that
    share audio; default: track, or none where no group has two tracks.  `over`: the column whose values are the units of the
    intervals; default: that of `across`, else track.  `within`: compare only clips that share this column's value.  `hubs`:
    corrected by local scaling, or kept.

    Raises InputError if the groups allow no comparison, or for an unknown column or preparation.
    """
    check_preparation(prepare)
    check_corrected(hubs, prepare)
    chosen = lake.spaces.get(space)
    versions = table_versions(lake, chosen)
    pairs = choose_pairs(lake, read_labelled(lake, chosen, column, where), across=across, over=over, within=within, seed=seed)
    found, histograms = [], []
    for number in lake.progress(range(len(chosen.layers)), len(chosen.layers), f"comparing layers by {column}"):
        layer = measure_layer(lake, chosen, number, pairs, prepare, hubs)
        found.append(layer)
        histograms.append(layer.histogram.select(
            pl.lit(number).alias("layer"), pl.lit(chosen.layers[number]).alias("name"), pl.all()
        ))
    compared = max_t(stack_replicates([layer.figures["map"] for layer in found]), seed=seed)
    table = pl.DataFrame([
        {"layer": number, "name": name} | layer.columns() | {"matrix_span": layer.matrix_span}
        for number, (name, layer) in enumerate(zip(chosen.layers, found, strict=True))
    ]).with_columns(
        pl.selectors.float().fill_nan(None), p_value=pl.Series(compared.p_values), best=pl.col("layer") == compared.best
    )
    report = LayerReport(
        column=column, space=chosen.name, prepared=prepare, hubs=hubs, table=table, histograms=pl.concat(histograms),
        recommended=chosen.layers[compared.best],
        equals=[name for name, tied in zip(chosen.layers, compared.tied, strict=True) if tied],
        held_out=crossfit_map(found, pairs)[1], clips=len(pairs.labelled.ids), groups=len(pairs.labelled.names),
        queries=len(pairs.rows), chances=pairs.chances, across=pairs.across, left_out=pairs.left_out, units=str(pairs.units),
        rule=pairs.rule,
    )
    if (where, across, over, within, prepare, hubs) == (None, None, None, None, "l2", DEFAULT_HUBS):
        store_best_layer(lake, chosen, report.best, versions)
    return report


def retrieval_at(
    lake: Lake, column: str, space: str, layer: int, *, where: str | None = None, across: str | None = None,
    over: str | None = None, within: str | None = None, seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Return mAP, recall@1 and R-precision of one layer, each with its interval.  Arguments and errors as `layers`."""
    chosen = lake.spaces.get(space)
    pairs = choose_pairs(lake, read_labelled(lake, chosen, column, where), across=across, over=over, within=within, seed=seed)
    found = measure_layer(lake, chosen, layer, pairs)
    estimates = {name: found.estimate(name) for name in ("map", "recall_1", "r_precision")}
    return {name: (one.value, one.low, one.high) for name, one in estimates.items()}


def effects(
    lake: Lake, column: str, *, space: str | None = None, where: str | None = None, across: str | None = None,
    over: str | None = None, within: str | None = None, hubs: str = DEFAULT_HUBS, seed: int = 0,
) -> pl.DataFrame:
    """Report how centring, whitening and normalising change each layer: one row per layer and preparation.

    Columns: layer, name, prepared (see `index.separation.preparations`), hubs, each of map, recall_1, anisotropy and hubness
    with its interval, and gain, recall_1_gain and hubness_gain: the mAP, recall@1 and hubness less those of plain cosines on
    the same queries, with paired intervals; over and left_out: what the intervals are over, and which pairs are left out.  With
    hubs corrected, every preparation of unit vectors has a second row.  Other arguments and errors as `layers`.
    """
    check_hubs(hubs)
    chosen = lake.spaces.get(space)
    pairs = choose_pairs(lake, read_labelled(lake, chosen, column, where), across=across, over=over, within=within, seed=seed)
    variants = [(prepare, "kept") for prepare in PREPARATIONS]
    if hubs == "corrected":
        variants += [(prepare, hubs) for prepare in PREPARATIONS if prepare != "raw"]
    rows = []
    work = [(layer, *variant) for layer in range(len(chosen.layers)) for variant in variants]
    plain = None
    for layer, prepare, kept in lake.progress(work, len(work), f"comparing preparations by {column}"):
        found = measure_layer(lake, chosen, layer, pairs, prepare, kept)
        if plain is None or (prepare, kept) == variants[0]:          # plain cosines, first of each layer
            plain = found
        row = {"layer": layer, "name": chosen.layers[layer], "prepared": prepare, "hubs": kept} | found.columns(EFFECTS)
        for gain, name in GAINS.items():
            row |= dict(zip((gain, f"{gain}_low", f"{gain}_high"), gain_of(found, plain, name), strict=True))
        rows.append(row | {"over": str(pairs.units), "left_out": pairs.left_out})
    return pl.DataFrame(rows).with_columns(pl.selectors.float().fill_nan(None))


def gain_of(found: Separation, plain: Separation, name: str) -> tuple[float, float, float]:
    """Return a figure less that of another measurement of the same pairs, with the paired interval."""
    gain = (found.figures[name] - plain.figures[name]).estimate()
    return gain.value, gain.low, gain.high


def measure_layer(
    lake: Lake, space: Space, layer: int, pairs: PairSet, prepare: str = "l2", hubs: str = DEFAULT_HUBS
) -> Separation:
    """Measure one layer with its vectors prepared."""
    stored = lake.vectors(space).take(pairs.labelled.ids.to_list(), layer).vectors
    return measure_vectors(stored, pairs, prepare, hubs)


def measure_vectors(vectors: np.ndarray, pairs: PairSet, prepare: str = "l2", hubs: str = DEFAULT_HUBS) -> Separation:
    """Measure the (clip, dim) vectors of the clips of `pairs`."""
    exact = vectors.astype(np.float64) if vectors.size <= MOST_EXACT else vectors
    prepared = PREPARATIONS[prepare](exact)
    offsets = None
    if hubs == "corrected":
        offsets = neighbourhoods(prepared.astype(np.float32), pairs.labelled.track, pairs.labelled.ids)
    return measure_separation(prepared, pairs, offsets)


def check_corrected(hubs: str, prepare: str) -> None:
    """Raise InputError for an unknown choice of `hubs`, or if raw vectors are to be corrected."""
    if check_hubs(hubs) and prepare == "raw":
        raise InputError("--hubs corrected: compares cosines. Choose a --prepare other than raw")
