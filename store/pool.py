"""Where Arrow's memory comes from.

Arrow's own choice, mimalloc, does not give back what one thread allocates and another frees, and Lance frees on its own
threads what we hand it: 1 KB a clip stayed behind for each clip embedded, 100 MB in 100,000.  With jemalloc nothing does,
and reading is not slower.
"""

from __future__ import annotations

import os

import pyarrow as pa

CHOICE = "ARROW_DEFAULT_MEMORY_POOL"      # Arrow's own variable: who sets it decides


def choose_pool() -> None:
    """Let Arrow take jemalloc from here on, where it was built with it and nobody chose otherwise."""
    if CHOICE not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
