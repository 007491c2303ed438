"""Metrics of particular music tasks, as a value for each clip: their mean is the metric, and has an interval like any mean.

    keys     MIREX's weighted score, by mir_eval: 1 for the key, 0.5 a fifth above it, 0.3 relative, 0.2 parallel
    tempo    accuracy 1 and 2 (Gouyon et al. 2006, IEEE TASLP 14): within 4 % of the tempo; also of its double, triple, half
             or third.  mir_eval.tempo judges pairs of tempi, which a regression does not predict
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

KEY = re.compile(r"([A-Ga-g])\s*(#|b|♯|♭|-(?=[\s:]|$))?[\s:_-]*((?i:major|minor|maj|min)|m)?")
SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
SPELLINGS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
TEMPO_COLUMNS = ("tempo", "bpm")
TEMPO_TOLERANCE = 0.04
TEMPO_FACTORS = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)


def parse_key(name: str) -> str | None:
    """Return a key in mir_eval's spelling, or None for other text.

    Accepts a mode in words or short ("C# minor", "Eb:maj", "F#m") and music21's flats ("B- major"); a tonic alone is major,
    or minor if it is a small letter.

    >>> [parse_key(name) for name in ("Db major", "f# minor", "B- minor", "Am", "g", "E#:min", "blues", "dm7")]
    ['C# major', 'F# minor', 'A# minor', 'A minor', 'G minor', 'F minor', None, None]
    """
    match = KEY.fullmatch(name.strip())
    if match is None:
        return None
    letter, sign, mode = match[1], match[2], match[3]
    shift = 0 if sign is None else 1 if sign in "#♯" else -1
    minor = mode.lower() in ("minor", "min", "m") if mode else letter.islower()
    return f"{SPELLINGS[(SEMITONES[letter.lower()] + shift) % 12]} {'minor' if minor else 'major'}"


@lru_cache(maxsize=8)
def key_scores(names: tuple[str, ...]) -> np.ndarray | None:
    """Return MIREX's weighted scores (true class, predicted class) if every class is a key, else None.

    Letters alone, such as the parts A and B of a song, are keys only beside a class that names its mode.
    """
    keys = [parse_key(name) for name in names]
    if not all(keys) or not any(match and match[3] for match in (KEY.fullmatch(name.strip()) for name in names)):
        return None
    from mir_eval.key import weighted_score

    found = np.array([[weighted_score(true, predicted) for predicted in keys] for true in keys])
    found.flags.writeable = False
    return found


def task_values(kind: str, names: Sequence[str], targets: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return (clip,) values by metric, for the task that the classes or target columns belong to; empty for other tasks.

    Keys (multiclass): key_score.  A tempo column (regression): tempo_1 and tempo_2.
    """
    if kind == "multiclass":
        matrix = key_scores(tuple(names))
        return {} if matrix is None else {"key_score": matrix[targets, scores.argmax(axis=1)]}
    if kind != "regression":
        return {}
    column = next((number for number, name in enumerate(names) if name.lower() in TEMPO_COLUMNS), None)
    if column is None or not (targets[:, column] > 0).all():
        return {}
    return {
        "tempo_1": tempo_hits(targets[:, column], scores[:, column], TEMPO_FACTORS[:1]),
        "tempo_2": tempo_hits(targets[:, column], scores[:, column], TEMPO_FACTORS),
    }


def tempo_hits(true: np.ndarray, predicted: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Return (clip,) 1.0 where a predicted tempo is within 4 % of the true one times one of `factors`."""
    wanted = np.asarray(true, np.float64)[:, None] * np.asarray(factors)
    close = np.abs(np.asarray(predicted, np.float64)[:, None] - wanted) <= TEMPO_TOLERANCE * wanted
    return close.any(axis=1).astype(np.float64)
