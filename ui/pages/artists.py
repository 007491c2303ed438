"""Artists page: which artists (or other groups) are close, by which songs to enter them, and what is typical of each.

Similarities, intervals and lists come from the `index` room; `group` and `tab` are kept in the address.
"""

from typing import Any

import numpy as np
import polars as pl
import streamlit as st

from tonelake import Lake
from tonelake.charts import cluster_order
from tonelake.index import DEFAULT_MEASURE, MEASURES, MIN_TRACKS
from tonelake.store import Space
from tonelake.ui.cached import cached_answer
from tonelake.ui.components import clip_list, list_actions
from tonelake.ui.narrow import narrow_chips
from tonelake.ui.plotly_charts import intervals, matrix, show
from tonelake.ui.shared import (
    choose_column,
    choose_layer,
    choose_space,
    count_phrase,
    csv_button,
    drop_invalid_choice,
    follow_action,
    page_lake,
    rows_for_list,
    song_title,
)

MAX_GROUPS = 300                         # groups in the matrix; of more, those with most songs are shown
MAX_NAMES = 5_000                        # groups in the list of names; of more, those with most songs
AROUND = 24                              # groups in the matrix around a name that was looked up
LISTED = 50                              # nearest groups in the table
NEAREST = 12                             # and in the chart
ENTERED = 5                              # groups whose songs are listed
ENTRY_SONGS = 3                          # of each
PAIRS = 100                              # most similar pairs in the table
MAX_MATRIX = 3_000                       # groups whose matrix is computed: 72 MB
MAX_COMPARED = 300                       # groups that are all compared with intervals without being asked: a few seconds
EVERY = "all"
SIMILARITY = st.column_config.NumberColumn(format="%.3f")
COLUMNS = dict.fromkeys(("similarity", "low", "high", "cohesion", "cohesion_low", "cohesion_high"), SIMILARITY)

lake = page_lake()
st.title("Artists", anchor=False)
with st.sidebar:
    space = choose_space(lake)
    column = choose_column(lake)
    layer = choose_layer(space, best=lake.best_layer(space, column))
    where = narrow_chips(lake, st.container())
    with st.expander("How groups are compared"):
        measures = list(MEASURES)
        measure = st.selectbox(
            "Measure", measures, index=measures.index(DEFAULT_MEASURE), key="measure", bind="query-params",
            help="centroid: cosine of mean vectors. mean: mean cosine of two songs. chamfer: each song's nearest counterparts.",
        )
        smallest = st.slider("Minimum clips", 1, 50, 1, key="smallest", bind="query-params")
        corrected = st.toggle("Correct hubs", key="hubs", bind="query-params",
                              help="Subtract half the mean similarity of either group to its ten nearest.")

sizes: pl.DataFrame = cached_answer(lake, (space,), "group_sizes", column, space=space.name, where=where)
unit = "song" if (sizes["tracks"] > 1).any() else "clip"
first, second = st.columns([3, 1], vertical_alignment="bottom")
fewest = int(second.number_input(
    f"Minimum {unit}s", 1, 100, MIN_TRACKS, key="fewest", bind="query-params",
    help=f"Groups with fewer {unit}s are left out: with two of them an interval is thirteen standard errors wide.",
))
kept = sizes.filter(pl.col("units") >= fewest)
if len(kept) < 2:
    st.info(
        f"Comparing takes two groups, and {count_phrase(len(kept), 'group')} of {len(sizes):,} in this column "
        f"{'has' if len(kept) == 1 else 'have'} {count_phrase(fewest, unit)} or more. Lower the minimum, narrow the list less, "
        "or choose another label column."
    )
    st.stop()
numbers = dict(zip(kept["group"].head(MAX_NAMES), kept["units"].head(MAX_NAMES), strict=True))
drop_invalid_choice("group", list(numbers))
name = first.selectbox(
    f"Which {column}?", list(numbers), key="group", bind="query-params",
    format_func=lambda one: f"{one} ({count_phrase(numbers[one], unit)})" if one in numbers else str(one),
)
shared = {"space": space.name, "layer": layer, "where": where, "min_clips": smallest}
compared = shared | {"min_tracks": fewest}
measured = compared | {"measure": measure, "hubs": "corrected" if corrected else "kept"}


