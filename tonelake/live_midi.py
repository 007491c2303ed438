"""A live session as notes: to a MIDI port while it runs, and to a MIDI file at its end.

A gesture is one note: its pitch rounded to a semitone, its velocity from its loudness, its length.  Gestures without a pitch
are left out.  The performer's notes are on channel 1, the answers on channel 2; an answer ends where the next one begins.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Condition, Thread
from types import ModuleType
from typing import Any, NamedTuple

import polars as pl

from tonelake.live_outputs import LiveEvent, text_of
from tonelake.probes import write_midi
from tonelake.recombine import velocity_of
from tonelake.store import InputError, printable, require_extra

PLAYED, ANSWER = 0, 1                    # channels as MIDI counts them, from 0
NAMES = {PLAYED: "played", ANSWER: "answer"}
VIRTUAL = "virtual:"


class Note(NamedTuple):
    """One note, with times in seconds from the event that it belongs to."""

    start_s: float
    end_s: float
    pitch: int
    velocity: int


def notes_of(event: LiveEvent) -> Iterator[Note]:
    """Yield the notes of a gesture or an answer."""
    if event.kind == "gesture":
        row = event.data
        rows = [(0.0, row["end_s"] - row["start_s"], row["pitch"], row["loudness"])]
    else:
        offsets_s = event.data.offsets_s().tolist()
        features = event.data.path.select("pitch", "loudness").iter_rows()
        rows = [(start, end, *both) for start, end, both in zip(offsets_s, offsets_s[1:], features, strict=False)]
    for start_s, end_s, pitch, loudness in rows:
        if pitch is not None:
            velocity = velocity_of(loudness)
            yield Note(start_s=start_s, end_s=end_s, pitch=min(127, max(0, round(pitch))), velocity=velocity)


# -- a port


def midi_ports() -> list[str]:
    """Return the names of the MIDI outputs of this machine.  Raises InputError if it has no MIDI system."""
    mido = mido_with_ports()
    try:
        return list(dict.fromkeys(mido.get_output_names()))
    except OSError as error:
        raise InputError(
            f"MIDI ports: the system's MIDI cannot be used ({text_of(error)}). On Linux, load it with `modprobe "
            "snd-seq`, or write a file with --midi"
        ) from error


def mido_with_ports() -> ModuleType:
    """The module mido, with a library for ports.  Raises MissingExtra without one."""
    import mido

    if mido.backend.name == "mido.backends.rtmidi":      # the default; MIDO_BACKEND chooses another one
        require_extra("rtmidi", "live", "MIDI ports")
    return mido


def open_port(name: str) -> Any:
    """Open a MIDI output by its name or a part of it, or make `virtual:NAME`, to which other programs connect.

    Raises InputError that lists the ports there are, if none or several match.
    """
    mido = mido_with_ports()
    if name.startswith(VIRTUAL):
        own = name.removeprefix(VIRTUAL) or "tonelake"
        try:
            return mido.open_output(own, virtual=True)
        except (OSError, TypeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"--midi-out {name}: cannot be made ({text_of(error)}). Choose a port, or write a file with --midi"
            ) from error
    known = midi_ports()
    exact = [one for one in known if one == name]
    found = exact or [one for one in known if name.lower() in one.lower()]
    if len(found) != 1:
        listed = ", ".join(map(repr, map(printable, known)))
        choice = f"Choose one of {listed}, or virtual:NAME" if known else "Start the program that plays, or give virtual:NAME"
        raise InputError(f"--midi-out {name!r}: {'several ports have' if found else 'no port has'} this in its name. {choice}")
    try:
        return mido.open_output(found[0])
    except OSError as error:
        raise InputError(f"--midi-out {name!r}: cannot be opened ({text_of(error)}). End the program that uses it") from error


class Due(NamedTuple):
    """A message and when it is due; of equal times the one that was added first."""

    at: float                            # of time.monotonic()
    order: int
    kind: str                            # note_on, note_off, or silence: end every note of the channel
    channel: int
    pitch: int = 0
    velocity: int = 0
    note: int = 0                        # number of the note, since a pitch may be struck again before its end


class MidiPort:
    """Notes at a MIDI output, sent at their times by a thread: neither a slow port nor a long answer delays the session."""

    kinds = ("gesture", "continue")

    def __init__(self, port: str) -> None:
        self.name = f"MIDI port {printable(port)!r}"
        self._port = open_port(port)
        self._due: list[Due] = []
        self._sounding: dict[tuple[int, int], int] = {}              # number of the note, by channel and pitch
        self._order = 0
        self._changed = Condition()
        self._ended = False
        self._error: Exception | None = None
        self._thread = Thread(target=self._play, name="midi", daemon=True)
        self._thread.start()

    def send(self, event: LiveEvent) -> None:
        now = time.monotonic()
        channel = PLAYED if event.kind == "gesture" else ANSWER
        with self._changed:
            if self._error is not None:
                raise self._error
            if channel == ANSWER:        # it replaces the rest of the answer before
                self._add(now, "silence", channel)
            for note in notes_of(event):
                number = self._order
                self._add(now + note.start_s, "note_on", channel, note.pitch, note.velocity, number)
                self._add(now + note.end_s, "note_off", channel, note.pitch, 0, number)
            self._changed.notify()

    def close(self, cut: bool) -> None:
        """Play what is due, unless `cut`; end every note, and close the port."""
        with self._changed:
            if cut:
                for channel in NAMES:
                    self._add(time.monotonic(), "silence", channel)
            self._ended = True
            self._changed.notify()
        self._thread.join(None if not cut else 2.0)
        self._port.close()

    def _add(self, at: float, kind: str, channel: int, pitch: int = 0, velocity: int = 0, note: int = 0) -> None:
        heapq.heappush(self._due, Due(
            at=at, order=self._order, kind=kind, channel=channel, pitch=pitch, velocity=velocity, note=note
        ))
        self._order += 1

    def _play(self) -> None:
        """Send messages when they are due, until the end."""
        while True:
            with self._changed:
                while not self._due or self._due[0].at > time.monotonic():
                    if not self._due and self._ended:
                        return
                    self._changed.wait(self._due[0].at - time.monotonic() if self._due else None)
                due = heapq.heappop(self._due)
                messages = self._messages(due)
            try:
                for kind, pitch, velocity in messages:
                    self._send(kind, due.channel, pitch, velocity)
            except Exception as error:   # of any MIDI library; the next event finds it
                with self._changed:
                    self._error = error
                return

    def _messages(self, due: Due) -> list[tuple[str, int, int]]:
        """Return (kind, pitch, velocity) of the messages that are due, and note what sounds."""
        key = (due.channel, due.pitch)
        if due.kind == "silence":
            self._due = [one for one in self._due if one.channel != due.channel or one.order > due.order]
            heapq.heapify(self._due)
            pitches = sorted(pitch for channel, pitch in self._sounding if channel == due.channel)
            self._sounding = {one: note for one, note in self._sounding.items() if one[0] != due.channel}
            return [("note_off", pitch, 0) for pitch in pitches]
        if due.kind == "note_on":
            again = key in self._sounding
            self._sounding[key] = due.note
            return [*([("note_off", due.pitch, 0)] if again else []), ("note_on", due.pitch, due.velocity)]
        if self._sounding.get(key) != due.note:
            return []                    # struck again: that note ends later
        del self._sounding[key]
        return [("note_off", due.pitch, 0)]

    def _send(self, kind: str, channel: int, pitch: int, velocity: int) -> None:
        import mido

        self._port.send(mido.Message(kind, channel=channel, note=pitch, velocity=velocity))


# -- a file


class MidiRecording:
    """The notes of a session as a MIDI file with two tracks, written at its end.  Raises InputError if it cannot be written."""

    kinds = ("gesture", "continue")

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._rows: list[tuple[int, float, float, int, int]] = []    # channel, start_s, end_s, pitch, velocity
        self._silent = 0
        self._write()                    # an empty file, so that an error is one at the beginning

    def send(self, event: LiveEvent) -> None:
        channel, begin_s = (PLAYED, event.data["start_s"]) if event.kind == "gesture" else (ANSWER, event.at_s)
        if channel == ANSWER:
            self._rows = [
                (row[0], row[1], min(row[2], begin_s), *row[3:]) if row[0] == ANSWER else row
                for row in self._rows if row[0] != ANSWER or row[1] < begin_s
            ]
        notes = list(notes_of(event))
        self._silent += (1 if event.kind == "gesture" else len(event.data.path)) - len(notes)
        self._rows += [(channel, begin_s + one.start_s, begin_s + one.end_s, one.pitch, one.velocity) for one in notes]

    def close(self, cut: bool) -> str:
        silent = f"; {self._silent} events have no pitch" if self._silent else ""
        return f"{self._path}: {self._write()} notes{silent}"

    def _write(self) -> int:
        rows = [("note", start_s, end_s, NAMES[channel], float(pitch), velocity)
                for channel, start_s, end_s, pitch, velocity in sorted(self._rows)]
        schema = {
            "kind": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "value": pl.String, "pitch": pl.Float64,
            "velocity": pl.Int32,
        }
        try:
            return write_midi(pl.DataFrame(rows, schema=schema, orient="row"), self._path)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror or error}). Choose another file") from error
