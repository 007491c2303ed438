"""Keys: names in one spelling, and files of keys.  A key is "C major" or "F# minor", with sharps instead of flats."""

from __future__ import annotations

import re

KEY = re.compile(r"\s*(?:key\b)?[\s:]*([A-Ga-g])\s*([#b♯♭]*)[\s:_-]*([A-Za-z]*)\s*")
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
