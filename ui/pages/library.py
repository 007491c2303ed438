"""Library page: the songs with their states, what could not be read and why, copies, spaces, labels, and what to do next."""

import math
from typing import Any

import polars as pl
import streamlit as st

from tonelake import Lake
from tonelake.index import mapped_layers
from tonelake.library_table import FAILED, copies_table, failures_table, search_songs, songs_table
from tonelake.next_jobs import Job, next_jobs
from tonelake.status import Status
from tonelake.store import MISSING, SUPERSEDED, source_exists, value_rows
from tonelake.ui import opened
from tonelake.ui.components import list_actions
from tonelake.ui.job_panel import add_folder, job_panel, show_commands, show_jobs
from tonelake.ui.jobs import current_job
from tonelake.ui.shared import answer_or_stop, csv_button, drop_invalid_choice, open_listen, page_lake

MAX_VALUES = 6                           # most common values shown for each label column
MAX_ROWS = 1_000                         # failures and copies shown; the CSV has all
PAGE = 100                               # songs
ROW = 44                                 # height in pixels, for fingers
KEPT_S = 60                              # maps and indexes that another process made are seen after this time
ALL, COPIES = "all", "copies"
# Choices of the table of songs, with their words; those without any song are left out.
SHOWN = {ALL: "All", FAILED: "Failed", MISSING: "Missing file", COPIES: "With copies", SUPERSEDED: "Replaced"}
SORTS = {                                # words: column, whether descending
    "Title": ("title", False), "Artist": ("artist", False), "Album": ("album", False), "Newest first": ("added", True),
    "Oldest first": ("added", False), "Longest first": ("length_s", True), "State": ("state", False),
}


def versions_of(lake: Lake) -> tuple[Any, ...]:
    """Everything that changes when the lake's tables do, or when a job of this server has ended."""
    job = current_job(lake)
    tables = [lake.clips.table, lake.paths.table, lake.failures.table]
    tables += [lake.vectors(space).table for space in lake.spaces.all()]
    return lake.identity, tuple((table.name, table.version) for table in tables), job.ended if job is not None else None


@st.cache_resource(max_entries=4, show_spinner="Reading the songs")
def songs_of(versions: tuple[Any, ...]) -> pl.DataFrame:
    return songs_table(opened.opened_lake())


@st.cache_resource(max_entries=4, show_spinner=False, ttl=KEPT_S)
def status_and_jobs(versions: tuple[Any, ...]) -> tuple[Status, list[Job]]:
    lake = opened.opened_lake()
    found = lake.status()
    return found, next_jobs(lake, found)


@st.cache_resource(max_entries=4, show_spinner=False)
def copies_of(versions: tuple[Any, ...]) -> pl.DataFrame:
    return copies_table(opened.opened_lake())


@st.cache_data(max_entries=4, show_spinner=False)
def labels_of(lake: str, version: int) -> pl.DataFrame:
    """Summarise the values of each label column, cached until clips change."""
    clips = opened.opened_lake().clips
    rows = []
    for name in clips.label_columns():
        column = clips.read([name])[name]
        counts = value_rows(column)["value"].cast(pl.String).value_counts()
        counts = counts.sort(["count", "value"], descending=[True, False])
        common = [f"{value} ({number:,})" for value, number in counts.head(MAX_VALUES).iter_rows()]
        rows.append({
            "column": name, "type": str(column.dtype), "clips with a value": len(column) - column.null_count(),
            "different values": len(counts), "most common": ", ".join(common) + (" …" if len(counts) > MAX_VALUES else ""),
        })
    return pl.DataFrame(rows)


@st.cache_data(max_entries=4, show_spinner=False)
def flags_of(lake: str, version: int) -> pl.DataFrame:
    """Count the clips with each flag."""
    flags = opened.opened_lake().clips.read(["flag"])["flag"].drop_nulls().str.split(", ").explode()
    return flags.value_counts(sort=True).rename({"flag": "Flag", "count": "Clips"})


def show_songs(songs: pl.DataFrame) -> None:
    """Show the table of songs with its search, and the actions of a chosen row."""
    counts = {
        ALL: len(songs), COPIES: int((songs["copies"] > 0).sum()),
        **{state: int((songs["state"] == state).sum()) for state in (FAILED, MISSING, SUPERSEDED)},
    }
    left, middle = st.columns([3, 1], vertical_alignment="bottom")
    words = left.text_input("Search songs", key="find", bind="query-params", placeholder="title, artist or album")
    drop_invalid_choice("sort", list(SORTS))
    sort = middle.selectbox("Sort by", SORTS, key="sort", bind="query-params")
    show = chosen_state(counts)
    found = search_songs(songs, words, None if show in (ALL, COPIES) else show, copies=show == COPIES)
    if not len(found):
        st.info("No song matches. Search for fewer words, or show all songs.")
        return
    column, descending = SORTS[sort]
    key = pl.col(column).str.to_lowercase() if found[column].dtype == pl.String else pl.col(column)
    found = found.sort(key, descending=descending, nulls_last=True, maintain_order=True)
    pages = math.ceil(len(found) / PAGE)
    rows = found.slice((kept_page(pages) - 1) * PAGE, PAGE)
    gone = pl.Series([row["state"] != SUPERSEDED and not source_exists(row["source"]) for row in rows.iter_rows(named=True)])
    rows = rows.with_columns(state=pl.when(gone & (pl.col("state") != FAILED)).then(pl.lit(MISSING)).otherwise("state"))
    details = st.container()             # above the table, which fills the window
    chosen = show_table(
        shown_songs(rows), key="songs", on_select="rerun", selection_mode="single-row", row_height=ROW,
        column_config={"Added": st.column_config.DateColumn(format="YYYY-MM-DD")},
    )
    choose_page(pages, len(found))
    playable = rows.filter(pl.col("clip_id").is_not_null())
    if len(playable):
        list_actions(page_lake(), playable.drop("folded", "source"), key="library list", name="songs")
    picked = [row for row in chosen.selection.rows if row < len(rows)]
    with details:
        if picked:
            show_song(rows.row(picked[0], named=True))
        else:
            st.caption("Choose a row for its file and for similar songs.")


