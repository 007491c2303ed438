"""Pages of the app.  Streamlit runs these files as scripts."""
