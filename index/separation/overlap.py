"""Compare neighbour lists with a reference: recommendations of listeners, of an expert, or of another system.

The reference is a table of group, neighbour and, optionally, rank or score.  For each group that is in both, our ranking
of neighbours is compared with the reference's:

- overlap@k: the share of the reference's first k (or of all, if fewer) that are among our first k;
- tau: Kendall's tau-b (SciPy's) between the two orders of the reference's neighbours (1 equal, 0 unrelated, -1 reversed).

Chance is the expectation for random neighbours: for overlap, k of the others at random; for tau, 0.  Intervals are a jackknife
over the compared groups; a group is left out with its list and from the lists of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.evaluate import Replicates
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
        (mean, low, high), (tau, tau_low, tau_high) = self.overlap, self.tau
        text = (
            f"{len(self.table)} groups of {self.column} compared: overlap@{self.k} {mean:.3f} ({low:.3f} to {high:.3f}), "
            f"by chance {self.chance:.3f}; Kendall's tau {tau:.3f} ({tau_low:.3f} to {tau_high:.3f}), by chance 0; intervals "
            "over groups"
        )
        if self.unknown:
            more = f" and {len(self.unknown) - MOST_SHOWN} more" if len(self.unknown) > MOST_SHOWN else ""
            text += f"; not compared: {', '.join(self.unknown[:MOST_SHOWN])}{more}"
        return f"{text}. {self.note}"


@dataclass(frozen=True)
class Agreement:
    """One group's overlap and tau, and their changes if another group is left out of the reference and of our ranking."""

    overlap: float
    tau: float                           # NaN for one neighbour, or if all are equally near
    changes: dict[int, tuple[float, float]]          # by group: overlap and tau without it, where they can differ


def overlap_with(
    lake: Lake, column: str, reference: str | Path | pl.DataFrame, *, k: int = 10, space: str | None = None,
    layer: int | str | None = None, where: str | None = None, measure: str = DEFAULT_MEASURE, min_clips: int = 1,
    min_tracks: int = MIN_TRACKS, over: str | None = None, centre: bool | None = None, hubs: str = DEFAULT_HUBS,
) -> Overlap:
    """Compare the nearest groups of each group with a reference (a CSV file or frame); names match case-insensitively.

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
    number = {name.casefold(): i for i, name in enumerate(found.names)}
    named = {*wanted["group"], *wanted["neighbour"]}
    unknown = tuple(sorted(name for name in named if name.casefold() not in number))
    rows, own_rows, agreements = [], [], []
    for (group,), listed in wanted.group_by("group", maintain_order=True):
        own = number.get(str(group).casefold())
        if own is None:
            continue
        similarity = found.row(own, intervals=False).values
        listed_rows = [number[n.casefold()] for n in listed["neighbour"] if n.casefold() in number]
        listed_rows = [n for n in dict.fromkeys(listed_rows) if np.isfinite(similarity[n])]
        if not listed_rows:
            continue
        candidates = np.flatnonzero(np.isfinite(similarity))
        ranking = candidates[np.argsort(-similarity[candidates], kind="stable")]
        agreed = agree(ranking, np.array(listed_rows), similarity, k)
        agreements.append(agreed)
        own_rows.append(own)
        rows.append({
            column: found.names[own], "overlap": agreed.overlap, "chance": min(k, len(ranking)) / len(ranking),
            "tau": None if np.isnan(agreed.tau) else agreed.tau, "compared": len(listed_rows),
        })
    if not rows:
        raise InputError(
            f"no {column} of the reference is in the lake with a neighbour. Does the reference use the names of {column!r}?"
        )
    schema = {"overlap": pl.Float64, "chance": pl.Float64, "tau": pl.Float64, "compared": pl.Int64}
    table = pl.DataFrame(rows, schema_overrides=schema)
    overlap, tau = mean_agreement(agreements, np.array(own_rows))
    return Overlap(
        column=column, table=table, k=k, overlap=overlap, chance=float(np.mean(table["chance"].to_numpy())), tau=tau,
        unknown=unknown, note=found.note,
    )


def agree(ranking: np.ndarray, listed: np.ndarray, similarity: np.ndarray, k: int) -> Agreement:
    """Compare our ranking of groups with the listed ones, both best first; `similarity`: (group,)."""
    ours, first = ranking[:k], listed[:k]

    def overlap_without(group: int) -> float:
        if group not in ours and group not in first:
            return overlap
        left, kept = ranking[: k + 1], listed[: k + 1]
        left, kept = left[left != group][:k], kept[kept != group][:k]
        return len(np.intersect1d(left, kept)) / len(kept) if len(kept) else np.nan

    overlap = len(np.intersect1d(ours, first)) / len(first)
    tau, taus = kendall_with_changes(similarity[listed])
    tau_without = dict(zip(listed.tolist(), taus.tolist(), strict=True))
    involved = dict.fromkeys([*ours.tolist(), *listed.tolist()])
    changes = {group: (overlap_without(group), tau_without.get(group, tau)) for group in involved}
    return Agreement(overlap, tau, changes)


def mean_agreement(
    agreements: list[Agreement], groups: np.ndarray
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean overlap and mean tau with their 95 % intervals, from the agreements of (query,) groups."""
    place = {int(group): i for i, group in enumerate(groups)}
    results = []
    for number, bounds in ((0, (0.0, 1.0)), (1, (-1.0, 1.0))):
        values = np.array([(one.overlap, one.tau)[number] for one in agreements])
        known = np.isfinite(values)
        if not known.any():
            results.append((float("nan"),) * 3)
            continue
        total, count = values[known].sum(), float(known.sum())
        sums, counts = np.full(len(values), total), np.full(len(values), count)
        sums -= np.where(known, values, 0.0)                         # without the group's own list
        counts -= known
        for i, one in enumerate(agreements):
            for group, changed in one.changes.items():
                at = place.get(group)
                if at is None or at == i or not known[i]:
                    continue
                without = changed[number]
                sums[at] += (without if np.isfinite(without) else 0.0) - values[i]
                counts[at] -= not np.isfinite(without)
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = Replicates(np.array(total / count), sums / counts).estimate(bounds)
        results.append((estimate.value, estimate.low, estimate.high))
    return results[0], results[1]


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


def kendall_with_changes(similarities: np.ndarray) -> tuple[float, np.ndarray]:
    """Return Kendall's tau-b between the reference's order and ours, and its (neighbour,) values without each neighbour.

    NaN for one neighbour, or if all are equally near.  The value is SciPy's; the values without a neighbour are counted from
    the signs of all pairs.
    """
    from scipy.stats import kendalltau

    number = len(similarities)
    tau = kendalltau(-np.arange(number), similarities).statistic if number > 1 else np.nan
    signs = np.sign(similarities[:, None] - similarities[None, :])
    signs[np.tril_indices(number)] *= -1                             # 1: the pair is in the reference's order
    agreed, untied = signs.sum(axis=1), (signs != 0).sum(axis=1)
    pairs = (number - 1) * (number - 2) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (agreed.sum() / 2 - agreed) / np.sqrt(pairs * (untied.sum() / 2 - untied))
    return float(tau), without
