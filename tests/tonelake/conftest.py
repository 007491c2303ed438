"""Fixtures of tests of live sound (an OSC server and MIDI ports, both real as far as a machine without instruments allows), and
of the service's interfaces."""

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


@pytest.fixture(scope="session")
def client_of(tmp_path_factory):
    """A function that returns a client of the service on a lake of `served_songs`: with a token, or with None."""
    from served_songs import served_lake
    from starlette.testclient import TestClient

    from tonelake.serve.answers import Answers
    from tonelake.serve.app import create_app

    answers = Answers(served_lake(tmp_path_factory.mktemp("served")).uri)
    clients: dict[str | None, TestClient] = {}

    def client(token: str | None) -> TestClient:
        if token not in clients:
            clients[token] = TestClient(create_app(answers, token=token, user=token and "ada"), raise_server_exceptions=False)
        return clients[token]

    return client
