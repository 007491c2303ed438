"""Commands about the lake as a whole: the demo, the app, its state, and its clips."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tonelake.cli.shared import (
    AUDIO,
    START,
    ClipId,
    Csv,
    Json,
    LakePath,
    M3u,
    Where,
    open_lake,
    say,
    show,
    write_file,
    write_playlist,
)

app = typer.Typer()
ON_A_TERMINAL = 20                       # clips listed unless -k says otherwise


@app.command(rich_help_panel=START)
def demo(
    lake: Annotated[str, typer.Option("--lake", help="Folder of the demo's lake.")] = "demo-lake",
) -> None:
    """Build and query a lake of forty chorales, in a minute or two.

    Example: tonelake demo
    """
    from tonelake.demo import run_demo

    run_demo(lake)


@app.command(rich_help_panel=START)
def status(lake: LakePath = "lake", as_json: Json = False) -> None:
    """Show what the lake holds, and the next command to run.

    Example: tonelake status --lake mylake
    """
    import json

    found = open_lake(lake).status()
    if as_json or not sys.stdout.isatty():
        print(json.dumps(vars(found) | {"spaces": found.spaces.to_dicts()}))
        return
    from tonelake import views
    from tonelake.render import show_table

    print(f"{found.uri}\n{found.clips:,} clips of {found.tracks:,} tracks, {found.hours:.1f} hours; "
          f"{found.flagged:,} flagged, {found.failures:,} failures")
    if found.events:
        print(f"{found.events:,} events (see `tonelake events`)")
    print(f"label columns: {', '.join(found.labels) or 'none'}")
    show_table(views.spaces(found.spaces), title="spaces", empty="no spaces yet")
    print(f"next: {found.next_step()}")


@app.command(rich_help_panel=START)
def ui(
    lake: LakePath = "lake",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.", min=0, max=65535)] = 8501,
    address: Annotated[
        str, typer.Option(help="Address to listen on; any other than 127.0.0.1 lets the network in.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open the app in a browser: search, listen, the map, groups, layers and runs.

    Example: tonelake ui --lake mylake
    """
    from tonelake.ui import serve_app

    serve_app(open_lake(lake, pandas=True).uri, port=port, address=address, browser=browser)


@app.command(rich_help_panel=AUDIO)
def clips(
    lake: LakePath = "lake", where: Where = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help=f"Number of clips; default: {ON_A_TERMINAL} on a terminal, else all.")
    ] = None,
    m3u: M3u = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List clips with their labels.

    Example: tonelake clips --where "artist LIKE 'Nina%'" --m3u nina.m3u8
    """
    opened = open_lake(lake)
    found = opened.clips.read(where=where)
    write_playlist(opened, found, m3u)
    if k is None and sys.stdout.isatty() and not (as_json or as_csv):
        k = ON_A_TERMINAL
    show(found if k is None else found.head(k), as_json, as_csv, "clips", "no clips: run `tonelake ingest`")
    if k is not None and k < len(found):
        say(f"the first {k} of {len(found)} clips; -k shows more")


@app.command(rich_help_panel=AUDIO)
def events(
    clip: Annotated[
        str | None, typer.Argument(help="Id of a clip, or the name of a song; default: count the events of the lake.")
    ] = None,
    lake: LakePath = "lake",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only this kind of events, such as note. May be repeated.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only events from this source, such as midi or predicted:RUN; default: all labels.")
    ] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Count the notes, beats, chords and other events of the lake, or list those of a clip, with times from its start.

    Example: tonelake events 3fa9 --kind note --csv
    """
    opened = open_lake(lake)
    if clip is not None:
        show(opened.clip_events(clip, kind or (), source=source), as_json, as_csv, "events", "the clip has no such events")
        return
    found = opened.events.summary(kinds=kind, source=source)
    show(found, as_json, as_csv, empty="no events: run `tonelake ingest events`")


@app.command(rich_help_panel=AUDIO)
def spectrogram(
    clip: ClipId,
    file: Annotated[Path, typer.Argument(help="PNG file to write.")],
    lake: LakePath = "lake",
    seconds: Annotated[float | None, typer.Option(help="Draw only the first seconds.", min=0.1)] = None,
) -> None:
    """Draw the mel spectrogram of a clip.

    Example: tonelake spectrogram 3fa9 clip.png
    """
    write_file(file, open_lake(lake).spectrogram(clip, seconds=seconds))
    say(f"{file}: drawn")
