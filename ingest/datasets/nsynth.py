"""NSynth: single notes with pitch, velocity, instrument family and qualities.  Split: the published one."""

from __future__ import annotations

import json
from pathlib import Path

from tonelake.ingest.datasets.base import SPLITS, DataSet, Listed, ListedFile
from tonelake.ingest.text_files import encoding_of, readable
from tonelake.store import InputError


def read(folder: Path) -> Listed:
    """Files and labels from `nsynth-{train,valid,test}/{audio/NAME.wav,examples.json}`."""
    files = []
    for table in sorted(folder.rglob("examples.json")):
        side = SPLITS.get(table.parent.name.rpartition("-")[2])
        with readable(table):
            text = table.read_text(encoding=encoding_of(table))
        try:
            notes = json.loads(text)
            for name, note in notes.items():
                labels = {
                    "pitch": int(note["pitch"]), "velocity": int(note["velocity"]),
                    "instrument": str(note["instrument_str"]), "family": str(note["instrument_family_str"]),
                    "source_of_sound": str(note["instrument_source_str"]), "qualities": list(map(str, note["qualities_str"])),
                }
                labels |= {"split": side} if side else {}
                path = table.parent / "audio" / f"{Path(name).name}.wav"
                files.append(ListedFile(path, str(note["instrument_str"]), labels))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{table}: is not NSynth's table of notes ({type(error).__name__}: {error})") from error
    return Listed(files)


DATASET = DataSet(
    title="NSynth: single notes with pitch, family, qualities, split",
    citation="Engel, Resnick, Roberts, Dieleman, Norouzi, Eck and Simonyan 2017, Neural audio synthesis of musical notes with "
    "WaveNet autoencoders, ICML",
    licence="CC BY 4.0",
    layout="nsynth-train/examples.json beside nsynth-train/audio/",
    read=read,
)
