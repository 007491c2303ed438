"""Ingest a catalogue of songs by meter, in WIKIMETER's form: download, cut by a rule, label with every meter.

`wikimeter_catalogue` describes the catalogue, `wikimeter_segments` the rule and the tables that list the segments, which are
written beside the downloaded files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from tonelake.ingest.collector import STAGE
from tonelake.ingest.datasets.wikimeter_catalogue import Song, read_catalogue, slug
from tonelake.ingest.datasets.wikimeter_segments import CutSong, SegmentFolder, SegmentRule, write_tables
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.download import Download, DownloadLog, Fetched, FetchError, Measure, fetch, ytdlp
from tonelake.ingest.errors import AudioError
from tonelake.ingest.file_table import FileTable
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.sources import to_source
from tonelake.store import Failure, InputError, Lake, failure_id

PAUSE_S = 3.0                            # between two downloads
TOLERANCE_S = 0.01                       # by which a clip's times may differ from the segment's
SHOWN = 3                                # recordings found by search that a note names
NOTICE = (
    "downloading recordings may violate the terms of the site that hosts them (YouTube's forbid it except where they say "
    "otherwise) and the rights of their owners. Download only what you are allowed to, keep the files to yourself, and "
    "confirm this with --accept-terms"
)


def ingest_catalogue(
    lake: Lake, file: str | Path, *, folder: str | Path | None = None, accept_terms: bool = False, limit: int | None = None,
    search: bool = False, override: str | Path | None = None, seconds: float = 35.0, min_seconds: float = 15.0,
    margin: float = 10.0, max_segments: int = 5, write_segments: str | Path | None = None, workers: int | None = None,
    download: Download | None = None, sleep: Callable[[float], None] = time.sleep,
) -> IngestReport:
    """Download a catalogue's songs into `folder` (by default beside it, under its name), and add their segments as clips.

    A song whose sources all fail is a recorded failure.  The next run tries it again, and downloads only what is missing.
    `search`: look up songs without sources by artist and title.  `override`: CSV or JSON file of artist, title, and url or
    video_id: recordings to use instead of a song's sources; clips of the recording used before are superseded.
    `seconds`, `min_seconds`, `margin`, `max_segments`: see `SegmentRule`.  `write_segments`: folder for segments as files.
    Raises InputError, before any download, if the terms are not accepted, the catalogue or the lengths are not valid, or
    `write_segments` holds other files.
    """
    rule = SegmentRule(seconds=seconds, min_seconds=min_seconds, margin_s=margin, max_segments=max_segments)
    file = Path(file).expanduser()
    songs = read_catalogue(file, search=search, override=Path(override).expanduser() if override else None)[:limit]
    if not accept_terms:
        raise InputError(NOTICE)
    lake.check_writable()
    name = slug(file.stem)
    segment_folder = SegmentFolder(Path(write_segments).expanduser(), name) if write_segments is not None else None
    log = DownloadLog(Path(folder).expanduser() if folder else file.absolute().parent / f"{file.stem}-audio")
    download = download or ytdlp()
    available: list[CutSong] = []
    by_url: dict[str, list[CutSong]] = {}
    failures, succeeded, fresh, written = [], [], 0, 0
    with DecoderPool(1) as pool:
        measure = measure_by(pool)
        for song in lake.progress(songs, len(songs), "fetching"):
            try:
                found, new = fetch_song(song, log, download, measure, sleep)
                fresh += new
                cut = cut_song(song, found, log.folder, rule)
                check_unshared(cut, by_url.get(cut.url, ()))
                written += segment_folder.write(cut, pool) if segment_folder is not None else 0
            except (FetchError, AudioError) as error:
                failures.append(Failure(STAGE, song.urls[0], f"{song.artist} - {song.title}: {error}"))
                continue
            succeeded += [failure_id(STAGE, url) for url in (*song.urls, *song.replaced)]
            available.append(cut)
            by_url.setdefault(cut.url, []).append(cut)
    lake.failures.record(failures)
    lake.failures.clear(succeeded)
    notes = [
        f"{len(available)} of {len(songs)} songs available, {fresh} downloaded in this run; segments listed in "
        f"{write_tables(log.folder, name, available, '.mp3')}", *search_note(available, log),
    ]
    if segment_folder is not None:
        table = write_tables(segment_folder.folder, name, available, ".flac") if available else segment_folder.folder
        notes.append(f"{written} segments written, listed in {table}")
    drop_replaced(lake, available, log)
    report = ingest_recordings(lake, recordings_of(available), None, dataset=name, workers=workers)
    notes += other_lengths_note(lake, available)
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
    """(start, length) in seconds of a song's segments by the default rule."""
    return list(SegmentRule().spans(duration_s, start_s, end_s))


