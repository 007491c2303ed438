"""Audio of a run, decoded once: later epochs read samples instead of decoding files again.

    audio.bin      int16 samples, clip after clip, each scaled by its own peak
    audio.jsonl    first a header line, then one line a clip: its start, length and scale; last, what failed

A line is written after its samples, so a killed process resumes after the last complete line.  16 bits below a clip's own
peak is what most sources contain; the encoder normalises each window, so the scale does not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl

from tonelake.embed import ReadClips
from tonelake.store import InputError, LakeError, Progress, exclusive_lock, silent_progress

FULL_SCALE = 32_767
ITEM = 2                                 # bytes per sample
SAMPLES, INDEX, LOCK = "audio.bin", "audio.jsonl", "audio.lock"


class StoredClip(NamedTuple):
    """Position of a clip in the file."""

    start: int                           # first sample
    length: int                          # samples
    peak: float


class Audio:
    """Decoded clips by id: (samples,) float32 each, at one rate."""

    def __init__(self, path: Path, stored: dict[str, StoredClip]) -> None:
        self._stored = stored
        self._samples = np.memmap(path, "<i2", "r") if path.stat().st_size else np.empty(0, "<i2")

    def __contains__(self, clip: str) -> bool:
        return clip in self._stored

    def length(self, clip: str) -> int:
        """Return the length of a clip in samples."""
        return int(self._stored[clip].length)

    def read(self, clip: str, begin: int = 0, count: int | None = None) -> np.ndarray:
        """Return a clip, or `count` of its samples from `begin` on."""
        start, length, peak = self._stored[clip]
        end = length if count is None else min(begin + count, length)
        return self._samples[start + begin : start + end].astype(np.float32) * np.float32(peak / FULL_SCALE)


def decode(
    folder: Path, clips: pl.DataFrame, read: ReadClips, rate: int, *, workers: int | None = None,
    progress: Progress = silent_progress,
) -> tuple[Audio, dict[str, str]]:
    """Decode clips into `folder`, except those already there; return their audio, and failures as (clip id -> reason).

    Raises InputError if no clip can be read, LakeError if the disk is full.
    """
    header = {"rate": rate, "ids": hashlib.blake2b("\n".join(clips["clip_id"]).encode(), digest_size=16).hexdigest()}
    samples, index = folder / SAMPLES, folder / INDEX
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index.touch()
        with exclusive_lock(folder / LOCK):                                        # another node may share the disk
            stored, failed, known = read_index(index, samples, header)
            if failed is None:
                missing = clips.filter(~pl.col("clip_id").is_in(list(stored)))
                decoded = progress(read(missing, rate, workers), len(missing), "decoding")
                failed = append_clips(index, samples, header, stored, known, decoded)
    except OSError as error:
        need = float(clips["duration_s"].sum()) * rate * 2 / 1e9
        raise LakeError(
            f"{folder}: cannot store the decoded audio, {need:.1f} GB ({error.strerror or error}). Free some space, run again"
        ) from error
    return Audio(samples, stored), failed


def append_clips(
    index: Path, samples: Path, header: dict[str, Any], stored: dict[str, StoredClip], known: int,
    decoded: Iterable[tuple[str, np.ndarray | Exception]],
) -> dict[str, str]:
    """Append clips to those in `stored`, listed in the first `known` bytes of the index, and add them; return failures."""
    failed: dict[str, str] = {}
    with samples.open("ab") as sound, index.open("ab") as lines:
        lines.truncate(known)                                               # drops an incomplete line
        sound.truncate(ITEM * sum(length for _, length, _ in stored.values()))
        sound.seek(0, os.SEEK_END)
        if not known:
            write_line(lines, header)
        for clip, audio in decoded:
            if isinstance(audio, Exception):
                failed[clip] = str(audio)
                continue
            peak = float(np.abs(audio).max(initial=0.0)) or 1.0
            stored[clip] = StoredClip(sound.tell() // ITEM, len(audio), peak)
            sound.write(np.round(audio * (FULL_SCALE / peak)).astype("<i2").tobytes())
            sound.flush()
            write_line(lines, [clip, *stored[clip]])
        if not stored:
            raise InputError(f"none of {len(failed):,} clips can be read: {next(iter(failed.values()), 'there are none')}")
        write_line(lines, {"failed": failed})
    return failed


def write_line(lines: BinaryIO, line: Any) -> None:
    lines.write(json.dumps(line).encode() + b"\n")
    lines.flush()


def read_index(index: Path, samples: Path, header: dict[str, Any]) -> tuple[dict[str, StoredClip], dict[str, str] | None, int]:
    """Return the complete clips, the failures if the index is finished (else None), and its number of valid bytes."""
    stored: dict[str, StoredClip] = {}
    known = 0
    if not (index.is_file() and samples.is_file()):
        return stored, None, known
    size = samples.stat().st_size
    with index.open("rb") as lines:
        for line in lines:
            try:
                found = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                found = None
            if not known and found != header:
                break
            if isinstance(found, dict) and "failed" in found:
                return stored, found["failed"], known + len(line)
            if isinstance(found, list):
                clip, start, length, peak = found
                if ITEM * (start + length) > size:                      # the machine lost power after writing the line
                    break
                stored[clip] = StoredClip(start, length, peak)
            elif found is None:
                break
            known += len(line)
    return stored, None, known
