"""The app's entry: Streamlit runs this script for every visitor and click."""

import streamlit as st

st.set_page_config(page_title="tonelake", page_icon=":material/graphic_eq:", layout="wide")

pages = [
    st.Page("page_lake.py", title="Lake", icon=":material/water:", default=True),
    st.Page("page_listen.py", title="Listen", icon=":material/headphones:"),
]
st.navigation(pages, position="top").run()