def cut_song(song: Song, found: Fetched, folder: Path, rule: SegmentRule) -> CutSong:
    """A downloaded song with its segments.  Raises FetchError if it is too short for one."""
    spans = rule.spans(found.duration_s, song.start_s, song.end_s)
    if not spans:
        raise FetchError(f"{found.duration_s:.0f} s are too short for a segment of {rule.min_seconds:g} s")
    return CutSong(song=song, found=found, path=folder / found.file, spans=spans)


def check_unshared(cut: CutSong, others: Sequence[CutSong]) -> None:
    """Raise FetchError if one of `others`, songs of the same recording, has segments in the same part of it."""
    first_s, (start_s, length_s) = cut.spans[0][0], cut.spans[-1]
    for other in others:
        begin_s, (last_s, last_length_s) = other.spans[0][0], other.spans[-1]
        if first_s < last_s + last_length_s and begin_s < start_s + length_s:
            raise FetchError(
                f"{cut.url}: is the recording of {other.song.artist} - {other.song.title} as well. Name another with --override"
            )


def recordings_of(songs: Sequence[CutSong]) -> list[Recording]:
    """Recordings with the segments of these songs; several songs may be parts of one file."""
    by_source: dict[str, list[CutSong]] = {}
    for cut in songs:
        by_source.setdefault(cut.source, []).append(cut)
    return [
        Recording(
            source=source, track=cuts[0].song.stem, spans=tuple(span for cut in cuts for span in cut.spans),
            span_labels=tuple(
                cut.song.labels() | {"track": cut.song.stem, "url": cut.url, "segment": number}
                for cut in cuts for number in range(len(cut.spans))
            ),
        )
        for source, cuts in by_source.items()
    ]


def drop_replaced(lake: Lake, songs: Sequence[CutSong], log: DownloadLog) -> None:
    """Note that files which a song had in an earlier run, before an override, are not its recording any more.

    The next sync supersedes their clips.
    """
    tracks = sorted({cut.song.stem for cut in songs})
    unused = sorted({to_source(path) for path in log.files()} - {cut.source for cut in songs})
    clips = lake.clips.read(["source", "track"]).filter(pl.col("source").is_in(unused))
    replaced = clips.group_by("source").agg(pl.col("track").is_in(tracks).all()).filter("track")["source"].sort().to_list()
    if replaced:
        files = FileTable(lake)
        for source in replaced:
            files.note_unused(source)
        files.flush()


def search_note(songs: Sequence[CutSong], log: DownloadLog) -> tuple[str, ...]:
    """A note on recordings that were found by search, which may be others than expected."""
    searched = [cut for cut in songs if cut.found.page and cut.found.url in cut.song.urls]       # not confirmed by an override
    if not searched:
        return ()
    shown = "; ".join(
        f"{cut.song.artist} - {cut.song.title}: {cut.found.title!r} by {cut.found.uploader or 'an unnamed uploader'}, {cut.url}"
        for cut in searched[:SHOWN]
    )
    rest = "; …" if len(searched) > SHOWN else ""
    return (f"{len(searched)} songs found by search, all listed in {log.path}: {shown}{rest}. Correct one with --override",)


def other_lengths_note(lake: Lake, songs: Sequence[CutSong]) -> tuple[str, ...]:
    """A note on clips of these files that an earlier run cut by other lengths."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for cut in songs:
        spans.setdefault(cut.source, []).extend(cut.spans)
    clips = lake.clips.read(["source", "start_s", "duration_s"]).filter(pl.col("source").is_in(sorted(spans)))
    count = sum(
        not any(abs(start_s - span[0]) < TOLERANCE_S and abs(length_s - span[1]) < TOLERANCE_S for span in spans[source])
        for source, start_s, length_s in clips.iter_rows()
    )
    return (f"{count} clips of these songs were cut by other lengths in an earlier run, and remain",) if count else ()
