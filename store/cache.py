"""Where tonelake keeps files that belong to no lake: locks, and the working files of runs whose lake is on an object store."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "TONELAKE_CACHE"


def cache_folder() -> Path:
    """The folder named by TONELAKE_CACHE, else the platform's cache folder for tonelake.  Not created here."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("tonelake", appauthor=False)
