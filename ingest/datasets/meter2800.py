"""METER2800: the meter of 2,800 clips, in 2 and in 4 classes, each with its published split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tonelake.ingest.datasets.base import SPLITS, UNKNOWN_LICENCE, DataSet, Listed, ListedFile, audio_below, find
from tonelake.store import InputError, to_nfc


def read(folder: Path) -> Listed:
    """Labels from `data_{train,val,test}_{2,4}_classes.{csv,tab}`; audio is matched by its name without suffix.

    Columns: label, meter, alt_meter and split of the 4 classes; label_2 and split_2 of the 2; meters, a list as that of
    WIKIMETER, so that both train one classifier.  Where two collections have files of one name, they are matched by folder
    too, and the collection's name becomes part of the track.
    """
    listed = read_tables(folder)
    if not listed:
        raise InputError(f"{folder}: has no data_train_4_classes.csv (or .tab, or of 2 classes). They come with METER2800")
    # Compared within the tables of 2 or 4 classes only: the others list the same files, perhaps from other folders.
    names = {(suffix, path.parent.name, path.stem) for suffix, _, path, _ in listed}
    shared = {stem for (_, stem), count in Counter((suffix, stem) for suffix, _, stem in names).items() if count > 1}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for suffix, side, path, row in listed:
        collection = path.parent.name
        labels = rows.setdefault((collection if path.stem in shared else "", path.stem), {"collection": collection})
        labels[f"label{suffix}"], labels[f"split{suffix}"] = str(row["label"]), side
        labels |= {key: str(row[key]) for key in ("meter", "alt_meter") if row.get(key) is not None}
        if row.get("meter") is not None:
            labels["meters"] = meters_of(str(row["meter"]))
    audio: dict[str, list[Path]] = {}
    for path in audio_below(folder):
        audio.setdefault(to_nfc(path.stem), []).append(path)
    files = []
    for (collection, stem), labels in rows.items():
        paths = [path for path in audio.get(stem, []) if not collection or to_nfc(path.parent.name) == collection]
        files.append(ListedFile(
            paths[-1] if paths else folder / collection / f"{stem}.wav", f"{collection}/{stem}" if collection else stem,
            {name: value for name, value in labels.items() if value},
        ))
    return Listed(files)


def meters_of(text: str) -> list[str] | None:
    """Values of the column `meters` from a cell of `meter`; None if it is not a meter.

    `alt_meter`, twice the meter in the published tables, is the same beat counted over two bars, so it is not among them.
    """
    from tonelake.ingest.datasets.meters import meter_list, read_meters

    try:
        return meter_list(read_meters(text))
    except ValueError:
        return None


def read_tables(folder: Path) -> list[tuple[str, str, Path, dict[str, Any]]]:
    """(suffix of the label columns, split, path, row) of every row of the tables that are in the folder."""
    from tonelake.ingest.tables import read_table

    listed = []
    for classes, suffix in ((4, ""), (2, "_2")):
        for word in ("train", "val", "test"):
            table = find(folder, f"data_{word}_{classes}_classes.csv") or find(folder, f"data_{word}_{classes}_classes.tab")
            if table is None:
                continue
            for row in read_table(table).to_dicts():
                if row.get("filename") is None or row.get("label") is None:
                    raise InputError(f"{table.name}: needs columns filename and label, but has {', '.join(row)}")
                listed.append((suffix, SPLITS[word], Path(to_nfc(str(row["filename"]))), row))
    return listed


DATASET = DataSet(
    title="METER2800: meter in 2 and 4 classes, split",
    citation="Abimbola, Kostrzewa and Kasprowski 2023, METER2800: a novel dataset for music time signature detection, Data in "
    "Brief",
    licence=UNKNOWN_LICENCE,
    layout="data_train_4_classes.csv and audio below it",
    read=read,
)
