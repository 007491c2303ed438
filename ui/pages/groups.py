"""Artists, pieces, tunes: which are near each other, as a table and as a matrix, and what is typical of one."""

import numpy as np
import polars as pl
import streamlit as st

from tonelake.charts import cluster_order
from tonelake.index import DEFAULT_MEASURE, MEASURES
from tonelake.ui.charts import matrix, show
from tonelake.ui.components import clip_list
from tonelake.ui.shared import (
    asked,
    choose_column,
    choose_layer,
    choose_space,
    csv_button,
    filter_box,
    follow,
    keep_valid,
    rows_for_list,
    the_lake,
)

MOST_GROUPS = 500                        # in the matrix; beyond, those of most clips
ALL = "all of them"

lake = the_lake()
st.title("Groups")
with st.sidebar:
    space = choose_space(lake)
    layer = choose_layer(space)
    column = choose_column(lake)
    measures = list(MEASURES)
    measure = st.selectbox("Measure", measures, index=measures.index(DEFAULT_MEASURE), key="measure", bind="query-params",
                           help="How near two groups are, as sets of clips.")
    smallest = st.slider("Clips a group needs", 1, 50, 1, key="smallest", bind="query-params")
    where = filter_box(lake)
settings = {"space": space.name, "layer": layer, "where": where, "min_clips": smallest}

near, whole, within = st.tabs(["Nearest", "Matrix", "Typical and unusual"], key="tab", bind="query-params", on_change="rerun")
if near.open:
    with near:
        table = asked(lake.groups, column, measure=measure, **settings)
        names = [ALL, *table[column].cast(pl.String).sort()]
        keep_valid("group", names)
        name = st.selectbox(f"Nearest to which {column}?", names, key="group", bind="query-params")
        if name != ALL:
            table = asked(lake.groups, column, name, k=50, measure=measure, **settings)
            st.caption(f"Pairs of one track never count; nearest first, at layer {layer}.")
        else:
            st.caption("Cohesion: the mean cosine of two of a group's clips that are of different tracks.")
        st.dataframe(table, hide_index=True, height=min(640, 60 + 35 * len(table)))
        csv_button(table, "groups.csv")
if whole.open:
    with whole:
        table = asked(lake.group_matrix, column, measure=measure, **settings)
        names, values = table[:, 0].to_list(), table[:, 1:].to_numpy().astype(float)
        if len(names) > MOST_GROUPS:
            sizes = asked(lake.groups, column, measure=measure, **settings)["clips"].to_numpy()
            most = np.sort(np.argsort(-sizes, kind="stable")[:MOST_GROUPS])
            st.caption(f"The {MOST_GROUPS} of {len(names):,} groups with most clips: `tonelake groups --matrix F` has all.")
            names, values = [names[i] for i in most], values[np.ix_(most, most)]
        order = cluster_order(values)
        shown = values[np.ix_(order, order)]
        apart = shown[~np.eye(len(shown), dtype=bool)]
        limits = tuple(np.nanpercentile(apart, [1, 99])) if np.isfinite(apart).any() else (0.0, 1.0)
        st.caption("Ordered so that alike groups lie side by side. Empty: nothing but tracks that both share.")
        drawn = matrix(shown, [names[i] for i in order], limits=limits,
                       hover="%{customdata[0]}<br>%{customdata[1]}<br>%{z:.3f}<extra></extra>")
        show(drawn, "matrix", f"How near groups of {column} are to each other")
if within.open:
    with within:
        names = [ALL, *asked(lake.groups, column, measure=measure, **settings)[column].cast(pl.String).sort()]
        keep_valid("of", names)
        name = st.selectbox(f"Of which {column}?", names, key="of", bind="query-params")
        found = asked(lake.typical, column, None if name == ALL else name, k=10, **settings)
        for kind, about in (
            ("typical", "Nearest to the centre of their group's other tracks."),
            ("unusual", "Farthest from it; where another group's centre is nearer, the label may be wrong."),
        ):
            st.subheader(kind.capitalize())
            st.caption(about)
            part = found.filter(pl.col("kind") == kind)
            own, nearest = pl.col(column).cast(pl.String), pl.col("nearest")
            note = pl.when(own == nearest).then(own).otherwise(pl.format("{}, but nearest to {}", own, nearest))
            follow(clip_list(rows_for_list(part, score="score", note=note), key=kind, actions=("open", "map"),
                             keys=kind == "typical"), space, layer)
