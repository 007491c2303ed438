"""Compare neighbour lists with a reference: recommendations of listeners, of an expert, or of another system.

The reference is a table of group, neighbour and, optionally, rank or score.  For each group that is in both, our ranking
of neighbours is compared with the reference's:

- overlap@k: the share of the reference's first k (or of all, if fewer) that are among our first k;
- tau: Kendall's tau-b (SciPy's) between the two orders of the reference's neighbours (1 equal, 0 unrelated, -1 reversed).

Chance is the expectation for random neighbours: for overlap, k of the others at random; for tau, 0.  Intervals are a jackknife
over the groups that have a list: what other groups of this lake would show, their candidates being the lake's groups.  They do
not cover another lake's groups: simulated with all groups drawn again, they contain the expectation in 86 %, while leaving
each group out of every list as well contains it in 99.8 % and is nearly twice as wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.evaluate import GroupNames, make_units, replicate_means
from tonelake.index.hubness import DEFAULT_HUBS
from tonelake.index.separation.group_similarity import DEFAULT_MEASURE
from tonelake.index.separation.groups import MIN_TRACKS, read_groups
from tonelake.ingest import read_table
from tonelake.store import InputError, Lake

ORDERS = ("rank", "score", "similarity", "weight")       # the first of these columns orders; rank ascending, others descending
MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Agreement of our neighbours with a reference."""

    column: str
    table: pl.DataFrame                  # one row per group: overlap, chance, tau, compared
    k: int
    overlap: tuple[float, float, float]  # mean and 95 % interval over groups
    chance: float
    tau: tuple[float, float, float]
    unknown: tuple[str, ...]             # names of the reference that are not among the groups compared
    note: str                            # how groups are compared, as `groups` says it

    def __str__(self) -> str:
        overlap, tau = (
            f"{value:.3f} ({low:.3f} to {high:.3f})" if np.isfinite(low) else f"{value:.3f}" for value, low, high in (
                self.overlap, self.tau
            )
        )
        text = (
            f"{len(self.table)} groups of {self.column} compared: overlap@{self.k} {overlap}, by chance {self.chance:.3f}; "
            f"Kendall's tau {tau}, by chance 0; intervals over groups"
        )
        if self.unknown:
            more = f" and {len(self.unknown) - MOST_SHOWN} more" if len(self.unknown) > MOST_SHOWN else ""
            text += f"; not compared: {', '.join(self.unknown[:MOST_SHOWN])}{more}"
        return f"{text}. {self.note}"


def overlap_with(
    lake: Lake, column: str, reference: str | Path | pl.DataFrame, *, k: int = 10, space: str | None = None,
    layer: int | str | None = None, where: str | None = None, measure: str = DEFAULT_MEASURE, min_clips: int = 1,
    min_tracks: int = MIN_TRACKS, over: str | None = None, centre: bool | None = None, hubs: str = DEFAULT_HUBS,
) -> Overlap:
    """Compare the nearest groups of each group with a reference (a CSV file or frame); names match as written, else
    ignoring case if one group has the name so.

    Groups are compared as by `groups`, whose arguments these are.
    Raises InputError if the reference has fewer than two columns, or nothing to compare.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    wanted = read_reference(reference if isinstance(reference, pl.DataFrame) else Path(reference).expanduser())
    found = read_groups(
        lake, column, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips, min_tracks=min_tracks,
        over=over, centre=centre, hubs=hubs,
    )
    names = GroupNames(found.names)
    number = {name: meant[0] for name in {*wanted["group"], *wanted["neighbour"]} if len(meant := names.find(name)) == 1}
    unknown = tuple(sorted({*wanted["group"], *wanted["neighbour"]} - number.keys()))
    rows = []
    owners = pl.Series("own", [number.get(name) for name in wanted["group"]], dtype=pl.Int64)
    for listed in wanted.with_columns(owners).drop_nulls("own").partition_by("own", maintain_order=True):
        own = int(listed["own"][0])
        similarity = found.row(own, intervals=False).values
        listed_rows = [number[name] for name in listed["neighbour"] if name in number]
        listed_rows = [n for n in dict.fromkeys(listed_rows) if np.isfinite(similarity[n])]
        if not listed_rows:
            continue
        candidates = np.flatnonzero(np.isfinite(similarity))
        ranking = candidates[np.argsort(-similarity[candidates], kind="stable")]
        first = listed_rows[:k]
        rows.append({
            column: found.names[own], "overlap": len(np.intersect1d(ranking[:k], first)) / len(first),
            "chance": min(k, len(ranking)) / len(ranking), "tau": kendall(similarity[listed_rows]),
            "compared": len(listed_rows),
        })
    if not rows:
        raise InputError(
            f"no {column} of the reference is in the lake with a neighbour. Does the reference use the names of {column!r}?"
        )
    schema = {"overlap": pl.Float64, "chance": pl.Float64, "tau": pl.Float64, "compared": pl.Int64}
    table = pl.DataFrame(rows, schema_overrides=schema)
    return Overlap(
        column=column, table=table, k=k, overlap=mean_over_groups(table["overlap"], (0.0, 1.0)),
        chance=float(np.mean(table["chance"].to_numpy())), tau=mean_over_groups(table["tau"], (-1.0, 1.0)), unknown=unknown,
        note=found.note,
    )


def mean_over_groups(values: pl.Series, bounds: tuple[float, float]) -> tuple[float, float, float]:
    """Return the mean of the groups' values with its 95 % interval; NaN if all are null."""
    known = values.drop_nulls().to_numpy()
    if not len(known):
        return (float("nan"),) * 3
    found = replicate_means(known, make_units(np.arange(len(known)), "groups")).estimate(bounds)
    return found.value, found.low, found.high


def read_reference(reference: Path | pl.DataFrame) -> pl.DataFrame:
    """Return group and neighbour in the reference's order: by a column of ORDERS if there is one, else as listed."""
    if isinstance(reference, pl.DataFrame):
        table, name = reference, "the reference"
    else:
        table, name = read_table(reference), str(reference)
    table = table.rename({column: column.strip().casefold() for column in table.columns})
    if len(table.columns) < 2:
        raise InputError(f"{name} has {len(table.columns)} columns. It needs a group and its neighbour, and may have a rank")
    order = next((column for column in ORDERS if column in table.columns[2:]), None)
    if order is not None:
        values = table[order].cast(pl.Float64, strict=False)
        if values.null_count():
            raise InputError(f"{name}: {values.null_count()} values of column {order!r} are not numbers")
        table = table.with_columns(values).sort(order, descending=order != "rank", maintain_order=True)
    group, neighbour = table.columns[:2]
    return table.select(
        pl.col(group).cast(pl.String).str.strip_chars().alias("group"),
        pl.col(neighbour).cast(pl.String).str.strip_chars().alias("neighbour"),
    ).drop_nulls()


def kendall(similarities: np.ndarray) -> float | None:
    """Return Kendall's tau-b between the reference's order and ours; None for one neighbour, or if all are equally near."""
    from scipy.stats import kendalltau

    if len(similarities) < 2:
        return None
    tau = kendalltau(-np.arange(len(similarities)), similarities).statistic
    return None if np.isnan(tau) else float(tau)
