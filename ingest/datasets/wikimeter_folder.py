"""WIKIMETER as a folder: segments of songs, cut and listed by an earlier download, labelled by every meter.

    wikimeter/data_wikimeter.tab      filename, label, meter, alt_meter, as METER2800's tables
    wikimeter/audio/dave_brubeck_take_five_seg00.mp3

A song is a track, not a segment, so that no split separates the segments of one song.  The set has no split of its own.
`tonelake ingest catalogue` downloads a catalogue and ingests it without such a folder.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from tonelake.ingest.datasets.base import UNKNOWN_LICENCE, DataSet, Listed, ListedFile, audio_below
from tonelake.ingest.text_links import follow_text_link
from tonelake.store import InputError, to_nfc

TABLE = re.compile(r"data_(?!(?:train|val|valid|test)_)\w+\.(?:tab|tsv|csv)")
SEGMENT = re.compile(r"(.+)_seg(\d+)")
COLUMNS = ("filename", "meter")


def read(folder: Path) -> Listed:
    """Labels from `data_wikimeter.tab` (or `data_NAME.tab`, `.tsv`, `.csv`); audio is matched by its name without suffix.

    Columns: label, meter and alt_meter as in the table, meters (a list), segment (its number within the song).
    """
    tables = sorted(path for path in folder.rglob("data_*") if TABLE.fullmatch(path.name) and path.is_file())
    if not tables:
        raise InputError(f"{folder}: has no data_wikimeter.tab. `tonelake ingest catalogue` takes a catalogue in JSON")
    audio: dict[str, list[Path]] = {}
    for path in audio_below(folder):
        audio.setdefault(to_nfc(path.stem), []).append(path)
    files: dict[Path, ListedFile] = {}
    for table in tables:
        for name, labels in read_segments(follow_text_link(table, folder)):
            paths = audio.get(name.stem, [])
            # Files of the same name in two folders: the one near the table.
            path = max(paths, key=lambda path: path.is_relative_to(table.parent), default=table.parent / name.name)
            match = SEGMENT.fullmatch(name.stem)
            track = match[1] if match else name.stem
            files.setdefault(path, ListedFile(path, track, labels | ({"segment": int(match[2])} if match else {})))
    return Listed(list(files.values()))


def read_segments(table: Path) -> list[tuple[PurePosixPath, dict[str, Any]]]:
    """(file name, labels) of each row of a table.  Raises InputError, naming the row, if a meter cannot be read."""
    from tonelake.ingest.datasets.meters import meter_list, read_meters
    from tonelake.ingest.tables import read_table

    rows = read_table(table, text=(*COLUMNS, "label", "alt_meter"))
    absent = [name for name in COLUMNS if name not in rows.columns]
    if absent:
        raise InputError(f"{table.name}: has no column {', '.join(absent)}, so it is not a table of WIKIMETER")
    segments = []
    for number, row in enumerate(rows.iter_rows(named=True), start=2):
        if row["filename"] is None or row["meter"] is None:
            raise InputError(f"{table.name}, row {number}: has no filename or no meter")
        try:
            labels = {"meters": meter_list(read_meters(row["meter"]))}
        except ValueError as error:
            raise InputError(f"{table.name}, row {number}: {error}") from error
        labels |= {key: row[key] for key in ("label", "meter", "alt_meter") if row.get(key)}
        segments.append((PurePosixPath(to_nfc(row["filename"].replace("\\", "/"))), labels))
    return segments


DATASET = DataSet(
    title="WIKIMETER as a folder: segments of songs by every meter",
    citation="songs by meter of the BeatMeter project, in the form of METER2800 (Abimbola, Kostrzewa and Kasprowski 2023)",
    licence=UNKNOWN_LICENCE,
    layout="data_wikimeter.tab beside audio/artist_title_seg00.mp3",
    read=read,
)
