"""WIKIMETER as a folder: segments of songs, cut and listed by an earlier download, labelled by every meter.

    wikimeter/data_wikimeter.tab      filename, label, meter, alt_meter, as METER2800's tables
    wikimeter/audio/dave_brubeck_take_five_seg00.mp3

A song is a track, not a segment, so that no split separates the segments of one song.  The set has no split of its own.
`tonelake ingest catalogue` downloads a catalogue and ingests it without such a folder.  The folder that it downloads to is read
as well: `segments_wikimeter.json` beside the table has the downloaded file, start and length of each segment.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tonelake.ingest.datasets.base import UNKNOWN_LICENCE, DataSet, Listed, ListedFile, audio_below, inside
from tonelake.ingest.text_links import follow_text_link
from tonelake.store import InputError, to_nfc

TABLE = re.compile(r"data_(?!(?:train|val|valid|test)_\d+_classes\.)\w+\.(?:tab|tsv|csv)")          # not METER2800's
SEGMENT = re.compile(r"(.+)_seg(\d+)")
COLUMNS = ("filename", "meter")


class Origin(NamedTuple):
    """Where a segment of a catalogue's song comes from."""

    file: Path                           # the downloaded recording
    span: tuple[float, float]            # start and length in seconds
    labels: dict[str, Any]               # artist, title and url


def read(folder: Path) -> Listed:
    """Labels from `data_wikimeter.tab` (or `data_NAME.tab`, `.tsv`, `.csv`); audio is matched by its name without suffix.

    Columns: label, meter and alt_meter as in the table, meters (a list), segment (its number within the song); artist, title
    and url where `ingest catalogue` wrote the table.  A segment whose downloaded recording is in the folder is a part of that
    file; others are files of their own.  The table may be beside the folder, under its name.
    """
    tables = sorted(path for path in folder.rglob("data_*") if TABLE.fullmatch(path.name) and path.is_file())
    if not tables:
        beside = [folder.absolute().with_name(f"{folder.absolute().name}.{suffix}") for suffix in ("tab", "tsv", "csv")]
        tables = [path for path in beside if TABLE.fullmatch(path.name) and path.is_file()]
    if not tables:
        raise InputError(f"{folder}: has no data_wikimeter.tab. `tonelake ingest catalogue` takes a catalogue in JSON")
    audio: dict[str, list[Path]] = {}
    for path in audio_below(folder):
        audio.setdefault(to_nfc(path.stem), []).append(path)
    files: dict[tuple[Path, tuple[float, float] | None], ListedFile] = {}
    left_out: list[Path] = []
    for table in tables:
        origins = read_origins(table)
        for name, labels in read_segments(follow_text_link(table, folder)):
            paths = audio.get(name.stem, [])
            # Files of the same name in two folders: the one near the table.
            path = max(paths, key=lambda path: path.is_relative_to(table.parent), default=table.parent / name.name)
            match = SEGMENT.fullmatch(name.stem)
            if match:
                labels |= {"segment": int(match[2])}
            origin, span = origins.get(name.name), None
            if origin is not None:
                labels |= origin.labels
                if origin.file.is_file():
                    path, span = origin.file, origin.span
                    left_out += paths
            files.setdefault((path, span), ListedFile(path, match[1] if match else name.stem, labels, span))
    return Listed(list(files.values()), left_out=tuple(left_out))


def read_origins(table: Path) -> dict[str, Origin]:
    """The origin of each segment by its file name, from `segments_NAME.json` beside a table; empty if that file does not exist.

    Raises InputError, naming the row, if it has another form or names a file outside the folder.
    """
    from tonelake.ingest.datasets.wikimeter_segments import TEXT_COLUMNS, origins_path
    from tonelake.ingest.tables import read_numbered_table

    path = origins_path(table)
    if not path.is_file():
        return {}
    rows, numbers = read_numbered_table(path, text=(*TEXT_COLUMNS, "start_s", "seconds"))
    origins: dict[str, Origin] = {}
    for number, row in zip(numbers, rows.iter_rows(named=True), strict=True):
        where = f"{path.name}, row {number}"
        if not row.get("filename") or not row.get("file"):
            raise InputError(f"{where}: has no filename or no file. Delete {path.name} to read the segments' own files")
        try:
            span = float(row["start_s"]), float(row["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: start_s and seconds must be numbers. Correct them, or delete {path.name}") from error
        if not all(map(math.isfinite, span)):
            raise InputError(f"{where}: start_s and seconds must be finite. Correct them, or delete {path.name}")
        labels = {name: row[name] for name in ("artist", "title", "url") if row.get(name)}
        origins[to_nfc(row["filename"])] = Origin(inside(table.parent, row["file"]), span, labels)
    return origins


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
