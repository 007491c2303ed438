"""Chords: labels in Harte's syntax, and `.lab` files as Isophonics writes them (start, end, label).

A label is normalised by mir_eval: "C" becomes "C:maj".  Common spellings of chord charts ("Am7", "F#m7b5", "G/B", "NC") are
converted; "N" is no chord, and "X" a label that cannot be read.  Harte et al. 2005, Symbolic representation of musical chords.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

from tonelake.ingest.events.label_events import LabelEvents, label_events, span
from tonelake.ingest.events.text_rows import read_spans

NO_CHORD, UNKNOWN = "N", "X"
NONE = frozenset({"n", "nc", "n.c.", "n.c", "none", "no chord", "silence", "sil", "&pause", "-"})
UNKNOWNS = frozenset({"x", "?", "unknown", "&", "*"})
CHART = re.compile(r"([A-G])([#b♯♭]*)([^/]*)(?:/([A-G])([#b♯♭]*))?")
QUALITIES = {                            # of charts: Harte's
    "": "maj", "M": "maj", "maj": "maj", "major": "maj", "m": "min", "mi": "min", "min": "min", "minor": "min", "-": "min",
    "7": "7", "dom7": "7", "M7": "maj7", "maj7": "maj7", "Maj7": "maj7", "Δ": "maj7", "Δ7": "maj7", "m7": "min7", "mi7": "min7",
    "min7": "min7", "-7": "min7", "mM7": "minmaj7", "mmaj7": "minmaj7", "dim": "dim", "o": "dim", "°": "dim", "dim7": "dim7",
    "o7": "dim7", "°7": "dim7", "m7b5": "hdim7", "min7b5": "hdim7", "ø": "hdim7", "ø7": "hdim7", "aug": "aug", "+": "aug",
    "6": "maj6", "m6": "min6", "min6": "min6", "9": "9", "m9": "min9", "min9": "min9", "maj9": "maj9", "M9": "maj9",
    "11": "11", "13": "13", "sus": "sus4", "sus4": "sus4", "sus2": "sus2", "7sus4": "sus4(b7)", "5": "5",
}
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
DEGREES = ("1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7")


def read_chords(path: Path) -> LabelEvents:
    """Read the chords of a file.  Raises InputError, naming the file and row."""
    repairs: Counter[str] = Counter()
    rows = [span("chord", start_s, end_s, chord_value(text, repairs)) for start_s, end_s, text in read_spans(path)]
    return label_events(path.name, rows, repairs)


def chord_value(text: str, repairs: Counter[str]) -> str:
    """The chord of a label; one that cannot be read is X, and counted."""
    value = chord_label(text)
    repairs["labels that are no chord stored as X"] += value is None
    return UNKNOWN if value is None else value


@lru_cache(maxsize=4096)
def chord_label(text: str) -> str | None:
    """A chord in Harte's syntax; None for text that is not a chord.

    >>> [chord_label(text) for text in ("C", "A:min7/b3", "F#m7b5", "G/B", "Bbsus4", "N.C.", "X", "Verse")]
    ['C:maj', 'A:min7/b3', 'F#:hdim7', 'G:maj/3', 'Bb:sus4', 'N', 'X', None]
    """
    from mir_eval.chord import InvalidChordException, encode, join, split

    text = text.strip()
    if text.casefold() in NONE:
        return NO_CHORD
    if text.casefold() in UNKNOWNS:
        return UNKNOWN
    label = text
    for attempt in (text, from_chart(text)):
        if attempt is None:
            continue
        try:
            root, quality, extensions, bass = split(attempt)
            encode(attempt)
            label = join(root, quality, sorted(extensions), bass)
        except (InvalidChordException, ValueError, IndexError, KeyError):
            continue
        return str(label)
    return None


def from_chart(text: str) -> str | None:
    """A label of a chord chart in Harte's syntax; None if it is not of that form."""
    match = CHART.fullmatch(text.replace(" ", ""))
    if match is None or match[3] not in QUALITIES:
        return None
    signs = match[2].replace("♯", "#").replace("♭", "b")
    bass = ""
    if match[4]:
        interval = (semitone(match[4], match[5]) - semitone(match[1], match[2])) % 12
        bass = f"/{DEGREES[interval]}" if interval else ""
    return f"{match[1]}{signs}:{QUALITIES[match[3]]}{bass}"


def semitone(letter: str, signs: str) -> int:
    return SEMITONES[letter] + sum(1 if sign in "#♯" else -1 for sign in signs)
