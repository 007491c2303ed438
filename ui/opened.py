"""The lake that the app was started for, opened once for all its viewers, pages and routes."""

import os
from functools import lru_cache

import tonelake
from tonelake.api import Tonelake
from tonelake.store import prepare_process

LAKE_VARIABLE = "TONELAKE_LAKE"


def opened_lake() -> Tonelake:
    """Raises LakeError where there is no lake, or it cannot be opened."""
    return _open(os.environ.get(LAKE_VARIABLE, "lake"))


@lru_cache(maxsize=4)                    # what cannot be opened is not kept, and tried again
def _open(path: str) -> Tonelake:
    prepare_process()
    return tonelake.open(path, create=False, progress=False)
