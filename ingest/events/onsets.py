"""Onsets in text: a time in seconds a row, as madmom and annotators write them.  Text behind the time is ignored."""

from __future__ import annotations

from pathlib import Path

from tonelake.ingest.events.label_events import LabelEvents, instant, label_events
from tonelake.ingest.events.text_rows import read_number_rows


def read_onsets(path: Path) -> LabelEvents:
    """Read the onsets of a file.  Raises InputError, naming the file and row."""
    rows = read_number_rows(path, 1, alone=True)
    return label_events(path.name, [instant("onset", row.numbers[0]) for row in rows])
