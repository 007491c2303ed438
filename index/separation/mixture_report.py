"""Report whether a mixture of spaces retrieves the groups of a column better than the better one of its spaces.

Scores are those of a search (`index.search.space_mixture`): the weighted sum of each space's cosines, standardised for every
query by its cosines to a fixed sample of clips.  Mixing a weaker space into a better one often lowers retrieval, so the report
gives the mAP of the mixture less that of its better half, with a paired jackknife interval over units.  The better half is
chosen on some units and measured on others (cross-fitted): chosen on the same units, its mAP would be too high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import (
    EXCLUDED,
    Estimate,
    Replicates,
    crossfit,
    logit_estimate,
    read_labelled,
    stack_replicates,
    stratified,
)
from tonelake.index.search.space_mixture import (
    MixturePart,
    SharedClips,
    formula,
    parse_spaces,
    shared_clips,
)
from tonelake.index.separation.pair_set import PairSet, choose_pairs
from tonelake.index.separation.pairs import RankedBlocks, replicates_of_chosen
from tonelake.index.vectors import unit
from tonelake.store import Lake, SpaceWeights

MIXTURE = "mixture"                      # name of its row
FIGURES = ("map", "recall_1")


@dataclass(frozen=True, kw_only=True)
class MixtureReport:
    """Retrieval by a mixture of spaces and by each of its parts, on the same queries."""

    column: str
    mixture: str                         # the parts with their weights
    # name, weight, map, recall_1 and gain (mAP of the mixture less that of the part) with _low and _high; the mixture last
    table: pl.DataFrame
    better: Estimate                     # mAP of the better half, chosen on other units if there are enough
    crossfitted: bool                    # whether it was
    gain: Estimate                       # mAP of the mixture less that of its better half
    coverage: str                        # how many clips are in every space
    left_out: str                        # which pairs are left out
    units: str                           # what the intervals are over
    queries: int

    @property
    def reliable(self) -> bool:
        """Whether the intervals of the gain, and of the differences from every part on all units, are above 0.

        Halves of few units can choose the wrong part; a mixture that beats the better one also beats every one.
        """
        lows = self.table["gain_low"][:-1]
        return bool(self.gain.low > 0) and not lows.has_nulls() and bool((lows > 0).all())

    @property
    def verdict(self) -> str:
        """A sentence on whether the mixture can be relied on."""
        if self.reliable:
            return f"the mixture finds {self.column} better than its better half"
        if self.gain.high < 0:
            return "do not rely on it: it retrieves less well than its better half"
        if not np.isfinite(self.gain.low):
            return "do not rely on it: there are too few units for an interval"
        if self.gain.low > 0:
            return "do not rely on it: on all units, the interval of its difference from one of its spaces includes 0"
        return "do not rely on it: the interval of the difference includes 0"

    def summary(self) -> str:
        """Summarise the report in a few sentences."""
        mixed = self.table.row(-1, named=True)
        chosen = "chosen on other units" if self.crossfitted else "chosen on all units, which are too few to hold some out"
        value = Estimate(*(mixed[name] for name in ("map", "map_low", "map_high")))
        return (
            f"{self.mixture}: mAP {value}; its better half, {chosen}, {self.better}; difference {self.gain.value:+.3f} "
            f"({self.gain.low:+.3f} to {self.gain.high:+.3f}): {self.verdict}.  {self.queries:,} queries; 95 % intervals "
            f"{self.units}; {self.left_out} are excluded; {self.coverage}.  If these weights were chosen on these clips, the "
            "difference is too high"
        )


@dataclass(frozen=True)
class Ranked:
    """Retrieval figures of one set of scores."""

    figures: dict[str, Replicates]
    map_without: np.ndarray              # (half,) mAP without each half of the units

    def columns(self) -> dict[str, float]:
        row: dict[str, float] = {}
        for name in FIGURES:
            found = logit_estimate(self.figures[name])
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        return row


def report_mixture(
    lake: Lake, column: str, spaces: SpaceWeights, *, where: str | None = None, across: str | None = None,
    over: str | None = None, within: str | None = None, seed: int = 0,
) -> MixtureReport:
    """Report whether the mixture `spaces`, such as `A:0.7,B/3:0.3`, retrieves the groups of a column better than its parts.

    `across`, `over` and `within`: as in `layers`.  Only clips that are embedded in every space are compared.
    Raises InputError as `parse_spaces`, and if the groups allow no comparison.
    """
    parts = parse_spaces(lake, spaces)
    shared = shared_clips(lake, parts)
    labelled = read_labelled(lake, parts[0].space, column, where)
    kept = np.flatnonzero(labelled.ids.is_in(shared.ids.implode()).to_numpy())
    pairs = choose_pairs(lake, labelled.subset(kept), across=across, over=over, within=within, seed=seed)
    measured = measure_parts(lake, parts, shared, pairs)
    *halves, mixed = measured
    better, gain, crossfitted = compare_with_better(halves, mixed)
    gains = [(mixed.figures["map"] - one.figures["map"]).estimate() for one in halves]
    table = pl.DataFrame([
        {"name": name, "weight": weight} | one.columns() | dict(zip(("gain", "gain_low", "gain_high"), over_part, strict=True))
        for name, weight, one, over_part in zip(
            [*(part.layer_name for part in parts), MIXTURE], [*(part.weight for part in parts), None], measured,
            [*((one.value, one.low, one.high) for one in gains), (None, None, None)], strict=True,
        )
    ]).with_columns(pl.selectors.float().fill_nan(None))
    return MixtureReport(
        column=column, mixture=formula(parts), table=table, better=better, crossfitted=crossfitted, gain=gain,
        coverage=shared.coverage(), left_out=pairs.left_out, units=str(pairs.units), queries=len(pairs.rows),
    )


def measure_parts(lake: Lake, parts: list[MixturePart], shared: SharedClips, pairs: PairSet) -> list[Ranked]:
    """Measure each part of a mixture, and last the mixture."""
    ids, total, found = pairs.labelled.ids.to_list(), np.zeros((len(pairs.rows), len(pairs.labelled.ids)), np.float32), []
    work = list(enumerate(parts))
    for number, part in lake.progress(work, len(work), f"comparing spaces by {pairs.labelled.column}"):
        vectors = unit(lake.vectors(part.space).take(ids, part.layer).vectors)
        scores = standardised_scores(vectors, pairs.rows, shared.samples[number])
        total += np.float32(part.weight) * scores
        found.append(rank_scores(scores, pairs))
    return [*found, rank_scores(total, pairs)]


def standardised_scores(vectors: np.ndarray, queries: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Return (query, clip) float32 cosines of some rows of (clip, dim) unit vectors, standardised by those to the sample.

    Computed around the mean vector: this moves all cosines of a query alike, and keeps nearly equal ones apart in float32.
    """
    centre = sample.mean(axis=0)
    own = vectors[queries]
    known = (own @ (sample - centre).T).astype(np.float64)
    mean, spread = known.mean(axis=1), known.std(axis=1)
    spread = np.where(spread > 1e-7, spread, np.inf)
    scores = own @ (vectors - centre).T
    scores -= mean[:, None].astype(np.float32)
    scores /= spread[:, None].astype(np.float32)
    return scores


