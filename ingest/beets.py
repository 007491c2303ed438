"""Ingest a music library of beets, as a sync: its songs as clips, with the tags and attributes that beets has for them.

A tag of beets wins over the file's, and is stored as a label is, so that later reads of the file leave it alone; where beets
has no value, the file's tag counts.  Songs that beets moved keep their clips.  Files that beets lists and that are not on the
disk are marked missing.  Songs that were removed from beets while their file stayed leave every answer (their clips are
superseded), unless a folder that was ingested holds the file.  For that the lake keeps the sources of the last ingest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from tonelake.ingest.audio_files import clean_name
from tonelake.ingest.beets_config import beets_music_folder
from tonelake.ingest.beets_library import BeetsItem, attribute_columns, read_beets_library
from tonelake.ingest.file_stamps import is_gone
from tonelake.ingest.file_table import FileTable
from tonelake.ingest.labels import check_label_columns, stored_as_text
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import is_there, to_path, to_source
from tonelake.store import InputError, Lake, sync_clips

KIND = "beets"                           # of the record of ingests
SHOWN = 3                                # files that a note names


def ingest_beets(
    lake: Lake, library: str | Path, *, music: str | Path | None = None, attributes: Sequence[str] = (),
    seconds: float | None = 30.0, hop: float | None = None, per_track: int | None = None, dataset: str | None = None,
    workers: int | None = None,
) -> IngestReport:
    """Bring the lake in step with a library of beets, the file that `beet config` names `library`.  It is only read.

    `music`: beets' music folder, which paths in newer libraries are relative to; None: as beets' configuration says.
    `attributes`: fields of beets and flexible attributes that become label columns, such as mood, bpm, genres, mb_trackid.
    `seconds`, `hop`, `per_track`, `dataset`: as for `ingest_folder`.
    Raises InputError, before anything is written, if the file is not such a library, if an attribute cannot be stored, or if
    none of its files is on the disk.
    """
    lake.check_writable()
    cut, library = Cut(seconds, hop, per_track), Path(library).expanduser()
    every = read_beets_library(library, attributes, lake.clips.label_columns())
    items = [item for item in every if item.path and b"\0" not in item.path]
    check_attributes(lake, library, items, attributes)
    root = music_folder(library, items, None if music is None else Path(music).expanduser())
    recordings = recordings_of(items, root)
    notes = notes_on_items(len(every) - len(items), len(items) - len(recordings))
    here = [recording for recording in recordings if is_there(to_path(recording.source))]
    if not here:
        first = f"; the first is {to_path(recordings[0].source)}" if recordings else ""
        raise InputError(
            f"{library.name}: none of its {len(items):,} files is on the disk{first}. Connect the disk, or give beets' music "
            "folder with --music; nothing was marked as missing"
        )
    name = os.path.abspath(library)      # noqa: PTH100 - keeps links
    listed = {recording.source for recording in recordings}
    absent = sorted(listed - {recording.source for recording in here})
    lake.ingests.record(KIND, name, {
        "seconds": seconds, "hop": hop, "per_track": per_track, "dataset": dataset, "attributes": list(attributes),
        "music": None if music is None else os.path.abspath(Path(music).expanduser()),     # noqa: PTH100
    })
    before = last_listed(lake, name)
    keep_listed(lake, name, before | listed)             # until the ingest is done: it can be interrupted
    gone = sorted(before - listed)
    removed = drop_removed(lake, [source for source in gone if not is_gone(source)])
    report = ingest_recordings(lake, here, cut, dataset=dataset, workers=workers, checked=[*absent, *gone])
    keep_listed(lake, name, listed)
    notes = (*notes, *note(absent, "that beets lists are not on the disk"))
    notes += note(removed, "were removed from beets; their clips are left out of answers from now on")
    return replace(report, notes=(*notes, *report.notes))


def check_attributes(lake: Lake, library: Path, items: Sequence[BeetsItem], attributes: Sequence[str]) -> None:
    """Raise InputError if an attribute cannot be stored as a label column.  Numbers for a column of text become text."""
    columns = list(attribute_columns(attributes))
    check_label_columns(library, columns)
    if "track" in columns:
        raise InputError("attribute 'track': is read as track_number. Leave it out of --attributes")
    as_text = set(stored_as_text(lake)) & set(columns)
    for item in items:
        for column in as_text:
            value = item.attributes[column]
            if isinstance(value, int | float):
                item.attributes[column] = str(value)
    if columns:
        frame = pl.DataFrame([item.attributes for item in items], schema=columns, infer_schema_length=None, strict=False)
        try:
            lake.clips.check_labels(frame)
        except InputError as error:
            raise InputError(f"{library.name}: {error}") from error


def music_folder(library: Path, items: Sequence[BeetsItem], given: Path | None) -> Path:
    """The folder that paths of items are relative to, and that names of tracks start at.

    Raises InputError if it is needed and not known, or if it is not a folder.
    """
    if not items:
        raise InputError(f"{library.name}: holds no songs. Import some with `beet import`; nothing was marked as missing")
    relative = any(not os.path.isabs(os.fsdecode(item.path)) for item in items)            # noqa: PTH117
    if given is None and not relative:
        folders = {os.path.dirname(os.fsdecode(item.path)) for item in items}              # noqa: PTH120
        return Path(os.path.commonpath(folders))
    found = given or beets_music_folder(library)
    if found is None:
        raise InputError(
            f"{library.name}: has paths relative to beets' music folder, and no configuration of beets belongs to it. Give the "
            "folder with --music (`beet config` shows it as directory)"
        )
    if not found.is_dir():
        raise InputError(
            f"{found}: is not a folder, or cannot be reached. Connect the disk, or give beets' music folder with --music; "
            "nothing was marked as missing"
        )
    return found


def recordings_of(items: Sequence[BeetsItem], root: Path) -> list[Recording]:
    """One recording a file, its track named by the path below `root`; of several items of one file the last one."""
    found: dict[str, Recording] = {}
    for item in items:
        source = to_source(root / os.fsdecode(item.path))
        found[source] = Recording(
            source=source, track=track_name(to_path(source), root), labels=item.tags | item.attributes, named_by_path=True,
            empties=True,
        )
    return list(found.values())


def notes_on_items(impossible: int, repeated: int) -> tuple[str, ...]:
    """Notes on items without a possible path, and on those that have the file of another one."""
    notes = []
    if impossible:
        notes.append(f"{impossible} items have no path, or one that no file can have, and were left out")
    if repeated:
        notes.append(f"{repeated} items have the file of another item; the last of them counts")
    return tuple(notes)


def track_name(path: Path, root: Path) -> str:
    """The name of a file's track: its path below the music folder, or its name for a file elsewhere."""
    folder = os.path.abspath(root)       # noqa: PTH100 - keeps links
    return clean_name(path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name)


