"""Layers page: how well each layer separates the groups of a label column, with intervals; cosines, hubness, two spaces."""

import polars as pl
import streamlit as st

from tonelake.index import DEFAULT_HUBS, HUBS, PAIR_FIGURES, PREPARATIONS, LayerReport
from tonelake.ui import opened
from tonelake.ui.plotly_charts import curves, figure_label, histogram, show
from tonelake.ui.shared import (
    answer_or_stop,
    choose_column,
    choose_space,
    csv_button,
    drop_invalid_choice,
    filter_box,
    page_lake,
)

lake = page_lake()
st.title("Layers")


@st.cache_data(max_entries=32, show_spinner=False)
def report_of(
    uri: str, versions: tuple[int, int], space: str, column: str, where: str | None, prepare: str, across: str | None,
    over: str | None, hubs: str,
) -> LayerReport:
    """Return the layer report, cached until clips or vectors change."""
    return opened.opened_lake().layers(
        column, space=space, where=where, prepare=prepare, across=across, over=over, hubs=hubs
    )


@st.cache_data(max_entries=16, show_spinner=False)
def comparison_of(
    uri: str, versions: tuple[int, ...], first: str, second: str, column: str, where: str | None, across: str | None,
    over: str | None,
) -> pl.DataFrame:
    """Return the comparison of two spaces, cached until clips or vectors change."""
    return opened.opened_lake().compare(first, second, column, where=where, across=across, over=over)


with st.sidebar:
    space = choose_space(lake)
    column = choose_column(lake)
    prepare = st.selectbox("Vector preparation", list(PREPARATIONS), key="prepare", bind="query-params",
                           help="l2: vectors are compared by cosine, as in searches.")
    where = filter_box(lake)
    groupings = [name for name in lake.clips.group_columns() if name != "track"]
    drop_invalid_choice("across", ["default", "track", "none", *groupings])
    across = st.selectbox(
        "Pairs left out", ["default", "track", "none", *groupings], key="across",
        bind="query-params", help="Pairs of clips that share this column's value; with none, only pairs that share audio.",
    )
    drop_invalid_choice("over", ["default", "track", *groupings])
    over = st.selectbox(
        "Intervals over", ["default", "track", *groupings], key="over",
        bind="query-params", help="The units that other lakes would have instead: tracks of these artists, or other artists.",
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


def versions(name: str) -> tuple[str, int, int]:
    return lake.identity, lake.clips.table.version, lake.vectors(name).table.version


with st.spinner(f"Comparing {len(space.layers)} layers by {column}"):
    report = answer_or_stop(report_of, lake.uri, versions(space.name), space.name, column, where, prepare, *rule, hubs)
    beside = None
    if second:
        beside = answer_or_stop(report_of, lake.uri, versions(second), second, column, where, prepare, *rule, hubs)
st.text(report.summary())
if beside is not None:
    st.text(f"{second}: {beside.summary()}")

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
    show(curves(geometry, y="", height=320), "geometry", "Hubness and anisotropy by layer")

if second:
    st.subheader(f"{space.name} and {second}, layer by layer")
    with st.spinner("Comparing the spaces"):
        now = (*versions(space.name), *versions(second))
        both = answer_or_stop(comparison_of, lake.uri, now, space.name, second, column, where, *rule)
    st.caption("agreement: share of common neighbours; cka: similarity of geometries; gain: mAP of the second minus the first, "
               "with its paired 95 % interval; matrix_span: range of the mean cosines of two groups.")
    st.dataframe(both, hide_index=True)
st.subheader("All figures")
st.dataframe(report.table, hide_index=True)
csv_button(report.table, "layers.csv")
