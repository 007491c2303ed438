"""Ingest a folder of music, with every folder below it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tonelake.ingest.audio_files import SUFFIXES, audio_files, clean_name
from tonelake.ingest.labels import Labels, stored_as_text
from tonelake.ingest.passed_over import passed_over_note
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import to_source
from tonelake.ingest.tables import ListColumns, list_separators
from tonelake.store import InputError, Lake

# Choices of `track_by` beside label columns: what names the track of a file, given its path below the folder.
TRACK_BY: dict[str, Callable[[PurePosixPath], str]] = {
    "folder": lambda path: path.parent.as_posix(), "name": lambda path: path.stem,
}


def ingest_folder(
    lake: Lake, folder: str | Path, *, seconds: float | None = 30.0, hop: float | None = None,
    per_track: int | None = None, labels: str | Path | None = None, multi: ListColumns = (), track_by: str | None = None,
    dataset: str | None = None, workers: int | None = None, leave_out: Collection[Path] = (),
) -> IngestReport:
    """Bring the lake in step with a folder: every audio file below `folder` as clips, with the columns that its tags fill.

    Files that were renamed, moved or tagged again keep their clips and vectors.  Known files that are gone are marked missing;
    clips of audio that was replaced are superseded.

    `seconds`, `hop`: length of a clip, and from one clip's start to the next; None: whole files, no overlap.
    `per_track`: at most as many clips of a file, evenly spread; a later run without it adds the others.
    `labels`: a CSV or JSON file of label columns, joined by path, stem or track; its values replace those of tags.
    `multi`: columns that become lists, split at `|` or `;`, or at the separator in `tags=,` or {"tags": ","}.
    `track_by`: which files are one track: those that share a value of this label column, `folder`, or `name` (without its
    suffix); by default each recording is a track, named by its path below `folder`.
    `leave_out`: files that are being written; they are neither read nor marked missing.
    Raises InputError, before anything is written, if the folder or the labels are unusable.
    """
    cut, folder = Cut(seconds, hop, per_track), Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is not a folder, or cannot be reached. `tonelake ingest folder` takes a folder of music; nothing was "
            "marked as missing"
        )
    if multi and labels is None:
        raise InputError(f"--multi {' '.join(multi)}: names columns of a label file. Name the file with --labels")
    table = Labels(Path(labels).expanduser(), multi=multi, text=stored_as_text(lake)) if labels is not None else None
    if table is not None:
        table.check(lake)
    if track_by is not None and track_by not in TRACK_BY and (table is None or track_by not in table.table.columns):
        raise InputError(f"--track-by {track_by}: is no column of the labels. Choose one, or {' or '.join(TRACK_BY)}")
    recordings: list[Recording] = []
    others: Counter[str] = Counter()
    for path in audio_files(folder, passed_over=others):
        if path in leave_out:
            continue
        track = clean_name(path.relative_to(folder).as_posix())
        found = table.match(path, track) if table else {}
        if track_by is not None:
            shared = TRACK_BY[track_by](PurePosixPath(track)) if track_by in TRACK_BY else found.get(track_by)
            found = found | ({"track": str(shared)} if shared is not None else {})
        recordings.append(Recording(source=to_source(path), track=track, labels=found, named_by_path=True, empties=True))
    if not recordings:
        known = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        kept = ("nothing was marked as missing",) if lake.paths.count() else ()
        raise InputError("; ".join((f"{folder}: holds no audio files ({known})", *kept, *passed_over_note(others))))
    notes = (table.report(len(recordings)),) if table else ()
    if labels is not None and folder.resolve() in Path(labels).expanduser().resolve().parents:
        others[Path(labels).suffix.lower()] -= 1                     # it was read, as labels
        others = +others
    lake.check_writable()
    lake.ingests.record("folder", os.path.abspath(folder), {         # noqa: PTH100 - keeps links
        "seconds": seconds, "hop": hop, "per_track": per_track, "multi": list_separators(multi), "track_by": track_by,
        "dataset": dataset, "labels": None if labels is None else os.path.abspath(Path(labels).expanduser()),   # noqa: PTH100
    })
    report = ingest_recordings(lake, recordings, cut, dataset=dataset, workers=workers, root=folder)
    return replace(report, skipped=others.total() - others[""], notes=(*notes, *report.notes, *passed_over_note(others)))
