"""Sections: spans with a label as Isophonics writes them (start, end, label), or boundaries (time, label) as Harmonix does."""

from __future__ import annotations

from pathlib import Path

from tonelake.ingest.events.label_events import LabelEvents, label_events, span
from tonelake.ingest.events.text_rows import read_spans
from tonelake.store import printable, to_nfc

MAX_LABEL = 200                          # characters


def read_sections(path: Path) -> LabelEvents:
    """Read the sections of a file.  Raises InputError, naming the file and row."""
    rows = [span("section", start_s, end_s, section_label(text)) for start_s, end_s, text in read_spans(path)]
    return label_events(path.name, rows)


def section_label(text: str) -> str | None:
    """A label on one line; None if it is empty.

    >>> section_label(" Verse\\t1 "), section_label("")
    ('Verse 1', None)
    """
    return to_nfc(printable(" ".join(text.split()))[:MAX_LABEL]) or None
