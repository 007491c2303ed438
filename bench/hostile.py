"""A thousand hostile files: valid files of each container, mutated at random, with difficult names.

Each is ingested and embedded.  The main process must not crash, no file may take longer than its limit, each file must end as
clips or as a named failure, and every clip must decode to finite samples or carry a flag.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl

BY_SNDFILE = (".wav", ".flac", ".ogg", ".aiff")
BY_FFMPEG = {".mp3": "libmp3lame", ".opus": "libopus", ".m4a": "aac"}
LIMIT_S = 60.0                           # mean time for one file, all work included
QUIET = 1e-5                             # root mean square below which a clip is silent


def valid_files(folder: Path) -> dict[str, bytes]:
    """Write two seconds of a tone in each container."""
    import av
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(2 * 48_000) / 48_000
    tone = (0.4 * np.sin(2 * np.pi * 330 * time_s)).astype(np.float32)
    for suffix in BY_SNDFILE:
        soundfile.write(folder / f"valid{suffix}", tone, 48_000)
    for suffix, codec in BY_FFMPEG.items():
        with av.open(str(folder / f"valid{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48_000, frame_size=stream.frame_size or 0)
            whole = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            whole.sample_rate, whole.pts, whole.time_base = 48_000, 0, Fraction(1, 48_000)
            for frame in (*resampler.resample(whole), *resampler.resample(None)):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return {suffix: (folder / f"valid{suffix}").read_bytes() for suffix in (*BY_SNDFILE, *BY_FFMPEG)}


def cut_off(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 4, 32, 400])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def flip_head(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 8])):
        changed[rng.randrange(min(120, len(changed)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(changed)


def blank(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    first = rng.randrange(len(data))
    last = min(len(data), first + rng.randrange(1, len(data) + 1))
    return data[:first] + bytes(last - first) + data[last:]


def splice(data: bytes, rng: random.Random, valid: dict[str, bytes]) -> bytes:
    other = rng.choice(list(valid.values()))
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def repeat(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    first = rng.randrange(len(data))
    part = data[first : first + rng.randrange(1, 4_096)]
    return data[:first] + part * rng.randrange(2, 200) + data[first:]


def noise(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 44, 1_000, 60_000]))


MUTATIONS: list[Callable[[bytes, random.Random, dict[str, bytes]], bytes]] = [
    cut_off, flip, flip_head, blank, splice, repeat, noise,
]


def hostile_name(number: int, suffix: str, rng: random.Random) -> bytes:
    """Return a file name that could occur in a library."""
    parts = [
        b"plain", b"new\nline", b"\xff\xfe\xe9", b"$(touch x)", b"'; DROP TABLE clips; --", b"<b>bold<b>", b"a" * 200,
        "日本語".encode(), b"-rf", b"%s%n", b"file:http:", b" ",
    ]
    return rng.choice(parts) + b"%d" % number + suffix.encode()


def hostile(home: Path, count: int, seed: int = 0) -> dict[str, int]:
    """Make and ingest `count` files; return the outcomes."""
    import tonelake
    from tonelake.ingest import ingest_folder, to_source
    from tonelake.ingest.scan import file_digest
    from tonelake.store import Lake
    from tonelake.store.failures import storable

    rng = random.Random(seed)
    valid = valid_files(home / "valid")
    folder = os.fsencode(home / "hostile")
    Path(os.fsdecode(folder)).mkdir()
    for number in range(count):
        suffix = rng.choice(list(valid))
        data = valid[suffix]
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            data = rng.choice(MUTATIONS)(data or b"\0", rng, valid)
        shown = suffix if rng.random() < 0.9 else rng.choice(list(valid))
        with open(os.path.join(folder, hostile_name(number, shown, rng)), "wb") as file:  # noqa: PTH118, PTH123 - names are bytes
            file.write(data)
    lake = Lake(home / "hostile-lake")
    begun = time.monotonic()
    ingest_folder(lake, home / "hostile", seconds=1.0)
    seconds = time.monotonic() - begun
    clips, failures = lake.clips.read(["clip_id", "source", "recording", "digest", "flag"]), lake.failures.read()
    heard = lake.paths.read(["source", "recording"]).filter(pl.col("recording").is_in(clips["recording"].unique().implode()))
    named = set(clips["source"]) | set(failures["source"]) | set(heard["source"])        # copies are rows of the table of files
    known = set(clips["digest"])
    unnamed = [
        path for path in (home / "hostile").iterdir()
        if storable(to_source(path)) not in named and to_source(path) not in named and file_digest(path) not in known
    ]
    opened = tonelake.Lake(lake.uri)
    wrong = 0
    for clip_id, flag in clips.select("clip_id", "flag").iter_rows():
        try:
            samples = opened.audio(clip_id, 24_000)
        except Exception:                # ingested, but no longer readable
            wrong += 1
            continue
        sound = bool(np.isfinite(samples).all()) and float(np.sqrt(np.square(samples).mean())) > QUIET
        wrong += not sound and flag is None
    errors = failures["error"].to_list()
    return {
        "hostile_files": count, "clips": len(clips), "failures": len(failures), "unnamed": len(unnamed),
        "decoder_crashes": sum("crashed the decoder" in error for error in errors),
        "hangs": sum("did not decode within" in error for error in errors) + int(seconds / count > LIMIT_S),
        "wrong_clips": wrong, "seconds": round(seconds),
    }