def similarity_text(row: dict[str, Any]) -> str:
    """Return a similarity with its interval as text."""
    if row["low"] is None or row["high"] is None:
        return f"similarity {row['similarity']:.2f}"
    return f"similarity {row['similarity']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def answer(method: str, *arguments: Any, **settings: Any) -> pl.DataFrame:
    with st.spinner("Comparing"):
        return cached_answer(lake, (space,), method, *arguments, **settings)


def song_rows(found: pl.DataFrame) -> list[dict[str, Any]]:
    """Return entry songs as rows of a list, each with the song of the first group that it is nearest to."""
    rows = rows_for_list(found, score="score", moments=True)
    for row, near in zip(rows, found.iter_rows(named=True), strict=True):
        row["why"] = f"near {song_title({'title': near['near_title'], 'source': near['near_source']})}"
    return rows


def entries(lake: Lake, space: Space, of: str, others: list[dict[str, Any]], key: str) -> None:
    """List the songs of each other group that are nearest to the songs of group `of`."""
    found = answer("entry_songs", column, of, tuple(other["group"] for other in others), k=ENTRY_SONGS, **compared)
    if not len(found):
        st.info("These groups have only shared songs, so there is no song by which to enter.")
        return
    list_actions(lake, found, key=f"{key} actions", name="songs to enter by")
    for number, other in enumerate(others):
        own = found.filter(pl.col("group") == other["group"])
        with st.container(border=True):
            st.text(f"{other['label']}, {similarity_text(other)}")
            follow_action(clip_list(
                song_rows(own), key=f"{key} {number}", actions=("open", "queue", "map"), keys=number == 0, bar=(0.0, 1.0)
            ), space, layer)


def ask_for_fewer(most: int) -> None:
    """End the page if there are too many groups to compare each with each other."""
    if len(kept) > most:
        st.info(
            f"{len(kept):,} groups are too many to compare all of them here, {most:,} at most. Raise the minimum or narrow the "
            "list. The command writes all:"
        )
        st.code("tonelake groups COLUMN --matrix FILE.csv", language=None, wrap_lines=True)
        st.stop()


near, whole, within, every = st.tabs(
    ["Nearest", "Matrix and pairs", "Typical and unusual", "All"], key="tab", bind="query-params", on_change="rerun"
)
if near.open:
    with near:
        table = answer("groups", column, name, k=LISTED, **measured)
        if not len(table):
            st.info("Every other group shares all its songs with this one, so none can be compared.")
            st.stop()
        rows = [row | {"group": row[column], "label": f"{rank}. {row[column]}"} for rank, row in enumerate(table.to_dicts(), 1)]
        tied = [row for row in rows if row["tied"]]
        several = f"{len(tied)} or more" if len(tied) == LISTED else f"{len(tied)}"
        st.text(
            f"Nearest to {name}: {rows[0][column]}, {similarity_text(rows[0])}." if len(tied) == 1 else
            f"Nearest to {name}: one of {several} groups that cannot be distinguished at 95 %, {rows[0][column]} first."
        )
        st.subheader("Songs to enter by")
        st.caption("Songs of the nearest groups that are closest to the songs of the chosen one.")
        entries(lake, space, name, rows[:ENTERED], "enter")
        st.subheader("How near, and how sure")
        shown = table.head(NEAREST)
        show(intervals(
            shown[column].to_list(), shown["similarity"].to_list(), shown["low"].to_list(), shown["high"].to_list(),
            x="similarity, with its 95 % interval", marked=shown["tied"].to_list(),
            notes=[count_phrase(one, "song") for one in shown["tracks"]],
        ), "nearest", "Similarity of the nearest groups with 95 % intervals")
        st.caption("In colour: the nearest, and those not distinguishable from it. Groups are compared at equal size, and "
                   "songs that two groups share are left out.")
        st.dataframe(table, hide_index=True, height=min(420, 60 + 35 * len(table)), column_config=COLUMNS)
        csv_button(table, "nearest.csv")
