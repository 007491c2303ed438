"""The format version and the identity of a lake on disk: `lake.json` at its root, written when the lake is made.

A lake of an older format can be read, and is brought up to date by `store.upgrade`; one of a newer format is refused, since
writing to it could lose what this program does not know.

    1    clips are identified by the bytes of their file; `flag = 'superseded'` marks those whose file was replaced
    2    clips belong to recordings; a table of files; `state`; an identity
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from tonelake.store.blobs import Blobs
from tonelake.store.errors import LakeError

FILE = "lake.json"
DEFAULT_SPACE = "default_space"          # key of the file
FIRST = 1                                # the format of a lake without the file
FIRST_WITH_STATES = 2                    # before, `flag` says that a clip is superseded
NEWEST = 2                               # the format that this program writes; a higher number needs a step in `store.upgrade`


def newest_format() -> int:
    """The newest format that this program knows, which is the one it writes."""
    return NEWEST


def format_of(files: Blobs) -> int:
    """The format of a lake; 1 for a lake made before formats were written.  Raises LakeError if the file is damaged."""
    return format_in(files.read(FILE), files.uri)


def format_in(text: str | None, uri: str) -> int:
    """The format in the content of `lake.json`, as `format_of`; `uri` names the lake in errors."""
    if text is None:
        return FIRST
    try:
        found = json.loads(text)["format"]
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"format {found!r}")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(
            f"{FILE} of the lake at {uri}: cannot be read ({error}). Write {{\"format\": {newest_format()}}} into it"
        ) from error


def read_values(files: Blobs) -> dict[str, Any]:
    """The content of `lake.json`; empty if it does not exist or is damaged.  Keys of other programs are kept when it is
    written."""
    return values_in(files.read(FILE))


def values_in(text: str | None) -> dict[str, Any]:
    """The values in the content of `lake.json`, as `read_values`."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def identity_in(values: dict[str, Any]) -> str:
    """The identity of a lake, made once with it; empty for a lake that was made before there were any."""
    found = values.get("identity")
    return found if isinstance(found, str) else ""


def default_space_of(files: Blobs) -> str | None:
    """The name of the space that commands use unless one is named; None if none was set."""
    found = read_values(files).get(DEFAULT_SPACE)
    return found if isinstance(found, str) else None


def write_default_space(files: Blobs, name: str | None) -> None:
    """Set the default space, or with None leave the choice to `Spaces.default`.  Older programs ignore it."""
    values = {"format": format_of(files)} | read_values(files) | {DEFAULT_SPACE: name}
    files.put_text(FILE, json.dumps({key: value for key, value in values.items() if value is not None}) + "\n")


def check_format(text: str | None, uri: str) -> tuple[int, str]:
    """The format and the identity in the content of `lake.json`.  Raises LakeError for a format that this program does not
    know; `uri` names the lake."""
    found = format_in(text, uri)
    if found > newest_format():
        raise LakeError(
            f"lake at {uri}: has format {found}, but this tonelake knows formats up to {newest_format()}. Install a "
            "newer tonelake"
        )
    return found, identity_in(values_in(text))


def refusal_to_write(uri: str, found: int) -> str:
    """The error text for writing clips to a lake of an older format; empty for the newest."""
    if found >= newest_format():
        return ""
    return (
        f"lake at {uri}: has format {found}, older than {newest_format()}: it can be read, but its clips cannot be changed. "
        "Upgrade it with `tonelake verify --repair`, which keeps all vectors"
    )


def write_format(files: Blobs, version: int | None = None) -> None:
    """Write the newest format unless one is written already; with `version`, replace it by that one."""
    about = "a lake of tonelake: clips, vectors, indexes, runs"
    stored = read_values(files)
    identity = identity_in(stored) or uuid.uuid4().hex
    values = {"format": version or newest_format(), "about": about, "identity": identity}
    text = json.dumps(stored | values) + "\n"
    if version is None:
        files.write_once(FILE, text)
    else:
        files.put_text(FILE, text)
