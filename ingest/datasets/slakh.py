"""Slakh2100-redux and BabySlakh: the mix and each instrument of a song as clips of one track.  Split: the published one.

Column `stem` is mix, or the instrument class in lower case, so that `--where "stem = 'bass'"` selects the same part in
MUSDB18-HQ, and mix and stem are compared on the same tracks.

Sources: github.com/ethman/slakh-utils; BabySlakh, doi 10.5281/zenodo.4603870.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tonelake.ingest.datasets.base import MIX, SPLITS, DataSet, Listed, ListedFile
from tonelake.ingest.text_files import encoding_of, readable
from tonelake.store import InputError


def read(folder: Path) -> Listed:
    """Files and labels from `train/Track00001/{mix.flac,metadata.yaml,stems/S00.flac}`, and so on.

    Columns: stem, instrument (the class), stem_id, program, is_drum, split.  Tracks of `omitted` repeat others and have no
    split; stems that were never rendered are left out.  BabySlakh, `Track00001/{mix.wav,metadata.yaml,stems/S00.wav}`, has no
    split.
    """
    import yaml

    files: list[ListedFile] = []
    silent = 0
    for table in sorted(folder.rglob("metadata.yaml")):
        home = table.parent
        side = SPLITS.get(home.parent.name)
        shared: dict[str, Any] = {"split": side} if side else {}
        mix = audio_of(home, "mix")
        if mix is not None:
            files.append(ListedFile(mix, home.name, {"stem": MIX} | shared))
        with readable(table):
            text = table.read_text(encoding=encoding_of(table))
        try:
            stems = yaml.safe_load(text)["stems"].items()
            for name, about in stems:
                path = audio_of(home / "stems", Path(str(name)).name)
                # BabySlakh says `audio_rendered: false` of every stem, so only a stem without a file was never rendered.
                if path is None and not about.get("audio_rendered", True):
                    silent += 1
                    continue
                instrument = str(about["inst_class"])
                labels = {
                    "stem": instrument.lower(), "instrument": instrument, "stem_id": str(name),
                    "program": int(about["program_num"]), "is_drum": bool(about["is_drum"]),
                }
                path = path or home / "stems" / f"{Path(str(name)).name}.flac"
                files.append(ListedFile(path, home.name, labels | shared))
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{table}: does not describe stems as Slakh does ({type(error).__name__}: {error})") from error
    return Listed(files, (f"left out {silent} stems that were never rendered",) if silent else ())


def audio_of(folder: Path, stem: str) -> Path | None:
    """The audio file called `stem` with any suffix; None if there is none."""
    paths = (folder / f"{stem}{suffix}" for suffix in (".flac", ".wav", ".mp3"))
    return next((path for path in paths if path.is_file()), None)


DATASET = DataSet(
    title="Slakh2100 or BabySlakh: mix and stems as clips of one track",
    citation="Manilow, Wichern, Seetharaman and Le Roux 2019, Cutting music source separation some Slakh: a dataset to study "
    "the impact of training data quality and quantity, WASPAA",
    licence="CC BY 4.0",
    layout="train/Track00001/metadata.yaml beside mix.flac and stems/",
    read=read,
    seconds=30.0,
    events=True,
)
