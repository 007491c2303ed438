"""GiantSteps key and the MTG keys: the key of electronic dance music.

Split: GiantSteps, the usual test set, is test; the MTG keys are train.
"""

from __future__ import annotations

import re
from pathlib import Path

from tonelake.ingest.datasets.base import UNKNOWN_LICENCE, DataSet, Listed, ListedFile, audio_below
from tonelake.store import InputError

SHARPS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#", "Cb": "B", "Fb": "E", "E#": "F", "B#": "C"}
KEY = re.compile(r"\s*([A-Ga-g])([#b♯♭]?)\s+(major|minor|maj|min)\b", re.IGNORECASE)


def read(folder: Path) -> Listed:
    """Files as `audio/ID.LOFI.mp3`; keys from `annotations/key/ID.LOFI.key`, or from `annotations.txt` of the MTG keys."""
    keys: dict[str, tuple[str, str]] = {}                    # key and split by ID
    for path in sorted(folder.rglob("*.key")):
        key = parse_key(path.read_text(encoding="utf-8", errors="replace"))
        if key is not None:
            keys.setdefault(path.name.split(".")[0], (key, "test"))
    for path in sorted(folder.rglob("annotations.txt")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            cells = line.split("\t")
            key = parse_key(cells[1]) if len(cells) > 1 else None
            if key is not None:
                keys.setdefault(cells[0].strip().split(".")[0], (key, "train"))
    if not keys:
        raise InputError(f"{folder}: has neither annotations/key/*.key nor annotations.txt with keys")
    return Listed([
        ListedFile(path, stem, {"key": keys[stem][0], "split": keys[stem][1]})
        for path in audio_below(folder) if (stem := path.name.split(".")[0]) in keys
    ])


def parse_key(text: str) -> str | None:
    """A key in one spelling, with sharps instead of flats; None if the text is not a single key.

    >>> parse_key("Db minor"), parse_key("f# major"), parse_key("-")
    ('C# minor', 'F# major', None)
    """
    match = KEY.fullmatch(text.strip().split("|")[0].strip()) or KEY.match(text)
    if match is None:
        return None
    tonic = match[1].upper() + {"♯": "#", "♭": "b"}.get(match[2], match[2])
    return f"{SHARPS.get(tonic, tonic)} {'minor' if match[3].lower().startswith('min') else 'major'}"


DATASET = DataSet(
    title="GiantSteps key and MTG keys: key",
    citation="Knees, Faraldo, Herrera, Vogl, Böck, Hörschläger and Le Goff 2015, Two data sets for tempo estimation and key "
    "detection in electronic dance music annotated from user corrections, ISMIR",
    licence=UNKNOWN_LICENCE,
    layout="audio/10089.LOFI.mp3 beside annotations/key/10089.LOFI.key",
    read=read,
)
