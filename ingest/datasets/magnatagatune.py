"""MagnaTagATune: 188 tags.  Split by folder, as usual since Dieleman and Schrauwen 2014: 0-b train, c valid, d-f test."""

from __future__ import annotations

import re
from pathlib import Path

from tonelake.ingest.datasets.base import UNKNOWN_LICENCE, DataSet, Listed, ListedFile, find, inside, sub_folders
from tonelake.ingest.text_files import read_rows
from tonelake.store import InputError

EMPTY = (                                # files of no length
    "6/norine_braun-now_and_then-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_trio_xiv_ordre_couperin-88-117.mp3",
)
SPLIT_OF_FOLDER = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}


def read(folder: Path) -> Listed:
    """Files and labels from `annotations_final.csv`: tab-separated, a column for each tag, and `mp3_path`."""
    table = find(folder, "annotations_final.csv")
    if table is None:
        raise InputError(f"{folder}: has no annotations_final.csv. Put it beside the folders 0 to f")
    deeper = (below for path in sub_folders(folder)[1:] for below in sub_folders(path)[1:])
    places = (table.parent, *sub_folders(folder), *deeper)
    root = next((path for path in places if any((path / name).is_dir() for name in SPLIT_OF_FOLDER)), table.parent)
    files, empty = [], []
    rows = read_rows(table, "\t")
    header = next(rows, [])
    if header[:1] != ["clip_id"] or header[-1:] != ["mp3_path"]:
        raise InputError(f"{table.name}: does not run from clip_id to mp3_path, so it is not MagnaTagATune's")
    for row in rows:
        path = row[-1]
        if path in EMPTY:
            empty.append(root / path)
            continue
        tags = [name for name, cell in zip(header[1:-1], row[1:-1], strict=True) if cell == "1"]
        artist, _, rest = Path(path).stem.partition("-")
        labels = {"tags": tags, "split": SPLIT_OF_FOLDER.get(path[:1]), "artist": artist, "album": rest.partition("-")[0]}
        # The names of a song's clips differ only by the seconds at their end.
        track = re.sub(r"-\d+-\d+$", "", Path(path).stem)
        files.append(ListedFile(inside(root, path), track, {k: v for k, v in labels.items() if v is not None}))
    return Listed(files, (f"left out {len(empty)} files known to be empty",) if empty else (), tuple(empty))


DATASET = DataSet(
    title="MagnaTagATune: 188 tags, split by folder",
    citation="Law, West, Mandel, Bay and Downie 2009, Evaluation of algorithms using games: the case of music tagging, ISMIR",
    licence=UNKNOWN_LICENCE,
    layout="annotations_final.csv beside the folders 0 to f",
    read=read,
)
