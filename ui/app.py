"""Entry script of the app.  Streamlit runs it for every visitor and every interaction."""

from functools import partial
from pathlib import Path

import streamlit as st

from tonelake.ui.components import player_bar
from tonelake.ui.frame import MOVED, PAGES, STYLE, errors_as_sentences, forward

HOME = Path(__file__).parent

# No ":material/…:" icon as page icon or in the navigation: the browser would fetch it from a public host.
st.set_page_config(page_title="tonelake", page_icon=str(HOME / "icon.svg"), layout="wide")

# This constant is the only markup that the app writes unescaped.
st.markdown(f"<style>{STYLE}</style>", unsafe_allow_html=True)


pages = {
    name: st.Page(f"pages/{name}.py", title=title, url_path=name, default=name == "listen") for name, title in PAGES.items()
}
moved = [
    st.Page(partial(forward, pages[page], renamed), title=pages[page].title, url_path=old, visibility="hidden")
    for old, (page, renamed) in MOVED.items()
]
chosen = st.navigation([*pages.values(), *moved], position="top")
player_bar()
with errors_as_sentences():
    chosen.run()
