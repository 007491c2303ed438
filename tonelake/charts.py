"""Draw results as pictures: the layer report, a group matrix as a heat map, a map, a spectrogram.

Nothing is computed here except the order of the groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.embed import load_librosa
from tonelake.store import InputError, joined_lists

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tonelake.index import LayerReport, Map

INK, MAP_COLOUR, RECALL_COLOUR = "#333333", "#2a6f97", "#e07a5f"
COLOURS = (                              # Paul Tol's muted and bright schemes, distinguishable by colour-blind people
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#4477aa", "#ee6677",
    "#228833",
)
SPECTRUM_SAMPLES = 2048                  # in the window of one column of a spectrogram
MOST_NAMES = 120                         # groups whose names fit beside a heat map


def draw_matrix(table: pl.DataFrame, path: Path, title: str) -> None:
    """Draw a group matrix as a heat map, similar groups side by side (average linkage, optimal leaf order).

    `table`: a column of names, then one column a group.  Raises InputError if the picture cannot be written.
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
    """Draw a map, coloured by the most frequent values of a label column, or by cluster with its labels."""
    from matplotlib.figure import Figure

    x, y = (made.points[name].to_numpy() for name in ("projection_x", "projection_y"))
    values = made.points["cluster"].replace(-1, None) if labels is None else labels
    values = joined_lists(values).cast(pl.String).fill_null("")
    common = values.filter(values != "").value_counts(sort=True)[values.name].head(len(COLOURS)).to_list()
    tall = np.ptp(y) / max(np.ptp(x), 1e-9)
    figure = Figure(figsize=(10, float(np.clip(9 * tall, 4, 12)) + 0.6), layout="constrained", dpi=150)
    axes = figure.subplots()
    size = float(np.clip(20_000 / max(len(x), 1), 0.3, 20))
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
        larger = max(1, 5 / size**0.5)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8, title=labels.name, markerscale=larger)
    axes.set_title(f"{made.space}, layer {made.layer}", loc="left", color=INK)
    axes.set_aspect("equal")
    axes.axis("off")
    save(figure, path)


def cluster_order(values: np.ndarray) -> np.ndarray:
    """Order groups so that similar ones are neighbours."""
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
    """Draw the report on one page: retrieval and geometry by layer with intervals, and the cosines of the best layer.

    PNG, SVG or PDF, by the file's suffix.  Raises InputError if it cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    table = report.table
    figure = Figure(figsize=(11, 7.6), layout="constrained", dpi=150)
    retrieval, cosines, geometry, spread = figure.subplots(2, 2).ravel()
    best = table.filter("best").row(0, named=True)

    for name, label, colour in (
        ("map", "mean average precision", MAP_COLOUR), ("recall_1", "recall@1", RECALL_COLOUR),
        ("r_precision", "R-precision", "#81b29a"),
    ):
        banded(retrieval, table, name, label, colour)
    retrieval.axhline(report.chance, color=INK, linestyle=":", linewidth=1, label="mAP in random order")
    for row in table.filter(pl.col("best") | pl.col("name").is_in(report.equals)).to_dicts():
        retrieval.axvline(row["layer"], color=MAP_COLOUR, linewidth=6, alpha=0.14 if row["best"] else 0.06)
    held = report.held_out
    if np.isfinite([held.low, held.high]).all():
        retrieval.errorbar(best["layer"] + 0.15, held.value, [[held.value - held.low], [held.high - held.value]], fmt="D",
                           color=INK, markersize=4, linewidth=1, label="mAP of the chosen layer, held out")
    high = table.select("map", "recall_1", "map_high", "recall_1_high").to_numpy().astype(float)
    retrieval.set_ylim(0, min(1.05, 1.2 * float(np.nanmax(high))))
    tied = f"; {len(report.equals)} not distinguishable" if report.equals else ""
    retrieval.set_title(f"Retrieval: layer {best['name']} is best{tied}", loc="left", fontsize=10)
    retrieval.legend(frameon=False, fontsize=8)

    shares = report.histograms.filter(pl.col("layer") == best["layer"])
    kinds = (("different", "pairs of two", "#9a9a9a"), ("same", f"pairs of one {report.column}", MAP_COLOUR))
    for name, label, colour in kinds:
        cosines.stairs(shares[name], [*shares["low"], shares["high"][-1]], fill=True, color=colour, alpha=0.5, label=label)
    figures = f"AUC {best['auc']:.3f}, span {best['span']:.3f}"
    cosines.set_title(f"Cosines at layer {best['name']}: {figures}", loc="left", fontsize=10)
    cosines.set_xlabel("cosine" if report.prepared != "raw" else "inner product")
    cosines.set_ylabel("share of pairs")
    cosines.legend(frameon=False, fontsize=8)

    banded(geometry, table, "auc", "AUC", MAP_COLOUR)
    banded(geometry, table, "anisotropy", "anisotropy (mean cosine)", "#9a9a9a")
    banded(geometry, table, "span", "span (same less different)", RECALL_COLOUR)
    geometry.plot(table["layer"].to_numpy(), table["matrix_span"].to_numpy(), "s--", color="#81b29a", linewidth=1, markersize=3,
                  label=f"matrix span (range over pairs of {report.column})")
    geometry.set_title("Separation of the pairs", loc="left", fontsize=10)
    geometry.legend(frameon=False, fontsize=8)

    banded(spread, table, "hubness", "hubness", "#6d597a")
    spread.axhline(0, color=INK, linestyle=":", linewidth=1)
    spread.set_title("Hubness: few clips are neighbours of most others", loc="left", fontsize=10)

    for axes in (retrieval, geometry, spread):
        axes.set_xticks(table["layer"].to_numpy(), table["name"], rotation=90 if max(map(len, table["name"])) > 3 else 0)
        axes.set_xlabel("layer")
    for axes in (retrieval, cosines, geometry, spread):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Which layer of {report.space} separates {report.column} best?", x=0.01, ha="left", color=INK)
    figure.supxlabel(
        f"{report.queries:,} queries, {report.groups:,} groups; bands: 95 % jackknife {report.units}; "
        f"{report.left_out} are excluded", fontsize=8, color="#777777", x=0.01, ha="left",
    )
    save(figure, path)


def banded(axes: Axes, table: pl.DataFrame, name: str, label: str, colour: str) -> None:
    """Draw a metric by layer, with its interval as a band."""
    x = table["layer"].to_numpy()
    value, low, high = (table[f"{name}{end}"].cast(pl.Float64).to_numpy() for end in ("", "_low", "_high"))
    axes.plot(x, value, "o-", color=colour, label=label, linewidth=1.8, markersize=4)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def draw_spectrogram(samples: np.ndarray, rate: int, width: int = 360, height: int = 64) -> bytes:
    """Draw (samples,) at `rate` Hz as a mel spectrogram: a PNG without axes, time to the right, frequency upwards, 80 dB."""
    import io

    from matplotlib.image import imsave

    librosa = load_librosa()
    samples = np.pad(np.asarray(samples, np.float32), (0, max(0, SPECTRUM_SAMPLES - len(samples))))
    hop = -(-len(samples) // width)
    power = librosa.feature.melspectrogram(
        y=samples, sr=rate, n_fft=SPECTRUM_SAMPLES, hop_length=hop, n_mels=height, fmin=40.0,
    )
    decibels = librosa.power_to_db(power, ref=max(float(power.max()), 1e-10), top_db=80.0)
    file = io.BytesIO()
    imsave(file, decibels[:, :width], vmin=-80, vmax=0, cmap="magma", origin="lower", format="png")
    return file.getvalue()


def save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be drawn ({error}). Choose another file") from error
