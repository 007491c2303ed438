"""Library page: counts, spaces, indexes, label columns and failures of the lake, and the next command to run."""

import polars as pl
import streamlit as st

from tonelake.index import mapped_layers
from tonelake.store import value_rows
from tonelake.ui import opened
from tonelake.ui.shared import answer_or_stop, count_phrase, existing_columns, page_lake

MAX_VALUES = 6                           # most common values shown for each label column
MAX_FAILURES = 1_000


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


lake = page_lake()
status = answer_or_stop(lake.status)

st.title("Library")
st.text(status.uri)
for column, (label, value) in zip(
    st.columns(5),
    {
        "Clips": f"{status.clips:,}", "Tracks": f"{status.tracks:,}", "Hours": f"{status.hours:,.1f}",
        "Flagged": f"{status.flagged:,}", "Failures": f"{status.failures:,}",
    }.items(),
    strict=True,
):
    column.metric(label, value)
st.text("Next command:")
st.code(status.next_step(), language="bash")

st.subheader("Spaces")
if len(status.spaces):
    maps = [
        ", ".join(space.layers[number] for number in sorted(mapped_layers(lake, space)) if number < len(space.layers))
        for space in (lake.spaces.get(name) for name in status.spaces["name"])
    ]
    st.dataframe(status.spaces.with_columns(pl.Series("maps of layers", maps)), hide_index=True)
    behind = status.spaces.filter(pl.col("missing") > 0)
    for name, missing in behind.select("name", "missing").iter_rows():
        st.text(f"{count_phrase(missing, 'clip is', 'clips are')} not embedded in {name} yet:")
        st.code(f"tonelake embed --space {name}", language="bash")
else:
    st.info("Nothing is embedded yet. `tonelake embed` creates a space.")

if len(status.spaces):
    st.subheader("Indexes")
    indexes = answer_or_stop(lake.list_indexes)
    if len(indexes):
        st.dataframe(indexes, hide_index=True)
        stale = indexes.filter(pl.col("state") != "up to date")
        if len(stale):
            st.text(f"{count_phrase(len(stale), 'index is', 'indexes are')} behind or damaged; "
                    "clips missing from an index are searched exactly:")
            st.code(f"tonelake index build --space {stale['space'][0]}", language="bash")
    else:
        st.info("No index yet: searches compare every clip, which is fast below about 100,000 clips. "
                "`tonelake index build` builds one.")

st.subheader("Label columns")
if status.labels:
    st.dataframe(labels_of(lake.identity, lake.clips.table.version), hide_index=True)
else:
    st.info("No labels yet. `tonelake ingest folder PATH --labels FILE.csv` adds them.")

if status.failures:
    st.subheader("Failures")
    st.caption("Files that could not be ingested or embedded, newest first. After fixing a file, run the same command again.")
    failures = answer_or_stop(lake.failures.read)
    shown = existing_columns(failures, ["time", "stage", "source", "error"])
    st.dataframe(failures.head(MAX_FAILURES).select(shown), hide_index=True)
    if len(failures) > MAX_FAILURES:
        st.text(f"The newest {MAX_FAILURES:,} of {len(failures):,}; `tonelake failures --csv` lists all.")

st.subheader("Commands")
st.dataframe(
    pl.DataFrame({
        "to": [
            "add audio", "embed every layer", "search large lakes faster", "lay out the map",
            "compare layers by a label", "train a probe on a label", "find duplicates", "compare artists",
        ],
        "run": [
            "tonelake ingest folder PATH", "tonelake embed", "tonelake index build", "tonelake map", "tonelake layers COLUMN",
            "tonelake probe COLUMN", "tonelake duplicates", "tonelake groups artist",
        ],
    }),
    hide_index=True,
)
