"""Segments of a catalogue's songs: where they are cut, the tables that list them, and files of them.

The rule: leave out a margin at both ends, then take segments of equal length up to a number, and a shorter last one if enough
remains.  `data_<name>.tab` lists segments as METER2800's tables do.  `segments_<name>.json` beside it has for each of them the
downloaded file, start and length in seconds, artist, title and URL, by which `tonelake ingest wikimeter` finds the audio.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.ingest.datasets.wikimeter_catalogue import Song
from tonelake.ingest.decode import DECODE_VERSION
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.download import Fetched
from tonelake.ingest.scan import MIN_SECONDS
from tonelake.ingest.segment import MAX_WHOLE_S
from tonelake.ingest.sources import to_source
from tonelake.store import InputError

MADE = "Cut by tonelake from"            # the comment of every segment file begins with it
SEGMENT_FILE = re.compile(r"(.+)_seg\d\d+\.flac")
TEXT_COLUMNS = ("filename", "file", "artist", "title", "url")


@dataclass(frozen=True, kw_only=True)
class SegmentRule:
    """How a song is cut.  Raises InputError if the lengths are out of range or contradict each other."""

    seconds: float = 35.0
    min_seconds: float = 15.0            # a last segment shorter than `seconds` has at least this length
    margin_s: float = 10.0               # left out at both ends of the song
    max_segments: int = 5

    def __post_init__(self) -> None:
        if not MIN_SECONDS <= self.seconds <= MAX_WHOLE_S:
            raise InputError(
                f"segments of {self.seconds:g} s: not supported. Choose {MIN_SECONDS:g} to {MAX_WHOLE_S:g} with --seconds"
            )
        if not MIN_SECONDS <= self.min_seconds <= self.seconds:
            raise InputError(
                f"segments of at least {self.min_seconds:g} s: contradict segments of {self.seconds:g} s. Choose "
                f"{MIN_SECONDS:g} s up to the length of a segment with --min-seconds"
            )
        if not 0 <= self.margin_s < math.inf:
            raise InputError(f"a margin of {self.margin_s:g} s: not supported. Choose 0 s or more with --margin")
        if self.max_segments < 1:
            raise InputError(f"--max-segments {self.max_segments}: must be at least 1")

    def spans(self, duration_s: float, start_s: float = 0.0, end_s: float | None = None) -> tuple[tuple[float, float], ...]:
        """(start, length) in seconds of the segments of a song that is part of a recording of `duration_s`.

        >>> SegmentRule().spans(110.0)
        ((10.0, 35.0), (45.0, 35.0), (80.0, 20.0))
        >>> SegmentRule().spans(1000.0)[-1], SegmentRule().spans(30.0)
        ((150.0, 35.0), ())
        >>> SegmentRule(seconds=10.0, min_seconds=5.0, margin_s=0.0, max_segments=2).spans(16.0)
        ((0.0, 10.0), (10.0, 6.0))
        """
        begin, end = start_s + self.margin_s, min(duration_s if end_s is None else end_s, duration_s) - self.margin_s
        found: list[tuple[float, float]] = []
        while end - begin >= self.min_seconds and len(found) < self.max_segments:
            length = min(self.seconds, end - begin)
            found.append((round(begin, 3), round(length, 3)))
            begin += self.seconds
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class CutSong:
    """A song with its recording on disk, and where its segments are."""

    song: Song
    found: Fetched
    path: Path
    spans: tuple[tuple[float, float], ...]

    @property
    def source(self) -> str:
        return to_source(self.path)

    @property
    def url(self) -> str:
        """The address of the recording, of the one that was found if it was searched for."""
        return self.found.page or self.found.url


def write_tables(folder: Path, name: str, songs: Sequence[CutSong], suffix: str) -> Path:
    """Write `data_<name>.tab` and `segments_<name>.json`, each atomically; returns the path of the first.

    `suffix`: of the segment files' names.
    """
    lines, origins = ["filename\tlabel\tmeter\talt_meter"], []
    for cut in songs:
        labels = cut.song.labels()
        for number, (start_s, length_s) in enumerate(cut.spans):
            file = f"{cut.song.stem}_seg{number:02d}{suffix}"
            lines.append(f'"/{name.upper()}/{file}"\t"{labels["label"]}"\t{labels["meter"]}\t{labels["alt_meter"]}')
            origins.append({
                "filename": file, "file": cut.found.file, "start_s": start_s, "seconds": length_s,
                "artist": cut.song.artist, "title": cut.song.title, "url": cut.url,
            })
    table = folder / f"data_{name}.tab"
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in origins)
    write_whole(origins_path(table), f"[\n{rows}\n]\n".encode())
    write_whole(table, ("\n".join(lines) + "\n").encode())
    return table


def origins_path(table: Path) -> Path:
    """The file beside `data_<name>.tab` with the recording, start and length of each segment."""
    return table.with_name(f"segments_{table.stem.removeprefix('data_')}.json")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it.  Raises InputError, and leaves no part of it, if that fails."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror or error}). Free space there and run it again") from error


class SegmentFolder:
    """A folder of segment files with their tables, which `tonelake ingest wikimeter` reads.

    Segments are mono FLAC of 24 bits at the recording's own rate, tagged with artist and title.  The comment says from which
    part of the recording a segment was cut, so that a second run writes only what is missing or has changed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Raises InputError if the folder has files that were not written by an earlier run for this catalogue."""
        self.folder, self.name = folder, name
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is not a folder. Choose a new or empty one with --write-segments")
        tables = {f"data_{name}.tab", f"segments_{name}.json"}
        here = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []
        own = tables if f"segments_{name}.json" in here else set()
        other = next((file for file in here if file not in own and not is_own(folder / file)), None)
        if other is not None:
            raise InputError(f"{folder}: holds other files, such as {other}. Choose a new folder with --write-segments")

    def write(self, cut: CutSong, pool: DecoderPool) -> int:
        """Write the segments of a song that are missing, and delete those that it no longer has; returns how many were written.

        Raises AudioError if the recording cannot be read, and InputError if a file cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        recording = f"{cut.found.file} ({cut.found.size} bytes, decoding {DECODE_VERSION})"
        wanted = {
            self.folder / f"{cut.song.stem}_seg{number:02d}.flac": (span, f"{MADE} {recording}: {span[1]:g} s at {span[0]:g} s")
            for number, span in enumerate(cut.spans)
        }
        for path in self.folder.glob(f"{cut.song.stem}_seg*.flac"):
            match = SEGMENT_FILE.fullmatch(path.name)
            if match and match[1] == cut.song.stem and path not in wanted and is_own(path):
                path.unlink()
        due = [(path, span, comment) for path, (span, comment) in wanted.items() if comment_of(path) != comment]
        if not due:
            return 0
        rate = int(pool.ask({"do": "scan", "source": cut.source})["scan"]["rate"])
        requests: Iterable[dict[str, Any]] = (
            {"do": "read", "source": cut.source, "start_s": start_s, "duration_s": length_s, "rate": rate}
            for _, (start_s, length_s), _ in due
        )
        for (path, _, comment), request in zip(due, requests, strict=True):
            samples = pool.ask(request)["samples"]
            write_whole(path, flac(samples, rate, {"artist": cut.song.artist, "title": cut.song.title, "comment": comment}))
        return len(due)


def flac(samples: np.ndarray, rate: int, tags: dict[str, str]) -> bytes:
    """(samples,) float32 as a mono FLAC file of 24 bits; samples beyond full scale are clipped."""
    import soundfile

    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", rate, 1, subtype="PCM_24", format="FLAC") as file:
        for name, text in tags.items():
            setattr(file, name, text)
        file.write(np.clip(samples, -1, 1))
    return content.getvalue()


def is_own(path: Path) -> bool:
    """Whether a file is a segment that `SegmentFolder` wrote."""
    return SEGMENT_FILE.fullmatch(path.name) is not None and (comment_of(path) or "").startswith(MADE)


def comment_of(path: Path) -> str | None:
    """The comment of an audio file; None if the file does not exist or cannot be read."""
    import soundfile

    if not path.is_file():
        return None
    try:
        with soundfile.SoundFile(path) as file:
            return str(file.comment)
    except (soundfile.SoundFileError, OSError):
        return None
