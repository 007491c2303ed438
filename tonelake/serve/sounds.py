"""Find the sound of a song: a file of one of its clips, or a WAV file that is decoded while it is sent.

The file is the one that the clip names or, if that is gone, another one with the same recording; a song that only a music
server has is read from the cache of such songs.  Paths come from the lake alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import polars as pl

from tonelake import Lake
from tonelake.ingest import AudioError, is_chorale, is_file_source, local_file, to_path
from tonelake.serve.rows import SongSound
from tonelake.store import SUPERSEDED, in_list
from tonelake.wav_file import Sound, recording_length

# Formats that browsers play as they are; others are decoded.
MEDIA_TYPES = {
    ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg",
    ".m4a": "audio/mp4", ".mp4": "audio/mp4", ".aac": "audio/aac", ".wav": "audio/wav", ".webm": "audio/webm",
}
SIGNATURES = (
    (b"fLaC", 0, "audio/flac"), (b"ID3", 0, "audio/mpeg"), (b"\xff\xfb", 0, "audio/mpeg"), (b"\xff\xf3", 0, "audio/mpeg"),
    (b"OggS", 0, "audio/ogg"), (b"WAVE", 8, "audio/wav"), (b"ftyp", 4, "audio/mp4"),
)
WAV = "audio/wav"


def find_sound(lake: Lake, clips: pl.DataFrame, song_id: str, *, as_wav: bool) -> SongSound:
    """Return the sound of a song by its clips (clip_id, recording, source, start_s, duration_s, state).

    `song_id`: where it is the id of one of the clips, the sound is that of its recording.  `as_wav`: decode also what a browser
    could play.  Raises AudioError if no file is there.
    """
    chosen = clips.filter(pl.col("clip_id") == song_id)
    live = clips.filter(pl.col("state").is_null())
    clip = (chosen if len(chosen) else live if len(live) else clips).row(0, named=True)
    sources = [clip["source"]]
    if clip["recording"] and clip["state"] != SUPERSEDED:            # a superseded recording's file now has other audio
        sources += lake.paths.read(["source"], where=in_list("recording", [clip["recording"]]))["source"].to_list()
    file = first_file(filter(is_file_source, sources)) or downloaded(source for source in sources if not is_file_source(source))
    rendered = next((source for source in sources if is_chorale(source)), None)
    if file is None and rendered is None:
        raise AudioError("its file is gone. Put it back, or ingest its folder again to mark it as missing")
    kind = None if file is None or as_wav else media_type_of(file)
    name = file.stem if file is not None else (rendered or "").partition(":")[2].partition("?")[0]
    if file is None or kind is None:
        return decoded(lake, clip["clip_id"], f"{name}.wav")
    found = file.stat()
    return SongSound(
        clip_id=clip["clip_id"], path=file, media_type=kind, size=found.st_size, name=file.name,
        etag=etag_of(clip["clip_id"], found.st_size, found.st_mtime_ns), duration_s=clip["start_s"] + clip["duration_s"],
    )


def decoded(lake: Lake, clip_id: str, name: str) -> SongSound:
    """Return the WAV file of the recording that a clip is part of.  Raises AudioError if it cannot be read."""
    try:
        length_s = recording_length(lake, clip_id)
    except AudioError as error:
        raise AudioError("its file is gone or cannot be decoded. Put it back, or ingest its folder again") from error
    size = Sound(lake, clip_id, length_s, whole=True).size
    return SongSound(
        clip_id=clip_id, path=None, media_type=WAV, size=size, name=name, duration_s=length_s,
        etag=etag_of(lake.identity, clip_id, size),
    )


def first_file(sources: Iterable[str]) -> Path | None:
    """Return the first of these sources that is a file of this machine."""
    for source in sources:
        path = to_path(source)
        with suppress(OSError, ValueError):              # a name that no file can have
            if path.is_file():
                return path
    return None


def downloaded(sources: Iterable[str]) -> Path | None:
    """Return the cached file of the first of these sources that is a song of a music server, downloaded if need be."""
    for source in sources:
        if not is_chorale(source):
            try:
                return local_file(source)
            except AudioError as error:
                raise AudioError("only its music server has it, which does not answer or no longer has it") from error
    return None


def media_type_of(path: Path) -> str | None:
    """Return the media type of a file that browsers play: by its suffix or, of a file in the cache, by its first bytes."""
    if path.suffix:
        return MEDIA_TYPES.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            begin = file.read(12)
    except OSError:
        return None
    for signature, place, kind in SIGNATURES:
        if begin[place:].startswith(signature):
            return kind
    return None


def etag_of(*parts: object) -> str:
    """Return an entity tag, in quotes."""
    return f'"{blake2b(repr(parts).encode(), digest_size=8).hexdigest()}"'
