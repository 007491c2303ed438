"""The app: Streamlit pages that render what the lake holds.  Nothing is computed here that a command cannot compute."""

from pathlib import Path

APP = Path(__file__).parent / "app.py"
