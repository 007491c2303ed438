"""Playlists (extended M3U) of songs in a list: one entry a file, in the order of the list.

    #EXTM3U
    #PLAYLIST:Evening
    #EXTINF:213,Nina Simone - Feeling Good
    /music/Nina Simone/Feeling Good.flac

Paths are absolute, so that a playlist works wherever it is stored, unless a folder is named that they are relative to.  The
text is UTF-8, for `.m3u` as for `.m3u8`; a path that a line cannot hold (line breaks, a space at an end, bytes that are no
UTF-8) is written as a `file:` URI.  The length is that of the file as far as its clips reach.  Sources that are not files, such
as chorales, cannot be played and are left out.  Format: https://en.wikipedia.org/wiki/M3U
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from tonelake.store import Lake, in_list

FEW_SOURCES = 1_000                      # looked up by a filter; for more, reading all clips is faster
LINE_BREAK = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")         # and other control characters
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def playlist(lake: Lake, hits: pl.DataFrame) -> tuple[str, int]:
    """Return the text of a playlist of the files of `hits`, a frame with clip_id, and the number of its entries."""
    columns = ["source", "title", "artist", "track"]
    clips = lake.clips.take(hits["clip_id"].to_list(), columns).filter(pl.col("source").is_not_null())
    clips = clips.unique("source", keep="first", maintain_order=True)
    where = in_list("source", clips["source"].to_list()) if 0 < len(clips) <= FEW_SOURCES else None
    ends = lake.clips.read(["source", "start_s", "duration_s"], where=where)
    ends = ends.join(clips.select("source"), on="source", how="semi")
    lengths = dict(ends.group_by("source").agg((pl.col("start_s") + pl.col("duration_s")).max()).iter_rows())
    places = ((clip, written_path(clip["source"])) for clip in clips.iter_rows(named=True))
    entries = [(place, lengths.get(clip["source"]), entry_name(clip)) for clip, place in places if place is not None]
    return m3u_text(entries), len(entries)


def m3u_text(entries: Iterable[tuple[str, float | None, str]], name: str | None = None) -> str:
    """Return the text of a playlist of (line for the file, seconds or None, name on one line), and its own name.

    >>> print(m3u_text([("/music/a.mp3", 12.6, "Ada - Song")], "Calm\\nday"), end="")
    #EXTM3U
    #PLAYLIST:Calm day
    #EXTINF:13,Ada - Song
    /music/a.mp3
    """
    lines = ["#EXTM3U"] + ([] if name is None else [f"#PLAYLIST:{LINE_BREAK.sub(' ', name).strip()}"])
    for place, seconds, shown in entries:
        lines += [f"#EXTINF:{-1 if seconds is None else round(seconds)},{shown}", place]
    return "\n".join(lines) + "\n"


def entry_name(clip: dict[str, str | None]) -> str:
    """Return `Artist - Title` of a clip on one line; the track if it has no title.

    >>> entry_name({"title": "Feeling\\nGood", "artist": "Nina Simone", "track": "a.flac"})
    'Nina Simone - Feeling Good'
    """
    parts = [clip["artist"], clip["title"] or clip["track"]]
    return " - ".join(LINE_BREAK.sub(" ", part).strip() for part in parts if part)


def written_path(source: str, folder: Path | None = None) -> str | None:
    """Return the line for a source: a path or a `file:` URI; None if it is not a file.

    `folder`: the path is relative to it, unless that could be read as something else, or the file is on another drive.

    >>> written_path("/music/a.mp3"), written_path("/music/a\\nb.mp3"), written_path("chorale:269")
    ('/music/a.mp3', 'file:///music/a%0Ab.mp3', None)
    >>> [written_path(source, Path("/music/lists")) for source in ("/music/b/a.mp3", "/music/lists/#1.mp3")]
    ['../b/a.mp3', './#1.mp3']
    """
    if source.startswith("file:"):
        return source
    path = Path(source)
    if not path.is_absolute():
        if SCHEME.match(source):
            return None
        path = path.absolute()
    text = str(path)
    if LINE_BREAK.search(text) or text != text.strip():
        return path.as_uri()
    if folder is None:
        return text
    try:
        relative = Path(os.path.relpath(text, folder)).as_posix()
    except ValueError:                   # another drive
        return text
    return f"./{relative}" if relative.startswith(("#", " ")) or SCHEME.match(relative) else relative
