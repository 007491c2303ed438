"""The command `tonelake serve` as a process: its address, its errors, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from tonelake.cli import app
from tonelake.serve.server import bound_socket
from tonelake.store import InputError

HEAVY = ("torch", "faiss", "transformers", "streamlit", "librosa", "pandas")
TOKEN = "a-secret-of-this-test"


def test_a_port_that_is_taken_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*Choose another --port"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(InputError, match="cannot listen on no-such-host"):
        bound_socket("no-such-host.invalid", 0)


@pytest.mark.parametrize(("options", "says"), [
    (["--host", "0.0.0.0"], "a token is needed"), (["--space", "none"], "no space 'none'"), (["--layer", "99"], "layer"),
    (["--server", "none"], "server 'none'"),
])
def test_what_cannot_be_served_is_an_error_before_anything_listens(filled, monkeypatch, options, says):
    monkeypatch.delenv("TONELAKE_TOKEN", raising=False)
    result = CliRunner().invoke(app, ["serve", "--lake", filled.uri, "--port", "0", *options])
    assert result.exit_code and says in str(result.exception)


@pytest.mark.slow
def test_the_service_starts_without_heavy_libraries_answers_and_ends_at_an_interrupt(filled, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    watched = (
        "import sys, threading, tonelake.cli\n"
        "from tonelake.serve import server\n"
        f"heavy = lambda: sorted(set({HEAVY!r}) & sys.modules.keys())\n"
        "warm_up, server.warm_up = server.warm_up, lambda answers: (print('heavy:', heavy(), flush=True), warm_up(answers))\n"
        "sys.argv[0] = 'tonelake'\n"
        "tonelake.cli.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", watched, "serve", "--lake", filled.uri, "--port", "0", "--token-file", str(tmp_path / "token")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        address = re.search(r"http://127\.0\.0\.1:\d+", lines[0])
        assert address and "Ctrl-C" in lines[0] and lines[1] == "heavy: []\n", lines
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address[0]}/v1/songs", timeout=30)
        asked = urllib.request.Request(f"{address[0]}/v1/songs?q=Title+3&count=1", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["rows"][0]["title"] == "Title 3"
        with socket.create_connection(("127.0.0.1", int(address[0].rsplit(":", 1)[1])), timeout=30) as left:
            left.sendall(b"GET /v1/similar?id=x HTTP/1.1\r\nHost: local")         # a client that stops amid its request
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        assert TOKEN not in (rest := process.stdout.read()) and "Traceback" not in rest, rest
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
