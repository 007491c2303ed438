"""Answers from stored vectors: similar clips, separation of groups, maps and tokens."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
