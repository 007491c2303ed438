"""The app: Streamlit pages that render what the lake holds.  Nothing is computed here that a command cannot compute."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
