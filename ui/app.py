"""The app's entry: Streamlit runs this script for every visitor and click."""

from pathlib import Path

import streamlit as st

# No :material/…: icon as page icon or in navigation: the browser would fetch it from a public host.
st.set_page_config(page_title="tonelake", page_icon=str(Path(__file__).parent / "icon.svg"), layout="wide")

pages = [
    st.Page("page_lake.py", title="Lake", default=True),
    st.Page("page_listen.py", title="Listen"),
]
st.navigation(pages, position="top").run()
