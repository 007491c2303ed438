"""Neighbour lists against a list from elsewhere: listeners' recommendations, an expert's, another system's.

The reference is a table of group, neighbour and, where it has one, rank or score.  For each group that both know, our
neighbours in its order are compared with the reference's:

- overlap@k: the share of the reference's first k (or all it has, where fewer) among our first k;
- tau: Kendall's tau-b between the two orders, over the reference's neighbours (1 the same order, 0 none, -1 reversed).

Chance is what drawing neighbours at random would give: for overlap exactly, k of the others at random; for tau, 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.evaluate import resample_weights
from tonelake.index.separation.group_similarity import DEFAULT_MEASURE
from tonelake.index.separation.groups import group_vectors
from tonelake.ingest import read_table
from tonelake.store import InputError, Lake

DRAWS = 2_000
ORDERS = ("rank", "score", "similarity", "weight")       # of these columns, the first one there is; rank goes up, others down
MOST_SHOWN = 5


@dataclass(frozen=True)
class Overlap:
    """How much two ways of finding neighbours agree."""

    column: str
    table: pl.DataFrame                  # a row a group: overlap, chance, tau, compared
    k: int
    overlap: tuple[float, float, float]  # mean and 95 % interval over groups
    chance: float
    tau: tuple[float, float, float]
    unknown: tuple[str, ...]             # names of the reference that the lake does not have

    def __str__(self) -> str:
        (mean, low, high), (tau, tau_low, tau_high) = self.overlap, self.tau
        text = (
            f"{len(self.table)} of {self.column} compared: overlap@{self.k} {mean:.3f} ({low:.3f} to {high:.3f}), by chance "
            f"{self.chance:.3f}; Kendall's tau {tau:.3f} ({tau_low:.3f} to {tau_high:.3f}), by chance 0"
        )
        if self.unknown:
            more = f" and {len(self.unknown) - MOST_SHOWN} more" if len(self.unknown) > MOST_SHOWN else ""
            text += f"; not in the lake: {', '.join(self.unknown[:MOST_SHOWN])}{more}"
        return text


def overlap_with(
    lake: Lake, column: str, reference: Path | pl.DataFrame, *, k: int = 10, space: str | None = None,
    layer: int | str | None = None, where: str | None = None, measure: str = DEFAULT_MEASURE, min_clips: int = 1, seed: int = 0,
) -> Overlap:
    """Compare the groups nearest to each with a reference's (a CSV file or frame), by names in any case.

    Raises InputError where the reference has not two columns, or nothing to compare.
    """
    if k < 1:
        raise InputError(f"-k {k}: ask for at least one neighbour")
    wanted = read_reference(reference)
    found = group_vectors(lake, column, space=space, layer=layer, where=where, min_clips=min_clips, measure=measure)
    number = {name.casefold(): i for i, name in enumerate(found.names)}
    named = {*wanted["group"], *wanted["neighbour"]}
    unknown = tuple(sorted(name for name in named if name.casefold() not in number))
    near = found.near(measure)
    np.fill_diagonal(near, np.nan)
    rows = []
    for (group,), listed in wanted.group_by("group", maintain_order=True):
        mine = number.get(str(group).casefold())
        theirs = [number[n.casefold()] for n in listed["neighbour"] if n.casefold() in number]
        theirs = [n for n in dict.fromkeys(theirs) if mine is not None and np.isfinite(near[mine, n])]
        if mine is None or not theirs:
            continue
        candidates = np.flatnonzero(np.isfinite(near[mine]))
        ours = candidates[np.argsort(-near[mine, candidates], kind="stable")]
        first = theirs[:k]
        rows.append({
            column: found.names[mine], "overlap": len(np.intersect1d(ours[:k], first)) / len(first),
            "chance": min(k, len(ours)) / len(ours), "tau": kendall(near[mine, theirs]), "compared": len(theirs),
        })
    if not rows:
        raise InputError(f"no {column} of the reference, with a neighbour, is in the lake: are its names those of {column!r}?")
    schema = {"overlap": pl.Float64, "chance": pl.Float64, "tau": pl.Float64, "compared": pl.Int64}
    table = pl.DataFrame(rows, schema_overrides=schema)
    weights = resample_weights(len(table), DRAWS, seed)
    return Overlap(
        column, table, k, mean_interval(table["overlap"], weights), float(np.mean(table["chance"].to_numpy())),
        mean_interval(table["tau"], weights), unknown,
    )


def read_reference(reference: Path | pl.DataFrame) -> pl.DataFrame:
    """group and neighbour, in the reference's order.  A column of ORDERS says which; else the rows do."""
    if isinstance(reference, pl.DataFrame):
        table, name = reference, "the reference"
    else:
        table, name = read_table(reference), str(reference)
    table = table.rename({column: column.strip().casefold() for column in table.columns})
    if len(table.columns) < 2:
        raise InputError(f"{name} has {len(table.columns)} columns: it needs a group, its neighbour, and may have a rank")
    order = next((column for column in ORDERS if column in table.columns[2:]), None)
    if order is not None:
        values = table[order].cast(pl.Float64, strict=False)
        if values.null_count():
            raise InputError(f"{name}: {values.null_count()} values of column {order!r} are no numbers")
        table = table.with_columns(values).sort(order, descending=order != "rank", maintain_order=True)
    group, neighbour = table.columns[:2]
    return table.select(
        pl.col(group).cast(pl.String).str.strip_chars().alias("group"),
        pl.col(neighbour).cast(pl.String).str.strip_chars().alias("neighbour"),
    ).drop_nulls()


def kendall(similarities: np.ndarray) -> float | None:
    """Kendall's tau-b between the reference's order and ours; None for one neighbour, or where all are equally near."""
    from scipy.stats import kendalltau

    if len(similarities) < 2:
        return None
    tau = kendalltau(-np.arange(len(similarities)), similarities).statistic
    return None if np.isnan(tau) else float(tau)


def mean_interval(values: pl.Series, weights: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval; NaN where there is no value."""
    known = values.is_not_null().to_numpy()
    if not known.any():
        return (float("nan"),) * 3
    numbers = values.fill_null(0).to_numpy()
    draws = (weights @ numbers) / np.maximum(weights @ known.astype(float), 1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(numbers[known].mean()), float(low), float(high)
