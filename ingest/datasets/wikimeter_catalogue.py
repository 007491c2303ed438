"""Read a catalogue of songs by meter, in WIKIMETER's form, and a table of overrides.

    [{"artist": "...", "title": "...", "meters": {"5": 1.0}, "sources": [{"type": "youtube", "video_id": "..."},
      {"type": "wikimedia", "url": "https://..."}, {"type": "search"}], "trim": {"start": 3, "end": 200}, "override": "https://..."}]

An older form has `video_id` beside the title.  `override`, a URL or a video id, is used instead of all sources.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tonelake.ingest.datasets.meters import WORDS, main_meter, meter_list, meter_text
from tonelake.ingest.download import SEARCH
from tonelake.ingest.text_files import encoding_of, readable
from tonelake.store import InputError

MAX_STEM = 200                           # bytes: file systems allow 255 for a name, which has a number and a suffix too
VIDEO_ID = re.compile(r"[\w-]{11}", re.ASCII)
OVERRIDE_COLUMNS = ("artist", "title", "url", "video_id")


@dataclass(frozen=True, kw_only=True)
class Song:
    """One entry of a catalogue."""

    artist: str
    title: str
    meters: dict[int, float]             # beats a bar: weight, a confidence or a share of the song
    urls: tuple[str, ...]                # in order of preference; may be searches, `ytsearch1:ARTIST TITLE`
    start_s: float = 0.0                 # where the song begins and ends within the recording
    end_s: float | None = None
    replaced: tuple[str, ...] = ()       # URLs that an override has replaced
    suffix: str = ""                     # of the stem, where another song has the same Latin letters

    @property
    def stem(self) -> str:
        """The track's name, and the beginning of its segments' file names."""
        return file_stem(slug(f"{self.artist}_{self.title}") + self.suffix)

    @property
    def key(self) -> str:
        """Equal for two spellings of one song."""
        return song_key(self.artist, self.title)

    @property
    def main_meter(self) -> int:
        return main_meter(self.meters)

    @property
    def search(self) -> str:
        """The search for this song by artist and title."""
        return SEARCH + " ".join(f"{self.artist} {self.title}".split())

    def labels(self) -> dict[str, Any]:
        """Label columns of a clip: those of METER2800's tables, and every meter as a list."""
        return {
            "artist": self.artist, "title": self.title, "label": WORDS.get(self.main_meter, str(self.main_meter)),
            "meter": meter_text(self.meters), "alt_meter": str(2 * self.main_meter),
            "meters": meter_list(self.meters),
        }


def read_catalogue(file: Path, *, search: bool = False, override: Path | None = None) -> list[Song]:
    """The songs of a catalogue.

    `search`: look up songs without sources by artist and title.  `override`: a table of recordings to use instead of a song's
    sources.  Raises InputError, naming the entry, if one does not have the form above, or has no sources and `search` is False.
    """
    with readable(file):
        text = file.read_text(encoding=encoding_of(file))
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise InputError(f"{file.name}: is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file.name}: is not a list of songs")
    overrides = read_overrides(override) if override is not None else {}
    songs: dict[str, Song] = {}
    stems: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        try:
            song = with_sources(read_song(entry), overrides, search=search)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{file.name}, song {number}: {what}") from error
        if song.key in songs:
            raise InputError(f"{file.name}, song {number}: {song.artist} - {song.title} is listed twice")
        if song.stem in stems:           # of names in other scripts, only Latin letters are part of the stem
            song = replace(song, suffix=f"_{short_hash(song.key)}")
        stems.add(song.stem)
        songs[song.key] = song
    unknown = [where for key, (where, _) in overrides.items() if key not in songs]
    if unknown:
        raise InputError(f"{unknown[0]}: its song is not in {file.name}. Write artist and title as they are there")
    return list(songs.values())


def read_song(entry: dict[str, Any]) -> Song:
    """One entry as a Song.  Raises ValueError, KeyError, TypeError or AttributeError if it does not have the form above."""
    meters = {int(meter): float(weight) for meter, weight in entry["meters"].items() if float(weight) > 0}
    if not meters or not all(2 <= meter <= 64 for meter in meters):
        raise ValueError(f"meters {entry['meters']!r}: give beats a bar and a weight above 0 for each")
    sources = list(entry.get("sources") or [])
    if entry.get("video_id"):            # the older form
        sources.append({"type": "youtube", "video_id": entry["video_id"]})
    trim = entry.get("trim") or {}
    start_s, end = float(trim.get("start") or 0.0), trim.get("end")
    end_s = None if end is None else float(end)
    if not 0 <= start_s < (math.inf if end_s is None else end_s):
        raise ValueError(f"trim {trim!r}: give the start and a later end in seconds")
    artist, title = ("" if entry[key] is None else str(entry[key]) for key in ("artist", "title"))
    if not is_text(artist + title):
        raise ValueError("artist or title contains half of a character (a lone surrogate). Correct it")
    song = Song(artist=artist, title=title, meters=meters, urls=(), start_s=start_s, end_s=end_s)
    if not song.stem:
        raise ValueError("has neither artist nor title")
    song = replace(song, urls=tuple(dict.fromkeys(url_of(source, song) for source in sources)))
    given = entry.get("override")
    return replaced_by(song, url_of(given, song)) if given else song


