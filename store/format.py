"""The version of what a lake is on disk: `lake.json` at its root, written when a lake is made.

A lake of an older version is read as it is, or brought up by what stands in UPGRADES; one of a newer version is refused, since
what this program does not know of it could be lost by writing to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from store.errors import LakeError
from store.files import LakeFiles

if TYPE_CHECKING:
    from store.lake import Lake

FILE = "lake.json"
FORMAT = 1                               # raise it with anything that an older program would misread
# What brings a lake from the version before to the one that is the key; run in order by `tonelake verify --repair`.
UPGRADES: dict[int, Callable[[Lake], None]] = {}


def format_of(files: LakeFiles) -> int:
    """The version of a lake; 1 for one that was made before versions were written.  Raises LakeError for a damaged file."""
    text = files.read(FILE)
    if text is None:
        return 1
    try:
        found = json.loads(text)["format"]
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"format {found!r}")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(
            f"{FILE} of the lake at {files.uri} cannot be read ({error}): write {{\"format\": {FORMAT}}} into it"
        ) from error


def check_format(files: LakeFiles) -> None:
    """Raise LakeError for a lake of a newer program, or of an older one that has to be brought up."""
    found = format_of(files)
    if found > FORMAT:
        raise LakeError(
            f"the lake at {files.uri} has format {found}, and this tonelake knows formats up to {FORMAT}: install a newer one"
        )
    waiting = [version for version in UPGRADES if version > found]
    if waiting:
        raise LakeError(f"the lake at {files.uri} has format {found}: bring it to {FORMAT} by `tonelake verify --repair`")


def write_format(files: LakeFiles) -> None:
    """Say which version a new lake has; nothing where it is said already."""
    files.write_once(FILE, json.dumps({"format": FORMAT, "about": "a lake of tonelake: clips, vectors, indexes, runs"}) + "\n")
