"""Find the recordings that label files belong to, by their paths.

A label file `song.lab` (or `song.wav.jams`, `song_beats.txt`, `gtzan_song.beats`) belongs to the audio file called `song`, at
the first of these places where there is one:

    beside        in the same folder
    path          in the same folder below the two roots (`labels/a/song.lab` and `music/a/song.wav`)
    folders       as before, without folders that name a kind of file (`Track1/labels/song.lab` and `Track1/audio/song.wav`)
    last folder   in a folder of the same name (`chordlab/Beatles/Help/song.lab` and `Beatles/Help/song.flac`)
    name          anywhere, if the name is not one that many files have, such as `mix` or `01`
    track         the only recording of a track of that name

Several recordings beside a label file or at its path (`song.wav`, `song.mp3`) all get its events; at every other place, and if
two label files of one format are found for a recording there, the match is ambiguous and refused.  In names, case makes no
difference, and if no name is equal, punctuation and leading zeros do not either.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from tonelake.ingest.audio_files import clean_name
from tonelake.ingest.datasets.base import AUDIO_SUFFIXES
from tonelake.ingest.events.formats import FORMAT_OF_WORD, word_at_end
from tonelake.store import to_nfc

PLACES = ("beside", "path", "folders", "last folder", "name", "track")
SHARED_PLACES = PLACES[:2]               # where a label file may belong to several recordings
# Folders that say what kind of file they hold, and not which music.
KIND_FOLDERS = frozenset({
    "audio", "wav", "wavs", "mp3", "mp3s", "flac", "ogg", "stems", "music", "tracks", "midi", "mid", "labels", "label", "lab",
    "txt", "csv", "jams", "annotation", "annotations", "annotator", "reference", "references", "gt", "data", *FORMAT_OF_WORD,
})
COMMON_NAME = re.compile(
    r"mix|mixture|audio|track|vocals?|drums?|bass|other|guitar|piano|accompaniment|s?\d{1,3}", re.ASCII
)
SET_PREFIX = re.compile(r"(gtzan|ballroom|hainsworth|smc|harmonix|hjdb|simac|beatles|rwc)_", re.ASCII)    # of lists of beats
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class AudioFile:
    """One audio file of the lake."""

    source: str
    path: Path
    recording: str
    track: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelPart:
    """One label file, or one of several that make a recording's events together."""

    path: Path
    value: str | None = None             # instrument of its notes, if another file says it
    is_drums: bool = False


@dataclass(frozen=True, kw_only=True)
class Match:
    """Label files of one format and the recordings that they belong to."""

    format: str                          # name in `formats.FORMATS`
    parts: tuple[LabelPart, ...]
    audio: tuple[AudioFile, ...]         # one of each recording
    place: str                           # one of PLACES, or "table" where a data set's tables say it

    @property
    def name(self) -> str:
        return clean_name(self.parts[0].path.name)


@dataclass(kw_only=True)
class Matches:
    """The label files of a folder: matched, ambiguous with the reason, and without a recording."""

    found: list[Match] = field(default_factory=list)
    ambiguous: list[tuple[Path, str]] = field(default_factory=list)        # file and reason
    unmatched: list[Path] = field(default_factory=list)


class Key(NamedTuple):
    """A key by which files are looked up: a place, folders there, and a name in one of two forms."""

    place: str
    folders: tuple[str, ...]
    name: str
    is_loose: bool


def match_labels(
    audio: Sequence[AudioFile], labels: Mapping[Path, str], audio_root: Path, label_root: Path
) -> Matches:
    """Match label files, given with their formats, to audio files; both lists are below their roots."""
    stems = {path: label_stems(path) for path in labels}
    wanted = {loose(stem) for names in stems.values() for stem in names}
    index: dict[Key, list[AudioFile]] = defaultdict(list)
    for file in audio:
        if loose(file.path.stem) in wanted:
            for key in keys(file.path, audio_root, [file.path.stem]):
                if key.place != "track":
                    index[key].append(file)
        if file.track and loose(file.track) in wanted:
            for is_loose in (False, True):
                index[Key("track", (), form(file.track, is_loose), is_loose)].append(file)
    result = Matches()
    for path, name in labels.items():
        for key in keys(path, label_root, stems[path]):
            files = list({file.recording: file for file in reversed(index.get(key, ()))}.values())[::-1]
            if not files:
                continue
            if len(files) > 1 and (key.place not in SHARED_PLACES or key.is_loose):
                result.ambiguous.append((path, f"{clean_name(path.name)}: {several(files)}. Give one its path below --labels"))
            else:
                match = Match(format=name, parts=(LabelPart(path=path),), audio=tuple(files), place=key.place)
                result.found.append(match)
            break
        else:
            result.unmatched.append(path)
    return without_rivals(result)


