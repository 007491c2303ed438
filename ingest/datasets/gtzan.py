"""GTZAN: genres.  Split: the fault-filtered one (Kereliuk, Sturm and Larsen 2015)."""

from __future__ import annotations

import re
from pathlib import Path

from tonelake.ingest.datasets.base import UNKNOWN_LICENCE, DataSet, Listed, ListedFile, audio_below, find
from tonelake.ingest.text_files import read_lines

FILE_NAME = re.compile(r"([a-z]+)\.(\d{5})\.(wav|au|mp3|flac)")
CLIP = re.compile(r"[a-z]+\.\d{5}")     # in a line of a list, with any folder and suffix
BROKEN = {"jazz.00054"}                  # does not decode in the copies in circulation


def read(folder: Path) -> Listed:
    """Files as `genres*/jazz/jazz.00042.wav`; the split from `{train,valid,test}_filtered.txt`."""
    lists = {side: find(folder, f"{side}_filtered.txt") for side in ("train", "valid", "test")}
    split_of = {
        match[0]: side
        for side, path in lists.items() if path is not None
        for line in read_lines(path) if (match := CLIP.search(line)) is not None
    }
    files, broken = [], []
    for path in audio_below(folder):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            continue
        if path.stem in BROKEN:
            broken.append(path)
            continue
        labels = {"genre": match[1]} | ({"split": split_of[path.stem]} if path.stem in split_of else {})
        files.append(ListedFile(path, path.stem, labels))
    notes = [f"left out {len(broken)} file known not to decode ({', '.join(sorted(BROKEN))})"] if broken else []
    if not split_of:
        notes.append(
            "no split: put train_filtered.txt, valid_filtered.txt and test_filtered.txt, the lists of the fault-filtered "
            "GTZAN, into the folder; without them, training and test sets share artists and repeated recordings"
        )
    return Listed(files, tuple(notes), tuple(broken))


DATASET = DataSet(
    title="GTZAN: 1,000 clips of 30 s by genre",
    citation="Tzanetakis and Cook 2002, Musical genre classification of audio signals, IEEE Transactions on Speech and Audio "
    "Processing 10(5)",
    licence=UNKNOWN_LICENCE,
    layout="genres/jazz/jazz.00042.wav",
    read=read,
    events=True,
)
