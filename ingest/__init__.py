"""Turn audio into clips: folders, manifests, data sets, catalogues and chorales; decoding in separate processes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
