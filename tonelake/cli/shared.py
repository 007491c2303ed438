"""Shared by the commands: options that mean the same everywhere, opening the lake, and output for people and programs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    import polars as pl

    from tonelake import Lake
    from tonelake.configuration import Configuration
    from tonelake.ingest import EventReport, IngestReport

# Panels of `tonelake --help`, in their order.
START, AUDIO, EMBED, SEARCH, ANALYSE, TRAIN, TOKENS, UPKEEP = (
    "Start", "Audio in", "Embed", "Search", "Analyse", "Train", "Tokens and live audio", "Upkeep"
)
MARKUP: Literal["rich"] = "rich"         # of help texts: None would print them without panels

ClipId = Annotated[str, typer.Argument(help="Id of a clip (or its first digits), or the name of a song.")]
LakePath = Annotated[str, typer.Option("--lake", envvar="TONELAKE_LAKE", help="The lake: a folder or an s3:// URI.")]
Hubs = Annotated[
    str, typer.Option("--hubs", help="Hubs (clips near very many others): kept, or corrected by local scaling.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines, as into a pipe.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]
SpaceName = Annotated[str | None, typer.Option("--space", help="Embedding space; default: the lake's default space.")]
Layer = Annotated[
    str | None, typer.Option("--layer", help="Layer by number or name, -1 for the last; default: the space's default layer.")
]
Where = Annotated[str | None, typer.Option("--where", help="SQL filter over clip columns: \"artist = 'X' AND year > 1990\".")]
Like = Annotated[str | None, typer.Option("--like", help="Compare only by what separates the groups of this label column.")]
Unlike = Annotated[str | None, typer.Option("--unlike", help="Ignore what separates the groups of this label column.")]
NotSame = Annotated[
    str | None, typer.Option("--not-same", help="Column in which hits must differ from the query: artist, album, track.")
]
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Decoding processes; default: one per core, less one beside an encoder."),
]
EachClip = Annotated[bool, typer.Option("--clips", help="List clips, also several of one song, not songs.")]
M3u = Annotated[
    Path | None, typer.Option("--m3u", help="Also write the songs as a playlist to this file (.m3u or .m3u8).")
]
SubsonicPassword = Annotated[
    bool,
    typer.Option("--insecure", help="Send the password itself where the server takes no tokens, even if others could read it."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything failed.")]


def config_option(options: str = "") -> Any:
    """`--config FILE`.  The command gets the `tonelake.configuration.Configuration`, or None.

    `options`: name of the method of Configuration whose values become the defaults of the command's options.
    """

    def read(context: typer.Context, file: str | None) -> Any:       # Any: Typer evaluates annotations
        if file is None:
            return None
        from tonelake.configuration import Configuration

        found = Configuration.from_file(Path(file).expanduser())
        if options:
            values = getattr(found, options)()
            context.default_map = {name: value for name, value in values.items() if value is not None}
        return found

    return typer.Option(
        "--config", metavar="FILE", parser=str, callback=read, is_eager=True,
        help="YAML file with encoder, layer, quantizer and further settings; other options win over it.",
    )


def configured(
    lake: Lake, config: Configuration | None, space: str | None, vocabulary: str | None = None
) -> tuple[str | None, str | None]:
    """Space and vocabulary of a command, from a configuration where they are not given."""
    return (space, vocabulary) if config is None else config.for_command(lake, space, vocabulary)


Config = Annotated[Any, config_option()]


class LogLines(logging.Handler):
    """Log records as lines on standard error, warnings marked as such."""

    def emit(self, record: logging.LogRecord) -> None:
        say(("warning: " if record.levelno >= logging.WARNING else "") + record.getMessage())


def show_logs() -> None:
    """Show what the library logs: the steps of long jobs, and warnings."""
    log = logging.getLogger("tonelake")
    if not any(isinstance(handler, LogLines) for handler in log.handlers):
        log.addHandler(LogLines())
        log.setLevel(logging.INFO)


def open_lake(path: str, *, create: bool = False, older: bool = False, pandas: bool | None = None) -> Lake:
    """The lake, its long jobs with a progress bar.  Raises LakeError if there is none, unless `create`.

    `pandas`: whether the command may use pandas through a library of others; by default if it creates lakes.
    """
    import tonelake
    from tonelake.store import prepare_process

    prepare_process(pandas=create if pandas is None else pandas)
    return tonelake.open(path, create=create, older=older)


def show(frame: pl.DataFrame, as_json: bool, as_csv: bool, view: str | None = None, empty: str = "nothing to show") -> None:
    """Print a result; `view` names the function of `tonelake.views` that shortens it for a terminal."""
    from tonelake import views
    from tonelake.render import emit

    emit(frame, as_json=as_json, as_csv=as_csv, view=getattr(views, view) if view else None, empty=empty)


def say(text: str) -> None:
    """Print a sentence for a person on standard error: standard output is for results."""
    from tonelake.store import printable

    for line in text.split("\n"):
        typer.echo(printable(line), err=True)


def ask_password(prompt: str) -> str:
    """A password that is typed without being shown; empty where there is no terminal to ask on."""
    import sys

    return str(typer.prompt(prompt, hide_input=True, err=True)) if sys.stdin.isatty() else ""


def finish(report: IngestReport | EventReport, strict: bool) -> None:
    """Print a report and exit: with 1 if a recording failed and `strict`."""
    for line in (*report.notes, str(report)):
        say(line)
    raise typer.Exit(1 if strict and report.failed else 0)


def write_playlist(lake: Lake, hits: pl.DataFrame, file: Path | None) -> None:
    """Write the files of a list as a playlist, unless `file` is None.  Raises InputError if it cannot be written."""
    from tonelake.playlists import playlist

    if file is not None:
        text, count = playlist(lake, hits)
        write_file(file, text)
        left_out = hits["clip_id"].n_unique() - count
        say(f"{file}: {count} files" + (f"; {left_out} hits are further clips of these, or not files" if left_out else ""))


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file.  Raises InputError if it cannot be written."""
    from tonelake.store import InputError

    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}). Choose another file") from error
