"""Plots of a run: metric by layer, confusion of classes, calibration, and the learned layer weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tonelake.probes.report import mean_history
from tonelake.store import Blobs, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, COLOUR, OTHER, PALE = "#333333", "#2a6f97", "#e07a5f", "#9a9a9a"
MOST_CLASSES = 60                        # names that fit beside a confusion matrix


def draw_plots(files: Blobs, metrics: dict[str, Any], tables: dict[str, pl.DataFrame]) -> list[str]:
    """Draw the plots that apply to the run; return their file names."""
    drawn = {
        "layers.png": len(tables["layers"]) > 1 and draw_layers(metrics, tables["layers"]),
        "history.png": draw_history(metrics, mean_history(tables["history"], metrics["layer"])),
        "confusion.png": "confusion" in tables and draw_confusion(metrics, tables["confusion"]),
        "calibration.png": "calibration" in tables and draw_calibration(tables["calibration"], metrics),
        "weights.png": bool(metrics["weights_of_layers"]) and draw_weights(metrics),
    }
    for name, figure in drawn.items():
        if figure:
            save_plot(files, name, figure)
    return [name for name, figure in drawn.items() if figure]


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure as NewFigure  # without pyplot: no window system, no global state

    return NewFigure(figsize=(width, height), layout="constrained", dpi=130)


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = new_figure(width, height)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_layers(metrics: dict[str, Any], layers: pl.DataFrame) -> Figure:
    """Plot the main metric on test clips by layer, with its interval, and the validation score that chose the layer."""
    main = metrics["main"]
    figure, axes = new_axes(max(6.0, 0.45 * len(layers) + 2), 4.2)
    x = np.arange(len(layers))
    axes.fill_between(x, layers[f"{main}_low"], layers[f"{main}_high"], color=COLOUR, alpha=0.15, linewidth=0)
    axes.plot(x, layers[main], "o-", color=COLOUR, label=f"{main.replace('_', ' ')} on test clips", markersize=4)
    if metrics["task"] == "multiclass":
        axes.plot(x, layers["valid"], ".--", color=PALE, label="on validation clips", linewidth=1)
    known = {name: found.get(main, {}).get("value") for name, found in metrics["baselines"].items()}
    baselines = {name: value for name, value in known.items() if value is not None}
    spacing = 0.04 * max([*layers[f"{main}_high"].drop_nulls(), *baselines.values()], default=1.0)
    shown: dict[float, list[str]] = {}                   # lines too close to each other share one label
    for name, value in sorted(baselines.items(), key=lambda item: item[1]):
        axes.axhline(value, color=PALE, linewidth=0.8, linestyle=":")
        near = next((known for known in shown if abs(known - value) < spacing), value)
        shown.setdefault(near, []).append(name)
    for value, names in shown.items():
        axes.annotate(", ".join(names), (len(layers) - 1, value), fontsize=7, color="#777777", ha="right", va="bottom")
    best = int(layers["best"].arg_max() or 0)
    axes.axvline(best, color=COLOUR, linewidth=6, alpha=0.12)
    axes.set_xticks(x, layers["name"], rotation=90 if max(map(len, layers["name"])) > 3 else 0)
    axes.set_xlabel("layer")
    axes.set_title(f"{', '.join(metrics['columns'])} by layer of {metrics['space']}", loc="left", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_history(metrics: dict[str, Any], epochs: pl.DataFrame) -> Figure:
    """Plot top-1, top-5 and loss by epoch, of training batches (full) and validation clips (dashed); for tags and numbers, loss
    alone."""
    panels = [name for name in ("top_1", "top_5", "loss") if epochs[f"train_{name}"].null_count() < len(epochs)]
    figure = new_figure(3.6 * len(panels) + 0.6, 3.2)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        for side, label, style, colour in (("train", "training", "-", COLOUR), ("valid", "validation", "--", OTHER)):
            if epochs[f"{side}_{name}"].null_count() < len(epochs):
                values = epochs[f"{side}_{name}"]
                marker = "o" if values.count() < len(values) else None               # fits to convergence, validated at the end
                axes.plot(epochs["epoch"], values, style, marker=marker, color=colour, label=label, linewidth=1.4)
        axes.set_xlabel("epoch")
        axes.set_title(name.replace("_", "-"), loc="left", fontsize=10, color=INK)
        axes.legend(frameon=False, fontsize=8)
    return figure


def draw_confusion(metrics: dict[str, Any], table: pl.DataFrame) -> Figure:
    """Plot the share of each class's clips by predicted class; classes that are confused are next to each other."""
    names, counts = table[:, 0].to_list(), table[:, 1:].to_numpy().astype(float)
    kept = counts.sum(axis=1) > 0
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
    order = confusion_order(share)
    order = order[kept[order]]
    side = min(14.0, 4 + 0.14 * len(order))
    figure, axes = new_axes(side, side)
    shown = axes.imshow(share[np.ix_(order, order)], cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    if len(order) <= MOST_CLASSES:
        labels = [printable(names[i])[:24].replace("$", r"\$") for i in order]
        axes.set_xticks(range(len(order)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(order)), labels, fontsize=7)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_xlabel("predicted")
    axes.set_ylabel(metrics["columns"][0])
    axes.set_title("Confusion", loc="left", fontsize=10, color=INK)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="share of the class's clips")
    return figure


def confusion_order(share: np.ndarray) -> np.ndarray:
    """Return an order in which classes that are confused are next to each other."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(share) < 3:
        return np.arange(len(share))
    apart = 1 - np.clip((share + share.T) / 2, 0, 1)
    np.fill_diagonal(apart, 0)
    return leaves_list(linkage(squareform(apart, checks=False), "average"))


def draw_calibration(table: pl.DataFrame, metrics: dict[str, Any]) -> Figure:
    """Plot the share of correct predictions by confidence."""
    figure, axes = new_axes(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color=PALE, linestyle=":", linewidth=1)
    size = 12 + 120 * table["clips"] / max(int(table["clips"].to_numpy().max(initial=1)), 1)
    axes.scatter(table["confidence"], table["right"], s=size.to_numpy(), color=COLOUR, alpha=0.8)
    axes.plot(table["confidence"], table["right"], color=COLOUR, linewidth=1, alpha=0.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of the predicted class")
    axes.set_ylabel("share correct")
    error = metrics["figures"]["calibration_error"]["value"]
    known = "" if error is None else f": error {error:.3f}"
    axes.set_title(f"Calibration{known} (size: clips)", loc="left", fontsize=10, color=INK)
    return figure


def draw_weights(metrics: dict[str, Any]) -> Figure:
    """Plot the learned share of each layer."""
    names, shares = list(metrics["weights_of_layers"]), list(metrics["weights_of_layers"].values())
    figure, axes = new_axes(max(5.0, 0.4 * len(names) + 1), 3.2)
    axes.bar(range(len(names)), shares, color=COLOUR)
    axes.axhline(1 / len(names), color=PALE, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("layer")
    axes.set_ylabel("learned share")
    axes.set_title("Layer weights", loc="left", fontsize=10, color=INK)
    return figure


def save_plot(files: Blobs, name: str, figure: Figure) -> None:
    def write(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)      # labels in scripts that the font lacks
            figure.savefig(path, format="png")

    files.put(name, write)