if whole.open:
    with whole:
        ask_for_fewer(MAX_MATRIX)
        table = answer("group_matrix", column, **measured)
        names, values = table[:, 0].to_list(), table[:, 1:].to_numpy().astype(float)
        drop_invalid_choice("find", [EVERY, *names])
        place, beside = st.columns([3, 2], gap="medium")
        looked = place.selectbox("Look up a name", [EVERY, *names], key="find", bind="query-params",
                                 help=f"Shows it with the {AROUND} groups nearest to it, with all names readable.")
        if looked != EVERY:
            row = np.nan_to_num(values[names.index(looked)], nan=-np.inf)
            row[names.index(looked)] = np.inf
            most = np.argsort(-row, kind="stable")[: AROUND + 1]
        else:
            units = dict(zip(sizes["group"], sizes["units"], strict=True))
            most = np.argsort([-units.get(one, 0) for one in names], kind="stable")[:MAX_GROUPS]
            if len(names) > MAX_GROUPS:
                place.caption(
                    f"The {MAX_GROUPS} of {len(names):,} groups with most songs. `tonelake groups --matrix F` writes all."
                )
        most = np.sort(most)
        names, values = [names[i] for i in most], values[np.ix_(most, most)]
        order = cluster_order(values)
        drawn = values[np.ix_(order, order)]
        apart = drawn[~np.eye(len(drawn), dtype=bool)]
        limits = tuple(np.nanpercentile(apart, [1, 99])) if np.isfinite(apart).any() else (0.0, 1.0)
        with place:
            show(matrix(
                drawn, [names[i] for i in order], limits=limits,
                hover="%{customdata[0]}<br>%{customdata[1]}<br>%{z:.3f}<extra></extra>",
            ), "matrix", f"Similarity between groups of {column}", tools=True)
            st.caption("Similar groups are neighbours. Hovering shows whole names; the buttons above the matrix zoom, which "
                       "brings more names. A cell is empty if two groups have only shared songs.")
        with beside:
            if looked == EVERY:
                pairs = answer("group_pairs", column, k=PAIRS, **measured)
                pairs = pairs.rename({pairs.columns[1]: "one"})
            else:
                pairs = answer("groups", column, looked, k=AROUND, **measured)
                pairs = pairs.rename({column: "other"}).with_columns(one=pl.lit(looked))
            pairs = pairs.select("similarity", "one", "other", "low", "high")
            st.caption(f"The {len(pairs)} most similar pairs. Select a row to hear songs of both below.")
            chosen = st.dataframe(
                pairs, hide_index=True, height=640, column_config=COLUMNS, on_select="rerun", selection_mode="single-row",
                key="pair",
            )
            csv_button(pairs, "pairs.csv")
        selected = chosen["selection"]["rows"]
        if selected and selected[0] < len(pairs):
            pair = pairs.row(selected[0], named=True)
            for of, group, key in ((pair["one"], pair["other"], "there"), (pair["other"], pair["one"], "back")):
                entries(lake, space, of, [pair | {"group": group, "label": f"Songs of {group} near {of}"}], key)
if within.open:
    with within:
        drop_invalid_choice("of", [EVERY, *numbers])
        listed = [EVERY, *numbers]
        who = st.selectbox(f"Typical of which {column}?", listed, index=listed.index(name), key="of", bind="query-params")
        found = answer("typical", column, None if who == EVERY else who, k=10, **shared)
        for kind, about in (
            ("typical", "Nearest to the centre of the other songs of their group."),
            ("unusual", "Farthest from that centre. If another group's centre is nearer, the label may be wrong."),
        ):
            st.subheader(kind.capitalize())
            st.caption(about)
            part = found.filter(pl.col("kind") == kind)
            own, nearest = pl.col(column).cast(pl.String), pl.col("nearest")
            known = pl.lit(None, pl.String) if column == "artist" else own       # rows show the artist
            note = pl.when(own == nearest).then(known).otherwise(pl.format("{}, but nearest to {}", own, nearest))
            list_actions(lake, part, key=f"{kind} actions", name=f"{kind} songs")
            follow_action(clip_list(
                rows_for_list(part, score="score", note=note, moments=True), key=kind, actions=("open", "queue", "map"),
                keys=kind == "typical",
            ), space, layer)
if every.open:
    with every:
        if len(kept) > MAX_COMPARED and not st.toggle(
            f"Compare all {len(kept):,} groups with each other", key="compare", bind="query-params",
            help="Takes minutes for a thousand groups. `tonelake groups COLUMN` prints the same table.",
        ):
            st.dataframe(kept.rename({"group": column}).drop("units"), hide_index=True)
            st.stop()
        table = answer("groups", column, **measured)
        st.caption("Cohesion: the mean cosine between a group's songs. A nearest group is named only if it is distinguishable "
                   "from all others at 95 %; else `tied` lists the candidates.")
        st.dataframe(table, hide_index=True, height=min(640, 60 + 35 * len(table)), column_config=COLUMNS)
        csv_button(table, "groups.csv")
