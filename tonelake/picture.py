"""The layer report as a picture: retrieval by layer, with its intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from store import InputError

if TYPE_CHECKING:
    from index import LayerReport

INK, MAP_COLOUR, RECALL_COLOUR = "#333333", "#2a6f97", "#e07a5f"


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be drawn: {error}") from error
