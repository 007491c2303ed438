"""The Lake: LanceDB tables, embedding spaces and runs on disk.  Imports nothing of ours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
