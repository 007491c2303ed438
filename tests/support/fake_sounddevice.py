"""A substitute for the module sounddevice: devices of a list, and streams whose callbacks the test calls."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest


class PortAudioError(Exception):
    """As of sounddevice."""


class Stream:
    """A stream of the fake module; `say` and `play` call its callback as PortAudio would."""

    latency = 0.03

    def __init__(self, module, *, samplerate, device, channels, dtype, callback, blocksize=0):
        if samplerate not in module.rates:
            raise PortAudioError("Invalid sample rate")
        self.samplerate, self.device, self.channels, self.callback = samplerate, device, channels, callback
        self.blocksize, self.active, self.closed = blocksize, False, False
        module.streams.append(self)

    def start(self):
        self.active = True

    def close(self):
        self.active, self.closed = False, True

    def hear(self, samples: np.ndarray, overflow: bool = False) -> None:
        """Deliver a block, (samples, channel)."""
        self.callback(samples, len(samples), None, SimpleNamespace(input_overflow=overflow) if overflow else None)

    def play(self, frames: int) -> np.ndarray:
        """Ask for (frames,) samples."""
        block = np.full((frames, 1), 9.0, np.float32)
        self.callback(block, frames, None, None)
        return block[:, 0]


class FakeSoundDevice:
    """`sys.modules["sounddevice"]` for a test: two inputs, the first is the default, and one output."""

    PortAudioError = PortAudioError

    def __init__(self):
        self.rates = {8_000, 44_100, 48_000}
        self.streams: list[Stream] = []
        self.started = 0                 # times that PortAudio was initialised again
        self.devices = [("Built-in Mic", 1, 0), ("USB Audio", 2, 0), ("Speakers", 0, 2)]

    def query_hostapis(self):
        return ({"name": "Fake"},)

    def query_devices(self, device=None, kind=None):
        known = [
            {"index": i, "name": name, "max_input_channels": inputs, "max_output_channels": outputs,
             "default_samplerate": 48_000.0, "hostapi": 0}
            for i, (name, inputs, outputs) in enumerate(self.devices)
        ]
        if kind is None:
            return known
        usable = [one for one in known if one[f"max_{kind}_channels"]]
        if device is None and not usable:
            raise PortAudioError("Error querying device -1")
        if device is None:
            return usable[0]
        found = [one for one in usable if device in (one["index"], one["name"])]
        found = found or [one for one in usable if isinstance(device, str) and device.lower() in one["name"].lower()]
        if len(found) != 1:
            raise ValueError(f"{'Multiple' if found else 'No'} {kind} device matching {device!r}")
        return found[0]

    def InputStream(self, **settings):
        return Stream(self, **settings)

    def OutputStream(self, **settings):
        return Stream(self, **settings)

    def _terminate(self):
        self.started += 1

    def _initialize(self):
        pass


def perform(patch: pytest.MonkeyPatch, samples: np.ndarray, rate: int) -> FakeSoundDevice:
    """A sound card whose input hears (samples,) at `rate` as soon as it is started; then the user presses Ctrl-C.

    The queue takes 4 s of sound, so `samples` must not be longer.
    """
    from tonelake.sound_card import BlockQueue

    fake = FakeSoundDevice()
    fake.rates.add(rate)
    taken = BlockQueue.get

    def start(stream: Stream) -> None:
        stream.active = True
        if stream.blocksize:             # an input
            for i in range(0, len(samples), stream.blocksize):
                stream.hear(samples[i : i + stream.blocksize, None])

    def get(queue: BlockQueue, timeout_s: float) -> np.ndarray | None:
        piece = taken(queue, 0.0)
        if piece is None:
            signal.raise_signal(signal.SIGINT)
        return piece

    patch.setitem(sys.modules, "sounddevice", fake)
    patch.setattr(Stream, "start", start)
    patch.setattr(BlockQueue, "get", get)
    return fake
