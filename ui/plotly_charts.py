"""Interactive plotly charts of tables: curves by layer with intervals, histograms, matrices.  Only positions are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

CONFIG = {"displaylogo": False}          # the logo links to an external site
WITH_TOOLS = CONFIG | {"displayModeBar": True, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#66ccee", "#e08214", "#8073ac")
GREY = "#8a8a8a"                         # on light and on dark ground
LONGEST_LABEL = 18                       # characters of a name beside an axis; hovering shows all of it
FEW_EPOCHS = 12                          # of these each has a tick; of more, plotly chooses
FIGURE_LABELS = {
    "map": "mAP", "recall_1": "recall@1", "recall_10": "recall@10", "r_precision": "R-precision", "auc": "AUC",
    "span": "span (within minus between groups)", "anisotropy": "anisotropy (mean cosine)", "hubness": "hubness",
    "same": "cosine within groups", "different": "cosine between groups", "r2": "R²", "roc_auc": "ROC-AUC", "ap": "AP",
    "key_score": "MIREX key score", "tempo_1": "tempo accuracy 1", "tempo_2": "tempo accuracy 2",
}


def share_colours() -> Any:
    """Return a colour scale of shares from the page's ground to a strong blue, for the theme in use."""
    import streamlit as st

    return [[0.0, "#22303c"], [1.0, "#8ecbff"]] if st.context.theme.type == "dark" else "Blues"


def figure_label(name: str) -> str:
    """Return the display name of a figure."""
    return FIGURE_LABELS.get(name, name.replace("_", " "))


def translucent(colour: str, alpha: float = 0.16) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def with_layout(figure: Any, height: int, **layout: Any) -> Any:
    # The buttons at the top are always shown on touch screens, so the legend is below them; a drag scrolls the page.
    settings: dict[str, Any] = {
        "height": height, "margin": {"l": 10, "r": 10, "t": 64, "b": 10}, "hovermode": "closest", "dragmode": False,
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    }
    figure.update_layout(**(settings | layout))
    return figure


def curves(lines: Sequence[tuple[str, pl.DataFrame, str]], *, y: str, height: int = 400, chance: float | None = None) -> Any:
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
            y=chance, line={"dash": "dot", "width": 1.5, "color": GREY}, annotation_text="chance",
            annotation_position="bottom right",
        )
    axis = {"title": "layer", "type": "category"} if same else {"title": "relative depth: first to last layer"}
    return with_layout(figure, height, xaxis=axis, yaxis={"title": y})


def by_epoch(epochs: pl.DataFrame, names: Mapping[str, str], *, y: str, height: int = 320) -> Any:
    """Plot columns of a table with a row an epoch.  `names`: column -> label; columns without values are left out."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for (name, label), colour in zip(names.items(), COLOURS, strict=False):
        if name in epochs.columns and epochs[name].null_count() < len(epochs):
            figure.add_scatter(
                x=epochs["epoch"].to_list(), y=epochs[name].to_list(), mode="lines+markers", name=escaped(label),
                line={"color": colour, "width": 2}, marker={"size": 4}, hovertemplate="epoch %{x}: %{y:.3f}", showlegend=True,
            )
    whole = {"title": "epoch"} | ({"dtick": 1} if len(epochs) <= FEW_EPOCHS else {})
    return with_layout(figure, height, xaxis=whole, yaxis={"title": y})


def histogram(table: pl.DataFrame, column: str, height: int = 340) -> Any:
    """Plot shares of pairs by cosine.  `table` has the columns low, high, same and different."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    middle = ((table["low"] + table["high"]) / 2).to_list()
    kinds = (("different", "between groups", GREY), ("same", f"within one {escaped(column)}", COLOURS[0]))
    for name, label, colour in kinds:
        figure.add_bar(x=middle, y=table[name].to_list(), name=label, marker={"color": colour}, opacity=0.6)
    titles = {"xaxis": {"title": "cosine"}, "yaxis": {"title": "share of pairs"}}
    return with_layout(figure, height, barmode="overlay", bargap=0, **titles)


