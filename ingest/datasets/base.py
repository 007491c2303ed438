"""The form of a published data set, and what its readers share.

A data set is a module of this package with a `DATASET`, or a `DataSet` that another package names in its metadata as an
entry point of group `tonelake.datasets`.  Its `read` takes the folder that the set unpacks to and returns the files that
the set lists, each with its track and labels.  Published splits go into the column `split` as train, valid and test.
The command line imports every data set to list it: import polars, numpy and other heavy libraries inside `read`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tonelake.ingest.audio_files import SUFFIXES, audio_files
from tonelake.ingest.text_links import follow_text_link
from tonelake.store import InputError

AUDIO_SUFFIXES = SUFFIXES | {".au"}
SPLITS = {"train": "train", "training": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
UNKNOWN_LICENCE = "see the set's page"
MIX = "mix"                              # value of column `stem` for a whole song; others are instruments


class ListedFile(NamedTuple):
    """One audio file of a set, or a part of one."""

    path: Path
    track: str
    labels: dict[str, Any]
    span: tuple[float, float] | None = None          # start and length in seconds of the only clip; None: the file is cut


@dataclass(frozen=True)
class Listed:
    """The files that a set's tables or folders list, and notes for the report."""

    files: list[ListedFile]
    notes: tuple[str, ...] = ()
    left_out: tuple[Path, ...] = ()      # audio files that `notes` mention; others that are not in `files` are reported


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A published data set and how to read it."""

    title: str                           # one line: name and content; the help text of its command
    citation: str
    licence: str
    layout: str                          # example of the folder's layout, for error messages
    read: Callable[[Path], Listed]       # raises InputError if the folder does not hold the set
    seconds: float | None = None         # default length of a clip; None: whole files
    events: bool = False                 # its folder holds label files of notes, beats or keys: see docs/events.md


def find(folder: Path, name: str) -> Path | None:
    """The file called `name` that is nearest to `folder`, in it or below; None if there is none.

    A link that was unpacked as text is followed within the folder.
    """
    path = min(folder.rglob(name), key=lambda path: (len(path.parts), str(path)), default=None)
    return follow_text_link(path, folder) if path is not None else None


def sub_folders(folder: Path) -> list[Path]:
    """The folder itself and the folders directly in it, sorted."""
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def audio_below(folder: Path) -> Iterator[Path]:
    """Audio files below a folder, sorted by name within each folder, including formats of old sets (.au)."""
    return (path for path in audio_files(folder, AUDIO_SUFFIXES) if path.is_file())


def inside(folder: Path, path: str) -> Path:
    """A table's path, below `folder`.  Raises InputError if it leads out of the folder."""
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise InputError(f"{folder}: one of its tables names the file {path!r}, which is outside the folder")
    return folder / path
