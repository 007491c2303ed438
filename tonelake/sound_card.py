"""Sound of an input of a sound card, by PortAudio: blocks of samples -> a bounded queue -> pieces for a live encoder.

    card = SoundCard("USB")              # open: str(card) has its rate, block and latency
    for piece in card.pieces(): ...      # (samples, channel) float32, until the caller stops

PortAudio's thread only copies blocks into the queue.  Where the encoder is behind, the oldest blocks are dropped; where the
device vanishes, it is opened again once it is back.  Both are logged, and the session continues with the sound that follows.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from threading import Condition, Lock
from types import ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np
import polars as pl

from tonelake.store import InputError, import_extra, printable
from tonelake.tally import Tally

BLOCK = 1_024                            # samples of a block: 21 ms at 48 kHz
QUEUE_S = 4.0                            # seconds of sound that wait for the encoder
PIECE_S = 0.5                            # seconds given to the encoder at once, at most
STALL_S = 2.0                            # without a block: the device is taken as vanished
RETRY_S = 2.0                            # between two attempts to open it again
HELP = "Use a lower --layer, a shorter --window or a longer --hop"

log = logging.getLogger(__name__)

starting = Lock()                        # held while a stream is opened, and while PortAudio is started again
streams: WeakSet[Any] = WeakSet()        # all that were opened: starting PortAudio again would leave them dangling


def portaudio() -> ModuleType:
    """The module sounddevice.  Raises InputError if it, or the PortAudio that it needs, is not installed."""
    try:
        return import_extra("sounddevice", "live", "sound cards")
    except OSError as error:
        raise InputError(
            "sound cards: PortAudio is not installed. Install it: `apt-get install libportaudio2` (Debian, Ubuntu), "
            "`dnf install portaudio` (Fedora) or `brew install portaudio` (macOS)"
        ) from error


def restart_portaudio() -> None:
    """Close every stream, and have PortAudio list the devices again: it does that only when it is initialised."""
    sounddevice = portaudio()
    with starting:
        for stream in list(streams):
            with contextlib.suppress(sounddevice.PortAudioError):    # its device may be gone
                stream.close()
        streams.clear()
        sounddevice._terminate()         # sounddevice has no public functions for this
        sounddevice._initialize()


def list_devices(kind: str) -> pl.DataFrame:
    """Return one row per input or output of a sound card: number, name, channels, rate in Hz, system, default.

    `kind`: input or output.  Raises InputError without PortAudio.
    """
    sounddevice = portaudio()
    systems = [one["name"] for one in sounddevice.query_hostapis()]
    try:
        default = int(sounddevice.query_devices(None, kind)["index"])
    except (ValueError, sounddevice.PortAudioError):
        default = -1
    rows = [
        (one["index"], one["name"], one[f"max_{kind}_channels"], round(one["default_samplerate"]), systems[one["hostapi"]],
         one["index"] == default)
        for one in sounddevice.query_devices() if one[f"max_{kind}_channels"] > 0
    ]
    schema = {
        "number": pl.Int64, "name": pl.String, "channels": pl.Int64, "rate": pl.Int64, "system": pl.String,
        "default": pl.Boolean,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def asked_device(name: str | None) -> str | int | None:
    """Return the number that a text is, else the text."""
    return int(name) if name is not None and name.isdecimal() else name


def find_device(asked: str | int | None, kind: str) -> dict[str, Any]:
    """Return PortAudio's description of an input or output: the default, or that of a number or a part of a name.

    Raises InputError that names those there are.
    """
    sounddevice = portaudio()
    try:
        found: dict[str, Any] = sounddevice.query_devices(asked, kind)
    except (ValueError, sounddevice.PortAudioError) as error:
        rows = list_devices(kind)
        which = "default sound card" if asked is None else f"sound card {asked!r}"
        if not len(rows):
            other = "pipe samples in with `-`" if kind == "input" else "write the answers with --wav"
            raise InputError(f"{which}: this machine has no sound {kind}. Connect one, or {other}") from error
        names = ", ".join(f"{number} ({printable(name)})" for number, name in rows.select("number", "name").iter_rows())
        several = "several" if asked is not None and "ultiple" in str(error) else "no"
        raise InputError(f"{which}: {several} such {kind}. Choose one of {names} by its number") from error
    return found


class BlockQueue:
    """Blocks of samples between two threads, at most `seconds` of them: beyond that the oldest are dropped."""

    def __init__(self, rate: int, seconds: float = QUEUE_S) -> None:
        self._rate, self._most = rate, round(seconds * rate)
        self._blocks: deque[np.ndarray] = deque()
        self._samples = self._dropped = 0
        self._changed = Condition()

    def put(self, block: np.ndarray) -> None:
        """Add a block, (samples, channel); never waits for the other thread."""
        with self._changed:
            self._blocks.append(block)
            self._samples += len(block)
            while self._samples > self._most and len(self._blocks) > 1:
                gone = len(self._blocks.popleft())
                self._samples -= gone
                self._dropped += gone
            self._changed.notify()

    def get(self, timeout_s: float) -> np.ndarray | None:
        """Return the blocks that wait, joined, at most about PIECE_S of them; None if no block comes for `timeout_s`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._blocks, timeout_s):
                return None
            parts: list[np.ndarray] = []
            count = 0
            while self._blocks and (not parts or count + len(self._blocks[0]) <= PIECE_S * self._rate):
                parts.append(self._blocks.popleft())
                count += len(parts[-1])
            self._samples -= count
        return np.concatenate(parts)

    def take_dropped_s(self) -> float:
        """Return the seconds dropped since the last call."""
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        return dropped / self._rate

    def clear(self) -> None:
        """Leave out what waits: the rest of a device that vanished."""
        with self._changed:
            self._blocks.clear()
            self._samples = 0


