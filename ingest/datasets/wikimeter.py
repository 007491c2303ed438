"""Ingest a catalogue of songs by meter, in WIKIMETER's form: download, cut by its rule, label with every meter.

    [{"artist": "...", "title": "...", "meters": {"5": 1.0}, "sources": [{"type": "youtube", "video_id": "..."},
      {"type": "wikimedia", "url": "https://..."}], "trim": {"start": 3, "end": 200}}, ...]

An older form has `video_id` beside the title.  The rule: leave out 10 s at both ends, then take at most five segments of
35 s, a shorter last one if at least 15 s remain.  Beside the files, `data_<name>.tab` lists the segments as METER2800's
tables do.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tonelake.ingest.collector import STAGE
from tonelake.ingest.datasets.meters import WORDS, main_meter, meter_list, meter_text
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.download import Download, DownloadLog, Fetched, FetchError, Measure, fetch, ytdlp
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.sources import to_source
from tonelake.ingest.text_files import encoding_of, readable
from tonelake.store import Failure, InputError, Lake, failure_id

MARGIN_S, SEGMENT_S, MIN_SEGMENT_S, MAX_SEGMENTS = 10.0, 35.0, 15.0, 5
PAUSE_S = 3.0                            # between two log
VIDEO_ID = re.compile(r"[\w-]{11}")
NOTICE = (
    "downloading recordings may violate the terms of the site that hosts them (YouTube's forbid it except where they say "
    "otherwise) and the rights of their owners. Download only what you are allowed to, keep the files to yourself, and "
    "confirm this with --accept-terms"
)


@dataclass(frozen=True, kw_only=True)
class Song:
    """One entry of a catalogue."""

    artist: str
    title: str
    meters: dict[int, float]             # beats a bar: weight, a confidence or a share of the song
    urls: tuple[str, ...]                # in order of preference
    start_s: float = 0.0                 # where the song begins and ends within the recording
    end_s: float | None = None

    @property
    def stem(self) -> str:
        return slug(f"{self.artist}_{self.title}")

    @property
    def main_meter(self) -> int:
        return main_meter(self.meters)

    def labels(self) -> dict[str, Any]:
        """Label columns of a clip: those of METER2800's tables, and every meter as a list."""
        return {
            "artist": self.artist, "title": self.title, "label": WORDS.get(self.main_meter, str(self.main_meter)),
            "meter": meter_text(self.meters), "alt_meter": str(2 * self.main_meter),
            "meters": meter_list(self.meters),
        }


def ingest_catalogue(
    lake: Lake, file: str | Path, *, folder: str | Path | None = None, accept_terms: bool = False, limit: int | None = None,
    workers: int | None = None, download: Download | None = None, sleep: Callable[[float], None] = time.sleep,
) -> IngestReport:
    """Download a catalogue's songs into `folder` (by default beside it, under its name), and add their segments as clips.

    A song whose sources all fail is a recorded failure.  The next run tries it again, and downloads only what is missing.
    Raises InputError, before any download, if the terms are not accepted or the catalogue is not valid.
    """
    file = Path(file).expanduser()
    songs = read_catalogue(file)[:limit]
    if not accept_terms:
        raise InputError(NOTICE)
    name = slug(file.stem)
    log = DownloadLog(Path(folder).expanduser() if folder else file.absolute().parent / f"{file.stem}-audio")
    download = download or ytdlp()
    recordings, rows, failures, succeeded, fresh = [], [], [], [], 0
    with DecoderPool(1) as pool:
        measure = measure_by(pool)
        for song in lake.progress(songs, len(songs), "fetching"):
            try:
                found, new = fetch_song(song, log, download, measure, sleep)
                fresh += new
                spans = segments(found.duration_s, song.start_s, song.end_s)
                if not spans:
                    raise FetchError(f"{found.duration_s:.0f} s are too short for a segment of {MIN_SEGMENT_S:g} s")
            except FetchError as error:
                failures.append(Failure(STAGE, song.urls[0], f"{song.artist} - {song.title}: {error}"))
                continue
            succeeded.append(failure_id(STAGE, song.urls[0]))
            source = to_source(log.folder / found.file)
            labels = song.labels() | {"url": found.url}
            recordings.append(Recording(
                source=source, track=song.stem, labels=labels, spans=tuple(spans), span_labels=tuple({} for _ in spans)
            ))
            rows += [(f"/{name.upper()}/{song.stem}_seg{i:02d}.mp3", labels) for i in range(len(spans))]
    lake.failures.record(failures)
    lake.failures.clear(succeeded)
    table = log.folder / f"data_{name}.tab"
    write_table(table, rows)
    report = ingest_recordings(lake, recordings, None, dataset=name, workers=workers)
    notes = (f"{len(recordings)} of {len(songs)} songs available, {fresh} downloaded in this run; segments listed in {table}",)
    return replace(report, recordings=len(songs), failed=report.failed + len(failures), notes=(*notes, *report.notes))


