"""Layers page: how well each layer separates the groups of a label column, with intervals; cosines, hubness, two spaces."""

from typing import Any

import polars as pl
import streamlit as st

from tonelake.index import DEFAULT_HUBS, HUBS, PAIR_FIGURES, PREPARATIONS, LayerReport
from tonelake.store import kind_of
from tonelake.ui.cached import cached_answer
from tonelake.ui.narrow import narrow_chips
from tonelake.ui.plotly_charts import curves, figure_label, histogram, show
from tonelake.ui.shared import (
    choose_column,
    choose_space,
    csv_button,
    drop_invalid_choice,
    open_page,
    page_lake,
)

SHORT = st.column_config.NumberColumn(format="%.3f")


def short_decimals(table: pl.DataFrame) -> dict[str, Any]:
    """Return the format of a table's decimal columns: three places."""
    return {name: SHORT for name, kind in table.schema.items() if kind_of(kind) == "decimal"}


lake = page_lake()
st.title("Layers", anchor=False)
with st.sidebar:
    space = choose_space(lake)
    column = choose_column(lake)
    prepare = st.selectbox("Vector preparation", list(PREPARATIONS), key="prepare", bind="query-params",
                           help="l2: vectors are compared by cosine, as in searches.")
    where = narrow_chips(lake, st.container())
    groupings = [name for name in lake.clips.group_columns() if name != "track"]
    drop_invalid_choice("across", ["default", "track", "none", *groupings])
    across = st.selectbox(
        "Pairs left out", ["default", "track", "none", *groupings], key="across",
        bind="query-params",
        help="Pairs of clips that share this column's value; with none, only pairs that share audio. Option `--across`.",
    )
    drop_invalid_choice("over", ["default", "track", *groupings])
    over = st.selectbox(
        "Intervals over", ["default", "track", *groupings], key="over",
        bind="query-params",
        help="The units that other lakes would have instead: tracks of these artists, or other artists. Option `--over`.",
    )
    hubs = st.selectbox("Hubs", list(HUBS), index=HUBS.index(DEFAULT_HUBS), key="hubs", bind="query-params",
                        help="corrected: cosines less those of each clip's neighbourhood.")
    rule = (None if across == "default" else across, None if over == "default" else over)
    others = [other.name for other in lake.spaces.all() if other.name != space.name and lake.vectors(other).count()]
    second = None
    if others:
        drop_invalid_choice("beside", ["none", *others])
        second = st.selectbox("Second space", ["none", *others], key="beside", bind="query-params")
        second = None if second == "none" else second


def report_of(name: str) -> LayerReport:
    """Return the layer report of a space."""
    settings = {"space": name, "where": where, "prepare": prepare, "across": rule[0], "over": rule[1], "hubs": hubs}
    return cached_answer(lake, (name,), "layers", column, **settings)


with st.spinner(f"Comparing {len(space.layers)} layers by {column}"):
    report = report_of(space.name)
    beside = report_of(second) if second else None
first, answered = st.columns([4, 1], vertical_alignment="center")
first.text(str(report.best))
if answered.button("Use this layer", help="Opens Listen, which then compares songs in this layer.", width="stretch"):
    open_page("pages/listen.py", {"space": space.name, "layer": report.recommended})
with st.expander("How far layers differ, and what was compared"):
    st.text(report.summary())
if beside is not None:
    st.text(f"{second}: {beside.best}. {beside.summary()}")

names = ["map", *(name for name in PAIR_FIGURES if name != "map")]
figure = st.segmented_control(
    "Figure", names, default="map", key="figure", bind="query-params", format_func=figure_label, required=True
) or "map"
lines = [(space.name, report.table, figure)] + ([(str(second), beside.table, figure)] if beside is not None else [])
drawn = curves(lines, y=figure_label(figure), chance=report.chances.get(figure))
show(drawn, "curve", f"{figure_label(figure)} of {column} by layer, with 95 % intervals")
st.caption(
    f"{report.queries:,} queries, {report.groups:,} groups; bands: 95 % jackknife {report.units}; excluded: {report.left_out}."
)

left, right = st.columns(2)
with left:
    st.subheader("Cosines")
    drop_invalid_choice("histogram", list(space.layers))
    shown = space.layers[0]
    if len(space.layers) > 1:
        shown = st.select_slider("Layer shown", space.layers, value=report.recommended, key="histogram", bind="query-params")
    part = report.histograms.filter(pl.col("name") == shown)
    show(histogram(part, column), "cosines", "Histogram of cosines within and between groups")
with right:
    st.subheader("Evenness of the space")
    st.caption("Hubness above 0: a few clips are neighbours of many others. Anisotropy near 1: all vectors point in similar "
               "directions.")
    geometry = [("hubness", report.table, "hubness"), ("anisotropy", report.table, "anisotropy")]
    show(curves(geometry, y="", height=340), "geometry", "Hubness and anisotropy by layer")

if second:
    st.subheader(f"{space.name} and {second}, layer by layer")
    with st.spinner("Comparing the spaces"):
        both = cached_answer(
            lake, (space.name, second), "compare", space.name, second, column, where=where, across=rule[0], over=rule[1]
        )
    st.caption("agreement: share of common neighbours; cka: similarity of geometries; gain: mAP of the second minus the first, "
               "with its paired 95 % interval; matrix_span: range of the mean cosines of two groups.")
    st.dataframe(both, hide_index=True, column_config=short_decimals(both))
st.subheader("All figures")
st.dataframe(
    report.table, hide_index=True, column_config=short_decimals(report.table)
)
csv_button(report.table, "layers.csv")
