"""A catalogue of songs by meter, in WIKIMETER's form, as clips: fetched, cut by its rule, labelled with every meter.

    [{"artist": "...", "title": "...", "meters": {"5": 1.0}, "sources": [{"type": "youtube", "video_id": "..."},
      {"type": "wikimedia", "url": "https://..."}], "trim": {"start": 3, "end": 200}}, ...]

An older form has `video_id` beside the title.  The rule: 10 s left out at both ends, then at most five segments of 35 s,
the last one shorter where 15 s remain.  Beside the files, `data_<name>.tab` lists the segments as METER2800's tables do.
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

from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.download import Download, DownloadLog, Fetched, FetchError, Measure, fetch, ytdlp
from tonelake.ingest.errors import AudioError
from tonelake.ingest.recordings import STAGE, IngestReport, Recording, ingest_recordings
from tonelake.ingest.sources import to_source
from tonelake.store import Failure, InputError, Lake, Progress, failure_id, silent_progress

MARGIN_S, SEGMENT_S, LEAST_S, MOST_SEGMENTS = 10.0, 35.0, 15.0, 5
PAUSE_S = 3.0                            # between two downloads
WORDS = {
    2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven",
    12: "twelve", 13: "thirteen", 15: "fifteen",
}
VIDEO_ID = re.compile(r"[\w-]{11}")
NOTICE = (
    "fetching recordings may be against the terms of the site they lie on (YouTube's forbid downloading but where they say "
    "otherwise) and against the rights of those who made them: do it only where you may, keep the files to yourself, and pass "
    "--accept-terms to say so"
)


@dataclass(frozen=True)
class Song:
    """One entry."""

    artist: str
    title: str
    meters: dict[int, float]             # beats a bar: how sure, or how much of the song
    urls: tuple[str, ...]                # the first that works is taken
    start_s: float = 0.0                 # what is the song within the recording
    end_s: float | None = None

    @property
    def stem(self) -> str:
        return slug(f"{self.artist}_{self.title}")

    @property
    def main_meter(self) -> int:
        return max(self.meters, key=lambda meter: (self.meters[meter], -meter))

    def labels(self) -> dict[str, Any]:
        """Columns of a clip: those of METER2800's tables, and every meter as a list."""
        return {
            "artist": self.artist, "title": self.title, "label": WORDS.get(self.main_meter, str(self.main_meter)),
            "meter": meter_text(self.meters), "alt_meter": str(2 * self.main_meter),
            "meters": [str(meter) for meter in sorted(self.meters)],
        }