def without_rivals(result: Matches) -> Matches:
    """Refuse label files that are found for one recording at the same place, unless that is beside it or at its path."""
    rivals: dict[tuple[str, str, str], list[Match]] = defaultdict(list)
    for match in result.found:
        if match.place not in SHARED_PLACES and match.format != "lab":
            for file in match.audio:
                rivals[file.recording, match.format, match.place].append(match)
    refused = {id(match): matches for matches in rivals.values() if len(matches) > 1 for match in matches}
    for match in result.found:
        if id(match) in refused:
            others = ", ".join(clean_name(str(rival.parts[0].path)) for rival in refused[id(match)][:SHOWN])
            audio = clean_name(match.audio[0].path.name)
            text = f"{match.name}: several label files fit {audio} ({others}). Remove all but one"
            result.ambiguous.append((match.parts[0].path, text))
    result.found = [match for match in result.found if id(match) not in refused]
    return result


def several(files: Sequence[AudioFile]) -> str:
    """
    >>> several([AudioFile(source=name, path=Path(name), recording=name) for name in ("/a/x.wav", "/b/x.wav")])
    'fits 2 recordings (/a/x.wav, /b/x.wav)'
    """
    shown = ", ".join(clean_name(str(file.path)) for file in files[:SHOWN]) + (", …" if len(files) > SHOWN else "")
    return f"fits {len(files):,} recordings ({shown})"


def keys(path: Path, root: Path, stems: Sequence[str]) -> Iterator[Key]:
    """Yield what a file is looked up by, in the order in which places and names are tried."""
    folder = path.parent
    below = tuple(form(part, True) for part in folder.relative_to(root).parts) if folder.is_relative_to(root) else ()
    telling = tuple(part for part in below if not set(part.split("_")) <= KIND_FOLDERS)
    places = [
        ("beside", folder.parts), ("path", below), ("folders", telling), ("last folder", telling[-1:]), ("name", ()),
        ("track", ()),
    ]
    for place, folders in places:
        if place == "last folder" and not folders:
            continue
        for is_loose in (False, True):
            for stem in stems:
                if place != "name" or COMMON_NAME.fullmatch(loose(stem)) is None:
                    yield Key(place, folders, form(stem, is_loose), is_loose)


def label_stems(path: PurePath) -> list[str]:
    """Names that the audio of a label file may have, the likeliest first.

    >>> label_stems(PurePath("a.wav.jams")), label_stems(PurePath("a_beats.txt")), label_stems(PurePath("gtzan_a.beats"))
    (['a.wav', 'a'], ['a_beats', 'a'], ['gtzan_a', 'a'])
    """
    found = [path.stem]
    inner = PurePath(path.stem)
    if inner.suffix.lower() in AUDIO_SUFFIXES:
        found.append(inner.stem)
    for stem in list(found):
        word = word_at_end(stem)
        if word is not None:
            found.append(stem[: -len(word) - 1])
    for stem in list(found):
        if (match := SET_PREFIX.match(stem.lower())) is not None:
            found.append(stem[match.end() :])
    return [stem for stem in dict.fromkeys(found) if stem]


def form(name: str, is_loose: bool) -> str:
    return loose(name) if is_loose else to_nfc(name).casefold()


def loose(name: str) -> str:
    """A name without case, punctuation and zeros at its beginning.

    >>> loose("01 - I Saw Her.Standing"), loose("gtzan_blues.00000"), loose("0010089.LOFI")
    ('1_i_saw_her_standing', 'gtzan_blues_00000', '10089_lofi')
    """
    plain = re.sub(r"[\W_]+", "_", to_nfc(name).casefold()).strip("_")
    return re.sub(r"^0+(?=\d)", "", plain) or name
