"""The answers of a session as sound: in one file, each where it began, and played on a sound card.

An answer ends, faded out, where the next one begins.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from tonelake.live_outputs import LiveEvent, text_of
from tonelake.recombine import FADE_S, RATE
from tonelake.sound_card import asked_device, find_device, portaudio, starting, streams
from tonelake.store import InputError, TonelakeError, printable

if TYPE_CHECKING:
    from tonelake.lake import Lake

log = logging.getLogger(__name__)


def sound_of(event: LiveEvent, lake: Lake, name: str) -> np.ndarray | None:
    """Return the audio of an answer; None, with a warning, if a clip cannot be read: its file may have gone."""
    try:
        sound: np.ndarray = event.data.sound(lake)
    except TonelakeError as error:
        log.warning("%s: an answer at %.1f s is left out (%s)", name, event.at_s, text_of(error))
        return None
    return sound


class AnswersWav:
    """A WAV file of 44.1 kHz, mono, 16 bits, whose time is that of the session.  Memory is that of one answer.

    Raises InputError if the file cannot be written.
    """

    kinds = ("continue",)

    def __init__(self, lake: Lake, path: Path) -> None:
        import soundfile

        self.name = str(path)
        self._lake, self._path = lake, path
        self._written = 0                # samples
        self._pending = np.zeros(0, np.float32)          # the rest of the last answer
        self._count = 0
        try:
            self._file = soundfile.SoundFile(str(path), "w", RATE, 1, subtype="PCM_16", format="WAV")
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be written ({error}). Choose another file") from error

    def send(self, event: LiveEvent) -> None:
        sound = sound_of(event, self._lake, self.name)
        if sound is None:
            return
        self._until(round(event.at_s * RATE))
        self._pending = sound
        self._count += 1

    def close(self, cut: bool) -> str:
        self._write(self._pending)
        self._file.close()
        return f"{self._path}: {self._written / RATE:.1f} s with {self._count} answers"

    def _until(self, sample: int) -> None:
        """Write what comes before a sample: the last answer, faded out if it is longer, and silence."""
        room = max(0, sample - self._written)
        before, fade = self._pending[:room], round(FADE_S * RATE)
        if len(self._pending) > room:
            rest = self._pending[room : room + fade]
            before = np.concatenate([before, rest * np.linspace(1, 0, len(rest), endpoint=False, dtype=np.float32)])
        self._write(before)
        while self._written < sample:
            self._write(np.zeros(min(sample - self._written, RATE), np.float32))

    def _write(self, samples: np.ndarray) -> None:
        self._file.write(np.clip(samples, -1, 1))
        self._written += len(samples)


class AnswersPlayed:
    """Answers played on a sound card as soon as they are made.

    `name`: a number, a part of a name, or "default".  Raises InputError if there is none, or if it cannot be opened.
    """

    kinds = ("continue",)

    def __init__(self, lake: Lake, name: str) -> None:
        self._sounddevice = portaudio()
        self._lake, self._asked = lake, asked_device(None if name == "default" else name)
        self._sound = np.zeros(0, np.float32)
        self._at = 0                     # sample that is played next
        self._next: np.ndarray | None = None
        self._changed = Lock()
        self.name = f"sound card {name!r}"
        self._stream = self._open()

    def send(self, event: LiveEvent) -> None:
        sound = sound_of(event, self._lake, self.name)
        if sound is None:
            return
        if not self._playing():          # it was unplugged, or PortAudio was started again to find the input
            self._stream = self._open()
        with self._changed:
            self._next = sound

    def close(self, cut: bool) -> None:
        """Play the last answer to its end, unless `cut`, and close the device."""
        with self._changed:
            left = len(self._sound) - self._at if self._next is None else len(self._next)
        if not cut and self._playing():
            time.sleep(left / RATE + float(self._stream.latency))
        with contextlib.suppress(self._sounddevice.PortAudioError):
            self._stream.close()

    def _open(self) -> Any:
        found = find_device(self._asked, "output")
        self.name = f"sound card {printable(found['name'])!r}"
        try:
            with starting:
                stream = self._sounddevice.OutputStream(
                    samplerate=RATE, device=found["index"], channels=1, dtype="float32", callback=self._fill
                )
                streams.add(stream)
                stream.start()
        except (ValueError, self._sounddevice.PortAudioError) as error:
            raise InputError(
                f"{self.name}: cannot be opened with {RATE:,} Hz ({text_of(error)}). End the program that uses it, or choose "
                "another one with --play"
            ) from error
        return stream

    def _playing(self) -> bool:
        try:
            return bool(self._stream.active)
        except self._sounddevice.PortAudioError:
            return False

    def _fill(self, block: np.ndarray, frames: int, time_info: Any, status: Any) -> None:
        """PortAudio's callback, in a thread of its own: (frame, 1) samples to play."""
        with self._changed:
            if self._next is not None:   # begins now, over the rest of the answer before, which is faded out
                rest = self._sound[self._at : self._at + round(FADE_S * RATE)]
                self._sound, self._at, self._next = self._next.copy(), 0, None
                rest = rest[: len(self._sound)]
                self._sound[: len(rest)] += rest * np.linspace(1, 0, len(rest), endpoint=False, dtype=np.float32)
            part = self._sound[self._at : self._at + frames]
            self._at += len(part)
        block[:] = 0
        block[: len(part), 0] = np.clip(part, -1, 1)
