"""Sets of stems: the mix and each instrument of a song as clips of one track, told apart by column `stem`.

So `--where "stem = 'bass'"` means the same in both sets, and a comparison of mix and stem is one on the same tracks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tonelake.ingest.folder import clean_name
from tonelake.ingest.readers import SIDES, File, Listed, audio_below
from tonelake.store import InputError

MIX = "mix"
MUSDB_STEMS = {"mixture": MIX, "drums": "drums", "bass": "bass", "other": "other", "vocals": "vocals"}


def slakh(folder: Path) -> Listed:
    """Manilow et al. 2019, Slakh2100-redux: `train/Track00001/{mix.flac,metadata.yaml,stems/S00.flac}`, and so on.

    Columns: stem (mix, or the instrument class in lower case), instrument (the class), stem_id, program, is_drum, split.
    Tracks of `omitted` repeat others and have no split; stems that were never rendered are left out.
    """
    files: list[File] = []
    silent = 0
    for table in sorted(folder.rglob("metadata.yaml")):
        home = table.parent
        side = SIDES.get(home.parent.name)
        shared: dict[str, Any] = {"split": side} if side else {}
        mix = audio_of(home, "mix")
        if mix is not None:
            files.append((mix, home.name, {"stem": MIX} | shared))
        try:
            stems = yaml.safe_load(table.read_text(encoding="utf-8"))["stems"].items()
            for name, about in stems:
                if not about.get("audio_rendered", True):
                    silent += 1
                    continue
                instrument = str(about["inst_class"])
                labels = {
                    "stem": instrument.lower(), "instrument": instrument, "stem_id": str(name),
                    "program": int(about["program_num"]), "is_drum": bool(about["is_drum"]),
                }
                path = audio_of(home / "stems", Path(str(name)).name) or home / "stems" / f"{Path(str(name)).name}.flac"
                files.append((path, home.name, labels | shared))
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, UnicodeDecodeError) as error:
            raise InputError(f"{table}: does not describe stems as Slakh's do ({type(error).__name__}: {error})") from error
    notes = (f"{silent} stems left out that were never rendered",) if silent else ()
    return Listed(files, "train/Track00001/metadata.yaml beside mix.flac and stems/", notes)


def musdb(folder: Path) -> Listed:
    """Rafii et al. 2019, MUSDB18-HQ: `{train,test}/Artist - Title/{mixture,drums,bass,other,vocals}.wav`.

    Raises InputError for the compressed edition, whose stems are streams of one file.
    """
    files: list[File] = []
    for path in audio_below(folder):
        if path.stem not in MUSDB_STEMS:
            continue
        artist, _, title = path.parent.name.partition(" - ")
        labels = {"stem": MUSDB_STEMS[path.stem], "artist": clean_name(artist), "title": clean_name(title or artist)}
        side = SIDES.get(path.parent.parent.name)
        files.append((path, clean_name(path.parent.name), labels | ({"split": side} if side else {})))
    if not files and next(folder.rglob("*.stem.mp4"), None) is not None:
        raise InputError(
            f"{folder} holds MUSDB18's .stem.mp4 files, each five streams in one: take MUSDB18-HQ, or write the streams as "
            "wav files (ffmpeg -i X.stem.mp4 -map 0:0 mixture.wav -map 0:1 drums.wav -map 0:2 bass.wav -map 0:3 other.wav "
            "-map 0:4 vocals.wav)"
        )
    return Listed(files, "train/Artist - Title/mixture.wav beside drums.wav, bass.wav, other.wav, vocals.wav")


def audio_of(folder: Path, stem: str) -> Path | None:
    """The file of that name with any audio suffix."""
    paths = (folder / f"{stem}{suffix}" for suffix in (".flac", ".wav", ".mp3"))
    return next((path for path in paths if path.is_file()), None)
