"""Find songs by name, and let other commands accept a name where a clip or file is asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import SEARCH, Csv, Json, LakePath, M3u, open_lake, say, show, write_playlist

if TYPE_CHECKING:
    from tonelake import Lake
    from tonelake.index import SeveralSongs, Song

app = typer.Typer()


@app.command(rich_help_panel=SEARCH, cls=library_command("tonelake.index:find_songs"))
def find(
    words: Annotated[list[str], typer.Argument(help="Words of a title, artist, album or file name.")],
    lake: LakePath = "lake",
    k: Annotated[int, typer.Option("-k", min=1, help="Number of songs.")] = FROM_LIBRARY,
    m3u: M3u = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Find songs by name, despite typing errors and missing accents.

    Example: tonelake find love theme
    """
    name = " ".join(words)
    opened = open_lake(lake)
    found = opened.find(name, k=k)
    show(found, as_json, as_csv, "names")
    if sys.stdout.isatty() and not (as_json or as_csv):
        for song in found.iter_rows(named=True):
            say("\n".join(f"{song['rank']:3}  {path}" for path in song["paths"]))
    write_playlist(opened, found, m3u)
    if not len(found):
        say(f"no song has a name like {name!r}. Try fewer words, or list clips with `tonelake clips`")


def named(lake: Lake, text: str) -> str | Song:
    """Return a file or clip id unchanged, and any other text as the song with that name.

    Where several songs are near, a person at a terminal is asked to choose; without a terminal SeveralSongs is raised.
    Text that names nothing is returned unchanged: the library reports it, after errors in other arguments.
    """
    from tonelake.index import SeveralSongs, Song, find_named, is_file
    from tonelake.store import ClipNotFound

    if is_file(text):
        return text
    try:
        found = find_named(lake, text)
    except SeveralSongs as error:
        if not at_terminal():
            raise
        return choose_song(error)
    except ClipNotFound:
        return text
    return found if isinstance(found, Song) else str(found["clip_id"])


def named_clip(lake: Lake, text: str) -> str:
    """Return the id of the clip with this id or, for the name of a song, of its first clip."""
    from tonelake.index import Song, find_clip

    found = named(lake, text)
    return str(find_clip(lake, found)["clip_id"]) if isinstance(found, Song) else found


def at_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def choose_song(several: SeveralSongs) -> Song:
    """Ask a person at a terminal which of several songs is meant."""
    say("\n".join([f"several songs are near {several.name!r}:", *several.lines()]))
    while True:
        number = typer.prompt(f"Number (1 to {len(several.songs)})", type=int, err=True)
        if 1 <= number <= len(several.songs):
            return several.songs[number - 1]