def chosen_state(counts: dict[str, int]) -> str:
    """Return which songs are shown; the address has a key of SHOWN, since the words on the page contain numbers."""
    choices = [name for name in SHOWN if name == ALL or counts[name]]
    if len(choices) == 1:
        return ALL
    kept = st.session_state.get("show songs") or st.query_params.get("show", ALL)
    st.session_state["show songs"] = kept if kept in choices else ALL
    show = st.segmented_control(
        "Show", choices, format_func=lambda name: f"{SHOWN[name]} {counts[name]:,}", key="show songs", required=True,
        label_visibility="collapsed",
    ) or ALL
    if show != ALL:
        st.query_params["show"] = show
    else:
        st.query_params.pop("show", None)
    return show


def kept_page(pages: int) -> int:
    """Return the page of a long table that the address names, from 1; the last one if the table has become shorter."""
    kept = st.session_state.get("page", st.query_params.get("page", "1"))
    number = int(kept) if str(kept).isdecimal() else 1
    if "page" in st.session_state:
        st.session_state["page"] = min(max(number, 1), pages)
    return min(max(number, 1), pages)


def choose_page(pages: int, count: int) -> None:
    """Show where a long table can be turned over."""
    if pages == 1:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        page = st.number_input("Page", 1, pages, key="page", bind="query-params", width=140)
        st.caption(f"Songs {(page - 1) * PAGE + 1:,} to {min(page * PAGE, count):,} of {count:,}", width="content")


def show_table(frame: pl.DataFrame, **settings: Any) -> Any:
    """Show a table without the columns that have no value."""
    used = [name for name in frame.columns if frame[name].null_count() < len(frame)]
    return st.dataframe(frame.select(used), hide_index=True, placeholder="", **settings)


def shown_songs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns that people read."""
    length = pl.col("length_s").round().cast(pl.Int64)
    words = {SUPERSEDED: "replaced", MISSING: "missing file"}
    return rows.select(
        Title="title", Artist="artist", Album="album",
        Length=pl.when(length.is_not_null()).then(pl.format("{}:{}", length // 60, (length % 60).cast(pl.String).str.zfill(2))),
        State=pl.col("state").replace(words), Copies=pl.when(pl.col("copies") > 0).then("copies"), Clips="clips",
        Spaces="spaces", Added="added",
    )


def show_song(row: dict[str, Any]) -> None:
    """Show a chosen song's file, and what can be done with it."""
    with st.container(border=True):
        st.text(row["title"])
        st.text(row["source"])
        if row["clip_id"] is None:
            st.caption("This file could not be read; the tab Problems says why.")
        elif row["state"] == SUPERSEDED:
            st.caption("The file has other audio now. `tonelake forget --superseded` deletes the clips of the old audio.")
        else:
            if row["state"] == MISSING:
                st.caption("The file is gone, so the song cannot be played; it is still found. Put the file back and sync its "
                           "folder, or delete it from the lake by `tonelake forget --missing`.")
            if st.button("Similar songs", key="similar"):
                open_listen(row["clip_id"])


def show_problems(lake: Lake, jobs: list[Job], status: Status) -> None:
    """Show the failures with reasons and remedies, the jobs that try again, and flags of clips."""
    failures = answer_or_stop(failures_table, lake)
    if len(failures):
        show_failures(lake, failures, [job for job in jobs if job.retries])
    else:
        st.info("No failures: every file could be read, and every embedding worked.")
    if status.flagged:
        st.subheader("Flagged clips")
        st.caption("Clips whose audio looks odd. They are compared like all others; the filter flag IS NULL leaves them out.")
        show_table(answer_or_stop(flags_of, lake.identity, lake.clips.table.version))


