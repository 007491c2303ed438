"""Fixtures of tests of live sound: an OSC server and MIDI ports, both real as far as a machine without instruments allows."""

from __future__ import annotations

import pytest
from loopbacks import memory_ports, osc_server


@pytest.fixture
def server():
    """A real OSC server: its port, and the messages that it received."""
    with osc_server() as found:
        yield found


@pytest.fixture
def ports():
    """Ports in memory."""
    with memory_ports() as found:
        yield found
