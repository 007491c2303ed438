"""Entry script of the app.  Streamlit runs it for every visitor and every interaction."""

from pathlib import Path

import streamlit as st

# No ":material/…:" icon as page icon or in the navigation: the browser would fetch it from a public host.
st.set_page_config(page_title="tonelake", page_icon=str(Path(__file__).parent / "icon.svg"), layout="wide")

# Streamlit leaves an inch above the page.  This constant is the only markup that the app writes unescaped.
st.markdown("<style>.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 3rem; }</style>", unsafe_allow_html=True)

pages = [
    st.Page("pages/library.py", title="Library", url_path="library", default=True),
    st.Page("pages/map.py", title="Map", url_path="map"),
    st.Page("pages/similar.py", title="Similar", url_path="similar"),
    st.Page("pages/groups.py", title="Groups", url_path="groups"),
    st.Page("pages/layers.py", title="Layers", url_path="layers"),
    st.Page("pages/runs.py", title="Probes", url_path="probes"),
    st.Page("pages/notes.py", title="Notes", url_path="notes"),
]
st.navigation(pages, position="top").run()
