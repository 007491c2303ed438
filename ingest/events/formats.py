"""Formats of label files, recognised by suffix, by words in names of files and folders, and of `.lab` by content.

    .mid .midi .kar .rmi        midi       notes, and onsets of drums
    .jams                       jams       every kind
    .beats .beat                beats      beats, downbeats
    .chords .chord              chords     chords
    .key .keys                  keys       keys
    .sections .segments         sections   sections
    .onsets .onset              onsets     onsets
    .lab .txt .csv .tsv         by a word: `song_beats.txt`, `chordlab/song.lab`, `annotations/beats/song.txt`; a `.lab` without
                                one is read as chords if its labels are chords, else as sections
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from tonelake.ingest.events.beats import read_beats
from tonelake.ingest.events.chords import chord_label, read_chords
from tonelake.ingest.events.jams import read_jams
from tonelake.ingest.events.keys import read_keys
from tonelake.ingest.events.label_events import LabelEvents
from tonelake.ingest.events.midi import read_midi
from tonelake.ingest.events.onsets import read_onsets
from tonelake.ingest.events.sections import read_sections
from tonelake.ingest.events.text_rows import read_spans
from tonelake.store import EVENT_KINDS, InputError


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of label files."""

    source: str                          # of its events
    kinds: tuple[str, ...]
    read: Callable[[Path], LabelEvents]


def read_lab(path: Path) -> LabelEvents:
    """Read a `.lab` file as chords, keys or sections, by its labels.  Raises InputError if these could be several."""
    labels = [label for _, _, label in read_spans(path)]
    if any(label.casefold().startswith("key") for label in labels):
        return read_keys(path)
    if labels and all(re.fullmatch("[A-G]", label) for label in labels):
        raise InputError(f"{path.name}: its labels can be chords or sections. Choose with --kind chord or --kind section")
    known = sum(chord_label(label) not in (None, "X") for label in labels)
    return read_chords(path) if known > len(labels) / 2 else read_sections(path)


FORMATS = {
    "midi": Format(source="midi", kinds=("note", "onset"), read=read_midi),
    "jams": Format(source="jams", kinds=EVENT_KINDS, read=read_jams),
    "beats": Format(source="beats", kinds=("beat", "downbeat"), read=read_beats),
    "chords": Format(source="lab", kinds=("chord",), read=read_chords),
    "keys": Format(source="lab", kinds=("key",), read=read_keys),
    "sections": Format(source="lab", kinds=("section",), read=read_sections),
    "lab": Format(source="lab", kinds=("chord", "key", "section"), read=read_lab),
    "onsets": Format(source="onsets", kinds=("onset",), read=read_onsets),
}
SUFFIXES = {
    ".mid": "midi", ".midi": "midi", ".kar": "midi", ".rmi": "midi", ".jams": "jams", ".beats": "beats", ".beat": "beats",
    ".chords": "chords", ".chord": "chords", ".key": "keys", ".keys": "keys", ".sections": "sections", ".segments": "sections",
    ".onsets": "onsets", ".onset": "onsets",
}
TEXT_SUFFIXES = frozenset({".lab", ".txt", ".csv", ".tsv"})
WORDS = {                                # in names of files and folders
    "beats": ("beat", "beats", "downbeat", "downbeats", "beatpositions"),
    "chords": ("chord", "chords", "chordlab", "chordlabs", "harmony"),
    "keys": ("key", "keys", "keylab", "keylabs"),
    "sections": ("section", "sections", "segment", "segments", "seglab", "seglabs", "structure", "segmentation"),
    "onsets": ("onset", "onsets"),
}
FOLDER_WORDS = frozenset({               # beside a word in the name of a folder: beat_annotations
    "annotation", "annotations", "annotated", "label", "labels", "lab", "txt", "csv", "reference", "gt", "v", "and",
})
FORMAT_OF_WORD = {word: name for name, words in WORDS.items() for word in words}
OF_KIND = {"beat": "beats", "downbeat": "beats", "chord": "chords", "key": "keys", "section": "sections", "onset": "onsets"}


def format_of(path: PurePath, kinds: Sequence[str] | None = None) -> str | None:
    """The format of a label file, whose path is relative to the folder of labels; None for other files.

    `kinds`: if one is given, text files without a word are of this kind.

    >>> [format_of(PurePath(path)) for path in ("a.mid", "chordlab/a.lab", "a_beats.txt", "keys/a.txt", "a.lab", "a.txt")]
    ['midi', 'chords', 'beats', 'keys', 'lab', None]
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix not in TEXT_SUFFIXES:
        return None
    for name in (word_at_end(path.stem) or "", *(part.lower() for part in reversed(path.parent.parts))):
        words = {word for word in re.split(r"[^a-z]+", name) if word} - FOLDER_WORDS
        named_by_words = {FORMAT_OF_WORD.get(word) for word in words}
        if len(named_by_words) == 1 and None not in named_by_words:  # not a folder of music called `Key of Life`
            return named_by_words.pop()
    if kinds is not None and len(named := {OF_KIND.get(kind) for kind in kinds}) == 1:
        found = named.pop()
        return None if suffix == ".lab" and found in ("beats", "onsets") else found
    return "lab" if suffix == ".lab" else None


def word_at_end(stem: str) -> str | None:
    """The last word of a file's name behind a separator, if it names a kind of events.

    >>> word_at_end("My Song.beats"), word_at_end("song_key"), word_at_end("beats")
    ('beats', 'key', None)
    """
    match = re.fullmatch(r".+[._\- ]([A-Za-z]+)", stem)
    return match[1].lower() if match is not None and match[1].lower() in FORMAT_OF_WORD else None


def read_label_file(path: Path, name: str, *, sustain: bool = True) -> LabelEvents:
    """Read a file of the format `name`.  `sustain`: see `read_midi`.  Raises InputError, naming the file."""
    return read_midi(path, sustain=sustain) if name == "midi" else FORMATS[name].read(path)
