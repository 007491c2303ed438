"""Notes of Standard MIDI Files, by mido.  Formats 0 and 1, with tempo changes or SMPTE time, also inside RIFF (.rmi).

    value       the General MIDI instrument of the program, if one is set, else the name of the track, else null
    pitch       MIDI number; pitch bends are ignored
    end         where the key is released, or with `sustain` the pedal (controller 64 at 64 or more), as what sounds; a pedalled
                note ends where its pitch is played again.  Sostenuto and soft pedal are ignored
    drums       notes of channel 10 are onsets without pitch, value "drums".  A file that has both drums and other notes gets
                onsets for all of them, so that its onsets are complete

Pairing of note-on and note-off, by track, channel and pitch, as FluidSynth plays them: a note that is struck again while it
sounds ends there; note-ons at the same tick are one note, the loudest; a note-off in the tick of its note-on makes a note of no
length; a note-off without note-on is ignored, and a note-on that is never ended is left out.  Each is counted.
"""

from __future__ import annotations

import io
import struct
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonelake.ingest.events.label_events import MAX_S, EventRow, LabelEvents, instant, label_events
from tonelake.ingest.general_midi import PROGRAMS
from tonelake.ingest.text_files import readable
from tonelake.store import InputError, to_nfc

MAX_BYTES = 4 << 20                      # a million messages, which take 15 s and 1 GB; ten hours of piano have less
MAX_TICK = 2**53                         # is exact as float64
DRUM_CHANNEL = 9                         # MIDI channel 10, counted from 0
SUSTAIN, PEDAL_DOWN = 64, 64             # controller, and the least value that holds
DEFAULT_TEMPO = 500_000                  # microseconds in a quarter note until the first tempo
DRUMS = "drums"
MAX_NAME = 80                            # characters of a track's name


class Note(NamedTuple):
    """One note in ticks."""

    channel: int
    pitch: int
    first: int
    last: int
    velocity: int
    value: str | None


@dataclass
class Notes:
    """Notes, drum hits and pedals of the tracks of one file, in ticks."""

    notes: list[Note]
    hits: list[tuple[int, int]]          # (tick, velocity) of drums
    pedals: dict[int, list[tuple[int, bool]]]                # channel -> (tick, whether the pedal is down)
    end: int                             # tick of the last event
    repairs: Counter[str]


def read_midi(path: Path, *, sustain: bool = True) -> LabelEvents:
    """Read the notes of a file.  `sustain`: notes last as long as the pedal holds them.

    Raises InputError, naming the file, if it is not a MIDI file, is damaged or too large, or has no notes.
    """
    file = parse_midi(path)
    found = read_tracks(file)
    if sustain:
        found.notes = pedalled(found)
    ticks = np.array([(note.first, note.last) for note in found.notes], np.float64).reshape(-1, 2)
    spans = seconds_of(ticks, file)
    hits = seconds_of(np.array([tick for tick, _ in found.hits], np.float64), file)
    rows = [
        EventRow(
            "note", start_s=float(start_s), end_s=float(end_s), value=note.value, pitch=float(note.pitch),
            velocity=note.velocity,
        )
        for note, (start_s, end_s) in zip(found.notes, spans, strict=True)
    ]
    if len(hits):
        rows += [instant("onset", row.start_s, row.value, velocity=row.velocity) for row in rows]
    rows += [
        instant("onset", float(at_s), DRUMS, velocity=velocity)
        for at_s, (_, velocity) in zip(hits, found.hits, strict=True)
    ]
    if max((row.start_s for row in rows), default=0.0) > MAX_S:
        raise InputError(f"{path.name}: has notes after more than a day. Correct its tempo or its times")
    return label_events(path.name, rows, found.repairs)


def parse_midi(path: Path) -> Any:
    """The file as mido reads it.  Raises InputError, naming the file."""
    import mido

    with readable(path):
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    if size > MAX_BYTES:
        raise InputError(f"{path.name}: has {size / 2**20:.1f} MB; MIDI files are read up to {MAX_BYTES >> 20} MB. Split it")
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        data = data[data.find(b"MThd"):] if b"MThd" in data else b""
    try:
        # Data bytes above 127 are errors of one message, and are read as 127.
        file = mido.MidiFile(file=io.BytesIO(data), clip=True)
    except Exception as error:           # mido raises whatever its parts do: OSError, EOFError, KeyError, KeySignatureError
        reason = "it ends within a track" if isinstance(error, EOFError) else str(error) or type(error).__name__
        raise InputError(f"{path.name}: is not a MIDI file that can be read ({reason}). Export it again") from error
    if file.type == 2 and len(file.tracks) > 1:
        raise InputError(f"{path.name}: is a MIDI file of format 2, whose tracks have no common time. Export it as format 1")
    if not file.ticks_per_beat:
        raise InputError(f"{path.name}: has a time base of 0 ticks. Export it again")
    return file


def read_tracks(file: Any) -> Notes:
    """Pair note-ons and note-offs of every track."""
    found = Notes(notes=[], hits=[], pedals=defaultdict(list), end=0, repairs=Counter())
    for track in file.tracks:
        read_track(track, found)
    return found


