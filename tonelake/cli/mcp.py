"""The command that offers the lake to assistants."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from tonelake.cli.shared import START, LakePath, Layer, SpaceName, open_lake, say

app = typer.Typer()


@app.command(rich_help_panel=START)
def mcp(
    lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None,
    playlists: Annotated[
        Path | None, typer.Option(help="Folder where the assistant may save playlists; without it nothing is written.")
    ] = None,
) -> None:
    """Offer the lake to an assistant as tools, by the Model Context Protocol on standard input and output.

    Example: tonelake mcp --lake mylake --playlists ~/Music/Playlists
    """
    from tonelake.assistant import make_server
    from tonelake.serve.answers import Answers

    logging.getLogger("tonelake").propagate = False      # its lines are shown already; the SDK shows those of all others
    open_lake(lake)                      # a wrong --lake is an error here, not an answer of every tool
    answers = Answers(lake, space=space, layer=layer)
    server = make_server(answers, playlists=playlists)
    answers.check()
    say(f"tools for an assistant: {lake}, on standard input and output until that ends")
    signal.signal(signal.SIGINT, signal.SIG_DFL)         # the SDK would wait for a line of input before it ends
    server.run("stdio")
