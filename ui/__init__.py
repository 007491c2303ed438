"""The Streamlit app.  Pages render results of the rooms below; every figure shown can also be computed by a command."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
