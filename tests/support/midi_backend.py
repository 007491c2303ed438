"""A MIDI backend for mido, as `mido.set_backend("midi_backend")` loads it: ports in memory that keep what they were sent."""

from __future__ import annotations

import time

from mido.ports import BaseOutput

names: list[str] = ["Synth One 128:0", "Synth Two 129:0"]
opened: list[Output] = []


class Output(BaseOutput):
    """A port with `sent`: (monotonic time, message).  `fails`: raise in place of sending."""

    fails = False

    def _open(self, virtual=False, **_):
        self.virtual = virtual
        self.sent: list = []
        opened.append(self)

    def _send(self, message):
        if self.fails:
            raise OSError("port is gone")
        self.sent.append((time.monotonic(), message))


def get_devices(**_):
    return [{"name": name, "is_input": False, "is_output": True} for name in names]
