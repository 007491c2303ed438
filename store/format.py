"""The format version of a lake on disk: `lake.json` at its root, written when the lake is made.

A lake of an older format is brought up to date by `store.upgrade`; one of a newer format is refused, since writing to it could
lose what this program does not know.
"""

from __future__ import annotations

import json

from tonelake.store.blobs import Blobs
from tonelake.store.errors import LakeError

FILE = "lake.json"
FIRST = 1                                # the format of a lake without the file
NEWEST = 1                               # the format that this program writes; a higher number needs a step in `store.upgrade`


def newest_format() -> int:
    """The newest format that this program knows, which is the one it writes."""
    return NEWEST


def format_of(files: Blobs) -> int:
    """The format of a lake; 1 for a lake made before formats were written.  Raises LakeError if the file is damaged."""
    text = files.read(FILE)
    if text is None:
        return FIRST
    try:
        found = json.loads(text)["format"]
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"format {found!r}")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(
            f"{FILE} of the lake at {files.uri}: cannot be read ({error}). Write {{\"format\": {newest_format()}}} into it"
        ) from error


def check_format(files: Blobs, *, older: bool = False) -> None:
    """Raise LakeError for a newer format than this program knows and, unless `older`, for one that has to be upgraded first."""
    found = format_of(files)
    if found > newest_format():
        raise LakeError(
            f"lake at {files.uri}: has format {found}, but this tonelake knows formats up to {newest_format()}. Install a "
            "newer tonelake"
        )
    if found < newest_format() and not older:
        raise LakeError(
            f"lake at {files.uri}: has format {found}, older than {newest_format()}. Upgrade it with `tonelake verify --repair`"
        )


def write_format(files: Blobs, version: int | None = None) -> None:
    """Write the newest format unless one is written already; with `version`, replace it by that one."""
    about = "a lake of tonelake: clips, vectors, indexes, runs"
    text = json.dumps({"format": version or newest_format(), "about": about}) + "\n"
    if version is None:
        files.write_once(FILE, text)
    else:
        files.put_text(FILE, text)
