"""The command that answers other programs over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import START, LakePath, Layer, SpaceName

app = typer.Typer()


@app.command(rich_help_panel=START, cls=library_command("tonelake.serve.server:serve"))
def serve(
    lake: LakePath = "lake",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too, which need the token.")
    ] = FROM_LIBRARY,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 for any free one.")] = FROM_LIBRARY,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients send; default: the variable TONELAKE_TOKEN.")
    ] = None,
    space: SpaceName = None, layer: Layer = None,
    server: Annotated[
        str | None, typer.Option(help="Music server whose ids songs have, by its address or a part of it.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="The only user name that OpenSubsonic clients may give; default: any.")
    ] = None,
) -> None:
    """Answer music players, plugins and other programs over HTTP: read-only, on this machine unless --host is given.

    Example: tonelake serve --host 0.0.0.0 --token-file token
    """
    from tonelake.serve.server import serve

    serve(
        lake, host=host, port=port, token_file=token_file, space=space, layer=layer, server=server, user=user,
    )
