"""The lake's state: how much is in it, in which spaces and indexes, what failed, and the command that comes next."""

import polars as pl
import streamlit as st

from tonelake.index import mapped_layers
from tonelake.ui import opened
from tonelake.ui.shared import asked, columns_of, counted, the_lake

MOST_VALUES = 6                          # of a label column, told beside it
MOST_FAILURES = 1_000


@st.cache_data(max_entries=4, show_spinner=False)
def labels_of(uri: str, version: int) -> pl.DataFrame:
    """What each label column holds, kept for as long as clips do not change."""
    clips = opened.opened_lake().lake.clips
    told = []
    for name in clips.label_columns():
        column = clips.read([name])[name]
        values = column.explode() if isinstance(column.dtype, pl.List) else column
        counts = values.drop_nulls().cast(pl.String).alias("value").value_counts()
        counts = counts.sort(["count", "value"], descending=[True, False])
        common = [f"{value} ({number:,})" for value, number in counts.head(MOST_VALUES).iter_rows()]
        told.append({
            "column": name, "type": str(column.dtype), "clips with a value": len(column) - column.null_count(),
            "different values": len(counts), "most common": ", ".join(common) + (" …" if len(counts) > MOST_VALUES else ""),
        })
    return pl.DataFrame(told)


lake = the_lake()
status = asked(lake.status)

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
st.text("Next:")
st.code(status.next_step(), language="bash")

st.subheader("Spaces")
if len(status.spaces):
    maps = [
        ", ".join(space.layers[number] for number in sorted(mapped_layers(lake.lake, space)) if number < len(space.layers))
        for space in (lake.lake.spaces.get(name) for name in status.spaces["name"])
    ]
    st.dataframe(status.spaces.with_columns(pl.Series("maps of layers", maps)), hide_index=True)
    behind = status.spaces.filter(pl.col("missing") > 0)
    for name, missing in behind.select("name", "missing").iter_rows():
        st.text(f"{counted(missing, 'clip is', 'clips are')} not embedded in {name} yet:")
        st.code(f"tonelake embed --space {name}", language="bash")
else:
    st.info("Nothing is embedded yet. `tonelake embed` makes a space.")

if len(status.spaces):
    st.subheader("Indexes")
    indexes = asked(lake.indexes)
    if len(indexes):
        st.dataframe(indexes, hide_index=True)
        stale = indexes.filter(pl.col("state") != "up to date")
        if len(stale):
            st.text(f"{counted(len(stale), 'index is', 'indexes are')} behind or damaged; what one lacks is searched exactly:")
            st.code(f"tonelake index build --space {stale['space'][0]}", language="bash")
    else:
        st.info("None: every search looks at every clip, which is fast below some 100,000. `tonelake index build` makes one.")

st.subheader("Label columns")
if status.labels:
    st.dataframe(labels_of(lake.lake.uri, lake.lake.clips.table.version), hide_index=True)
else:
    st.info("No labels yet. `tonelake ingest folder PATH --labels FILE.csv` brings them.")

if status.failures:
    st.subheader("Failures")
    st.caption("What could not be ingested or embedded, newest first. Mended files are taken by the same command, run again.")
    failures = asked(lake.failures)
    shown = columns_of(failures, ["time", "stage", "source", "error"])
    st.dataframe(failures.head(MOST_FAILURES).select(shown), hide_index=True)
    if len(failures) > MOST_FAILURES:
        st.text(f"The newest {MOST_FAILURES:,} of {len(failures):,}; `tonelake failures --csv` gives all.")

st.subheader("Commands")
st.dataframe(
    pl.DataFrame({
        "to": [
            "bring audio in", "embed it, every layer", "search fast among very many", "lay out the map",
            "compare layers by a label", "train a probe on a label", "find copies", "compare artists",
        ],
        "run": [
            "tonelake ingest folder PATH", "tonelake embed", "tonelake index build", "tonelake map", "tonelake layers COLUMN",
            "tonelake probe COLUMN", "tonelake duplicates", "tonelake groups artist",
        ],
    }),
    hide_index=True,
)
