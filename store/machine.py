"""What the machine has."""

from __future__ import annotations

import os
from functools import lru_cache


@lru_cache(maxsize=1)
def memory_bytes() -> int:
    """Physical memory of this machine; 8 GB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30
