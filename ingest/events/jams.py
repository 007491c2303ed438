"""Annotations of JAMS files, read as JSON: beats, onsets, chords, keys, sections and notes.

    namespace                                   events
    beat, beat_position                         beat and downbeat; value: the number in the bar
    onset                                       onset
    chord, chord_harte                          chord, see `ingest.events.chords`
    key_mode                                    key
    segment_*                                   section
    note_midi, note_hz                          note; value: the instrument, or the data source

Other namespaces are ignored.  Of several annotations of one kind the first is read; notes of annotations with different data
sources, such as the six strings of GuitarSet, belong together.
Humphrey et al. 2014, JAMS: a JSON annotated music specification for reproducible MIR research.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from tonelake.ingest.events.beats import beat_number, beat_rows
from tonelake.ingest.events.chords import chord_value
from tonelake.ingest.events.keys import key_name
from tonelake.ingest.events.label_events import EventRow, LabelEvents, instant, label_events, span
from tonelake.ingest.events.sections import section_label
from tonelake.ingest.text_files import read_text, readable
from tonelake.store import InputError

MAX_BYTES = 64 << 20                     # GuitarSet's files have 5 MB, most of it contours of pitch
KIND_OF = {
    "beat": "beat", "beat_position": "beat", "onset": "onset", "chord": "chord", "chord_harte": "chord", "key_mode": "key",
    "note_midi": "note", "note_hz": "note",
}
FIELDS = ("time", "duration", "value")


def read_jams(path: Path) -> LabelEvents:
    """Read the annotations of a file.  Raises InputError, naming the file, if it is not JAMS or holds nothing of the above."""
    annotations = chosen_annotations(path)
    repairs: Counter[str] = Counter()
    rows: list[EventRow] = []
    for kind, annotation, is_further in annotations:
        if is_further:
            repairs[f"further annotations of {kind} events left out"] += 1
            continue
        for at, observation in enumerate(observations(path, annotation)):
            rows += event_rows(path, kind, annotation, observation, at, repairs)
    return label_events(path.name, rows, repairs)


def chosen_annotations(path: Path) -> list[tuple[str, dict[str, Any], bool]]:
    """(kind, annotation, whether another one of its kind is read in its place) of each annotation that holds events."""
    with readable(path):
        size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path.name}: has {size / 2**20:.0f} MB; JAMS files are read up to {MAX_BYTES >> 20} MB. Split it")
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, InputError) else not_jams(path, f"it is not JSON: {error}") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise not_jams(path, "it has no list of annotations")
    seen: dict[str, set[str]] = {}
    found = []
    for annotation in annotations:
        namespace = annotation.get("namespace") if isinstance(annotation, dict) else None
        if not isinstance(namespace, str):
            raise not_jams(path, "an annotation has no namespace")
        kind = KIND_OF.get(namespace) or ("section" if namespace.startswith("segment_") else None)
        if kind is None or not annotation.get("data"):
            continue
        source = part_name(annotation)
        before = seen.setdefault(kind, set())
        further = bool(before) and (kind != "note" or not source or source in before or "" in before)
        if not further:
            before.add(source)
        found.append((kind, annotation, further))
    return found


def part_name(annotation: dict[str, Any]) -> str:
    """The instrument or data source of an annotation; "" if it names none."""
    about, sandbox = annotation.get("annotation_metadata"), annotation.get("sandbox")
    names = [sandbox.get("instrument")] if isinstance(sandbox, dict) else []
    names += [about.get("data_source")] if isinstance(about, dict) else []
    return next((name for one in names if isinstance(one, str | int) and (name := section_label(str(one)))), "")


def observations(path: Path, annotation: dict[str, Any]) -> Iterator[tuple[float, float, Any]]:
    """Yield (time, duration, value) of the data, which are a list of observations or, in older files, an object of lists."""
    data = annotation["data"]
    if isinstance(data, dict) and all(isinstance(data.get(name), list) for name in FIELDS):
        if len({len(data[name]) for name in FIELDS}) > 1:
            raise not_jams(path, "the lists of an annotation have different lengths")
        data = [dict(zip(FIELDS, values, strict=True)) for values in zip(*(data[name] for name in FIELDS), strict=True)]
    if not isinstance(data, list):
        raise not_jams(path, "the data of an annotation are not a list")
    for one in data:
        if not isinstance(one, dict) or not is_number(one.get("time")):
            raise not_jams(path, "an observation has no time")
        duration = one.get("duration")
        yield float(one["time"]), float(duration) if is_number(duration) else 0.0, one.get("value")


def event_rows(
    path: Path, kind: str, annotation: dict[str, Any], observation: tuple[float, float, Any], at: int,
    repairs: Counter[str],
) -> list[EventRow]:
    """The events of one observation.  Raises InputError, naming the file, for a value of another type."""
    time_s, duration_s, value = observation
    end_s = time_s + duration_s
    if kind == "beat":
        position = value.get("position") if isinstance(value, dict) else value
        number = beat_number(float(position)) if is_number(position) and math.isfinite(position) else None
        repairs["numbers that are no beat of a bar left out"] += position is not None and number is None
        return beat_rows(time_s, number)
    if kind == "onset":
        return [instant("onset", time_s)]
    if kind == "note":
        pitch = midi_pitch(annotation["namespace"], value)
        if pitch is None or not 0 <= pitch <= 127:
            repairs["notes without a pitch from 0 to 127 left out"] += 1
            return []
        return [EventRow("note", start_s=time_s, end_s=end_s, value=part_name(annotation) or None, pitch=pitch)]
    if not isinstance(value, str) and not (kind == "section" and is_number(value)):
        raise not_jams(path, f"the value of {annotation['namespace']} number {at + 1} is not text")
    text = str(value)
    if kind == "chord":
        return [span("chord", time_s, end_s, chord_value(text, repairs))]
    if kind == "section":
        return [span("section", time_s, end_s, section_label(text))]
    name = key_name(text)
    if name is None:
        repairs["labels that are no major or minor key left out"] += text.strip().upper() != "N"
        return []
    return [span("key", time_s, end_s, name)]


def midi_pitch(namespace: str, value: Any) -> float | None:
    """The MIDI number of a note's value, which is a number or frequency, or an object that contains one."""
    if isinstance(value, dict):
        value = value.get("frequency") or value.get("pitch") or value.get("midi")
    if not is_number(value) or not math.isfinite(value):
        return None
    if namespace == "note_midi":
        return float(value)
    return 69.0 + 12.0 * math.log2(value / 440.0) if value > 0 else None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number that fits a float; NaN and infinity, which Python's JSON knows, included."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000)


def not_jams(path: Path, reason: str) -> InputError:
    return InputError(f"{path.name}: is not a JAMS file that can be read ({reason}). Export it again")
