"""End the processes that a hanging test waits for, so that they print where they hang, and the test fails with it.

Python prints the stack of every thread when a process is aborted and PYTHONFAULTHANDLER is set; see `conftest`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

LIMIT_S = 240.0                          # less than `faulthandler_timeout`, which ends the test process itself
SHOWN = 8_000                            # characters of a process's standard error, from its end


def abort_children() -> None:
    """Abort the processes that this one started."""
    for file in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in file.read_text().split():
            os.kill(int(child), signal.SIGABRT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    timer = threading.Timer(LIMIT_S, abort_children)
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        text = error.stderr if isinstance(error.stderr, str) else error.stderr.decode(errors="replace")
        report.sections.append(("standard error of the process", text[-SHOWN:]))
    return report
