"""Ingest a folder of music, with every folder below it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from tonelake.ingest.audio_files import SUFFIXES, audio_files, clean_name
from tonelake.ingest.labels import Labels, stored_as_text
from tonelake.ingest.passed_over import passed_over_note
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import to_source
from tonelake.ingest.tables import ListColumns
from tonelake.store import InputError, Lake


def ingest_folder(
    lake: Lake, folder: str | Path, *, seconds: float | None = 30.0, hop: float | None = None,
    labels: str | Path | None = None, multi: ListColumns = (), dataset: str | None = None, workers: int | None = None,
) -> IngestReport:
    """Add every audio file below `folder` as clips, with title, artist and album from its tags.

    `seconds`, `hop`: length of a clip, and from one clip's start to the next; None: whole files, no overlap.
    `labels`: a CSV or JSON file of label columns, joined by path, stem or track; its values replace those of tags.
    `multi`: columns that become lists, split at `|` or `;`, or at the separator in `tags=,` or {"tags": ","}.
    The name of a track is its path below `folder`.  Raises InputError, before anything is written, if the folder or the labels
    are unusable.
    """
    cut, folder = Cut(seconds, hop), Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder. `tonelake ingest folder` takes a folder of music")
    if multi and labels is None:
        raise InputError(f"--multi {' '.join(multi)}: names columns of a label file. Name the file with --labels")
    table = Labels(Path(labels).expanduser(), multi=multi, text=stored_as_text(lake)) if labels is not None else None
    if table is not None:
        table.check(lake)
    recordings: list[Recording] = []
    others: Counter[str] = Counter()
    for path in audio_files(folder, passed_over=others):
        track = clean_name(path.relative_to(folder).as_posix())
        recordings.append(Recording(source=to_source(path), track=track, labels=table.match(path, track) if table else {}))
    if not recordings:
        known = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise InputError("; ".join((f"{folder}: holds no audio files ({known})", *passed_over_note(others))))
    notes = (table.report(len(recordings)),) if table else ()
    report = ingest_recordings(lake, recordings, cut, dataset=dataset, workers=workers)
    return replace(report, notes=(*notes, *report.notes, *passed_over_note(others)))
