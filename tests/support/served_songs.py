"""A small lake of songs at known angles of each other, with tags of every kind, for tests of the service's interfaces.

Each song has two clips at its angle, so that the similarity of two songs is the cosine of the difference of their angles.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from fakes import FakeEncoder
from sounds import encode, melody, write

from tonelake.embed.settings import describe_space
from tonelake.ingest.scan import file_digest
from tonelake.store import Lake, file_rows

RATE = 8_000
SECONDS = 0.6                            # of a file; a song's two clips are its halves
SONGS = [                                # id, title, artists, album, album artist, year, genre, track number, degrees, suffix
    ("a1", "Blue", ["Ada"], "First", None, 1990, "Jazz", 2, 0, ".flac"),
    ("a2", "Green & <Red>", ["Ada"], "First", None, 1990, "Jazz", 1, 10, ".mp3"),
    ("b1", "Déjà vu", ["Béla"], "Second", "Béla", 2001, "R&B", 1, 20, ".wav"),
    ("b2", "月光 ☕", ["Béla", "The Cleo"], "Second", "Béla", 2001, "R&B", 2, 45, ".wav"),
    ("c1", "Love\x01 \x0bTheme", ["The Cleo"], None, None, None, None, None, 60, ".wav"),
    ("d1", None, ["Dora"], "Hits", "Various Artists", 2010, "Jazz", 7, 95, ".aiff"),
]
NUMBER = {song[0]: row for row, song in enumerate(SONGS)}


def clip_id(name: str, clip: int = 0) -> str:
    """Return the id of a clip; that of a song's first clip is what the service calls the song."""
    return f"{name}{clip}".ljust(32, "0")


def cosine(one: str, other: str) -> float:
    """Return the cosine of two songs."""
    return math.cos(math.radians(SONGS[NUMBER[one]][8] - SONGS[NUMBER[other]][8]))


def seen(name: str) -> datetime:
    """Return when the file of a song was read: one a day."""
    return datetime(2026, 1, 1 + NUMBER[name], 12, tzinfo=UTC)


def served_lake(folder: Path) -> Lake:
    """Make the lake, with its files, in a folder; all clips are embedded in its space `fake`."""
    lake, rows, vectors = Lake(folder / "lake"), [], []
    for name, title, artists, album, album_artist, year, genre, number, degrees, suffix in SONGS:
        make = encode if suffix == ".mp3" else write
        file = make(folder / "music" / f"{name}{suffix}", melody(SECONDS, seed=NUMBER[name], rate=RATE), RATE)
        for clip in range(2):
            rows.append({
                "clip_id": clip_id(name, clip), "track": f"music/{name}", "source": str(file), "digest": file_digest(file),
                "start_s": clip * SECONDS / 2, "duration_s": SECONDS / 2, "title": title, "artist": ", ".join(artists),
                "artists": artists, "album": album, "album_artist": album_artist, "year": year, "genre": genre,
                "track_number": number,
            })
            angle = math.radians(degrees)
            vectors.append([math.cos(angle), math.sin(angle), 0.0, 0.0, 0.0, 0.0])
    lake.clips.add(pl.DataFrame(rows, infer_schema_length=None))
    lake.paths.put(file_rows([
        {"source": row["source"], "name": f"{name}.x", "seen": seen(name)} for name, row in zip(NUMBER, rows[::2], strict=True)
    ]))
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    ids = [row["clip_id"] for row in rows]
    layers = [np.ones((len(ids), 4), np.float32), np.array(vectors, np.float32)]
    lake.vectors(space).add(ids, layers, layers, [10] * len(ids))
    return lake
