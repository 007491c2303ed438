"""The `tonelake` command.  Each command parses, calls the library, renders, and sets the exit code: 0 done, 1 failed,
2 wrong usage.  Heavy imports happen inside the commands, so that `tonelake --help` answers at once."""

from __future__ import annotations

import gc
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tonelake.cli import (
    analysis,
    embed,
    finetune,
    ingest,
    lake,
    listen,
    maintenance,
    mcp,
    names,
    playlist,
    probe,
    search,
    serve,
    tokens,
    watch,
)
from tonelake.cli.shared import MARKUP, say, show_logs

FIRST = ("demo", "status", "ui", "ingest")          # of the commands in --help, which lists groups of commands last


class Commands(TyperGroup):
    """The commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode=MARKUP, pretty_exceptions_enable=False,
    help="An embedding store and similarity search for music audio.\n\n"
    "Start with: tonelake demo.  Or: tonelake ingest folder MUSIC, tonelake embed, tonelake similar FILE.",
)
# As --help lists them.
MODULES = (
    lake, mcp, ingest, watch, embed, names, search, playlist, analysis, probe, finetune, tokens, listen, serve, maintenance,
)
for _module in MODULES:
    app.add_typer(_module.app)

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
