"""Run the commands of a page of docs/experiments/ as a reader would type them, from a folder with the page's data."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import run

PAGES = Path(__file__).resolve().parents[2] / "docs" / "experiments"
INSTALLS = ("pip", "apt-get", "sudo", "brew")            # what the machine needs: not run


class PageCommand(NamedTuple):
    """A command as the page has it, and what it printed."""

    text: str
    done: subprocess.CompletedProcess


def page_commands(page: str, blocks: int | None = None) -> list[str]:
    """Commands of a page's `sh` blocks in order, or of the first `blocks`, without comments.

    A line that ends in a backslash continues.
    """
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[:blocks]
    lines = "".join(found).replace("\\\n", " ").splitlines()
    commands = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    return [command for command in commands if command]


def run_page(
    page: str, folder: Path, replacements: Mapping[str, str] | None = None, *, blocks: int | None = None
) -> list[PageCommand]:
    """Run a page's commands, or those of its first `blocks`, in `folder`, where its data are; the lake is `folder/lake`.

    `replacements` make them small (`{"--epochs 80": "--epochs 2"}`); each has to occur on the page.  The first command that
    fails, and any that is not one of tonelake's, fails the test.
    """
    commands = page_commands(page, blocks)
    for old, new in (replacements or {}).items():
        changed = [command.replace(old, new) for command in commands]
        assert changed != commands, f"{page}.md has no {old!r}"
        commands = changed
    done = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands:
            program, *arguments = shlex.split(command)
            if program in INSTALLS:
                continue
            assert program == "tonelake" and not {"|", ">", "&&", ";"} & set(arguments), f"cannot run: {command}"
            found = run(*arguments, lake=folder / "lake")
            assert found.returncode == 0, f"{command}\n{found.stdout[-2000:]}\n{found.stderr[-4000:]}"
            done.append(PageCommand(command, found))
    assert done, f"{page}.md has no commands"
    return done
