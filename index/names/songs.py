"""Songs of a lake: clips that belong to one piece of music, with the text a song is found by."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import polars as pl

from tonelake.index.names.normalise import AUDIO_SUFFIX, without_suffix
from tonelake.index.names.rank import Song
from tonelake.store import Lake, in_list, joined_lists, read_songs, song_columns, track_numbers

ARTISTS = ("artists", "artist", "album_artist")          # columns of clips with names of artists, the best first
SCHEMA: dict[str, Any] = {
    "song": pl.String, "tracks": pl.List(pl.String), "title": pl.String, "artist": pl.String, "album": pl.String,
    "file": pl.String,
}


def read_song_names(lake: Lake) -> pl.DataFrame:
    """Return one row a song: song (id of its first clip), tracks, title, artist, album and file, the latter four null if empty.

    A song is a track, or several that confirmed duplicates join (`store.track_numbers`).  Its text is that of its first clip
    which has any.
    """
    present = [name for name in (*ARTISTS, "title", "album") if name in lake.clips.columns()]
    clips = lake.clips.read(list(dict.fromkeys([*song_columns(lake.clips), "source", "start_s", *present])))
    if not len(clips):
        return pl.DataFrame(schema=SCHEMA)
    songs = clips.with_columns(
        number=track_numbers(clips), file=file_names(clips["source"]), **{name: text(clips[name]) for name in present}
    ).sort("start_s", "clip_id").group_by("number", maintain_order=True).agg(
        pl.first("clip_id").alias("song"), pl.col("track").unique().sort().alias("tracks"), pl.first("file"),
        *(pl.col(name).drop_nulls().first() for name in present),
    )
    artist = pl.coalesce(name for name in ARTISTS if name in present)
    return songs.with_columns(artist=artist).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def clips_of_song(lake: Lake, song: Song) -> pl.DataFrame:
    """Return the clips of a song from its beginning."""
    clips = lake.clips.read(where=in_list("track", song.tracks)).sort("start_s", "clip_id")
    if clips["dataset"].n_unique() > 1:  # a track of another data set can have the name
        songs = read_songs(lake.clips)
        clips = clips.filter(pl.Series(songs.of(clips["clip_id"]) == songs.of([song.clip_id])[0]))
    return clips


def text(values: pl.Series) -> pl.Series:
    """A column as text, lists joined; null where it is empty."""
    joined = joined_lists(values).cast(pl.String).str.strip_chars()
    return pl.select(pl.when(joined != "").then(joined)).to_series()


def file_names(sources: pl.Series) -> pl.Series:
    """The last part of each source: a path, a file: URI, or a name such as chorale:bwv66.6, without its settings."""
    last = sources.str.replace(r"^(chorale:[^?]*).*", "$1").str.split("/").list.last().str.replace(r"^[a-z]+:", "")
    escaped = sources.str.starts_with("file:")
    if not escaped.any():
        return last
    decoded = last.map_elements(lambda name: unquote(name, errors="replace"), return_dtype=pl.String)
    return pl.select(pl.when(escaped).then(decoded).otherwise(last)).to_series()


def file_titles(sources: pl.Series) -> pl.Series:
    """The names of files without the suffix of an audio format, for songs without a title."""
    return file_names(sources).str.replace(f"(?i){AUDIO_SUFFIX.pattern}", "")


def song_of_clip(lake: Lake, clip_id: str) -> Song:
    """Return the track of a clip as a song found by that clip.  Raises ClipNotFound if there is no such clip."""
    clip = lake.clips.find(clip_id)
    shown = {name: text(pl.Series([clip[name]]))[0] for name in (*ARTISTS, "title", "album") if clip.get(name)}
    file = file_names(pl.Series([clip["source"]]))[0]
    return Song(
        clip_id=clip_id, tracks=(clip["track"],), title=shown.get("title") or without_suffix(file),
        artist=next((shown[name] for name in ARTISTS if name in shown), None), album=shown.get("album"), file=file, score=100.0,
    )
