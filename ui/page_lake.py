"""The lake's state: how much is in it, in which spaces, what failed, and the command that comes next."""

import polars as pl
import streamlit as st

from ui.shared import the_lake

lake = the_lake()
status = lake.status()

st.title("Lake")
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
    st.dataframe(status.spaces, hide_index=True)
else:
    st.info("Nothing is embedded yet. `tonelake embed` makes a space.")

st.subheader("Label columns")
if status.labels:
    clips = lake.lake.clips.read(list(status.labels))
    st.dataframe(
        pl.DataFrame({
            "column": status.labels,
            "type": [str(clips[name].dtype) for name in status.labels],
            "clips with a value": [len(clips) - clips[name].null_count() for name in status.labels],
            "different values": [clips[name].drop_nulls().n_unique() for name in status.labels],
        }),
        hide_index=True,
    )
else:
    st.info("No labels yet. `tonelake ingest folder PATH --labels FILE.csv` brings them.")

if status.failures:
    st.subheader("Failures")
    st.dataframe(lake.failures().select("time", "stage", "source", "error"), hide_index=True)
