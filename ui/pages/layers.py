"""Which layer tells the groups of a label column apart: curves with intervals, cosines, hubness, spaces side by side."""

import polars as pl
import streamlit as st

from tonelake.index import PAIR_FIGURES, PREPARATIONS, LayerReport
from tonelake.ui import opened
from tonelake.ui.charts import curves, histogram, show, word
from tonelake.ui.shared import asked, choose_column, choose_space, csv_button, filter_box, keep_valid, the_lake

lake = the_lake()
st.title("Layers")


@st.cache_data(max_entries=32, show_spinner=False)
def report_of(uri: str, versions: tuple[int, int], space: str, column: str, where: str | None, prepare: str) -> LayerReport:
    """A report, kept for as long as neither clips nor vectors change."""
    return opened.opened_lake().layers(column, space=space, where=where, prepare=prepare)


@st.cache_data(max_entries=16, show_spinner=False)
def comparison_of(uri: str, versions: tuple[int, ...], first: str, second: str, column: str, where: str | None) -> pl.DataFrame:
    return opened.opened_lake().compare(first, second, column, where=where)


with st.sidebar:
    space = choose_space(lake)
    column = choose_column(lake)
    prepare = st.selectbox("Vectors are", list(PREPARATIONS), key="prepare", bind="query-params",
                           help="l2: compared by cosine, as searches do.")
    where = filter_box(lake)
    others = [other.name for other in lake.lake.spaces.all() if other.name != space.name and lake.lake.vectors(other).count()]
    second = None
    if others:
        keep_valid("beside", ["none", *others])
        second = st.selectbox("Space beside", ["none", *others], key="beside", bind="query-params")
        second = None if second == "none" else second


def versions(name: str) -> tuple[int, int]:
    return lake.lake.clips.table.version, lake.lake.vectors(name).table.version


with st.spinner(f"Comparing {len(space.layers)} layers by {column}"):
    report = asked(report_of, lake.lake.uri, versions(space.name), space.name, column, where, prepare)
    beside = asked(report_of, lake.lake.uri, versions(second), second, column, where, prepare) if second else None
st.text(report.summary())
if beside is not None:
    st.text(f"{second}: {beside.summary()}")

names = ["map", *(name for name in PAIR_FIGURES if name != "map")]
figure = st.segmented_control(
    "Figure", names, default="map", key="figure", bind="query-params", format_func=word, required=True
) or "map"
lines = [(space.name, report.table, figure)] + ([(str(second), beside.table, figure)] if beside is not None else [])
drawn = curves(lines, y=word(figure), chance=report.chance if figure == "map" else None)
show(drawn, "curve", f"{word(figure)} of {column} by layer, with 95 % intervals")
st.caption(
    f"{report.queries:,} queries, {report.groups:,} groups; bands: 95 % bootstrap over tracks; {report.left_out} do not count."
)

left, right = st.columns(2)
with left:
    st.subheader("Cosines")
    keep_valid("histogram", list(space.layers))
    shown = space.layers[0]
    if len(space.layers) > 1:
        shown = st.select_slider("Of layer", space.layers, value=report.recommended, key="histogram", bind="query-params")
    part = report.histograms.filter(pl.col("name") == shown)
    show(histogram(part, column), "cosines", "Cosines of pairs of one group and of two")
with right:
    st.subheader("How even the space is")
    st.caption("Hubness above 0: few clips are everybody's neighbours. Anisotropy near 1: all directions are alike.")
    geometry = [("hubness", report.table, "hubness"), ("anisotropy", report.table, "anisotropy")]
    show(curves(geometry, y="", height=320), "geometry", "Hubness and anisotropy by layer")

if second:
    st.subheader(f"{space.name} and {second}, layer by layer")
    with st.spinner("Comparing the spaces"):
        now = (*versions(space.name), *versions(second))
        both = asked(comparison_of, lake.lake.uri, now, space.name, second, column, where)
    st.caption("agreement: share of common neighbours; cka: how alike geometries are; gain: mAP of the second less the first.")
    st.dataframe(both, hide_index=True)
st.subheader("All figures")
st.dataframe(report.table, hide_index=True)
csv_button(report.table, "layers.csv")
