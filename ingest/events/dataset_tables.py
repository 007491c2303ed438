"""Label files whose recordings a data set's own tables name: Slakh and MAESTRO.

Slakh       `metadata.yaml` says the instrument of each `MIDI/S00.mid`, which belongs to `stems/S00.*`.  The mix gets the notes
            of all stems that were rendered, or of `all_src.mid` if there is no folder MIDI.
MAESTRO     `maestro-v3.0.0.csv` or `.json` names a MIDI file and an audio file in each row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tonelake.ingest.audio_files import audio_files
from tonelake.ingest.datasets.slakh import audio_of
from tonelake.ingest.events.matching import AudioFile, LabelPart, Match
from tonelake.ingest.text_files import encoding_of, read_rows, read_text, readable
from tonelake.store import InputError

MIDI, TABLE, SLAKH_TABLE = "midi", "table", "metadata.yaml"


@dataclass(kw_only=True)
class ListedMatches:
    """Matches that the tables below a folder state."""

    found: list[Match] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)            # label files that the tables account for
    problems: list[tuple[Path, str]] = field(default_factory=list)         # tables that cannot be read, and why


def listed_matches(folder: Path, audio: Sequence[AudioFile]) -> ListedMatches:
    """Matches that the tables below `folder` state."""
    of_path = {str(file.path): file for file in audio}
    listed = ListedMatches()
    for table in tables_below(folder):
        try:
            if table.name == SLAKH_TABLE:
                found = list(slakh_matches(table, of_path))
                listed.files |= {*table.parent.glob("*.mid"), *table.parent.glob("MIDI/*.mid")}
            else:
                pairs = list(maestro_pairs(table))
                listed.files |= {midi for midi, _ in pairs}
                found = [
                    match_of([LabelPart(path=midi)], of_path[str(sound)])
                    for midi, sound in pairs if str(sound) in of_path and midi.is_file()
                ]
        except InputError as error:
            listed.problems.append((table, str(error)))
            continue
        listed.found += found
    unique = {(match.parts, match.audio[0].source): match for match in listed.found}         # MAESTRO has its table twice
    listed.found = list(unique.values())
    return listed


def tables_below(folder: Path) -> Iterator[Path]:
    """Yield the tables of Slakh that are beside MIDI files, and those of MAESTRO."""
    for path in audio_files(folder, frozenset({".yaml", ".csv", ".json"})):
        beside_midi = path.name == SLAKH_TABLE and any((path.parent / name).exists() for name in ("MIDI", "all_src.mid"))
        if beside_midi or re.fullmatch(r"maestro-v[\d.]+\.(csv|json)", path.name):
            yield path


def match_of(parts: Sequence[LabelPart], audio: AudioFile) -> Match:
    return Match(format=MIDI, parts=tuple(parts), audio=(audio,), place=TABLE)


def slakh_matches(table: Path, of_path: dict[str, AudioFile]) -> Iterator[Match]:
    """Matches of one song.  Raises InputError if its table does not describe stems."""
    import yaml

    home = table.parent
    with readable(table):
        text = table.read_text(encoding=encoding_of(table))
    parts: list[LabelPart] = []
    try:
        for name, about in yaml.safe_load(text)["stems"].items():
            path = home / "MIDI" / f"{Path(str(name)).name}.mid"
            sound = audio_of(home / "stems", path.stem)
            if not path.is_file():
                continue
            part = LabelPart(path=path, value=str(about["inst_class"]).lower(), is_drums=bool(about.get("is_drum")))
            if sound is not None or about.get("audio_rendered", True):
                parts.append(part)
            if sound is not None and str(sound) in of_path:
                yield match_of([part], of_path[str(sound)])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{table}: does not describe stems as Slakh does ({type(error).__name__}: {error})") from error
    if not parts and (home / "all_src.mid").is_file():
        parts = [LabelPart(path=home / "all_src.mid")]
    mix = audio_of(home, "mix")
    if parts and mix is not None and str(mix) in of_path:
        yield match_of(parts, of_path[str(mix)])


def maestro_pairs(table: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (MIDI file, audio file) of each row.  Raises InputError if the table does not have both columns."""
    columns = ("midi_filename", "audio_filename")
    try:
        if table.suffix == ".json":
            content: Any = json.loads(read_text(table))
            names = list(zip(*(content[column].values() for column in columns), strict=True))
        else:
            rows = read_rows(table)
            head = next(rows)
            at = [head.index(column) for column in columns]
            names = [(row[at[0]], row[at[1]]) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{table}: has no columns {' and '.join(columns)}, as MAESTRO's tables have") from error
    for midi, sound in names:
        yield table.parent / str(midi), table.parent / str(sound)
