"""Beats in text: a time in seconds, and optionally the number of the beat in its bar.

    0.511                     madmom's DBNBeatTracker
    0.511   1                 madmom's DBNDownBeatTracker, Ballroom, GTZAN-Rhythm, Isophonics
    0.511   1   1             Harmonix: time, number, bar

Every beat is an event `beat`; one with the number 1 is a `downbeat` as well.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tonelake.ingest.events.label_events import EventRow, LabelEvents, instant, label_events
from tonelake.ingest.events.text_rows import read_number_rows

MOST_BEATS = 64                          # in a bar


def read_beats(path: Path) -> LabelEvents:
    """Read the beats of a file.  Raises InputError, naming the file and row."""
    rows = read_number_rows(path, 2)
    repairs: Counter[str] = Counter()
    found: list[EventRow] = []
    for row in rows:
        number = beat_number(row.numbers[1]) if len(row.numbers) > 1 else None
        repairs["numbers that are no beat of a bar left out"] += len(row.numbers) > 1 and number is None
        found += beat_rows(row.numbers[0], number)
    return label_events(path.name, found, repairs)


def beat_number(value: float) -> int | None:
    """The number of a beat in its bar; None unless it is a whole number from 1."""
    return int(value) if 1 <= value <= MOST_BEATS and value == int(value) else None


def beat_rows(time_s: float, number: int | None) -> list[EventRow]:
    """The events of one beat."""
    beat = instant("beat", time_s, None if number is None else str(number))
    return [beat, instant("downbeat", time_s, "1")] if number == 1 else [beat]
