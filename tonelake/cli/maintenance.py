"""Commands that keep a lake sound and small."""

from __future__ import annotations

from typing import Annotated

import typer

from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import UPKEEP, Csv, Json, LakePath, Where, open_lake, say, show

app = typer.Typer()


@app.command(rich_help_panel=UPKEEP)
def failures(
    lake: LakePath = "lake",
    stage: Annotated[str | None, typer.Option(help="Only failures of this stage: ingest, separate or embed:SPACE.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List what could not be ingested or embedded, and why.

    Example: tonelake failures --stage ingest
    """
    show(open_lake(lake).failures.read(stage), as_json, as_csv, empty="no failures")


@app.command(rich_help_panel=UPKEEP)
def verify(
    lake: LakePath = "lake",
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired without loss.")] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="Also read every source, and compare it with what was ingested.")
    ] = False,
    sources: Annotated[bool, typer.Option(help="Check that the sources exist.")] = True,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Check every row, vector, source and derived file.

    Example: tonelake verify --repair
    """
    found = open_lake(lake, older=True).verify(repair=repair, sources=sources, digests=digests)
    show(found, as_json, as_csv, empty="no problems found")
    left = len(found) - int(found["mended"].sum())
    if len(found):
        say(f"{len(found)} findings, {len(found) - left} repaired")
    raise typer.Exit(1 if left else 0)


@app.command(rich_help_panel=UPKEEP)
def forget(
    path: Annotated[
        str | None, typer.Argument(
            help="File or folder, also one that no longer exists; or subsonic:URL or jellyfin:URL, a music server."
        )
    ] = None,
    lake: LakePath = "lake", where: Where = None,
    missing: Annotated[bool, typer.Option("--missing", help="Forget recordings whose files are gone.")] = False,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Forget recordings whose files have other audio now.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """Delete clips for good, with their vectors, frames and tokens. Audio files are not touched.

    A file that is still in a folder comes back when that folder is ingested again.

    Example: tonelake forget --missing
    """
    done = open_lake(lake).forget(
        path, missing=missing, superseded=superseded, where=where,
        confirm=lambda found: yes or typer.confirm(f"Delete {found} from the lake?", err=True),
    )
    say(f"deleted {done}" if done is not None else "nothing was deleted")
    if done is None:
        raise typer.Exit(1)


@app.command(rich_help_panel=UPKEEP, cls=library_command("tonelake.store:optimize"))
def optimize(
    lake: LakePath = "lake",
    keep_minutes: Annotated[
        float, typer.Option(min=0, help="Keep versions younger than this: another process may be reading them.")
    ] = FROM_LIBRARY,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Merge small pieces of tables and remove old versions.

    Example: tonelake optimize
    """
    show(open_lake(lake).optimize(keep_minutes=keep_minutes), as_json, as_csv, "trimmed", "the lake has no tables yet")