def drop_removed(lake: Lake, sources: Sequence[str]) -> list[str]:
    """Supersede the clips of files that beets does not list any more, unless a folder that was ingested holds the file.

    Returns the sources of these files.  An ingest that finds a file again brings its clips back.
    """
    folders = [ingest.root.rstrip("/") + "/" for ingest in lake.ingests.all() if ingest.kind == "folder"]
    removed = [source for source in sources if not any(str(to_path(source)).startswith(folder) for folder in folders)]
    files = FileTable(lake)
    removed = [source for source in removed if (files.row(source) or {}).get("recording") is not None]
    if removed:
        for source in removed:
            files.note_unused(source)
        files.flush()
        sync_clips(lake)
    return removed


def last_listed(lake: Lake, library: str) -> set[str]:
    """Sources that this library listed at its last ingest."""
    text = lake.files("ingests").read(listing_name(library))
    try:
        found = json.loads(text) if text else []
    except ValueError:                   # damaged: as if it were the first ingest
        found = []
    return {source for source in found if isinstance(source, str)} if isinstance(found, list) else set()


def keep_listed(lake: Lake, library: str, sources: set[str]) -> None:
    """Store the sources that a library lists, for the next ingest."""
    lake.files("ingests").put_text(listing_name(library), json.dumps(sorted(sources), indent=0))


def listing_name(library: str) -> str:
    """Name of the file of sources of a library, beside the record of its ingest."""
    return f"{KIND}-{hashlib.blake2b(library.encode('utf-8', 'backslashreplace'), digest_size=8).hexdigest()}.sources"


def note(sources: Sequence[str], what: str) -> tuple[str, ...]:
    """A note on files, with the names of the first."""
    if not sources:
        return ()
    names = ", ".join(clean_name(to_path(source).name) for source in sources[:SHOWN])
    return (f"{len(sources):,} files {what}: {names}{', …' if len(sources) > SHOWN else ''}",)
