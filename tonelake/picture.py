"""The layer report as a picture: retrieval by layer, with its intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from store import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from index import LayerReport, Map

INK, MAP_COLOUR, RECALL_COLOUR = "#333333", "#2a6f97", "#e07a5f"
COLOURS = (                              # Paul Tol's muted and bright schemes, which colour-blind people can tell apart
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#4477aa", "#ee6677",
    "#228833",
)
MOST_NAMES = 120                         # of groups whose names fit beside a heat map


def draw_matrix(table: pl.DataFrame, path: Path, title: str) -> None:
    """A group matrix as a heat map, groups ordered so that alike ones lie side by side (average linkage, best leaf order).

    `table`: a column of names, then one column a group.  Raises InputError where the picture cannot be written.
    """
    from matplotlib.figure import Figure

    names = table[:, 0].to_list()
    values = table[:, 1:].to_numpy().astype(float)
    order = cluster_order(values)
    side = min(24.0, 4 + 0.16 * len(names))
    figure = Figure(figsize=(side, side), layout="constrained", dpi=120)
    axes = figure.subplots()
    apart = values[~np.eye(len(names), dtype=bool)]
    low, high = np.nanpercentile(apart, [1, 99]) if np.isfinite(apart).any() else (0, 1)
    shown = axes.imshow(values[np.ix_(order, order)], cmap="magma", vmin=low, vmax=high, interpolation="nearest")
    if len(names) <= MOST_NAMES:
        labels = [names[i][:30] for i in order]
        axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), labels, fontsize=7)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_title(title, loc="left", color=INK)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="similarity")
    save(figure, path)


def draw_map(made: Map, path: Path, labels: pl.Series | None = None) -> None:
    """A map, coloured by the commonest values of a label column, or by cluster with what tells of each."""
    from matplotlib.figure import Figure

    x, y = (made.points[name].to_numpy() for name in ("projection_x", "projection_y"))
    values = made.points["cluster"].replace(-1, None) if labels is None else labels
    if isinstance(values.dtype, pl.List):
        values = values.cast(pl.List(pl.String)).list.join(", ")
    values = values.cast(pl.String).fill_null("")
    common = values.filter(values != "").value_counts(sort=True)[values.name].head(len(COLOURS)).to_list()
    figure = Figure(figsize=(9, 8), layout="constrained", dpi=150)
    axes = figure.subplots()
    size = float(np.clip(4000 / max(len(x), 1), 0.3, 14))
    rest = ~values.is_in(common).to_numpy()
    axes.scatter(x[rest], y[rest], s=size, c="#c8c8c8", linewidths=0, alpha=0.6, rasterized=True)
    for value, colour in zip(common, COLOURS, strict=False):
        mine = (values == value).to_numpy()
        axes.scatter(x[mine], y[mine], s=size, c=colour, linewidths=0, alpha=0.8, label=value[:40], rasterized=True)
    if labels is None:
        for row in made.clusters.head(len(COLOURS)).to_dicts():
            axes.annotate("\n".join(row["labels"][:2]) or str(row["cluster"]), (row["x"], row["y"]), fontsize=6, ha="center",
                          color=INK)
    else:
        axes.legend(frameon=False, fontsize=8, title=labels.name, markerscale=max(1.0, 4 / size**0.5))
    axes.set_title(f"{made.space}, layer {made.layer}", loc="left", color=INK)
    axes.set_aspect("equal")
    axes.axis("off")
    save(figure, path)


def cluster_order(values: np.ndarray) -> np.ndarray:
    """An order of groups in which alike ones are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(values) < 3:
        return np.arange(len(values))
    distances = np.nanmax(values) - np.nan_to_num((values + values.T) / 2, nan=float(np.nanmin(values)))
    np.fill_diagonal(distances, 0)
    condensed = squareform(np.maximum(distances, 0), checks=False)
    tree = linkage(condensed, "average")
    return leaves_list(optimal_leaf_ordering(tree, condensed) if len(values) <= MOST_NAMES * 5 else tree)


def draw_layers(report: LayerReport, path: Path) -> None:
    """Write PNG, SVG or PDF, by the file's ending.  Raises InputError where it cannot be written."""
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    table = report.table
    figure = Figure(figsize=(8, 4.2), layout="constrained", dpi=150)
    axes = figure.subplots()
    x = table["layer"].to_numpy()
    for name, label, colour in (("map", "mean average precision", MAP_COLOUR), ("recall_1", "recall@1", RECALL_COLOUR)):
        axes.plot(x, table[name], "o-", color=colour, label=label, linewidth=2, markersize=5)
        axes.fill_between(x, table[f"{name}_low"], table[f"{name}_high"], color=colour, alpha=0.15, linewidth=0)
    axes.axhline(report.chance, color=INK, linestyle=":", linewidth=1, label="chance")
    best = table.filter("best").row(0, named=True)
    top = max(best["map_high"], best["recall_1_high"])
    axes.annotate(f"best: {best['name']}", (best["layer"], top), xytext=(0, 4), textcoords="offset points",
                  ha="center", color=MAP_COLOUR, fontweight="bold")
    axes.set_xticks(x, table["name"])
    axes.set_xlabel("layer")
    axes.set_ylim(0, min(1.05, 1.2 * table.select("map_high", "recall_1_high").to_numpy().max()))
    axes.set_title(f"Which layer of {report.space} tells {report.column} apart?", loc="left", color=INK)
    axes.text(0, -0.2, f"{report.queries:,} queries, {report.groups:,} groups; bands: 95 % bootstrap over tracks; "
              f"{report.left_out} do not count", transform=axes.transAxes, fontsize=8, color="#777777")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be drawn: {error}") from error
