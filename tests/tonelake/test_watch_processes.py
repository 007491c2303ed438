"""`tonelake watch` as a process: ended by a signal or killed, it keeps its work, leaves no process behind, and resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from library import embed_missing
from processes import descendants, running
from sounds import melody, write

from tonelake.ingest import ingest_folder
from tonelake.store import Lake
from tonelake.verify import verify
from tonelake.watch import Watch

SUPPORT = Path(__file__).resolve().parents[1] / "support"
RATE = 8_000


@pytest.fixture
def lake(tmp_path):
    """A lake with 30 songs, and a folder with one more."""
    music = tmp_path / "Jazz"
    for number in range(30):
        write(music / f"{number}.wav", melody(1.2, seed=number, rate=RATE), RATE)
    lake = Lake(tmp_path / "lake")
    ingest_folder(lake, music, seconds=None)
    write(music / "30.wav", melody(1.2, seed=30, rate=RATE), RATE)
    return lake


def start(lake: Lake) -> subprocess.Popen:
    """Start `tonelake watch` with a slow encoder; it does not wait for the writes of this test."""
    settled = "import tonelake.watch.loop as loop; loop.Watch.__init__.__kwdefaults__['others_s'] = -1.0"
    return subprocess.Popen(
        [
            sys.executable, "-c", f"{settled}; from tonelake.cli import main; main()", "watch", "--lake", lake.uri,
            "--quiet-s", "0.2", "--encoder", "fakes:SlowFakeEncoder",
        ],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(SUPPORT)},
    )


def family_that_embeds(process: subprocess.Popen) -> list[int]:
    """Wait until a process embeds; returns the ids of all that it started, and its own."""
    deadline = time.monotonic() + 60
    while not running("tonelake.command_process"):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    return descendants(process.pid)


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def embed_here(lake: Lake, *_: object) -> str:
    embed_missing(lake)
    return ""


@pytest.mark.slow
def test_a_watch_that_is_ended_or_killed_while_it_embeds_leaves_no_process_and_resumes(lake):
    ended = start(lake)
    family_that_embeds(ended)
    ended.send_signal(signal.SIGTERM)
    _, lines = ended.communicate(timeout=60)
    assert ended.returncode == 0 and "Jazz: 1 added" in lines and "Traceback" not in lines
    killed = start(lake)
    family = family_that_embeds(killed)
    killed.kill()
    killed.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(is_running, family)):
        assert time.monotonic() < deadline, "the embedding outlives its watch"
        time.sleep(0.02)
    assert Watch(lake, run_embed=embed_here).run(once=True)
    assert lake.paths.count() == 31 and lake.vectors("fake").count() == 31 and verify(lake).is_empty()
