"""Resolve words to a clip or song of the lake: wherever a clip or file is asked for, a name can be given.

The order is: an existing file (`query.is_file`), a clip id or its first digits, a name.  A song that is clearly meant is taken
and logged; where several are near, `SeveralSongs` lists them to choose from.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from tonelake.index.names.find import match_songs
from tonelake.index.names.normalise import AUDIO_SUFFIX
from tonelake.index.names.rank import LITERAL, Song, decide
from tonelake.index.names.songs import clips_of_song, song_of_clip
from tonelake.store import ClipNotFound, InputError, Lake, in_list, printable

CLIP_ID = re.compile(r"[0-9a-f]{4,64}")
LONGEST_WORD = 11                        # digits of an id that can also be a word or a year: face, 1984
PATH_START = re.compile(r"~?[/\\]|\.{1,2}[/\\]|[A-Za-z]:\\")
LISTED = 10                              # songs to choose from
NEAR = 12.0                              # songs to choose from are within this score of the best

log = logging.getLogger("tonelake.index")


class SeveralSongs(InputError):
    """Several songs are near a name; `songs` are those to choose from, nearest first."""

    def __init__(self, name: str, songs: list[Song]) -> None:
        self.name = name
        self.songs = [song for song in songs[:LISTED] if songs[0].score - song.score <= NEAR]
        count = len(self.songs)
        near = f"{count} songs are near" if count > 1 else "only resembles a song"
        super().__init__("\n".join([
            f"name {printable(name)!r}: {near}. Give more of the name, or one of these clip ids", *self.lines()
        ]))

    def lines(self) -> list[str]:
        """One line a song: its number, clip id and names, and its file where they do not tell it from another."""
        names = [describe(song) for song in self.songs]
        return [
            printable(f"{number:3}  {song.clip_id}  {name}" + (f"  [{song.file}]" if names.count(name) > 1 else ""))
            for number, (song, name) in enumerate(zip(self.songs, names, strict=True), start=1)
        ]


def describe(song: Song) -> str:
    """The title of a song with its artist and album.

    >>> describe(Song(clip_id="3fa9", tracks=(), title="Song", artist="Ada", album="First", file="1.flac"))
    'Song - Ada (First)'
    """
    return song.title + (f" - {song.artist}" if song.artist else "") + (f" ({song.album})" if song.album else "")


def find_named(lake: Lake, text: str) -> dict[str, Any] | Song:
    """Return the clip with this id (or with these first digits), as a row, or the song with this name.

    A name may be a title, artist, album or file name or several of them, with typing errors; the path of a file that no longer
    exists finds its song.  Raises SeveralSongs if several songs are near, ClipNotFound if none is.
    """
    if CLIP_ID.fullmatch(text):
        return _find_id(lake, text)
    songs, literally = _songs_of_path(lake, text) if is_path(text) else (match_songs(lake, text), False)
    decision = decide(songs, literally=literally)
    if decision == "none":
        raise ClipNotFound(
            f"{text!r}: neither a file nor a clip id, and no song has such a name. Look for it with `tonelake find`, or "
            "list clips with `tonelake clips`"
        )
    if decision == "several":
        raise SeveralSongs(text, songs)
    return _taken(songs[0])


def find_clip(lake: Lake, wanted: str | Song) -> dict[str, Any]:
    """Return a clip as a row: the one with this id, else the first clip of the song with this name.

    Raises SeveralSongs and ClipNotFound as `find_named`.
    """
    found = wanted if isinstance(wanted, Song) else find_named(lake, wanted)
    return first_clip(lake, found) if isinstance(found, Song) else found


def first_clip(lake: Lake, song: Song) -> dict[str, Any]:
    """Return the first clip of a song as a row, and log which it is if there are others."""
    clips = clips_of_song(lake, song)
    if not len(clips):
        raise ClipNotFound(f"{song}: its clips were removed from the lake. Look for it again with `tonelake find`")
    if len(clips) > 1:
        log.info("%s has %d clips; the first one is used: %s", song, len(clips), clips["clip_id"][0])
    return clips.row(0, named=True)


def is_path(text: str) -> bool:
    """Whether a text looks like the path of an audio file rather than a name.

    >>> [is_path(text) for text in ("love.mp3", "./love", "AC/DC Thunderstruck", "Mr. Blue")]
    [True, True, False, False]
    """
    return bool(PATH_START.match(text) or AUDIO_SUFFIX.search(text))


def _taken(song: Song) -> Song:
    others = f"; other versions: {', '.join(song.others)}" if song.others else ""
    log.info("taking %s%s%s", song, f" ({song.album})" if song.album else "", others)
    return song


def _find_id(lake: Lake, digits: str) -> dict[str, Any] | Song:
    """Find a clip by its id.  Digits that are also the exact name of another song are ambiguous."""
    try:
        clip = lake.clips.find(digits)
    except ClipNotFound as error:
        songs = match_songs(lake, digits) if len(digits) <= LONGEST_WORD else []
        songs = [song for song in songs if song.score >= LITERAL]
        decision = decide(songs, literally=True)
        if decision == "several":
            raise SeveralSongs(digits, songs) from None
        if decision == "none":
            raise error from None
        return _taken(songs[0])
    if len(digits) <= LONGEST_WORD:
        # A scan of the titles instead of a search by name, so that an id never waits for names to be indexed.
        named = f"lower(title) = '{digits}' OR (title IS NULL AND source LIKE '%/{digits}.%')"
        others = lake.clips.read(["clip_id", "track"], where=named).filter(pl.col("track") != clip["track"])
        if len(others):
            first = others.unique("track", keep="first", maintain_order=True)["clip_id"]
            raise SeveralSongs(digits, [song_of_clip(lake, one) for one in (clip["clip_id"], *first)])
    return clip


def _songs_of_path(lake: Lake, text: str) -> tuple[list[Song], bool]:
    """Songs whose files are named by a path that does not exist, and whether only a literal match counts."""
    from tonelake.ingest import to_source  # imports decoders, which other names do without

    path = Path(text)
    with suppress(RuntimeError):         # ~name of no user
        path = path.expanduser()
    stored = lake.clips.read(["clip_id"], where=in_list("source", [to_source(path)]))
    if len(stored):
        return [song_of_clip(lake, stored["clip_id"][0])], False
    songs = match_songs(lake, text)
    return songs if decide(songs, literally=True) == "one" else match_songs(lake, path.name), True
