"""Run commands within the test's process, which has loaded everything: a tenth of the time."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import subprocess
import sys
from typing import TextIO

import pytest
import typer

from tonelake.cli import main

# It makes every command, which takes a fifth of a second; `conftest` has every test use this one.
get_command = functools.cache(typer.main.get_command)


def run(*args, lake, out: TextIO | None = None) -> subprocess.CompletedProcess:
    """Run a command with its output in a pipe, or in `out`."""
    out, err, code = out or io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("TONELAKE_LAKE", str(lake))
        patch.setattr(sys, "argv", ["tonelake", *map(str, args)])
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(args, code, out.getvalue() if isinstance(out, io.StringIO) else "", err.getvalue())


def rows(done: subprocess.CompletedProcess) -> list[dict]:
    """The rows that a command printed."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
