"""The command that makes playlists: as a file, on a music server, or in MPD."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonelake.cli.names import named
from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import (
    SEARCH,
    Csv,
    Hubs,
    Json,
    LakePath,
    Layer,
    SpaceName,
    SubsonicPassword,
    Where,
    ask_password,
    open_lake,
    say,
    show,
)

if TYPE_CHECKING:
    from tonelake import Lake
    from tonelake.playlists.targets import Made

app = typer.Typer()

SONG = "name, id of a clip (or its first digits), or audio file"


@app.command(rich_help_panel=SEARCH, cls=library_command("tonelake.playlists.request:PlaylistRequest"))
def playlist(
    name: Annotated[str, typer.Argument(help="Name of the playlist.")],
    lake: LakePath = "lake",
    like: Annotated[
        list[str] | None, typer.Option("--like", metavar="SONG", help=f"Song to begin with and resemble: {SONG}. Repeatable.")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option("--unlike", "--minus", metavar="SONG", help="Song to stay away from. Repeatable.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help='Words to resemble; "-vocals" is subtracted. Repeatable.')
    ] = None,
    path_to: Annotated[
        str | None, typer.Option("--path-to", metavar="SONG", help="Last song; the others lead from --like to it.")
    ] = None,
    length: Annotated[int, typer.Option(help="Number of songs.")] = FROM_LIBRARY,
    per: Annotated[
        tuple[str, int] | None, typer.Option("--per", help="Column and number of songs that may share a value: artist 2.")
    ] = None,
    order: Annotated[
        str, typer.Option(help="Order of the songs: nearest, or walk (each near the one before it); a path keeps its own.")
    ] = FROM_LIBRARY,
    seeds: Annotated[bool, typer.Option(help="Begin the list with the songs of --like.")] = FROM_LIBRARY,
    where: Where = None, layer: Layer = None,
    layers: Annotated[str | None, typer.Option(help="Mixture of layers: 3:0.5,11:0.5, or 3,11, or all.")] = None,
    space: SpaceName = None,
    spaces: Annotated[str | None, typer.Option(help="Several spaces with weights: A:0.7,B:0.3.")] = None,
    hubs: Hubs = FROM_LIBRARY,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.m3u8", help="File to write; default: NAME.m3u8 in the current folder.")
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative/--absolute", help="Write paths relative to the playlist's folder, or absolute ones.")
    ] = False,
    to: Annotated[
        str | None, typer.Option(
            "--to", metavar="URL|mpd",
            help="Instead of a file: a music server that speaks Subsonic (http://…), or MPD's queue (mpd, mpd://HOST:PORT, "
            "mpd:///SOCKET).",
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option(
            help="Name of the user on the music server; default: as for `tonelake ingest subsonic`. The password is read from "
            "TONELAKE_SUBSONIC_PASSWORD or ~/.netrc, or asked for.",
        ),
    ] = None,
    insecure: SubsonicPassword = False,
    music: Annotated[
        Path | None, typer.Option(help="Music folder of MPD, as this machine sees it; default: MPD is asked.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Have MPD play the first of the songs.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Also store the songs in MPD as the playlist NAME.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the file or playlist of this name, or MPD's queue.")
    ] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Make a playlist of songs that sound like others, or that lead from one to another.

    Each song occurs once, whatever its versions. Nothing of the same name is replaced without --replace; songs are added at the
    end of MPD's queue.

    Example: tonelake playlist "Late evening" --like "love theme" --per artist 2 --length 25
    Example: tonelake playlist Journey --like "love theme" --path-to "farewell" --to mpd --play
    """
    from tonelake.playlists.request import PlaylistRequest
    from tonelake.playlists.targets import is_mpd, make_file, make_in_mpd, make_on_server

    target = "file" if to is None else "mpd" if is_mpd(to) else "server"
    check_options(target, file={"--out": out, "--relative": relative}, server={"--user": user, "--insecure": insecure}, mpd={
        "--music": music, "--play": play, "--save": save,
    })
    opened = open_lake(lake)
    given = PlaylistRequest(
        like=songs(opened, like), unlike=songs(opened, unlike), text=tuple(text or ()), length=length, per=per, order=order,
        path_to=None if path_to is None else named(opened, path_to), seeds=seeds, where=where, layer=layer, layers=layers,
        space=space, spaces=spaces, hubs=hubs,
    )
    made: Made
    if to is None:
        made = make_file(opened, name, given, out=out, relative=relative, replace=replace)
    elif target == "mpd":
        made = make_in_mpd(opened, name, given, to=to, music=music, replace=replace, play=play, save=save)
    else:
        made = make_on_server(
            opened, name, given, server=to, user=user, replace=replace, insecure=insecure, ask=ask_password
        )
    show(made.songs.frame(), as_json, as_csv, "playlist")
    for song in made.songs.outside:
        say(f"{song}: is not in the lake, so it is not in the list")
    if made.songs.unplayable:
        say(f"{made.songs.unplayable} songs were left out, {made.songs.lacks}")
    if len(made.songs.entries) < length:
        say(f"{length} songs were asked for; no others satisfy the filter")
    say(made.where)


def songs(lake: Lake, words: list[str] | None) -> tuple[Any, ...]:
    """The songs that options name."""
    return tuple(named(lake, word) for word in words or ())


def check_options(target: str, **options: dict[str, Any]) -> None:
    """Raise BadParameter for an option of another target than the chosen one."""
    homes = {"file": "a file (without --to)", "server": "--to http://…", "mpd": "--to mpd"}
    for home, given in options.items():
        for name, value in given.items():
            if value and home != target:
                raise typer.BadParameter(f"{name}: goes with {homes[home]}. Leave it out")