def read_track(track: Any, found: Notes) -> None:
    now = 0
    name: str | None = None
    programs: dict[int, int] = {}
    sounding: dict[tuple[int, int], tuple[int, int]] = {}            # (channel, pitch) -> tick and velocity
    struck_again: dict[tuple[int, int], int] = {}                    # tick at which a note ended, whose note-off may follow
    notes: list[tuple[Note, int | None]] = []                        # without value, with program

    def close(channel: int, pitch: int) -> None:
        first, velocity = sounding.pop((channel, pitch))
        note = Note(channel, pitch=pitch, first=first, last=now, velocity=velocity, value=None)
        notes.append((note, programs.get(channel)))

    for message in track:
        now = min(now + int(message.time), MAX_TICK)
        kind = message.type
        if kind == "track_name" and name is None:
            name = clean_name(message.name)
        elif kind == "program_change":
            programs[message.channel] = message.program
        elif kind == "control_change" and message.control == SUSTAIN:
            found.pedals[message.channel].append((now, message.value >= PEDAL_DOWN))
        elif kind == "note_on" and message.velocity > 0:
            if message.channel == DRUM_CHANNEL:
                found.hits.append((now, message.velocity))
                continue
            key = (message.channel, message.note)
            velocity = message.velocity
            if key in sounding and sounding[key][0] == now:
                found.repairs["notes struck twice at once merged"] += 1
                velocity = max(velocity, sounding[key][1])
            elif key in sounding:
                found.repairs["notes struck again while they sounded ended there"] += 1
                close(*key)
                struck_again[key] = now
            sounding[key] = (now, velocity)
        elif kind in ("note_on", "note_off") and message.channel != DRUM_CHANNEL:
            key = (message.channel, message.note)
            if struck_again.pop(key, None) == now:                   # ends the earlier note, which has ended
                continue
            if key in sounding:
                close(*key)
            else:
                found.repairs["note-offs without a note ignored"] += 1
    found.repairs["notes that never end left out"] += len(sounding)
    found.end = max(found.end, now)
    found.notes += [
        note._replace(value=PROGRAMS[program] if program is not None else name) for note, program in notes
    ]


def pedalled(found: Notes) -> list[Note]:
    """Notes that last as long as the sustain pedal of their channel holds them, or until their pitch is struck again."""
    next_of: dict[tuple[int, int], int] = {}
    held: list[Note] = []
    downs = {channel: pedal_spans(events, found.end) for channel, events in found.pedals.items()}
    for note in sorted(found.notes, key=lambda note: note.first, reverse=True):
        key = (note.channel, note.pitch)
        spans = downs.get(note.channel)
        last = note.last
        if spans is not None and len(spans):
            at = int(np.searchsorted(spans[:, 0], last, side="right")) - 1
            if at >= 0 and spans[at, 1] > last:
                following = next_of.get(key)
                last = int(spans[at, 1]) if following is None else max(last, min(int(spans[at, 1]), following))
        if note.first < next_of.get(key, MAX_TICK):
            next_of[key] = note.first
        held.append(note._replace(last=last))
    return held[::-1]


def pedal_spans(events: list[tuple[int, bool]], end: int) -> np.ndarray:
    """(span, 2) ticks at which a pedal goes down and up, the last one until `end` if it stays down.

    >>> pedal_spans([(10, True), (20, True), (30, False), (40, False), (50, True)], 60).tolist()
    [[10, 30], [50, 60]]
    """
    spans: list[list[int]] = []
    is_down = False
    for tick, down in sorted(events, key=lambda event: event[0]):
        if down and not is_down:
            spans.append([tick, end])
        elif is_down and not down:
            spans[-1][1] = tick
        is_down = down
    return np.array(spans, np.int64).reshape(-1, 2)


def seconds_of(ticks: np.ndarray, file: Any) -> np.ndarray:
    """Ticks as seconds, by the tempo changes of all tracks or, where the time base is SMPTE's, without them."""
    base = file.ticks_per_beat
    if base < 0:                         # two bytes: frames a second as a negative number, ticks a frame
        high, low = struct.unpack("bB", struct.pack(">h", base))
        rate = {-29: 30_000 / 1_001}.get(high, -high) * max(low, 1)
        return ticks / rate
    changes = {0: DEFAULT_TEMPO}
    for track in file.tracks:
        now = 0
        for message in track:
            now = min(now + int(message.time), MAX_TICK)
            if message.type == "set_tempo":
                changes[now] = message.tempo
    at = np.array(sorted(changes), np.float64)
    tempo = np.array([changes[int(tick)] for tick in at], np.float64)                # microseconds in a quarter note
    begun = np.concatenate([[0.0], np.cumsum(np.diff(at) * tempo[:-1])])             # times `base`, so that integers stay exact
    part = np.searchsorted(at, ticks, side="right") - 1
    return (begun[part] + (ticks - at[part]) * tempo[part]) / (1e6 * base)


def clean_name(text: str) -> str | None:
    """The name of a track, which mido reads as Latin-1, on one line; None if it is empty."""
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return to_nfc(line[:MAX_NAME]) or None
