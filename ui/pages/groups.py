"""Groups page: distances between artists, pieces or tunes as a table and a matrix, and typical and unusual clips of each."""

import numpy as np
import polars as pl
import streamlit as st

from tonelake.charts import cluster_order
from tonelake.index import DEFAULT_MEASURE, MEASURES, MIN_TRACKS
from tonelake.store import is_list
from tonelake.ui.components import clip_list
from tonelake.ui.plotly_charts import matrix, show
from tonelake.ui.shared import (
    answer_or_stop,
    choose_column,
    choose_layer,
    choose_space,
    csv_button,
    drop_invalid_choice,
    filter_box,
    follow_action,
    page_lake,
    playlist_button,
    rows_for_list,
)

MAX_GROUPS = 500                         # groups in the matrix; of more, those with most clips are shown
ALL = "all groups"

lake = page_lake()
st.title("Groups")
with st.sidebar:
    space = choose_space(lake)
    layer = choose_layer(space)
    column = choose_column(lake)
    measures = list(MEASURES)
    measure = st.selectbox("Measure", measures, index=measures.index(DEFAULT_MEASURE), key="measure", bind="query-params",
                           help="How similarity of two groups is computed from their clips.")
    smallest = st.slider("Minimum clips per group", 1, 50, 1, key="smallest", bind="query-params")
    fewest = st.slider("Minimum tracks per group", 1, 20, MIN_TRACKS, key="fewest", bind="query-params",
                       help="Groups with fewer are not compared. Where every group is one track, clips are counted.")
    corrected = st.toggle("Correct hubs", key="hubs", bind="query-params",
                          help="Subtract half the mean similarity of either group to its ten nearest.")
    where = filter_box(lake)
settings = {"space": space.name, "layer": layer, "where": where, "min_clips": smallest}
compared = settings | {"measure": measure, "min_tracks": fewest, "hubs": "corrected" if corrected else "kept"}

near, whole, within = st.tabs(["Nearest", "Matrix", "Typical and unusual"], key="tab", bind="query-params", on_change="rerun")
if near.open:
    with near:
        table = answer_or_stop(lake.groups, column, **compared)
        names = [ALL, *table[column].cast(pl.String).sort()]
        drop_invalid_choice("group", names)
        name = st.selectbox(f"Nearest to which {column}?", names, key="group", bind="query-params")
        if name != ALL:
            table = answer_or_stop(lake.groups, column, name, k=50, **compared)
            st.caption(f"Nearest first, at layer {layer}, at equal size. Tied: not distinguishable from the nearest at 95 %. "
                       "Pairs of clips from the same track are excluded.")
        else:
            st.caption("Cohesion: the mean cosine between a group's tracks. A nearest group is named only if it is "
                       "distinguishable from all others at 95 %; else `tied` lists the candidates.")
        st.dataframe(table, hide_index=True, height=min(640, 60 + 35 * len(table)))
        csv_button(table, "groups.csv")
if whole.open:
    with whole:
        table = answer_or_stop(lake.group_matrix, column, **compared)
        names, values = table[:, 0].to_list(), table[:, 1:].to_numpy().astype(float)
        if len(names) > MAX_GROUPS:
            sizes = answer_or_stop(lake.groups, column, **compared)["clips"].to_numpy()
            most = np.sort(np.argsort(-sizes, kind="stable")[:MAX_GROUPS])
            st.caption(f"The {MAX_GROUPS} of {len(names):,} groups with most clips; `tonelake groups --matrix F` writes all.")
            names, values = [names[i] for i in most], values[np.ix_(most, most)]
        order = cluster_order(values)
        shown = values[np.ix_(order, order)]
        apart = shown[~np.eye(len(shown), dtype=bool)]
        limits = tuple(np.nanpercentile(apart, [1, 99])) if np.isfinite(apart).any() else (0.0, 1.0)
        st.caption("Ordered so that similar groups are adjacent. A cell is empty if the two groups have only shared tracks.")
        drawn = matrix(shown, [names[i] for i in order], limits=limits,
                       hover="%{customdata[0]}<br>%{customdata[1]}<br>%{z:.3f}<extra></extra>")
        show(drawn, "matrix", f"Similarity between groups of {column}")
if within.open:
    with within:
        known = answer_or_stop(lake.clips.read, [column], where=where)[column]
        known = known.explode() if is_list(known.dtype) else known
        names = [ALL, *known.drop_nulls().cast(pl.String).unique().sort()]
        drop_invalid_choice("of", names)
        name = st.selectbox(f"Typical of which {column}?", names, key="of", bind="query-params")
        found = answer_or_stop(lake.typical, column, None if name == ALL else name, k=10, **settings)
        playlist_button(lake, found, "typical.m3u8", help="A playlist of these songs")
        for kind, about in (
            ("typical", "Nearest to the centre of the other tracks of their group."),
            ("unusual", "Farthest from that centre. If another group's centre is nearer, the label may be wrong."),
        ):
            st.subheader(kind.capitalize())
            st.caption(about)
            part = found.filter(pl.col("kind") == kind)
            own, nearest = pl.col(column).cast(pl.String), pl.col("nearest")
            note = pl.when(own == nearest).then(own).otherwise(pl.format("{}, but nearest to {}", own, nearest))
            follow_action(clip_list(rows_for_list(part, score="score", note=note), key=kind, actions=("open", "map"),
                             keys=kind == "typical"), space, layer)