def rank_scores(scores: np.ndarray, pairs: PairSet) -> Ranked:
    """Measure retrieval by (query, clip) float32 scores.  Changes them: those of pairs that are left out become EXCLUDED."""
    start = 0
    for block in pairs.blocks:
        scores[start : start + len(block.rows)][block.excluded] = EXCLUDED
        start += len(block.rows)
    ranked = RankedBlocks(pairs)
    ranked.measure(scores)
    figures = ranked.figures()
    return Ranked({name: stratified(figures[name], pairs.units.strata) for name in FIGURES}, ranked.map_without())


def compare_with_better(halves: list[Ranked], mixed: Ranked) -> tuple[Estimate, Estimate, bool]:
    """Return the mAP of the better half, that of the mixture less it, and whether the better half was chosen on other units.

    On each half of the units, the mixture is compared with the part that is better on the other half; the value is the mean
    over both.  Its interval has the spread of the differences on all units.  With too few units for halves, the mixture
    is compared with the part that is better on all of them, which is unfavourable to it.
    """
    figures, own = stack_replicates([one.figures["map"] for one in halves]), mixed.figures["map"]
    gains = Replicates(own.value - figures.value, own.left_out[:, None] - figures.left_out)
    without = np.stack([one.map_without for one in halves], axis=1)                          # (half, part)
    crossfitted = len(without) == 2 and bool(np.isfinite(without).all() and np.isfinite(mixed.map_without).all())
    if crossfitted:                      # what is without one half is measured on the other
        found = crossfit(without, (mixed.map_without[:, None] - without)[::-1])
        value, shares = found.value, found.shares
    else:
        best = int(figures.value.argmax())
        value, shares = float(gains.value[best]), np.eye(len(halves))[best]
    better = replicates_of_chosen(float(own.value) - value, figures, shares)
    return logit_estimate(better), replicates_of_chosen(value, gains, shares).estimate(), crossfitted