def with_sources(song: Song, overrides: Mapping[str, tuple[str, str]], *, search: bool) -> Song:
    """A song with its override if it has one, and else with a search if it has no sources.

    Raises ValueError if it has no sources and `search` is False.
    """
    if song.key in overrides:
        return replaced_by(song, overrides[song.key][1])
    if song.urls:
        return song
    if not search:
        raise ValueError("has no sources. Add one, or look it up by artist and title with --search")
    return replace(song, urls=(song.search,))


def replaced_by(song: Song, url: str) -> Song:
    """A song whose recording is the one at `url`."""
    return replace(song, urls=(url,), replaced=tuple({*song.urls, *song.replaced, song.search} - {url}))


def read_overrides(file: Path) -> dict[str, tuple[str, str]]:
    """(file and row, URL) by a song's key, from a CSV or JSON table of artist, title, and url or video_id.

    Raises InputError, naming the row, if one names no song or recording, or if two are for one song.
    """
    from tonelake.ingest.tables import read_numbered_table

    table, numbers = read_numbered_table(file, text=OVERRIDE_COLUMNS)
    absent = [name for name in OVERRIDE_COLUMNS[:2] if name not in table.columns]
    if absent:
        raise InputError(f"{file.name}: has no column {', '.join(absent)}. Give artist, title, and url or video_id")
    found: dict[str, tuple[str, str]] = {}
    for number, row in zip(numbers, table.iter_rows(named=True), strict=True):
        where = f"{file.name}, row {number}"
        key = song_key(row["artist"] or "", row["title"] or "")
        if not key.strip("_"):
            raise InputError(f"{where}: has neither artist nor title. Write them as in the catalogue")
        if key in found:
            raise InputError(f"{where}: {row['artist']} - {row['title']} is listed twice. Delete one of the rows")
        try:
            url = url_of({key: row.get(key) for key in ("url", "video_id")})
        except ValueError as error:
            raise InputError(f"{where}: {error}. Give an http or https url, or a video_id") from error
        found[key] = where, url
    return found


def url_of(source: dict[str, Any] | str, song: Song | None = None) -> str:
    """The URL of a source, or its search.  Raises ValueError if it has another form.

    Only http and https, so that a foreign catalogue cannot read files of this machine.
    """
    if isinstance(source, str):
        source = {"video_id": source} if VIDEO_ID.fullmatch(source) else {"url": source}
    if source.get("type") == "search" and song is not None:
        query = " ".join(str(source.get("query") or "").split())
        return SEARCH + query if query else song.search
    if source.get("video_id") and not source.get("url"):
        if not VIDEO_ID.fullmatch(str(source["video_id"])):
            raise ValueError(f"{source['video_id']!r} is not a video id")
        return f"https://www.youtube.com/watch?v={source['video_id']}"
    url = str(source.get("url") or "")
    if not re.match(r"https?://[^/]", url):
        raise ValueError(f"the source {url!r} is not an http or https URL")
    return url


def slug(text: str) -> str:
    """Text reduced to letters, digits and underscores.

    >>> slug("Béla Bartók_Mikrokosmos: No. 113")
    'bela_bartok_mikrokosmos_no_113'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower() or text.lower()
    return re.sub(r"[^\w]+", "_", plain).strip("_")


def song_key(artist: str, title: str) -> str:
    """A song's name without case, accents and punctuation, but with the letters of every script.

    >>> song_key("BÉLA", "Bartók!") == song_key("Bela", "bartok"), song_key("歌手", "Love") == song_key("歌姫", "Love")
    (True, False)
    """
    letters = unicodedata.normalize("NFKD", f"{artist}_{title}").casefold()
    return re.sub(r"[^\w]+", "_", "".join(letter for letter in letters if not unicodedata.combining(letter))).strip("_")


def file_stem(text: str) -> str:
    """A text as the beginning of a file name: if it is too long for one, its beginning and a hash."""
    if len(text.encode()) <= MAX_STEM:
        return text
    return text.encode()[: MAX_STEM - 20].decode(errors="ignore") + f"_{short_hash(text)}"


def short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
