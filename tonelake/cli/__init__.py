"""The `tonelake` command.  Each command parses, calls the library, renders, and sets the exit code: 0 done, 1 failed,
2 wrong usage.  Heavy imports happen inside the commands, so that `tonelake --help` answers at once; and a command imports the
module that it is in, not those of all commands."""

from __future__ import annotations

import gc
import sys
from collections.abc import MutableMapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tonelake.cli.shared import MARKUP, say, show_logs

FIRST = ("demo", "status", "ui", "ingest")          # of the commands in --help, which lists groups of commands last
# The commands and groups of each module, in the order of --help.
MODULES = {
    "lake": "demo status ui clips events spectrogram",
    "mcp": "mcp",
    "ingest": "separate ingest",
    "watch": "watch",
    "embed": "embed spaces encoders weights doctor",
    "names": "find",
    "search": "similar facets path cosine align duplicates index",
    "playlist": "playlist",
    "analysis": "layers groups typical map compare overlap",
    "probe": "probe probes predict review metric",
    "finetune": "finetune adapters orthogonality",
    "tokens": "tokens oracle",
    "listen": "listen",
    "serve": "serve",
    "maintenance": "failures verify forget optimize",
}
MODULE_OF = {command: module for module, commands in MODULES.items() for command in commands.split()}


class Commands(TyperGroup):
    """The commands in the order in which they are used; a module is imported when a command of it is called."""

    _commands: MutableMapping[str, Any] | None = None

    @property
    def commands(self) -> MutableMapping[str, Any]:
        if self._commands is None:
            self._commands = {name: command for module in MODULES for name, command in commands_of(module).items()}
        return self._commands

    @commands.setter
    def commands(self, none: MutableMapping[str, Any]) -> None:
        """Called by Typer with the commands of `app` itself, which has none."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self._commands is None and cmd_name in MODULE_OF:
            return commands_of(MODULE_OF[cmd_name])[cmd_name]
        return self.commands.get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


@cache
def commands_of(module: str) -> MutableMapping[str, Any]:
    """The commands and groups of a module of this package, by name; imports it."""
    holder = typer.Typer(rich_markup_mode=MARKUP, pretty_exceptions_enable=False)
    holder.callback()(lambda: None)
    holder.add_typer(import_module(f"tonelake.cli.{module}").app)
    group = typer.main.get_command(holder)
    assert isinstance(group, TyperGroup)
    return group.commands


app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode=MARKUP, pretty_exceptions_enable=False,
    help="An embedding store and similarity search for music audio.\n\n"
    "Start with: tonelake demo.  Or: tonelake ingest folder MUSIC, tonelake embed, tonelake similar FILE.",
)

COLLECTED_AT = 50_000                    # new objects; Python looks for garbage after 700, a tenth of a short command's time
INTERRUPTED = 130                        # the exit code of a program that Ctrl-C ended: 128 + SIGINT


def show_version(wanted: bool) -> None:
    if wanted:
        import tonelake

        print(f"tonelake {tonelake.__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    show_logs()


def main() -> None:
    """The console script: run a command, turn our errors into one message and an exit code."""
    gc.set_threshold(COLLECTED_AT)       # importing makes half a million objects, none of them garbage
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            say("interrupted: finished work is stored. Run the same command again to resume")
        raise
    except Exception as error:
        from tonelake.store import InputError, TonelakeError

        if not isinstance(error, TonelakeError | OSError):
            raise
        say(f"error: {error}")
        sys.exit(2 if isinstance(error, InputError) else 1)
