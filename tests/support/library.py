"""A folder of short songs that changes at random, and a lake that is kept in step with it.

Everything is decoded in this process, since starting decoder processes would take longer than the files.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from fakes import FakeEncoder
from sounds import melody, write

from tonelake.embed.settings import describe_space
from tonelake.embed.windows import encode_clips
from tonelake.ingest import AudioError, ingest_folder, read_source
from tonelake.ingest.decoder_process import answer
from tonelake.store import Lake, TonelakeError

RATE = 8_000
ROOTS = ("one", "two")


class InProcess:
    """A stand-in for `DecoderPool` that answers in this process."""

    def __init__(self, count: int | None = None) -> None:
        pass

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, requests: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Any]]:
        for request in requests:
            try:
                yield request, answer(request)[0]
            except TonelakeError as error:
                yield request, AudioError(str(error))


@dataclass
class Library:
    """Two folders of songs.  `files` is what they hold: path -> (song, version of its tags)."""

    home: Path
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    songs: int = 0
    kept: dict[int, tuple[int, int]] = field(default_factory=dict)

    def fill(self, count: int) -> None:
        for number in range(count):
            self.put(f"{ROOTS[number % 2]}/{number // 2:02d}.wav", self.new_song(), 0)

    def new_song(self) -> int:
        self.songs += 1
        return self.songs

    def put(self, path: str, song: int, tags: int) -> None:
        tagged = {"title": f"Song {song} {'x' * tags}", "artist": f"Artist {song % 3} of {tags}"}
        write(self.home / path, melody(1.2, seed=song, rate=RATE), RATE, tags=tagged)
        self.files[path] = (song, tags)

    def move(self, path: str, other: str) -> None:
        (self.home / other).parent.mkdir(parents=True, exist_ok=True)
        (self.home / path).rename(self.home / other)
        self.files[other] = self.files.pop(path)

    def change(self, random_: random.Random) -> str:
        """Make one change; returns its name.  Each folder keeps a file."""
        name = random_.choice(
            ("rename", "swap", "renumber", "retag", "copy", "delete", "put back", "replace", "add", "to the other folder")
        )
        path = random_.choice(sorted(self.files))
        root = path.split("/")[0]
        of_root = sorted(one for one in self.files if one.startswith(f"{root}/"))
        if name == "rename":
            self.move(path, f"{root}/{random_.choice(('', 'sub/'))}{random_.randrange(10_000, 99_999)}.wav")
        elif name == "swap" and len(of_root) > 1:
            first, second = random_.sample(of_root, 2)
            self.move(first, f"{root}/between")
            self.move(second, first)
            self.move(f"{root}/between", second)
        elif name == "renumber":
            for number, one in reversed(list(enumerate(of_root))):
                self.move(one, f"{root}/n{number}")
            for number in range(len(of_root)):
                self.move(f"{root}/n{number}", f"{root}/{number + 1:02d}.wav")
        elif name == "retag":
            song, tags = self.files[path]
            self.put(path, song, tags + 1)
        elif name == "copy":
            other = f"{random_.choice(ROOTS)}/copy{random_.randrange(1_000, 9_999)}.wav"
            shutil.copy(self.home / path, self.home / other)
            self.files[other] = self.files[path]
        elif name == "delete" and len(of_root) > 1:
            (self.home / path).unlink()
            song, tags = self.files.pop(path)
            self.kept[song] = (song, tags)
        elif name == "put back" and self.kept:
            song, tags = self.kept.pop(random_.choice(sorted(self.kept)))
            self.put(f"{root}/back{song}.wav", song, tags)
        elif name == "replace":
            self.kept[self.files[path][0]] = self.files[path]
            self.put(path, self.new_song(), 0)
        elif name == "add":
            song = self.new_song()
            self.put(f"{root}/{song:02d}new.wav", song, 0)
        elif name == "to the other folder" and len(of_root) > 1:
            other = ROOTS[1 - ROOTS.index(root)]
            self.move(path, f"{other}/{path.rsplit('/', 1)[-1].removesuffix('.wav')}m{random_.randrange(100, 999)}.wav")
        return name

    def sync(self, lake: Lake) -> list[str]:
        """Ingest both folders and embed what has no vector; returns the ids that were embedded."""
        for root in ROOTS:
            report = ingest_folder(lake, self.home / root, seconds=None)
            assert report.recordings == report.new + report.known + report.changed + report.copies + report.failed
        return embed_missing(lake)


def embed_missing(lake: Lake) -> list[str]:
    """Embed clips that have no vector with the fake encoder; returns their ids."""
    encoder = FakeEncoder()
    space = lake.spaces.make(describe_space(encoder, "fake", 30.0))
    vectors = lake.vectors(space)
    missing = vectors.missing(["clip_id", "source", "start_s", "duration_s", "digest", "state"])
    missing = missing.filter(pl.col("state").is_null())
    for row in missing.iter_rows(named=True):
        samples = read_source(row["source"], row["start_s"], row["duration_s"], encoder.sample_rate, row["digest"])
        found = encode_clips(encoder, [samples], 30.0, 30.0)[0]
        vectors.add([row["clip_id"]], [v[None] for v in found.mean], [v[None] for v in found.max], [found.n_frames])
    return missing["clip_id"].to_list()


def contents(lake: Lake) -> dict[tuple, dict[str, Any]]:
    """The live clips of a lake by recording and span: their tags and vectors, the songs they are part of, and their paths."""
    clips = lake.clips.read().filter(pl.col("state").is_null())
    vectors = lake.vectors("fake").take(clips["clip_id"].to_list(), "high").vectors
    files = lake.paths.read(where="missing_since IS NULL")
    paths = {recording[0]: sorted(rows["source"]) for recording, rows in files.group_by("recording")}
    song_of = {track[0]: sorted(rows["recording"].unique()) for track, rows in clips.group_by("track")}
    return {
        (row["recording"], row["start_s"], row["duration_s"]): {
            "tags": {name: row[name] for name in ("title", "artist", "artists", "album")}, "source": row["source"],
            "vector": np.asarray(vectors[number]).tobytes(), "song": song_of[row["track"]], "paths": paths[row["recording"]],
        }
        for number, row in enumerate(clips.iter_rows(named=True))
    }