def shares(names: Sequence[str], values: Sequence[float], *, y: str, height: int = 300) -> Any:
    """Plot one bar for each name."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    figure.add_bar(x=[escaped(name) for name in names], y=list(values), marker={"color": COLOURS[0]})
    return with_layout(figure, height, xaxis={"type": "category"}, yaxis={"title": y, "rangemode": "tozero"})


def intervals(
    names: Sequence[str], values: Sequence[float], low: Sequence[float | None], high: Sequence[float | None], *, x: str,
    marked: Sequence[bool] | None = None, notes: Sequence[str] | None = None, chance: float | None = None,
) -> Any:
    """Draw a figure with its interval for each name, first name on top.  `marked`: names in colour, the others in grey.

    `notes`: a text for each name, shown on hovering.
    """
    from plotly import graph_objects

    labels, bold = axis_labels(names), list(marked if marked is not None else [True] * len(names))
    figure = graph_objects.Figure()
    for wanted, colour in ((True, COLOURS[0]), (False, GREY)):
        rows = [row for row, one in enumerate(bold) if one == wanted]
        ends = [None if (one := low[row]) is None or (other := high[row]) is None else (one, other) for row in rows]
        figure.add_scatter(
            x=[values[row] for row in rows], y=[labels[row] for row in rows], mode="markers", showlegend=False,
            marker={"size": 9, "color": colour},
            error_x={
                "type": "data", "symmetric": False, "thickness": 2, "width": 0,
                "array": [end[1] - values[row] if end else 0 for row, end in zip(rows, ends, strict=True)],
                "arrayminus": [values[row] - end[0] if end else 0 for row, end in zip(rows, ends, strict=True)],
            },
            customdata=[
                (escaped(names[row]), escaped(notes[row]) if notes else "", f" ({end[0]:.3f} to {end[1]:.3f})" if end else "")
                for row, end in zip(rows, ends, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{x:.3f}%{customdata[2]}<br>%{customdata[1]}<extra></extra>",
        )
    if chance is not None:
        figure.add_vline(
            x=chance, line={"dash": "dot", "width": 1.5, "color": GREY}, annotation_text="chance",
            annotation_position="bottom right",
        )
    axis = {"type": "category", "categoryorder": "array", "categoryarray": labels[::-1], "automargin": True, "showgrid": False}
    narrow = {"l": 10, "r": 10, "t": 34, "b": 10}
    return with_layout(figure, 110 + 26 * len(names), xaxis={"title": x}, yaxis=axis, margin=narrow)


def matrix(
    values: np.ndarray, names: Sequence[str], *, hover: str, colours: Any = "Viridis", clickable: bool = False,
    limits: tuple[float, float] | None = None, axes: tuple[str, str] = ("", ""), names_across: Sequence[str] | None = None,
) -> Any:
    """Draw (row, column) values as a heat map, first row on top.  With `clickable`, a click selects a cell above 0.

    Axes show as many of the shortened names (`axis_labels`) as fit, and more after zooming in.
    `hover`: plotly hover template with %{z} and customdata (row name, column name).
    """
    from plotly import graph_objects

    across = list(names_across if names_across is not None else names)
    rows, columns = axis_labels(names), axis_labels(across)
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
            x=[columns[column] for column in cells[:, 1]], y=[rows[row] for row in cells[:, 0]], mode="markers",
            showlegend=False, marker={"symbol": "square", "size": size, "color": "rgba(127,127,127,0.01)"},
            customdata=[(*labels[row, column], float(values[row, column])) for row, column in cells],
            hovertemplate=hover.replace("%{z", "%{customdata[2]"), unselected={"marker": {"opacity": 1}},
            selected={"marker": {"color": "rgba(255,75,75,0.85)"}},
        )

    def axis(shown: Sequence[str], title: str) -> dict[str, Any]:
        return {
            "type": "category", "categoryorder": "array", "categoryarray": list(shown), "tickfont": {"size": 11},
            "title": title, "showgrid": False, "zeroline": False, "automargin": True,
        }

    return with_layout(
        figure, max(440, min(860, 26 * len(names) + 170)), xaxis=axis(columns, axes[1]) | {"tickangle": -60},
        yaxis=axis(rows, axes[0]) | {"autorange": "reversed"}, margin={"l": 10, "r": 10, "t": 40, "b": 10},
        clickmode="event+select" if clickable else "event",
    )


def axis_labels(names: Sequence[str]) -> list[str]:
    """Return names that fit beside an axis: shortened, escaped for plotly, and different from each other.

    >>> axis_labels(["Ada", "Johann Sebastian Bach the elder", "Johann Sebastian Bach the younger"])
    ['Ada', 'Johann Sebastian …', 'Johann Sebastian … 2']
    """
    found: list[str] = []
    used: dict[str, int] = {}
    for name in names:
        text = str(name)
        short = escaped(text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1].rstrip()} …")
        label = short
        while label in used:
            used[short] += 1
            label = f"{short} {used[short]}"
        used[label] = 1
        found.append(label)
    return found


def show(figure: Any, key: str, about: str, *, tools: bool = False, **settings: Any) -> Any:
    """Show a figure on the page, with `about` as its alternative text.  `tools`: always show the buttons that zoom and move."""
    import streamlit as st

    return st.plotly_chart(figure, key=key, config=WITH_TOOLS if tools else CONFIG, alt=about, **settings)


def escaped(text: str) -> str:
    """Escape text for plotly, which would otherwise read "<" as the start of markup."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
