"""Choose what to watch: the ingests that a lake recorded, all of them or those of named folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tonelake.ingest import can_repeat
from tonelake.next_jobs import known_folders
from tonelake.store import Ingest, InputError, Lake, printable

FOLDER = "folder"


def chosen_ingests(lake: Lake, folders: Sequence[str | Path]) -> list[Ingest]:
    """Recorded ingests that can be repeated; of `folders`, if there are any, with the defaults for one that is not recorded.

    A folder inside another one that was ingested with the same options is watched as part of it.  Raises InputError if there is
    nothing to watch, or for a folder that cannot be watched by itself.
    """
    recorded = [ingest for ingest in lake.ingests.all() if can_repeat(ingest)]
    if folders:
        return [ingest_of(lake, recorded, os.path.abspath(Path(folder).expanduser())) for folder in folders]  # noqa: PTH100
    if not recorded:
        raise InputError(nothing_recorded(lake))
    return [ingest for ingest in recorded if not any(covers(other, ingest) for other in recorded)]


def covers(ingest: Ingest, other: Ingest) -> bool:
    """Whether an ingest of a folder reads the files of another one too, in the same way."""
    if ingest == other or ingest.kind != FOLDER or other.kind != FOLDER or ingest.options != other.options:
        return False
    return Path(other.root).is_relative_to(ingest.root)


def ingest_of(lake: Lake, recorded: Sequence[Ingest], root: str) -> Ingest:
    """The recorded ingest of a folder or file, else a first one; an earlier release's folder keeps its rule for clips."""
    for ingest in recorded:
        if ingest.root == root:
            return ingest
    if not Path(root).is_dir():
        raise InputError(f"{root}: is not a folder, or cannot be reached. Name a folder of music")
    for ingest in recorded:
        if ingest.kind == FOLDER and Path(root).is_relative_to(ingest.root):
            raise InputError(f"{root}: is inside {ingest.root}, which was ingested as a whole. Name that folder")
    for known in known_folders(lake):
        if known.path == root:
            options = {"seconds": known.cut.seconds, "hop": known.cut.hop_s, "per_track": known.cut.per_track}
            return Ingest(kind=FOLDER, root=root, options=options | {"dataset": known.dataset})
    return Ingest(kind=FOLDER, root=root)


def nothing_recorded(lake: Lake) -> str:
    """The error for a lake without recorded ingests: it is new, or an earlier release filled it."""
    known = known_folders(lake)
    if not known:
        return "the lake: no folder was ingested. Name one, as in `tonelake watch ~/Music`, or run `tonelake ingest` first"
    return (
        "the lake: has no record of how its folders were ingested, since an earlier release did it. Run the ingest once more, "
        f"or name the folders: tonelake watch {' '.join(folder.path for folder in known)}"
    )


def short_names(roots: Sequence[str]) -> list[str]:
    """A short name for each root: its last part, and as many parts before it as tell it from the others.

    >>> short_names(["/music/Jazz", "/nas/Jazz", "/music/Rock", "https://home.example/music"])
    ['music/Jazz', 'nas/Jazz', 'Rock', 'home.example/music']
    """
    parts = [root.split("://", 1)[-1].rstrip("/").split("/") if "://" in root else list(Path(root).parts) for root in roots]
    lengths = [2 if "://" in root else 1 for root in roots]
    while True:
        names = ["/".join(own[-length:]).replace("//", "/") for own, length in zip(parts, lengths, strict=True)]
        counts = Counter(names)
        longer = [
            length + (counts[name] > 1 and length < len(own)) for name, own, length in zip(names, parts, lengths, strict=True)
        ]
        if longer == lengths:
            return [printable(name) for name in names]
        lengths = longer
