"""Onset F1 by encoder and head in bench/results/frames.json, beside what other benchmarks of frames wrote there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bench.notes.models import Result
from bench.notes.scores import FAST_HELD, HELD_GROUP, SEEN_GROUP, Figures
from bench.report import RESULTS, write_results

FILE = RESULTS / "frames.json"
GROUPS = (SEEN_GROUP, HELD_GROUP, FAST_HELD)


def write_note_results(
    about: Mapping[str, str], notes: Sequence[tuple[Result, Figures]], beats: Sequence[tuple[Result, Figures]]
) -> None:
    """Set `note_f1` and `beat_f1`; other entries are kept."""
    if not FILE.exists():
        write_results("frames", "Frame probes", "Notes read from frames: docs/notes.md", dict(about), {})
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    stored["note_f1"] = by_encoder(notes, "onset_f1", GROUPS)
    stored["beat_f1"] = by_encoder(beats, "f1", GROUPS[:2])
    stored["about_notes"] = dict(about)
    FILE.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def by_encoder(
    models: Sequence[tuple[Result, Figures]], score: str, groups: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the score by encoder (with its layer, if it has several), head and group."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for result, figures in models:
        encoder, _, head = result.model.label.partition(", ")
        found.setdefault(encoder, {})[head] = {group: round(figures[group, score].value, 3) for group in groups}
    return found