def fetch_song(
    song: Song, log: DownloadLog, download: Download, measure: Measure, sleep: Callable[[float], None]
) -> tuple[Fetched, bool]:
    """The song's file from the first source that works, and whether it was downloaded in this call.

    Raises FetchError with the problem of each source.
    """
    problems = []
    for url in song.urls:
        if log.find(url) is None:
            sleep(PAUSE_S)
        try:
            return fetch(url, log, download=download, measure=measure, sleep=sleep)
        except FetchError as error:
            problems.append(str(error))
    raise FetchError("; ".join(problems))


def measure_by(pool: DecoderPool) -> Measure:
    """A function that decodes a file in a separate process, since a download may crash the decoder, and returns its seconds."""

    def measure(path: Path) -> float:
        return float(pool.ask({"do": "scan", "source": to_source(path)})["scan"]["duration_s"])

    return measure


def segments(duration_s: float, start_s: float = 0.0, end_s: float | None = None) -> list[tuple[float, float]]:
    """(start, length) in seconds of a song's segments by the catalogue's rule.

    >>> segments(110.0)
    [(10.0, 35.0), (45.0, 35.0), (80.0, 20.0)]
    >>> segments(1000.0)[-1], segments(30.0)
    ((150.0, 35.0), [])
    """
    begin, end = start_s + MARGIN_S, min(duration_s if end_s is None else end_s, duration_s) - MARGIN_S
    found: list[tuple[float, float]] = []
    while end - begin >= MIN_SEGMENT_S and len(found) < MAX_SEGMENTS:
        length = min(SEGMENT_S, end - begin)
        found.append((round(begin, 3), round(length, 3)))
        begin += SEGMENT_S
    return found


def read_catalogue(file: Path) -> list[Song]:
    """The songs of a catalogue.  Raises InputError, naming the entry, if one does not have the form above."""
    with readable(file):
        text = file.read_text(encoding=encoding_of(file))
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise InputError(f"{file.name}: is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file.name}: is not a list of songs")
    songs: dict[str, Song] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            song = read_song(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{file.name}, song {number}: {what}") from error
        if song.stem in songs:
            raise InputError(f"{file.name}, song {number}: {song.artist} - {song.title} is listed twice")
        songs[song.stem] = song
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
    start, end = trim.get("start"), trim.get("end")
    song = Song(
        artist=str(entry["artist"]), title=str(entry["title"]), meters=meters,
        urls=tuple(dict.fromkeys(map(url_of, sources))), start_s=float(start or 0.0), end_s=None if end is None else float(end),
    )
    if not song.urls:
        raise ValueError("has no sources")
    if not song.stem:
        raise ValueError("has neither artist nor title")
    return song


def url_of(source: dict[str, Any]) -> str:
    """The URL of a source.  Only http and https, so that a foreign catalogue cannot read files of this machine."""
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


def write_table(path: Path, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Write segments in the form of METER2800's tables, atomically."""
    lines = ["filename\tlabel\tmeter\talt_meter"]
    lines += [f'"{name}"\t"{labels["label"]}"\t{labels["meter"]}\t{labels["alt_meter"]}' for name, labels in rows]
    beside = path.with_suffix(".tmp")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(path)
