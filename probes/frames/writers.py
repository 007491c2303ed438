"""Events of one clip or recording to a file: Standard MIDI, JAMS or CSV.

`events` are as `decode` returns them: kind, start_s, end_s, value, pitch, velocity, times in seconds from the beginning of the
audio.  A file is written under another name and then renamed, so that it appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl

from tonelake.store import printable

TEMPO = 500_000                          # microseconds in a beat
TICKS_PER_BEAT = 1_000                   # a tick is 0.5 ms
LONG_S, LONG_TICKS_PER_BEAT = 4_800, 500 # readers such as pretty_midi refuse files of ten million ticks
VELOCITY = 80                            # of notes without one
DRUM_CHANNEL = 9
CHANNELS = tuple(channel for channel in range(16) if channel != DRUM_CHANNEL)
MOST_CHARACTERS = 80                     # of a track's or file's name
JAMS_VERSION = "0.3.4"                   # of the schema
NAMESPACES = {
    "note": "note_midi", "beat": "beat", "onset": "onset", "chord": "chord_harte", "key": "key_mode", "section": "segment_open",
}
CSV_COLUMNS = ("kind", "start_s", "end_s", "value", "pitch", "velocity")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)      # names of devices on Windows


def write_midi(events: pl.DataFrame, path: Path, *, programs: dict[str, int] | None = None) -> int:
    """Write the notes as a MIDI file of format 1 and return their number: a track and a channel for each instrument.

    The instrument is the `value` of a note, and the name of its track; `programs` has the General MIDI programs (0 to 127) of
    instruments, others get none.  Times are exact to 0.25 ms (0.5 ms beyond 80 minutes), pitches rounded to semitones, and
    velocity is 80 if unknown.  A note lasts at least a tick, and ends at the latest where its instrument plays its pitch again:
    synthesizers hold a note for ever whose end comes before its beginning.  With more than 15 instruments, channels are shared.
    """
    import mido

    notes = events.filter(pl.col("kind") == "note").sort("start_s", "pitch", maintain_order=True)
    per_beat = LONG_TICKS_PER_BEAT if (notes["end_s"] > LONG_S).any() else TICKS_PER_BEAT
    file = mido.MidiFile(type=1, ticks_per_beat=per_beat, charset="utf-8")
    file.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=TEMPO, time=0)]))
    count = 0
    for number, instrument in enumerate(notes["value"].unique(maintain_order=True)):
        own = notes.filter(pl.col("value").eq_missing(pl.lit(instrument, pl.String)))
        channel = CHANNELS[number % len(CHANNELS)]
        track = mido.MidiTrack()
        if instrument:
            track.append(mido.MetaMessage("track_name", name=printable(instrument)[:MOST_CHARACTERS], time=0))
        if programs and instrument in programs:
            track.append(mido.Message("program_change", channel=channel, program=programs[instrument], time=0))
        rows = notes_in_ticks(own, per_beat * 1_000_000 // TEMPO)
        count += len(rows)
        # At equal ticks, notes end before others begin.
        ends = [(end, 0, pitch, 0) for _, end, pitch, _ in rows]
        messages = sorted([*ends, *((start, 1, pitch, velocity) for start, _, pitch, velocity in rows)])
        before = 0
        for tick, on, pitch, velocity in messages:
            kind = "note_on" if on else "note_off"
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - before))
            before = tick
        file.tracks.append(track)
    write_whole(path, lambda beside: file.save(beside))
    return count


def notes_in_ticks(notes: pl.DataFrame, per_s: int) -> list[tuple[int, int, int, int]]:
    """Return (start, end, pitch, velocity) of the notes of one instrument, without overlaps within a pitch."""
    start = np.maximum((notes["start_s"].to_numpy() * per_s).round().astype(np.int64), 0)
    end = np.maximum((notes["end_s"].to_numpy() * per_s).round().astype(np.int64), start + 1)
    pitch = np.clip(notes["pitch"].to_numpy().round(), 0, 127).astype(np.int64)
    velocity = np.clip(notes["velocity"].fill_null(VELOCITY).to_numpy(), 1, 127)
    order = np.lexsort((-end, start, pitch))                 # of notes that begin together, the longest is kept
    rows: list[tuple[int, int, int, int]] = []
    for row in order:
        again = bool(rows) and rows[-1][2] == pitch[row]
        if again and rows[-1][0] == start[row]:
            continue
        if again:
            rows[-1] = (rows[-1][0], min(rows[-1][1], int(start[row])), *rows[-1][2:])
        rows.append((int(start[row]), int(end[row]), int(pitch[row]), int(velocity[row])))
    return rows


def write_jams(
    events: pl.DataFrame, path: Path, *, duration_s: float, title: str = "", artist: str = "", annotator: str = "tonelake",
) -> int:
    """Write all events as a JAMS file (Humphrey et al. 2014) and return the number of observations.

    An annotation for each kind of event, and for each instrument of notes, whose name is the annotation's data source.  A
    downbeat is a beat with position 1.  `annotator`: what made the events, such as the name of a run.
    """
    found: list[dict[str, Any]] = []
    for kind, namespace in NAMESPACES.items():
        own = beats_of(events) if kind == "beat" else events.filter(pl.col("kind") == kind)
        own = own.sort("start_s", "pitch", maintain_order=True)
        parts = own["value"].unique(maintain_order=True).to_list() if kind == "note" else [None]
        for part in parts if len(own) else ():
            rows = own.filter(pl.col("value").eq_missing(pl.lit(part, pl.String))) if kind == "note" else own
            found.append({
                "annotation_metadata": annotation_metadata(annotator, part or ""), "namespace": namespace,
                "data": [
                    {
                        "time": round(row["start_s"], 6), "duration": round(row["end_s"] - row["start_s"], 6),
                        "value": jams_value(kind, row), "confidence": None,
                    }
                    for row in rows.iter_rows(named=True)
                ],
                "sandbox": {}, "time": 0.0, "duration": round(float(duration_s), 6),
            })
    content = {
        "annotations": found,
        "file_metadata": {
            "title": title, "artist": artist, "release": "", "duration": round(float(duration_s), 6), "identifiers": {},
            "jams_version": JAMS_VERSION,
        },
        "sandbox": {},
    }
    data = (json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()

    def write(beside: Path) -> None:
        beside.write_bytes(data)

    write_whole(path, write)
    return sum(len(one["data"]) for one in found)


def annotation_metadata(annotator: str, source: str) -> dict[str, Any]:
    return {
        "curator": {"name": "", "email": ""}, "annotator": {"name": annotator}, "version": "", "corpus": "",
        "annotation_tools": "tonelake", "annotation_rules": "", "validation": "", "data_source": source,
    }


def beats_of(events: pl.DataFrame) -> pl.DataFrame:
    """Return beats with their numbers: those of downbeats, which are at the times of beats, are 1."""
    beats = events.filter(pl.col("kind") == "beat")
    downbeats = events.filter(pl.col("kind") == "downbeat").with_columns(pl.lit("1").alias("value"))
    lone = beats.filter(~pl.col("start_s").is_in(downbeats["start_s"].to_list()))
    return pl.concat([lone, downbeats])


def jams_value(kind: str, row: dict[str, Any]) -> Any:
    """Return the value of an observation as its namespace defines it."""
    if kind == "note":
        return round(float(row["pitch"]), 4)
    if kind == "beat":
        return int(row["value"]) if str(row["value"]).isdecimal() else None
    if kind == "onset":
        return None
    value = row["value"] or ("N" if kind == "chord" else "")
    return value.replace(" ", ":", 1) if kind == "key" else value


def write_event_csv(events: pl.DataFrame, path: Path) -> int:
    """Write all events as CSV with a header (kind, start_s, end_s, value, pitch, velocity), and return their number."""
    rows = events.select(CSV_COLUMNS).sort("start_s", "kind", "pitch", maintain_order=True)
    write_whole(path, lambda beside: rows.write_csv(beside, float_precision=6))
    return len(rows)


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under another name in its folder, which is made if needed, and rename it.  An error leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tonelake-{uuid4().hex}.part")
    try:
        write(beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def event_file_name(title: str, key: str, suffix: str) -> str:
    """Return a file name for a clip from any text: no separators, control characters, device names or leading dots.

    `key` (the clip's id) makes it unique: titles can be equal, or differ in what is removed.

    >>> event_file_name("AC/DC: Thunderstruck", "clip-1", ".mid"), event_file_name("../..", "x", ".jams")
    ('AC_DC_ Thunderstruck-83f55edd.mid', 'clip-b1ba07e5.jams')
    """
    text = re.sub(r'[<>:"/\\|?*%\x00-\x1f\x7f]', "_", printable(title)).strip(" ._")[:MOST_CHARACTERS].strip(" ._")
    while len(text.encode("utf-8", "replace")) > 2 * MOST_CHARACTERS:        # file systems allow 255 bytes
        text = text[:-1]
    stem = "clip" if not text or RESERVED.match(text) else text
    return f"{stem}-{hashlib.blake2b(key.encode('utf-8', 'replace'), digest_size=4).hexdigest()}{suffix}"
