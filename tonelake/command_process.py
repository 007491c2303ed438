"""Run a command of ours, `tonelake …`, in a process of its own: its arguments, its environment, and how it is ended.

An interrupted command stores its finished work.  One that is tied to its parent is interrupted when the parent is killed: as a
program, this module runs a command until its standard input ends, which the parent holds open.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent            # the folder that the package `tonelake` is in
PATIENCE_S = 8.0                         # between an interrupt and the signals that nothing can ignore
INTERRUPTED = 130                        # exit code of an interrupted command


def command_line(arguments: Sequence[str], uri: str, *, tied: bool = False) -> list[str]:
    """The command for Popen; `tied`: to the standard input, which has to be a pipe."""
    # -P: a module in the folder where the server was started must not shadow one of ours.
    module = "tonelake.command_process" if tied else "tonelake"
    return [sys.executable, "-P", "-m", module, *arguments, "--lake", uri]


def environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join(part for part in (str(HOME), os.environ.get("PYTHONPATH", "")) if part)
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"} | variables


def interrupt(process: subprocess.Popen[Any]) -> None:
    """Interrupt a command and wait for its end; one that does not end is killed."""
    with contextlib.suppress(OSError):
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
    for last_resort in (process.terminate, process.kill):
        try:
            process.wait(PATIENCE_S)
            return
        except subprocess.TimeoutExpired:
            last_resort()


def interrupt_at_end_of_input() -> None:
    """Wait until standard input ends, and interrupt this process; a thread's work."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    threading.Thread(target=interrupt_at_end_of_input, daemon=True).start()
    runpy.run_module("tonelake", run_name="__main__", alter_sys=True)
