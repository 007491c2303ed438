"""Repeat an ingest that the lake recorded (`store.ingests`), with exactly its options.

    for ingest in lake.ingests.all():
        if can_repeat(ingest):
            repeat_ingest(lake, ingest)          # -> IngestReport

Options come from the lake, a file that anybody may have written: those that the ingest does not have are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tonelake.ingest.audio_files import audio_files
from tonelake.ingest.beets import ingest_beets, last_listed
from tonelake.ingest.folder import ingest_folder
from tonelake.ingest.jellyfin.sync import repeat_jellyfin
from tonelake.ingest.manifest import ingest_manifest, read_manifest
from tonelake.ingest.report import IngestReport
from tonelake.ingest.sources import to_path
from tonelake.ingest.subsonic.sync import repeat_subsonic
from tonelake.store import Ingest, InputError, Lake

FOLDER = "folder"
NOT_STORED = frozenset({"lake", "workers", "leave_out"})     # parameters that say nothing about the clips


class Kind(NamedTuple):
    """How ingests of one kind are repeated."""

    run: Callable[..., IngestReport]     # (lake, root, **options)
    files: Callable[[Lake, Ingest], Iterable[Path]] | None           # audio files that it reads; None: not on a disk


def files_of_manifest(lake: Lake, ingest: Ingest) -> list[Path]:
    recordings, _ = read_manifest(Path(ingest.root), ingest.options.get("multi", ()))
    return [to_path(recording.source) for recording in recordings]


KINDS = {
    FOLDER: Kind(ingest_folder, lambda lake, ingest: audio_files(Path(ingest.root))),
    "manifest": Kind(ingest_manifest, files_of_manifest),
    "subsonic": Kind(repeat_subsonic, None),
    "jellyfin": Kind(repeat_jellyfin, None),
    "beets": Kind(ingest_beets, lambda lake, ingest: map(to_path, sorted(last_listed(lake, ingest.root)))),
}


def can_repeat(ingest: Ingest) -> bool:
    """Whether this version knows how to repeat an ingest of this kind."""
    return ingest.kind in KINDS


def listed_files(lake: Lake, ingest: Ingest) -> Iterable[Path] | None:
    """The audio files that an ingest reads, whether they exist or not; None for one that reads from a server.

    Those that a library of beets listed at its last ingest.  Raises InputError if a manifest cannot be read.
    """
    files = KINDS[ingest.kind].files
    return None if files is None else files(lake, ingest)


def repeat_ingest(
    lake: Lake, ingest: Ingest, *, leave_out: Collection[Path] = (), workers: int | None = None
) -> IngestReport:
    """Run a recorded ingest again.  `leave_out`: files of a folder that are being written, which a later ingest reads.

    Raises InputError for a kind or an option that this version does not have, and as the ingest does.
    """
    if ingest.kind not in KINDS:
        raise InputError(
            f"{ingest.root}: was ingested by `tonelake ingest {ingest.kind}`, which cannot be repeated here. Run that command"
        )
    run = KINDS[ingest.kind].run
    parameters = list(inspect.signature(run).parameters)
    unknown = sorted(set(ingest.options) - (set(parameters[2:]) - NOT_STORED))
    if unknown:
        raise InputError(
            f"{ingest.root}: was ingested with the option {unknown[0]!r}, which this version does not have. Run "
            f"`tonelake ingest {ingest.kind}` again"
        )
    options: dict[str, Any] = dict(ingest.options) | ({"leave_out": leave_out} if ingest.kind == FOLDER else {})
    return run(lake, ingest.root, **options, workers=workers)
