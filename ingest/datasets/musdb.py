"""MUSDB18-HQ: the mix, drums, bass, other and vocals of a song as clips of one track.  Split: the published one."""

from __future__ import annotations

from pathlib import Path

from tonelake.ingest.audio_files import clean_name
from tonelake.ingest.datasets.base import MIX, SPLITS, UNKNOWN_LICENCE, DataSet, Listed, ListedFile, audio_below
from tonelake.store import InputError

STEMS = {"mixture": MIX, "drums": "drums", "bass": "bass", "other": "other", "vocals": "vocals"}     # by file name


def read(folder: Path) -> Listed:
    """Files as `{train,test}/Artist - Title/{mixture,drums,bass,other,vocals}.wav`.

    Raises InputError for the compressed edition, whose stems are streams of one file.
    """
    files: list[ListedFile] = []
    for path in audio_below(folder):
        if path.stem not in STEMS:
            continue
        artist, _, title = path.parent.name.partition(" - ")
        labels = {"stem": STEMS[path.stem], "artist": clean_name(artist), "title": clean_name(title or artist)}
        side = SPLITS.get(path.parent.parent.name)
        files.append(ListedFile(path, clean_name(path.parent.name), labels | ({"split": side} if side else {})))
    if not files and next(folder.rglob("*.stem.mp4"), None) is not None:
        raise InputError(
            f"{folder}: holds MUSDB18's .stem.mp4 files, each with five streams. Use MUSDB18-HQ, or write the streams as "
            "wav files (ffmpeg -i X.stem.mp4 -map 0:0 mixture.wav -map 0:1 drums.wav -map 0:2 bass.wav -map 0:3 other.wav "
            "-map 0:4 vocals.wav)"
        )
    return Listed(files)


DATASET = DataSet(
    title="MUSDB18-HQ: mix, drums, bass, other and vocals as clips of one track",
    citation="Rafii, Liutkus, Stöter, Mimilakis and Bittner 2019, MUSDB18-HQ, an uncompressed version of MUSDB18, "
    "doi 10.5281/zenodo.3338373",
    licence=UNKNOWN_LICENCE,
    layout="train/Artist - Title/mixture.wav beside drums.wav, bass.wav, other.wav, vocals.wav",
    read=read,
    seconds=30.0,
)
