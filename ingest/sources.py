"""Read the samples of a source, the text by which a lake names a recording.  Every sample enters through `read_source`.

A source is an absolute path; a `file:` URI if the path is not valid UTF-8, which a text column cannot hold; `chorale:NAME`, a
piece of music21's corpus that is rendered when it is read (`chorale_sources`); or `subsonic:SERVER/ID`, a song of a music
server that is read from a cache (`subsonic.cache`).  The four functions here tell them apart, and nothing else has to:
`is_file_source`, `is_available`, `to_path` and `local_file`.
"""

from __future__ import annotations

import os
import unicodedata
import urllib.parse
from functools import lru_cache
from pathlib import Path

import numpy as np

from tonelake.ingest.chorale_audio import read_chorale
from tonelake.ingest.chorale_sources import is_chorale, soundfont_of
from tonelake.ingest.decode import read_audio
from tonelake.ingest.errors import AudioError
from tonelake.ingest.scan import file_digest
from tonelake.ingest.subsonic.cache import local_song, song_path
from tonelake.ingest.subsonic.sources import is_served


def to_source(path: Path) -> str:
    """The text by which a lake names a file.

    >>> to_source(Path("/music/a b.mp3"))
    '/music/a b.mp3'
    """
    text = os.path.abspath(path)  # noqa: PTH100 - keeps links, unlike Path.resolve
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return "file://" + urllib.parse.quote_from_bytes(os.fsencode(text))


def sources_below(root: Path) -> tuple[str, str]:
    """How the sources of the files below a folder begin: as paths, and as URIs where a path is not valid UTF-8."""
    quoted = urllib.parse.quote_from_bytes(os.fsencode(os.path.abspath(root)))  # noqa: PTH100 - keeps links
    return to_source(root), f"file://{quoted}"


def as_on_disk(path: Path) -> Path:
    """A path with the Unicode normal form that the disk uses for it, if a file of that name exists; else unchanged.

    Disks of macOS store `é` as two characters, and archives preserve that; tables usually have one.
    """
    if str(path).isascii() or is_there(path):
        return path
    parent = as_on_disk(path.parent)
    forms = (parent / unicodedata.normalize(form, path.name) for form in ("NFC", "NFD"))
    return next((form for form in forms if is_there(form)), path)


def is_there(path: Path) -> bool:
    """Whether a path exists; False for an impossible one too, unlike Path.exists, which raises if a name is too long."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def has_entries(folder: Path) -> bool:
    """Whether a folder can be reached and is not empty, as the mount point of a drive is that went away."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def is_file_source(source: str) -> bool:
    """Whether a source names a file of a disk: it is neither rendered nor of a music server."""
    return not is_chorale(source) and not is_served(source)


def is_available(source: str) -> bool:
    """Whether a source can be read as far as this disk shows: its file exists, or that of its soundfont.

    Songs of a music server are available, in the cache or by a download.
    """
    soundfont = soundfont_of(source)
    if soundfont is not None or source.startswith("file://"):
        return is_there(soundfont or to_path(source))
    from tonelake.store import source_exists  # with tables, which a decoder process does without

    return source_exists(source)         # True for what names no file


def local_file(source: str) -> Path:
    """The file that a source is read from; a song of a music server is downloaded if it is not in the cache.

    Raises AudioError if it cannot be had.
    """
    return local_song(source) if is_served(source) else to_path(source)


def to_path(source: str) -> Path:
    """The file that a source names; for a song of a music server, where its file is while it is in the cache."""
    if is_served(source):
        return song_path(source)
    if source.startswith("file://"):
        return Path(os.fsdecode(urllib.parse.unquote_to_bytes(source.removeprefix("file://"))))
    return Path(source)


def read_source(
    source: str, start_s: float, duration_s: float, rate: int, digest: str | None = None, skip: int = 0
) -> np.ndarray:
    """Part of a source as (samples,) float32 at `rate` Hz.

    `digest`: of the bytes that were ingested.  `skip`: number of decoders that are left out because they crash.
    Raises AudioError if the source cannot be read, or if the file has changed since, because its vectors would belong to other
    music.
    """
    if is_chorale(source):
        return read_chorale(source, start_s, duration_s, rate, digest)
    path = local_file(source)
    if digest is not None and _digest_now(source) != digest:
        raise AudioError(f"{path.name}: has changed since it was ingested. Ingest it again")
    samples = read_audio(path, start_s, duration_s, rate, skip)
    missing_s = duration_s - len(samples) / rate
    if missing_s > 0.1:
        raise AudioError(f"{path.name}: ends {missing_s:.1f} s before {start_s + duration_s:.1f} s")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path.name}: decodes to NaN or infinite samples at {start_s:.1f} s")
    return samples


def _digest_now(source: str) -> str:
    try:
        stat = to_path(source).stat()
    except OSError as error:
        raise AudioError(f"{to_path(source).name}: cannot be read: {error.strerror or error}") from error
    return _digest_of_state(source, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)                   # clips of one file follow each other
def _digest_of_state(source: str, mtime_ns: int, size: int) -> str:
    return file_digest(to_path(source))
