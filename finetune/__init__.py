"""LoRA fine-tunes of an encoder, from the lake and back into it.  Importing this loads no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
