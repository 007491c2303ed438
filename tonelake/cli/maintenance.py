"""Commands that keep a lake sound and small."""

from __future__ import annotations

from typing import Annotated

import typer

from tonelake.cli.shared import Csv, Json, LakePath, open_lake, say, show

app = typer.Typer()


@app.command()
def verify(
    lake: LakePath = "lake",
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without loss.")] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="Also read every source, and compare it with what was ingested.")
    ] = False,
    sources: Annotated[bool, typer.Option(help="Whether sources are still there.")] = True,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Whether every row, vector, source and derived file is as it should be.   Example: tonelake verify --repair"""
    found = open_lake(lake, create=False, older=True).verify(repair=repair, sources=sources, digests=digests)
    show(found, as_json, as_csv, empty="nothing is wrong")
    left = len(found) - int(found["mended"].sum())
    if len(found):
        say(f"{len(found)} findings, {len(found) - left} mended")
    raise typer.Exit(1 if left else 0)


@app.command()
def optimize(
    lake: LakePath = "lake",
    keep_minutes: Annotated[
        float, typer.Option(min=0, help="Versions younger than this stay: somebody may be reading them.")
    ] = 60.0,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Merge small pieces of tables and remove old versions.   Example: tonelake optimize"""
    found = open_lake(lake, create=False).optimize(keep_minutes=keep_minutes)
    show(found, as_json, as_csv, "trimmed", "the lake has no tables yet")