def ingest_catalogue(
    lake: Lake, file: Path, *, folder: Path | None = None, accept_terms: bool = False, limit: int | None = None,
    workers: int | None = None, progress: Progress = silent_progress, download: Download | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> IngestReport:
    """Fetch what a catalogue lists into `folder` (by default beside it, under its name), and add its segments as clips.

    A song whose sources all fail is a failure on record, and tried again by the next run, which fetches only what is
    missing.  Raises InputError, before anything is fetched, where the terms are not accepted or the catalogue is wrong.
    """
    songs = read_catalogue(file)[:limit]
    if not accept_terms:
        raise InputError(NOTICE)
    name = slug(file.stem)
    ledger = DownloadLog(folder or file.absolute().parent / f"{file.stem}-audio")
    download = download or ytdlp()
    recordings, rows, failures, succeeded, fresh = [], [], [], [], 0
    with DecoderPool(1) as pool:
        measure = measured_by(pool)
        for song in progress(songs, len(songs), "fetching"):
            try:
                found, new = fetch_song(song, ledger, download, measure, sleep)
                fresh += new
                spans = segments(found.duration_s, song.start_s, song.end_s)
                if not spans:
                    raise FetchError(f"{found.duration_s:.0f} s are too short for a segment of {LEAST_S:g} s")
            except FetchError as error:
                failures.append(Failure(STAGE, song.urls[0], f"{song.artist} - {song.title}: {error}"))
                continue
            succeeded.append(failure_id(STAGE, song.urls[0]))
            source = to_source(ledger.folder / found.file)
            labels = song.labels() | {"url": found.url}
            recordings.append(Recording(source, song.stem, labels, tuple(spans), tuple({} for _ in spans)))
            rows += [(f"/{name.upper()}/{song.stem}_seg{i:02d}.mp3", labels) for i in range(len(spans))]
    lake.failures.record(failures)
    lake.failures.clear(succeeded)
    table = ledger.folder / f"data_{name}.tab"
    write_table(table, rows)
    report = ingest_recordings(lake, recordings, None, dataset=name, workers=workers, progress=progress)
    notes = (f"{len(recordings)} of {len(songs)} songs are there, {fresh} fetched now; segments listed in {table}",)
    return replace(report, recordings=len(songs), failed=report.failed + len(failures), notes=notes)


def fetch_song(
    song: Song, ledger: DownloadLog, download: Download, measure: Measure, sleep: Callable[[float], None]
) -> tuple[Fetched, bool]:
    """From the first of its sources that works, and whether just now.  Raises FetchError with what each of them said."""
    problems = []
    for url in song.urls:
        if ledger.find(url) is None:
            sleep(PAUSE_S)
        try:
            return fetch(url, ledger, download=download, measure=measure, sleep=sleep)
        except FetchError as error:
            problems.append(str(error))
    raise FetchError("; ".join(problems))


def measured_by(pool: DecoderPool) -> Measure:
    """Files of strangers are decoded in a process that may die alone."""
    def measure(path: Path) -> float:
        (_, reply), = pool.map([{"do": "scan", "source": to_source(path)}])
        if isinstance(reply, AudioError):
            raise reply
        return float(reply["scan"]["duration_s"])

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
    while end - begin >= LEAST_S and len(found) < MOST_SEGMENTS:
        length = min(SEGMENT_S, end - begin)
        found.append((round(begin, 3), round(length, 3)))
        begin += SEGMENT_S
    return found


def read_catalogue(file: Path) -> list[Song]:
    """The songs of a catalogue.  Raises InputError, naming the entry, where one is not of the form above."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    except ValueError as error:
        raise InputError(f"{file.name}: is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file.name}: is no list of songs")
    songs: dict[str, Song] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            song = read_song(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{file.name}, song {number}: {what}") from error
        if song.stem in songs:
            raise InputError(f"{file.name}, song {number}: {song.artist} - {song.title} is there twice")
        songs[song.stem] = song
    return list(songs.values())


def read_song(entry: dict[str, Any]) -> Song:
    meters = {int(meter): float(weight) for meter, weight in entry["meters"].items() if float(weight) > 0}
    if not meters or not all(2 <= meter <= 64 for meter in meters):
        raise ValueError(f"meters {entry['meters']!r}: give beats a bar and a weight above 0 for each")
    sources = list(entry.get("sources") or [])
    if entry.get("video_id"):            # the older form
        sources.append({"type": "youtube", "video_id": entry["video_id"]})
    trim = entry.get("trim") or {}
    start, end = trim.get("start"), trim.get("end")
    song = Song(
        str(entry["artist"]), str(entry["title"]), meters, tuple(dict.fromkeys(map(address, sources))),
        float(start or 0.0), None if end is None else float(end),
    )
    if not song.urls:
        raise ValueError("has no sources")
    if not song.stem:
        raise ValueError("has neither artist nor title")
    return song


def address(source: dict[str, Any]) -> str:
    """Where a source lies.  Only http and https: a catalogue of somebody else's must not read files of this machine."""
    if source.get("video_id") and not source.get("url"):
        if not VIDEO_ID.fullmatch(str(source["video_id"])):
            raise ValueError(f"{source['video_id']!r} is no video id")
        return f"https://www.youtube.com/watch?v={source['video_id']}"
    url = str(source.get("url") or "")
    if not re.match(r"https?://[^/]", url):
        raise ValueError(f"the source {url!r} is no http or https address")
    return url


def slug(text: str) -> str:
    """Letters, digits and underscores.

    >>> slug("Béla Bartók_Mikrokosmos: No. 113")
    'bela_bartok_mikrokosmos_no_113'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower() or text.lower()
    return re.sub(r"[^\w]+", "_", plain).strip("_")


def meter_text(meters: dict[int, float]) -> str:
    """As the tables have it: 5, or 3,4, or 3:0.8,4:0.7 where the weights say more.

    >>> meter_text({5: 1.0}), meter_text({4: 1.0, 3: 1.0}), meter_text({3: 0.8, 4: 0.7})
    ('5', '3,4', '3:0.8,4:0.7')
    """
    if all(weight == 1.0 for weight in meters.values()):
        return ",".join(str(meter) for meter in sorted(meters))
    return ",".join(f"{meter}:{meters[meter]:g}" for meter in sorted(meters))


def write_table(path: Path, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Segments in the form of METER2800's tables, whole or not at all."""
    lines = ["filename\tlabel\tmeter\talt_meter"]
    lines += [f'"{name}"\t"{labels["label"]}"\t{labels["meter"]}\t{labels["alt_meter"]}' for name, labels in rows]
    beside = path.with_suffix(".tmp")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(path)
