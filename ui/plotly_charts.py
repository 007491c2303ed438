"""Interactive plotly charts of tables: curves by layer with intervals, histograms, matrices.  Only positions are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

CONFIG = {"displaylogo": False}          # the logo links to an external site
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#66ccee", "#e08214", "#8073ac")
MAX_TICKS = 70                            # tick labels that fit beside a matrix
FIGURE_LABELS = {
    "map": "mAP", "recall_1": "recall@1", "recall_10": "recall@10", "r_precision": "R-precision", "auc": "AUC",
    "span": "span (within minus between groups)", "anisotropy": "anisotropy (mean cosine)", "hubness": "hubness",
    "same": "cosine within groups", "different": "cosine between groups", "r2": "R²", "roc_auc": "ROC-AUC", "ap": "AP",
    "key_score": "MIREX key score", "tempo_1": "tempo accuracy 1", "tempo_2": "tempo accuracy 2",
}


def figure_label(name: str) -> str:
    """Return the display name of a figure."""
    return FIGURE_LABELS.get(name, name.replace("_", " "))


def translucent(colour: str, alpha: float = 0.16) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def with_layout(figure: Any, height: int, **layout: Any) -> Any:
    settings: dict[str, Any] = {
        "height": height, "margin": {"l": 10, "r": 10, "t": 40, "b": 10}, "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.08, "x": 0},
    }
    figure.update_layout(**(settings | layout))
    return figure


def curves(lines: Sequence[tuple[str, pl.DataFrame, str]], *, y: str, height: int = 380, chance: float | None = None) -> Any:
    """Plot figures by layer, with their intervals as bands.

    `lines`: (label, table, figure name).  A table has the columns name, FIGURE, FIGURE_low and FIGURE_high.
    """
    from plotly import graph_objects

    figure = graph_objects.Figure()
    same = len({tuple(table["name"]) for _, table, _ in lines}) == 1
    for (label, table, name), colour in zip(lines, COLOURS * (len(lines) // len(COLOURS) + 1), strict=False):
        # Spaces with different numbers of layers share an axis of relative depth, 0 to 1.
        x = table["name"].to_list() if same else np.linspace(0, 1, len(table)).tolist()
        low, high = (table[f"{name}{end}"].to_list() for end in ("_low", "_high"))
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=translucent(colour), line={"width": 0},
            hoverinfo="skip", showlegend=False, mode="lines",
        )
        figure.add_scatter(
            x=x, y=table[name].to_list(), mode="lines+markers", name=label, line={"color": colour, "width": 2},
            customdata=list(zip(table["name"], low, high, strict=True)),
            hovertemplate="layer %{customdata[0]}: %{y:.3f} (%{customdata[1]:.3f} to %{customdata[2]:.3f})"
            f"<extra>{escaped(label)}</extra>",
        )
    if chance is not None:
        figure.add_hline(
            y=chance, line={"dash": "dot", "width": 1}, annotation_text="chance", annotation_position="bottom right"
        )
    axis = {"title": "layer", "type": "category"} if same else {"title": "relative depth: first to last layer"}
    return with_layout(figure, height, xaxis=axis, yaxis={"title": y})


def histogram(table: pl.DataFrame, column: str, height: int = 320) -> Any:
    """Plot shares of pairs by cosine.  `table` has the columns low, high, same and different."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    middle = ((table["low"] + table["high"]) / 2).to_list()
    kinds = (("different", "pairs from two groups", "#8a8a8a"), ("same", f"pairs from one {escaped(column)}", COLOURS[0]))
    for name, label, colour in kinds:
        figure.add_bar(x=middle, y=table[name].to_list(), name=label, marker={"color": colour}, opacity=0.6)
    titles = {"xaxis": {"title": "cosine"}, "yaxis": {"title": "share of pairs"}}
    return with_layout(figure, height, barmode="overlay", bargap=0, **titles)


def matrix(
    values: np.ndarray, names: Sequence[str], *, hover: str, colours: str = "Viridis", clickable: bool = False,
    limits: tuple[float, float] | None = None, axes: tuple[str, str] = ("", ""), names_across: Sequence[str] | None = None,
) -> Any:
    """Draw (row, column) values as a heat map, first row on top.  With `clickable`, a click selects a cell above 0.

    `hover`: plotly hover template with %{z} and customdata (row name, column name).
    """
    from plotly import graph_objects

    across = list(names_across if names_across is not None else names)
    rows, columns = list(range(len(names))), list(range(len(across)))
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    labels = np.array([[(escaped(name), escaped(other)) for other in across] for name in names], dtype=object)
    figure = graph_objects.Figure()
    figure.add_heatmap(
        z=values, x=columns, y=rows, colorscale=colours, zmin=low, zmax=high, customdata=labels, hovertemplate=hover,
        colorbar={"thickness": 12}, hoverongaps=False,
    )
    if clickable:                        # a heat map emits no selection events; almost transparent points on its cells do
        cells = np.argwhere(np.nan_to_num(values) > 0)
        size = max(5, min(26, 640 // max(len(names), 1)))
        figure.add_scatter(
            x=cells[:, 1].tolist(), y=cells[:, 0].tolist(), mode="markers", showlegend=False,
            marker={"symbol": "square", "size": size, "color": "rgba(127,127,127,0.01)"},
            customdata=[(*labels[row, column], float(values[row, column])) for row, column in cells],
            hovertemplate=hover.replace("%{z", "%{customdata[2]"), unselected={"marker": {"opacity": 1}},
            selected={"marker": {"color": "rgba(255,75,75,0.85)"}},
        )
    side = max(440, min(860, 26 * len(names) + 170))
    axis = {"tickfont": {"size": 10}, "constrain": "domain", "showgrid": False, "zeroline": False}

    def ticks(which: Sequence[str], title: str) -> dict[str, Any]:
        if len(which) > MAX_TICKS:
            return axis | {"showticklabels": False, "title": title}
        return axis | {"tickvals": list(range(len(which))), "ticktext": [escaped(name)[:26] for name in which], "title": title}

    return with_layout(
        figure, side, xaxis=ticks(across, axes[1]) | {"tickangle": -60, "range": [-0.5, len(across) - 0.5]},
        yaxis=ticks(names, axes[0]) | {"range": [len(names) - 0.5, -0.5], "scaleanchor": "x"}, dragmode=False,
        clickmode="event+select" if clickable else "event",
    )


def show(figure: Any, key: str, about: str, **settings: Any) -> Any:
    """Show a figure on the page, with `about` as its alternative text."""
    import streamlit as st

    return st.plotly_chart(figure, key=key, config=CONFIG, alt=about, **settings)


def escaped(text: str) -> str:
    """Escape text for plotly, which would otherwise read "<" as the start of markup."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
