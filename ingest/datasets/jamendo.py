"""MTG-Jamendo: tags by genre, instrument and mood.  Split: split-0 of the published five, which overlap.

Source: github.com/MTG/mtg-jamendo-dataset, its `data/` and the folders of `raw_30s/audio` or `audio-low`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonelake.ingest.datasets.base import SPLITS, DataSet, Listed, ListedFile, audio_below, inside
from tonelake.ingest.text_files import read_lines
from tonelake.ingest.text_links import follow_text_link, link_text
from tonelake.store import InputError

KINDS = (("genre", "genres"), ("instrument", "instruments"), ("mood/theme", "moods"))        # prefix of a tag, column


def read(folder: Path) -> Listed:
    """Files as `48/948.mp3` (or `.low.mp3`); labels from `autotagging*.tsv`, whose rows end in any number of tags.

    Split: from `autotagging*-{train,validation,test}.tsv` of split-0, files of all tags before those of one kind.
    """
    tables, notes = find_tables(folder)
    rows: dict[str, dict[str, Any]] = {}
    for table in tables:
        side = SPLITS.get(table.stem.rpartition("-")[2])
        for track, artist, album, path, tags in read_tags(follow_text_link(table, folder)):
            labels = rows.setdefault(path, {"artist": artist, "album": album, "tags": set()})
            labels["tags"].update(tags)
            if side is not None:
                labels.setdefault("split", side)
            labels.setdefault("track", track)
    audio = {path.name.split(".")[0]: path for path in audio_below(folder)}
    files = []
    for path, labels in rows.items():
        track, tags = labels.pop("track"), sorted(labels.pop("tags"))
        for kind, column in KINDS:
            names = [tag.partition("---")[2] for tag in tags if tag.partition("---")[0] == kind]
            labels |= {column: names} if names else {}
        labels["tags"] = tags
        files.append(ListedFile(audio.get(Path(path).stem) or inside(folder, path), track, labels))
    has_split = any("split" in file.labels for file in files)
    return Listed(files, notes if has_split else (*notes, "no split: put data/splits/split-0 into the folder"))


def find_tables(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The tables of tags, those of all tags before those of one kind, and notes on those that cannot be read.

    In the published repository `autotagging.tsv` is a link to `raw_30s_cleantags_50artists.tsv`.  Unpacked as text it is
    followed, or left out if its target is missing while other tables exist.
    """
    found = sorted(folder.rglob("autotagging*.tsv"), key=lambda path: (len(path.name), str(path)))
    found = [path for path in found if not path.parent.name.startswith("split-") or path.parent.name == "split-0"]
    if not found:
        raise InputError(f"{folder}: has no autotagging.tsv. Put the set's data/ beside the audio")
    links = {path: link_text(follow_text_link(path, folder)) for path in found}
    readable = [path for path, target in links.items() if target is None]
    notes = tuple(
        f"{path.name}: is a link to {target} that was unpacked as text; that file is missing, so other tables are read"
        for path, target in links.items() if target is not None
    )
    return (readable, notes) if readable else (found, ())            # reading a link raises an error that names it


def read_tags(table: Path) -> Iterator[tuple[str, str, str, str, list[str]]]:
    """Yield (track, artist, album, path, tags) for each row of a table."""
    for number, line in enumerate(read_lines(table)):
        cells = line.rstrip("\n").split("\t")
        if number == 0 and cells[:4] != ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH"]:
            raise InputError(
                f"{table.name}: does not start with TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, so it is not MTG-Jamendo's"
            )
        if number and len(cells) >= 5:
            yield cells[0], cells[1], cells[2], cells[3], [tag for tag in cells[5:] if tag]


DATASET = DataSet(
    title="MTG-Jamendo: tags by genre, instrument and mood, split",
    citation="Bogdanov, Won, Tovstogan, Porter and Serra 2019, The MTG-Jamendo dataset for automatic music tagging, Machine "
    "Learning for Music Discovery Workshop, ICML",
    licence="metadata CC BY-NC-SA 4.0; each recording has a Creative Commons licence of its own, see the set's page",
    layout="48/948.mp3 beside data/autotagging.tsv",
    read=read,
    seconds=30.0,
)
