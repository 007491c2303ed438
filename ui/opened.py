"""The app's lake, opened once and shared by all viewers, pages and routes.  A lake that was replaced is opened again."""

import json
import os
from functools import lru_cache
from pathlib import Path

import tonelake
from tonelake import Lake
from tonelake.store import prepare_process

LAKE_VARIABLE = "TONELAKE_LAKE"


def opened_lake() -> Lake:
    """Return the lake named by TONELAKE_LAKE.  Raises LakeError if it does not exist or cannot be opened."""
    path = os.environ.get(LAKE_VARIABLE, "lake")
    return _open(path, identity_on_disk(path))


def identity_on_disk(path: str) -> tuple[int, str] | None:
    """Return what distinguishes the lake in a folder from one that replaces it; None for a URI, or where there is no folder."""
    try:
        inode = Path(path).stat().st_ino
    except OSError:
        return None
    try:
        values = json.loads((Path(path) / "lake.json").read_bytes())
    except (OSError, ValueError):        # of the first releases, or damaged, which `tonelake.open` reports
        return inode, ""
    return inode, str(values.get("identity", "")) if isinstance(values, dict) else ""


@lru_cache(maxsize=4)                    # failures are not cached, so a missing lake is retried
def _open(path: str, identity: tuple[int, str] | None) -> Lake:
    prepare_process()
    return tonelake.open(path, create=False, progress=False)
