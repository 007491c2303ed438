"""Receivers for the outputs of a session: a real OSC server on loopback, and MIDI ports in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import midi_backend
import mido


@contextmanager
def osc_server() -> Iterator[tuple[int, list[tuple]]]:
    """A real OSC server on loopback: its port, and the messages that it received."""
    from pythonosc.dispatcher import Dispatcher
    from pythonosc.osc_server import BlockingOSCUDPServer

    received: list[tuple] = []
    dispatcher = Dispatcher()
    dispatcher.set_default_handler(lambda address, *values: received.append((address, *values)))
    found = BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found.server_address[1], received
    finally:
        found.shutdown()
        thread.join()
        found.server_close()


@contextmanager
def memory_ports() -> Iterator[ModuleType]:
    """Ports in memory, as mido's backend: the module `midi_backend`."""
    midi_backend.names[:] = ["Synth One 128:0", "Synth Two 129:0"]
    midi_backend.opened.clear()
    before = mido.backend
    mido.set_backend("midi_backend", load=True)
    try:
        yield midi_backend
    finally:
        mido.set_backend(before)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
