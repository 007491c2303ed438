"""The app's lake, opened once and shared by all viewers, pages and routes.  A lake that was replaced is opened again."""

import os
from functools import lru_cache

import tonelake
from tonelake import Lake
from tonelake.serve.opened import identity_on_disk
from tonelake.store import prepare_process

LAKE_VARIABLE = "TONELAKE_LAKE"


def opened_lake() -> Lake:
    """Return the lake named by TONELAKE_LAKE.  Raises LakeError if it does not exist or cannot be opened."""
    path = os.environ.get(LAKE_VARIABLE, "lake")
    return _open(path, identity_on_disk(path))


@lru_cache(maxsize=4)                    # failures are not cached, so a missing lake is retried
def _open(path: str, identity: tuple[int, str] | None) -> Lake:
    prepare_process()
    return tonelake.open(path, create=False, progress=False)