class SoundCard:
    """An opened input of a sound card.

    `name`: a number, or a part of a name; None for the system's default input.  `rate`: in Hz, by default the device's own.
    `block`: samples of a block.  Raises InputError, naming the inputs that exist, if there is none of that name or if it
    refuses the settings.
    """

    def __init__(
        self, name: str | None = None, *, rate: int | None = None, channels: int = 1, block: int = BLOCK
    ) -> None:
        self._sounddevice = portaudio()
        self._asked = asked_device(name)
        self._channels, self._block = channels, block
        found = find_device(self._asked, "input")
        self.name = printable(found["name"])
        self.rate = round(found["default_samplerate"]) if rate is None else rate
        if self._asked is not None:
            self._asked = found["name"]                              # numbers change when a device is plugged in again
        self._queue = BlockQueue(self.rate)
        self._overflows = 0
        self._stream = self._open(found["index"])
        self.latency_s = float(self._stream.latency)

    def __str__(self) -> str:
        channels = f"{self._channels} channel{'s' if self._channels > 1 else ''}"
        return (
            f"{self._title}: {self.rate:,} Hz, {channels}, blocks of {self._block:,} samples "
            f"({1000 * self._block / self.rate:.0f} ms), latency {1000 * self.latency_s:.0f} ms"
        )

    @property
    def _title(self) -> str:
        return f"sound card {self.name!r}"

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield (samples, channel) for ever; wait where the device has vanished."""
        dropped = Tally(lambda s: f"{self._title}: {s:.1f} s of sound dropped, since the encoder is behind. {HELP}")
        overflows = Tally(lambda n: f"{self._title}: {n:.0f} times sound was lost before it arrived. Use a longer --block")
        try:
            self._stream.start()
            while True:
                piece = self._queue.get(STALL_S)
                lost, self._overflows = self._overflows, 0
                overflows.add(lost)
                dropped.add(self._queue.take_dropped_s())
                if piece is not None:
                    yield piece
                else:                    # dead, whatever PortAudio says about the stream
                    self._reconnect()
        finally:
            dropped.add(self._queue.take_dropped_s())
            dropped.flush()
            overflows.flush()
            self.close()

    def close(self) -> None:
        """Close the device."""
        with contextlib.suppress(self._sounddevice.PortAudioError):  # it may be gone
            self._stream.close()

    def _reconnect(self) -> None:
        """Wait until the device can be opened again."""
        begun = time.monotonic()
        log.warning(
            "%s: no sound for %g s, as if it was unplugged. It is tried again every %g s; Ctrl-C ends the session", self._title,
            STALL_S, RETRY_S,
        )
        said = ""
        while True:
            self.close()
            self._queue.clear()
            try:
                restart_portaudio()
                self._stream = self._open(find_device(self._asked, "input")["index"])
                self._stream.start()
            except (InputError, self._sounddevice.PortAudioError) as error:
                if str(error) != said:
                    said = str(error)
                    log.info("%s: not back yet (%s)", self._title, said)
                time.sleep(RETRY_S)
                continue
            log.info("%s: is back after %.0f s", self._title, time.monotonic() - begun)
            return

    def _open(self, number: int) -> Any:
        try:
            with starting:
                stream = self._sounddevice.InputStream(
                    samplerate=self.rate, blocksize=self._block, device=number, channels=self._channels, dtype="float32",
                    callback=self._take,
                )
                streams.add(stream)
        except (ValueError, self._sounddevice.PortAudioError) as error:
            raise InputError(
                f"{self._title}: cannot be opened with {self.rate:,} Hz and {self._channels} channels ({error}). Choose "
                "another --rate or --channels, or end the program that uses it; `tonelake listen --devices` lists the devices"
            ) from error
        return stream

    def _take(self, block: np.ndarray, frames: int, time_info: Any, status: Any) -> None:
        """PortAudio's callback, in a thread of its own: copy the block, whose memory is used again."""
        if status and status.input_overflow:
            self._overflows += 1
        self._queue.put(np.clip(np.nan_to_num(block), -1, 1))        # some drivers send NaN before the first sound
