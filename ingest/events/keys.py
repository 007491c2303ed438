"""Keys: names in one spelling, and files of keys.  A key is "C major" or "F# minor", with sharps instead of flats.

    D minor                       GiantSteps, the MTG keys (with a confidence behind a tab): the key of a whole recording
    0.33   176.0   Key   E        Isophonics
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tonelake.ingest.events.label_events import TO_THE_END, EventRow, LabelEvents, label_events, span
from tonelake.ingest.events.text_rows import read_label_lines, read_spans
from tonelake.store import InputError

STARTS_WITH_TIME = re.compile(r"[-+]?[\d.,]+(\s|;|$)")
WITH_KIND = re.compile(r"key\s+[\d.]+\s+", re.IGNORECASE)            # before a key in one form of GiantSteps
SILENCES = frozenset({"silence", "key silence", "n", "none", "-"})
KEY = re.compile(r"\s*(?i:key\b)?[\s:]*([A-Ga-g])\s*([#b♯♭]*)[\s:_-]*([A-Za-z]*)\s*")
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MODES = {
    "major": "major", "maj": "major", "dur": "major", "ionian": "major", "M": "major",
    "minor": "minor", "min": "minor", "moll": "minor", "aeolian": "minor", "m": "minor",
}


def key_name(text: str) -> str | None:
    """A key in one spelling; None for text that is not one major or minor key, such as another mode.

    >>> key_name("f# minor"), key_name("Db:major"), key_name("A:min"), key_name("Key\\tE"), key_name("bb minor"), key_name("Cm")
    ('F# minor', 'C# major', 'A minor', 'E major', 'A# minor', 'C minor')
    >>> key_name("D:dorian"), key_name("Silence"), key_name("-")
    (None, None, None)
    """
    match = KEY.fullmatch(text.strip())
    if match is None:
        return None
    tonic, accidentals, mode = match.groups()
    named = MODES.get(mode) or MODES.get(mode.lower()) if mode else "minor" if tonic.islower() else "major"
    if named is None or len(accidentals) > 2:
        return None
    shift = sum(1 if sign in "#♯" else -1 for sign in accidentals)
    return f"{NAMES[(SEMITONES[tonic.upper()] + shift) % 12]} {named}"


def read_keys(path: Path) -> LabelEvents:
    """Read the keys of a file: one key for the whole recording, or spans as Isophonics writes them (start, end, Key, name).

    Raises InputError, naming the file and row, if it holds no key, or several without times.
    """
    lines = read_label_lines(path)
    whole = [WITH_KIND.sub("", line, count=1) for _, line in lines if not STARTS_WITH_TIME.match(line)]
    repairs: Counter[str] = Counter()
    rows: list[EventRow] = []
    if len(whole) == len(lines):
        names = {key_name(re.split(r"\t|\|", line)[0]) for line in whole}
        name = names.pop() if len(names) == 1 else None
        if name is None:
            raise InputError(f"{path.name}: does not hold a single major or minor key. Give spans with times, or leave it out")
        rows = [span("key", 0.0, TO_THE_END, name)]
    else:
        for start_s, end_s, text in read_spans(path):
            name = key_name(text)
            if name is None:
                repairs["labels that are no major or minor key left out"] += text.casefold() not in SILENCES
            else:
                rows.append(span("key", start_s, end_s, name))
    return label_events(path.name, rows, repairs)
