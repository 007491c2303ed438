"""What commands share: options that mean the same everywhere, opening the lake, and how results reach a person or a program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import polars as pl

    from tonelake.api import Tonelake
    from tonelake.ingest import IngestReport

ClipId = Annotated[str, typer.Argument(help="A clip's id, or its first digits.")]
LakePath = Annotated[str, typer.Option("--lake", envvar="TONELAKE_LAKE", help="The lake: a folder or s3://… URI.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines, as a pipe gets anyway.")]
Csv = Annotated[bool, typer.Option("--csv", help="CSV with a header.")]
SpaceName = Annotated[str | None, typer.Option("--space", help="The embedding space; needed where there are several.")]
Layer = Annotated[str | None, typer.Option("--layer", help="Layer by number or name; default: the space's.")]
Where = Annotated[str | None, typer.Option("--where", help="SQL over clip columns: \"artist = 'X' AND year > 1990\".")]
Multi = Annotated[list[str] | None, typer.Option("--multi", help="Label column split at | or ;. May be repeated.")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="Value of the clips' dataset column.")]
Like = Annotated[str | None, typer.Option("--like", help="Look only at what the groups of this label column differ by.")]
Unlike = Annotated[str | None, typer.Option("--unlike", help="Leave out what the groups of this label column differ by.")]
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Decoding processes; default: one a core, less one where an encoder runs beside."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything failed.")]


def open_lake(path: str, *, create: bool = True, older: bool = False) -> Tonelake:
    import tonelake
    from tonelake.store import prepare_process

    prepare_process()
    return tonelake.open(path, create=create, older=older)


def show(frame: pl.DataFrame, as_json: bool, as_csv: bool, view: str | None = None, empty: str = "nothing to show") -> None:
    """A result; `view` names the function of `tonelake.views` by which a person sees it."""
    from tonelake import views
    from tonelake.render import emit

    emit(frame, as_json=as_json, as_csv=as_csv, view=getattr(views, view) if view else None, empty=empty)


def say(text: str) -> None:
    """A sentence for a person; standard output stays the results'."""
    from tonelake.store import printable

    for line in text.split("\n"):
        typer.echo(printable(line), err=True)


def finish(report: IngestReport, strict: bool) -> None:
    for line in (*report.notes, str(report)):
        say(line)
    raise typer.Exit(1 if strict and report.failed else 0)


def write_file(path: Path, text: str) -> None:
    from tonelake.store import InputError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
