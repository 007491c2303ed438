"""Audio in, clips out: folders, manifests and chorales; decoding in processes that may die alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