def show_failures(lake: Lake, failures: pl.DataFrame, retries: list[Job]) -> None:
    st.caption("Files and clips that could not be read or embedded, newest first. After following the advice, try again.")
    shown = failures.head(MAX_ROWS).select(
        File="title", Reason="reason", Advice="remedy", Step="stage", Time="time", Path="source"
    )
    show_table(shown, row_height=ROW, column_config={
        "Reason": st.column_config.Column(width="large"), "Advice": st.column_config.Column(width="large"),
    })
    if len(failures) > MAX_ROWS:
        st.text(f"The newest {MAX_ROWS:,} of {len(failures):,}.")
    csv_button(failures, "failures.csv", key="failures csv")
    if retries:
        st.subheader("Try again")
        show_jobs(lake, retries, key="retry")


def show_copies(lake: Lake) -> None:
    """Show files with the audio of another one, and confirmed duplicates."""
    copies = answer_or_stop(copies_of, versions_of(lake))
    if not len(copies):
        st.info("No copies: each file has audio of its own.")
    else:
        st.caption("Files of one set hold the same recording. The lake stores it once, under the first file. Deleting another "
                   "file and syncing its folder loses nothing; audio files are never touched by the lake.")
        show_table(copies.head(MAX_ROWS).select(
            Set="set", Why="kind", Title="title", Artist="artist", MB=pl.col("megabytes").round(1), File="file"
        ))
        if len(copies) > MAX_ROWS:
            st.text(f"The first {MAX_ROWS:,} of {len(copies):,} files.")
        csv_button(copies, "copies.csv", key="copies csv")
    st.caption("Other versions of a recording, such as another encoding or level, are found by comparing:")
    st.code(f"tonelake duplicates --save --lake {lake.uri}", language=None, wrap_lines=True)


def show_spaces(lake: Lake, status: Status) -> None:
    """Show spaces with their maps, and indexes."""
    if not len(status.spaces):
        st.info("Nothing is embedded yet. Embedding makes a space, in which songs can be compared.")
        return
    maps = [
        ", ".join(space.layers[number] for number in sorted(mapped_layers(lake, space)) if number < len(space.layers))
        for space in (lake.spaces.get(name) for name in status.spaces["name"])
    ]
    window = pl.col("window_s").round(1).cast(pl.String).str.strip_suffix(".0")
    show_table(status.spaces.select(
        Space="name", Default=pl.when("default").then(pl.lit("default")), Encoder="encoder", Embedded="embedded",
        Missing=pl.when(pl.col("missing") > 0).then("missing"), Layers="layers", Width="dim",
        Window=pl.format("{} s", window), Precision="precision", Run="run", Maps=pl.Series(maps, dtype=pl.String),
    ))
    st.subheader("Indexes")
    indexes = answer_or_stop(lake.list_indexes)
    if len(indexes):
        show_table(indexes.select(
            Space="space", Layer="layer", State="state", Clips="rows", Behind="behind", Gone="gone", Recall="recall",
            Kind="kind", Metric="metric", MB=pl.col("mb").round(1),
        ))
    else:
        st.info("No index yet: searches compare every clip, which is fast below about 100,000 clips.")


def show_labels(lake: Lake, status: Status) -> None:
    if status.labels:
        show_table(labels_of(lake.identity, lake.clips.table.version))
    else:
        st.info("No labels yet. A CSV file of labels is added by `tonelake ingest folder PATH --labels FILE.csv`.")


lake = page_lake()
st.title("Library", anchor=False)
versions = answer_or_stop(versions_of, lake)
status, jobs = answer_or_stop(status_and_jobs, versions)
songs = answer_or_stop(songs_of, versions)
stored = songs.filter(pl.col("clip_id").is_not_null() & (pl.col("state") != SUPERSEDED))
figures = {
    "Songs": f"{status.tracks:,}", "Artists": f"{stored['artist'].drop_nulls().n_unique():,}",
    "Hours": f"{status.hours:,.1f}", "Clips": f"{status.clips:,}",
} | ({"Failures": f"{status.failures:,}"} if status.failures else {})
with st.container(horizontal=True, gap="medium"):
    for label, value in figures.items():
        st.metric(label, value, width="content")

if not status.clips:
    st.info("This lake has no songs yet. Add a folder of music to begin.")
job_panel(lake, [job for job in jobs if job.kind != "sync"])
folders = [job for job in jobs if job.kind == "sync"]
if status.clips:
    with st.expander("Folders of music"):
        show_jobs(lake, folders, key="folders")
        add_folder(lake)
else:
    add_folder(lake)

names = ["Songs", "Problems", "Copies", "Spaces", "Labels"]
tabs = dict(zip(names, st.tabs(names, key="tab", bind="query-params", on_change="rerun"), strict=True))
if tabs["Songs"].open:
    with tabs["Songs"]:
        if len(songs):
            show_songs(songs)
        else:
            st.info("No songs yet.")
if tabs["Problems"].open:
    with tabs["Problems"]:
        show_problems(lake, jobs, status)
if tabs["Copies"].open:
    with tabs["Copies"]:
        show_copies(lake)
if tabs["Spaces"].open:
    with tabs["Spaces"]:
        show_spaces(lake, status)
if tabs["Labels"].open:
    with tabs["Labels"]:
        show_labels(lake, status)
show_commands(lake, jobs)
st.text(f"Lake: {lake.uri}")
