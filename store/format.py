"""The version of what a lake is on disk: `lake.json` at its root, written when a lake is made.

A lake of an older version is read as it is, or brought up by what stands in UPGRADES; one of a newer version is refused, since
what this program does not know of it could be lost by writing to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from tonelake.store.blobs import Blobs
from tonelake.store.errors import LakeError

if TYPE_CHECKING:
    from tonelake.store.lake import Lake

FILE = "lake.json"
FIRST = 1                                # the format of lakes that do not say theirs
# For anything that an older program would misread, the next number, and what brings a lake from the number before to it; run
# in order by `tonelake verify --repair`.
UPGRADES: dict[int, Callable[[Lake], None]] = {}


def format_of(files: Blobs) -> int:
    """The version of a lake; 1 for one that was made before versions were written.  Raises LakeError for a damaged file."""
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
            f"{FILE} of the lake at {files.uri} cannot be read ({error}): write {{\"format\": {newest_format()}}} into it"
        ) from error


def check_format(files: Blobs, *, older: bool = False) -> None:
    """Raise LakeError for a lake of a newer program, or, unless `older` ones are welcome, of one that has to be brought up."""
    found = format_of(files)
    if found > newest_format():
        raise LakeError(
            f"the lake at {files.uri} has format {found}, and this tonelake knows formats up to {newest_format()}: install a newer one"
        )
    if pending_upgrades(found) and not older:
        raise LakeError(f"the lake at {files.uri} has format {found}: bring it to {newest_format()} by `tonelake verify --repair`")


def newest_format() -> int:
    """The newest format that this program knows, which is the one that it writes."""
    return max(UPGRADES, default=FIRST)


def pending_upgrades(found: int) -> list[int]:
    """The upgrades that a lake of format `found` still has before it, in order."""
    return sorted(version for version in UPGRADES if version > found)


def upgrade(lake: Lake) -> list[int]:
    """Bring a lake up to what this program writes; the formats that it went through.

    Each step is noted once it is done: cut short, the next call goes on with the step that was under way, so a step has to
    bear being run twice.
    """
    files = lake.files("")
    steps = pending_upgrades(format_of(files))
    for version in steps:
        UPGRADES[version](lake)
        files.put_text(FILE, text_of(version))
    return steps


def text_of(version: int) -> str:
    return json.dumps({"format": version, "about": "a lake of tonelake: clips, vectors, indexes, runs"}) + "\n"


def write_format(files: Blobs) -> None:
    """Say which version a new lake has; nothing where it is said already."""
    files.write_once(FILE, text_of(newest_format()))
