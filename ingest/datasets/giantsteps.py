"""GiantSteps key, GiantSteps tempo and the MTG keys: key, tempo and genre of electronic dance music.

Split: the two GiantSteps sets, the usual test sets, are test; the MTG keys are train.  The set that an audio file is in
decides, since all three have `annotations/`, and the sets of keys both have `annotations/key/*.key`.

Sources: the repositories giantsteps-key-dataset, giantsteps-tempo-dataset and giantsteps-mtg-key-dataset of
github.com/GiantSteps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tonelake.ingest.datasets.base import UNKNOWN_LICENCE, DataSet, Listed, ListedFile, audio_below
from tonelake.ingest.text_files import read_lines
from tonelake.store import InputError

SHARPS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#", "Cb": "B", "Fb": "E", "E#": "F", "B#": "C"}
KEY = re.compile(r"\s*([A-Ga-g])([#b♯♭]?)\s+(major|minor|maj|min)\s*", re.IGNORECASE)
GIANTSTEPS_FORM = re.compile(r"(?:key|tempo|genre)\s+[\d.]+\s+")     # before the value: kind and time
SUFFIXES = {".key": "key", ".bpm": "tempo", ".genre": "genre"}
PLAIN, OTHER = ("key", "tempo", "genre"), "giantsteps"               # folders of annotations in the two forms


@dataclass
class Source:
    """One of the three sets: its folder, and the labels of its files by number."""

    folder: Path
    train: bool = False
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)


def read(folder: Path) -> Listed:
    """Files as `audio/ID.LOFI.mp3`; labels from `annotations/{key,genre}/ID.LOFI.*`, `annotations_v2/tempo/` before
    `annotations/tempo/`, and `annotations/annotations.txt` of the MTG keys.

    Columns: key, tempo (beats a minute), genre, key_confidence (0 to 2, of the MTG keys), split.  A file with two keys or
    none has no key, and one without key and tempo is left out.
    """
    sources = find_sources(folder)
    if not any(source.labels for source in sources):
        raise InputError(f"{folder}: has neither annotations/key/*.key, annotations/tempo/*.bpm nor annotations.txt with keys")
    files, left_out = [], []
    for path in audio_below(folder):
        source = source_of(path, sources)
        labels = source.labels[number_of(path)] if source is not None else {}
        if source is None or not labels.keys() & {"key", "tempo"}:
            left_out.append(path)
            continue
        labels = labels | {"split": "train" if source.train else "test"}
        files.append(ListedFile(path, path.name.split(".")[0], labels))
    notes = (f"left out {len(left_out)} files without a single key or a tempo",) if left_out else ()
    return Listed(files, notes, tuple(left_out))


def find_sources(folder: Path) -> list[Source]:
    """The sets below a folder, each with its labels."""
    sources: dict[Path, Source] = {}
    for path, kind in annotation_files(folder):
        root = root_of(path)
        source = sources.setdefault(root, Source(root, train="mtg" in root.name.lower()))
        lines = [line for line in read_lines(path) if line.strip() and not line.startswith("#")]
        if kind == "table":              # of the MTG keys only
            source.train = True
            for line in lines:
                number, *cells = line.split("\t")
                add_key(source, number_of(Path(number.strip())), cells)
        elif lines:
            cells = GIANTSTEPS_FORM.sub("", lines[0], count=1).split("\t")
            if kind == "key":            # the MTG keys have a confidence beside each key
                source.train |= len(cells) > 1
                add_key(source, number_of(path), cells)
            else:
                value = tempo_of(cells[0]) if kind == "tempo" else cells[0].strip() or None
                if value is not None:
                    source.labels.setdefault(number_of(path), {}).setdefault(kind, value)
    return list(sources.values())


def annotation_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield (path, kind) of every file of annotations; those that count more come first."""
    ranked = []
    for path in folder.rglob("*"):
        kind = "table" if path.name == "annotations.txt" else SUFFIXES.get(path.suffix, "")
        if kind and path.is_file():
            place = path.parent.name
            rank = 0 if kind == "table" else 3 if place == OTHER else 1 if path.parent.parent.name.endswith("_v2") else 2
            ranked.append((rank, str(path), path, kind))
    return ((path, kind) for _, _, path, kind in sorted(ranked))


def root_of(path: Path) -> Path:
    """The folder of the set that a file of annotations belongs to: the one that holds `annotations`."""
    for parent in path.parents:
        if parent.name.startswith("annotations"):
            return parent.parent
    return path.parent.parent if path.parent.name in (*PLAIN, OTHER) else path.parent


def source_of(path: Path, sources: list[Source]) -> Source | None:
    """The set that an audio file belongs to: the innermost around it; if none is, one that lists it, test before train."""
    number = number_of(path)
    around = sorted((s for s in sources if path.is_relative_to(s.folder)), key=lambda s: -len(s.folder.parts))
    listing = [source for source in around or sources if number in source.labels]
    return listing[0] if around and listing else min(listing, key=lambda source: source.train, default=None)


def number_of(path: Path) -> str:
    """The number of a file, by which its annotations are found: 0010089.LOFI.key belongs to 10089.LOFI.mp3."""
    return path.name.split(".")[0].lstrip("0")


def add_key(source: Source, number: str, cells: list[str]) -> None:
    """Add the key in `cells` (key, confidence, comment) to a file's labels, unless they have one."""
    key = parse_key(cells[0]) if cells else None
    if key is None:
        return
    labels = source.labels.setdefault(number, {})
    if "key" not in labels:
        labels["key"] = key
        if len(cells) > 1 and cells[1].strip().isdigit():
            labels["key_confidence"] = int(cells[1])


def tempo_of(text: str) -> float | None:
    """Beats a minute; None if the text is not a number above 0, which is how the second annotation writes `no tempo`."""
    try:
        tempo = float(text)
    except ValueError:
        return None
    return tempo if 0 < tempo < 1000 else None


def parse_key(text: str) -> str | None:
    """A key in one spelling, with sharps instead of flats; None if the text is not a single key.

    >>> parse_key("Db minor"), parse_key("f# major"), parse_key("-"), parse_key("C minor / F# minor")
    ('C# minor', 'F# major', None, None)
    """
    match = KEY.fullmatch(text.strip().split("|")[0].strip())
    if match is None:
        return None
    tonic = match[1].upper() + {"♯": "#", "♭": "b"}.get(match[2], match[2].lower())
    return f"{SHARPS.get(tonic, tonic)} {'minor' if match[3].lower().startswith('min') else 'major'}"


DATASET = DataSet(
    title="GiantSteps key, GiantSteps tempo and MTG keys: key, tempo, genre",
    citation="Knees, Faraldo, Herrera, Vogl, Böck, Hörschläger and Le Goff 2015, Two data sets for tempo estimation and key "
    "detection in electronic dance music annotated from user corrections, ISMIR",
    licence=UNKNOWN_LICENCE,
    layout="audio/10089.LOFI.mp3 beside annotations/key/10089.LOFI.key",
    read=read,
    events=True,
)
