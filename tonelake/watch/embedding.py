"""Embed the clips that a lake has no vectors of, each space by `tonelake embed` in a process of its own.

The process ends with its batch: neither an encoder's memory nor that of a GPU stays taken while nothing changes, and a crash
costs one batch.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from tonelake.command_process import command_line, environment, interrupt
from tonelake.status import OUTDATED, list_spaces
from tonelake.store import InputError, Lake, extend_arguments, is_derived

Run = Callable[[Lake, Sequence[str], threading.Event], str]      # (lake, arguments, stop) -> the error, empty without one
LOOK_S = 0.1                             # between two looks at a command that runs


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Spaces that a watch embeds into."""

    spaces: tuple[str, ...] = ()         # names; empty: all of the lake, else one by the default encoder
    encoder: str | None = None           # of one space, instead of `spaces`

    def check(self, lake: Lake) -> None:
        """Raise InputError or SpaceNotFound for a choice that cannot be embedded into."""
        if self.spaces and self.encoder is not None:
            raise InputError("--space and --encoder: name the same thing twice. Give one of them")
        for name in self.spaces:
            lake.spaces.get(name)


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Result of embedding."""

    clips: int = 0
    errors: tuple[str, ...] = ()


def embed_due(lake: Lake, choice: Choice, stop: threading.Event, run: Run) -> Embedded:
    """Embed the clips without vectors; `stop` ends it after the present command, which is interrupted."""
    before = clips_without(lake)
    audible = set(lake.clips.ids()) - set(lake.clips.without_audio())
    done: set[str] = set()
    errors = []
    for arguments in commands(lake, choice, before):
        if stop.is_set():
            break
        if error := run(lake, arguments, stop):
            errors.append(error)
        after = clips_without(lake)
        for space, lacking in after.items():
            done |= before.get(space, audible) - lacking
        before = after
    return Embedded(clips=len(done), errors=tuple(dict.fromkeys(errors)))


def commands(lake: Lake, choice: Choice, lacking: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Arguments of the commands that embed what is due; spaces that are computed from others come last.

    `lacking`: ids of the clips without vectors by the name of the space.
    """
    if not lake.clips.count():
        return []
    if choice.encoder is not None:
        return [["embed", "--encoder", choice.encoder]]
    spaces = {space.name: space for space in lake.spaces.all()}
    if not spaces:
        return [["embed"]]
    chosen = choice.spaces or list_spaces(lake).filter(~OUTDATED)["name"].to_list()
    due = [spaces[name] for name in chosen if lacking.get(name)]
    return [extend_arguments(space) for space in sorted(due, key=is_derived)]


def clips_without(lake: Lake) -> dict[str, set[str]]:
    """Ids of the clips that have audio and no vectors, by the name of the space."""
    silent = lake.clips.without_audio().implode()
    found = {}
    for space in lake.spaces.all():
        missing = lake.vectors(space).missing(["clip_id"])
        found[space.name] = set(missing.filter(~pl.col("clip_id").is_in(silent))["clip_id"])
    return found


def run_command(lake: Lake, arguments: Sequence[str], stop: threading.Event) -> str:
    """Run `tonelake …`; returns its error, empty without one.  `stop` and Ctrl-C interrupt it, and it stores finished work."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command_line(arguments, lake.uri, tied=True), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=output, start_new_session=True,       # a Ctrl-C in the terminal reaches it through us, once
        )
        try:
            while process.poll() is None and not stop.wait(LOOK_S):
                pass
        finally:
            if process.poll() is None:
                interrupt(process)
            assert process.stdin is not None
            process.stdin.close()
        if process.returncode == 0 or stop.is_set():
            return ""
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = errors or lines or [f"ended with exit code {process.returncode}"]
    return f"tonelake {shlex.join(arguments)}: {said[-1]}"
