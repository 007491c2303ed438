"""Classifiers and regressors on stored vectors: every layer and setting at once.  Importing this loads no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
