"""FMA, the Free Music Archive's dump, in any size: genres, titles and artists.  Split: the published one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tonelake.ingest.datasets.base import SPLITS, DataSet, Listed, ListedFile, audio_below, find
from tonelake.ingest.text_files import read_rows
from tonelake.store import InputError

BROKEN = {"099134", "108925", "133297"}  # of fma_small: truncated, so that they do not decode
COLUMNS = {                              # label: (first, second) row of the table's header
    "title": ("track", "title"), "artist": ("artist", "name"), "album": ("album", "title"),
    "genre": ("track", "genre_top"), "split": ("set", "split"),
}
GENRES = ("track", "genres_all")


def read(folder: Path) -> Listed:
    """Files as `fma_small/000/000002.mp3`; labels from `fma_metadata/tracks.csv`, whose header has two rows."""
    table = find(folder, "tracks.csv")
    if table is None:
        raise InputError(f"{folder}: has no fma_metadata/tracks.csv. Unpack fma_metadata.zip beside the audio")
    genres = genre_names(folder)
    audio = {path.stem: path for path in audio_below(folder) if path.stem.isdigit()}
    files = []
    rows = read_rows(table)
    upper, lower = next(rows, []), next(rows, [])
    position = {names: i for i, names in enumerate(zip(upper, lower, strict=False))}
    absent = [f"{first}/{second}" for first, second in (*COLUMNS.values(), GENRES) if (first, second) not in position]
    if absent:
        raise InputError(f"{table.name}: has no column {', '.join(absent)}, so it is not FMA's table of tracks")
    for row in rows:
        stem = row[0].zfill(6)
        if not row[0].isdigit() or stem not in audio or stem in BROKEN:
            continue
        labels: dict[str, Any] = {name: row[position[names]] for name, names in COLUMNS.items() if row[position[names]]}
        if "split" in labels:
            labels["split"] = SPLITS.get(labels["split"], labels["split"])
        numbers = re.findall(r"\d+", row[position[GENRES]])
        if numbers:
            labels["genres"] = sorted({genres.get(number, number) for number in numbers})
        files.append(ListedFile(audio[stem], stem, labels))
    broken = sorted(BROKEN & audio.keys())
    notes = (f"left out {len(broken)} files known not to decode ({', '.join(broken)})",) if broken else ()
    return Listed(files, notes, tuple(audio[stem] for stem in broken))


def genre_names(folder: Path) -> dict[str, str]:
    """Names of genres by number from `genres.csv`; {} if the folder does not have it."""
    path = find(folder, "genres.csv")
    if path is None:
        return {}
    rows = read_rows(path)
    header = next(rows, [])
    if not {"genre_id", "title"} <= set(header):
        raise InputError(f"{path.name}: has no columns genre_id and title, so it is not FMA's. Use the one in fma_metadata.zip")
    number, title = header.index("genre_id"), header.index("title")
    return {row[number]: row[title] for row in rows if row[number] and row[title]}


DATASET = DataSet(
    title="FMA, any size, with fma_metadata: genre, genres, split",
    citation="Defferrard, Benzi, Vandergheynst and Bresson 2017, FMA: A dataset for music analysis, ISMIR",
    licence="metadata CC BY 4.0; each recording has a licence of its own, see the set's page",
    layout="fma_small/000/000002.mp3 beside fma_metadata/tracks.csv",
    read=read,
)
