"""Where Arrow's memory comes from.

Arrow's own choice, mimalloc, kept a kilobyte of every clip embedded, 100 MB in 100,000: likely what one thread allocates and
one of Lance's frees.  With jemalloc, as with the system's allocator, nothing stays, and reading is not slower.
"""

from __future__ import annotations

import os

import pyarrow as pa

CHOICE = "ARROW_DEFAULT_MEMORY_POOL"      # Arrow's own variable: who sets it decides


def choose_pool() -> None:
    """Let Arrow take jemalloc from here on, where it was built with it and nobody chose otherwise."""
    if CHOICE not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
