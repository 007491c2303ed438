"""The command that keeps a lake in step with its folders."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from tonelake.cli.shared import AUDIO, LakePath, WorkerCount, open_lake, say

app = typer.Typer()


@app.command(rich_help_panel=AUDIO)
def watch(
    folders: Annotated[
        list[Path] | None, typer.Argument(
            metavar="FOLDER", help="Folders to watch; default: all that were ingested, with the options of their ingest."
        ),
    ] = None,
    lake: LakePath = "lake",
    quiet_s: Annotated[
        float, typer.Option("--quiet-s", min=0.1, help="Seconds without a further change before files are read.")
    ] = 10.0,
    every: Annotated[
        float, typer.Option(
            min=0.1, help="Minutes between two looks at folders whose file system reports no changes, such as network drives."
        ),
    ] = 5.0,
    poll: Annotated[bool, typer.Option("--poll", help="Look at every folder each --every minutes.")] = False,
    embed: Annotated[bool, typer.Option("--embed/--no-embed", help="Embed new clips.")] = True,
    space: Annotated[
        list[str] | None, typer.Option("--space", help="Space to embed into; default: all of the lake. May be repeated.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder to embed with, as for `tonelake embed`, instead of the lake's spaces.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Sync and embed what is due, then end; exit with 1 if something was left undone.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Mark files as missing even where over a fifth of a folder is gone at once.")
    ] = False,
    workers: WorkerCount = None,
) -> None:
    """Sync and embed what changes in the folders that were ingested, until Ctrl-C or SIGTERM.

    Example: tonelake watch ~/Music
    """
    from tonelake.store import require_extra
    from tonelake.watch import Choice, Timing, watch_lake

    require_extra("watchfiles", "watch", "watching folders")
    logging.getLogger("tonelake").setLevel(logging.WARNING)          # one line a batch
    done = watch_lake(
        open_lake(lake, create=bool(folders)), folders or (), choice=Choice(spaces=tuple(space or ()), encoder=encoder),
        embed=embed, timing=Timing(quiet_s=quiet_s, every_s=60 * every), poll=poll, allow_missing=allow_missing,
        workers=workers, say=say, once=once,
    )
    raise typer.Exit(0 if done or not once else 1)
