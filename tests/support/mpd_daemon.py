"""A real MPD on a Unix socket, or on a port of this machine, that plays to a null output."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

WAIT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A running MPD."""

    socket: Path
    port: int                            # on 127.0.0.1
    music: Path


@contextlib.contextmanager
def mpd_daemon(folder: Path, music: Path, password: str = "") -> Iterator[Daemon]:
    """Run MPD with its files in `folder` on the songs below `music`.  `password`: without it, a client may only read."""
    program = shutil.which("mpd")
    if program is None:
        pytest.skip("MPD is not installed: apt-get install mpd")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "playlists").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [
        f'music_directory "{music}"', f'playlist_directory "{folder / "playlists"}"', f'db_file "{folder / "db"}"',
        f'bind_to_address "{folder / "socket"}"', 'bind_to_address "127.0.0.1"', f'port "{port}"', 'zeroconf_enabled "no"',
        'audio_output {', ' type "null"', ' name "null"', ' mixer_type "null"', "}",
    ]
    if password:
        lines += [f'password "{password}@read,add,control,player"', 'default_permissions "read"']
    (folder / "mpd.conf").write_text("\n".join(lines) + "\n")
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [program, "--no-daemon", "--stderr", str(folder / "mpd.conf")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        wait_until_ready(process, folder)
        yield Daemon(socket=folder / "socket", port=port, music=music)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def listens(path: Path) -> bool:
    """Whether a connection to a socket is accepted."""
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def wait_until_ready(process: subprocess.Popen, folder: Path) -> None:
    """Wait until MPD answers and has read its music folder."""
    import mpd

    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "log").read_text()
        if listens(folder / "socket"):   # python-mpd2 leaves its socket open where it cannot connect
            client = mpd.MPDClient()
            client.connect(str(folder / "socket"))
            state = client.status()
            client.disconnect()
            if "updating_db" not in state and (folder / "db").exists():
                return
        time.sleep(0.02)
    raise AssertionError((folder / "log").read_text())
