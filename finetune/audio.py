"""The audio of a run, decoded once: every epoch after reads samples where the first would decode files again.

    audio.bin      int16 samples, clip after clip, each scaled by its own peak
    audio.jsonl    a line for what this is of, one a clip: where it begins, its length, its scale; one at the end: what failed

A line is written after its samples, so whoever is killed goes on behind the last whole line.  16 bits below a clip's own peak
are what most sources hold; the encoder normalises each window, so a scale does not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from tonelake.embed import ReadClips
from tonelake.store import InputError, LakeError, Progress, exclusive_lock, silent_progress

FULL_SCALE = 32_767
ITEM = 2                                 # bytes a sample
SAMPLES, INDEX, LOCK = "audio.bin", "audio.jsonl", "audio.lock"

Place = tuple[int, int, float]           # of a clip: its first sample, its length, its peak


class Audio:
    """Clips by id: (samples,) float32 each, at one rate."""

    def __init__(self, path: Path, places: dict[str, Place]) -> None:
        self._places = places
        self._samples = np.memmap(path, "<i2", "r") if path.stat().st_size else np.empty(0, "<i2")

    def __contains__(self, clip: str) -> bool:
        return clip in self._places

    def length(self, clip: str) -> int:
        """In samples."""
        return int(self._places[clip][1])

    def read(self, clip: str, begin: int = 0, count: int | None = None) -> np.ndarray:
        """A clip, or so many of its samples from `begin` on."""
        start, length, scale = self._places[clip]
        end = length if count is None else min(begin + count, length)
        return self._samples[start + begin : start + end].astype(np.float32) * np.float32(scale / FULL_SCALE)


def decode(
    folder: Path, clips: pl.DataFrame, read: ReadClips, rate: int, *, workers: int | None = None,
    progress: Progress = silent_progress,
) -> tuple[Audio, dict[str, str]]:
    """The clips' audio, decoded into `folder` as far as it is not there already, and what cannot be read: (clip id -> why).

    Raises InputError where nothing can be read, LakeError where the disk is full.
    """
    what = {"rate": rate, "ids": hashlib.blake2b("\n".join(clips["clip_id"]).encode(), digest_size=16).hexdigest()}
    samples, index = folder / SAMPLES, folder / INDEX
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index.touch()
        with exclusive_lock(folder / LOCK):                                        # another node may share the disk
            places, failed, known = recorded(index, samples, what)
            if failed is None:
                missing = clips.filter(~pl.col("clip_id").is_in(list(places)))
                waves = progress(read(missing, rate, workers), len(missing), "decoding")
                failed = put_missing(index, samples, what, places, known, waves)
    except OSError as error:
        need = float(clips["duration_s"].sum()) * rate * 2 / 1e9
        raise LakeError(
            f"{folder} cannot hold the decoded audio, {need:.1f} GB ({error.strerror or error}): free some space, run it again"
        ) from error
    return Audio(samples, places), failed


def put_missing(
    index: Path, samples: Path, what: dict[str, Any], places: dict[str, Place], known: int,
    waves: Iterable[tuple[str, np.ndarray | Exception]],
) -> dict[str, str]:
    """Write clips behind those in `places`, which `known` bytes of the index tell of, and enter them there; what failed."""
    failed: dict[str, str] = {}
    with samples.open("ab") as sound, index.open("ab") as lines:
        lines.truncate(known)                                               # what stands behind is half a line
        sound.truncate(ITEM * sum(length for _, length, _ in places.values()))
        sound.seek(0, os.SEEK_END)
        if not known:
            put(lines, what)
        for clip, wave in waves:
            if isinstance(wave, Exception):
                failed[clip] = str(wave)
                continue
            peak = float(np.abs(wave).max(initial=0.0)) or 1.0
            places[clip] = (sound.tell() // ITEM, len(wave), peak)
            sound.write(np.round(wave * (FULL_SCALE / peak)).astype("<i2").tobytes())
            sound.flush()
            put(lines, [clip, *places[clip]])
        if not places:
            raise InputError(f"none of {len(failed):,} clips can be read: {next(iter(failed.values()), 'there are none')}")
        put(lines, {"failed": failed})
    return failed


def put(lines: BinaryIO, line: Any) -> None:
    lines.write(json.dumps(line).encode() + b"\n")
    lines.flush()


def recorded(index: Path, samples: Path, what: dict[str, Any]) -> tuple[dict[str, Place], dict[str, str] | None, int]:
    """The clips that are there whole, what failed if the index was finished, and how many of its bytes say so."""
    places: dict[str, Place] = {}
    known = 0
    if not (index.is_file() and samples.is_file()):
        return places, None, known
    size = samples.stat().st_size
    with index.open("rb") as lines:
        for line in lines:
            try:
                found = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                found = None
            if not known and found != what:
                break
            if isinstance(found, dict) and "failed" in found:
                return places, found["failed"], known + len(line)
            if isinstance(found, list):
                clip, start, length, peak = found
                if ITEM * (start + length) > size:                      # a machine that went out, with the line written
                    break
                places[clip] = (start, length, peak)
            elif found is None:
                break
            known += len(line)
    return places, None, known
