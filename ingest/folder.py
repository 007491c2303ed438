"""A folder of music, with everything below it, as recordings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tonelake.ingest.labels import Labels
from tonelake.ingest.recordings import IngestReport, Recording, ingest_recordings
from tonelake.ingest.segment import DEFAULT_CUT, Cut
from tonelake.ingest.sources import to_source
from tonelake.store import InputError, Lake, Progress, silent_progress

SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff"})


def ingest_folder(
    lake: Lake, folder: Path, cut: Cut = DEFAULT_CUT, *, labels: Path | None = None, multi: Sequence[str] = (),
    dataset: str | None = None, workers: int | None = None, progress: Progress = silent_progress,
) -> IngestReport:
    """Every audio file below `folder`, cut into clips, with title, artist and album from its tags.

    `labels`: a CSV file of label columns, joined by path, stem or track; its values win over tags.  A track is named by
    its path below `folder`.  Raises InputError, before anything is written, where nothing can come of it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: `tonelake ingest folder` takes a folder of music")
    if multi and labels is None:
        raise InputError(f"--multi {' '.join(multi)} names columns of a file: give it by --labels")
    table = Labels(labels, multi=multi) if labels is not None else None
    if table is not None:
        lake.clips.check_labels(table.table)
    recordings = []
    for path in audio_files(folder):
        track = clean_name(path.relative_to(folder).as_posix())
        recordings.append(Recording(to_source(path), track, table.match(path, track) if table else {}))
    if not recordings:
        raise InputError(f"{folder} holds no audio files ({' '.join(sorted(s[1:] for s in SUFFIXES))})")
    notes = (table.report(len(recordings)),) if table else ()
    report = ingest_recordings(lake, recordings, cut, dataset=dataset, workers=workers, progress=progress)
    return replace(report, notes=notes)


def audio_files(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> Iterator[Path]:
    """Audio files below a folder, by name, hidden ones left out.  Links are followed, each folder entered once.

    A folder or broken link that is named like an audio file is handed out too: it ends as a recorded failure.
    """
    entered: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        try:
            stat = Path(root).stat()
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) in entered:            # a link that leads back
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files + folders):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(root) / name


def clean_name(text: str) -> str:
    """A path as text that a column can hold: bytes that are not UTF-8 are shown as \\udcXX escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
