"""The audio of a run, decoded once: every epoch after reads samples where the first would decode files again.

    audio.bin     int16 samples, clip after clip, each scaled by its own peak
    audio.json    where each clip begins, its length and its scale; written last

16 bits below a clip's own peak are what most sources hold; the encoder normalises each window, so a scale does not matter.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from embed.work import Progress, ReadClips
from store import InputError, LakeError

FULL_SCALE = 32_767
SAMPLES, INDEX = "audio.bin", "audio.json"


class Audio:
    """Clips by id: (samples,) float32 each, at one rate."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, list] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["clips"]
        path = folder / SAMPLES
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
    progress: Progress = lambda items, total, label: items,
) -> tuple[Audio, dict[str, str]]:
    """The clips' audio, decoded into `folder` unless it is there already, and what cannot be read: (clip id -> why).

    Raises InputError where nothing can be read, LakeError where the disk is full.
    """
    index = folder / INDEX
    if index.is_file():
        kept = json.loads(index.read_text(encoding="utf-8"))
        if kept["rate"] == rate and kept["ids"] == clips["clip_id"].to_list():
            return Audio(folder), kept["failed"]
    places: dict[str, tuple[int, int, float]] = {}
    failed: dict[str, str] = {}
    written = 0
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / SAMPLES).open("wb") as file:
            for clip, wave in progress(read(clips, rate, workers), len(clips), "decoding"):
                if isinstance(wave, Exception):
                    failed[clip] = str(wave)
                    continue
                peak = float(np.abs(wave).max(initial=0.0)) or 1.0
                file.write(np.round(wave * (FULL_SCALE / peak)).astype("<i2").tobytes())
                places[clip] = (written, len(wave), peak)
                written += len(wave)
        if not places:
            raise InputError(f"none of {len(clips):,} clips can be read: {next(iter(failed.values()), 'there are none')}")
        beside = index.with_suffix(".tmp")
        kept = {"rate": rate, "ids": clips["clip_id"].to_list(), "failed": failed, "clips": places}
        beside.write_text(json.dumps(kept), encoding="utf-8")
        beside.replace(index)
    except OSError as error:
        need = float(clips["duration_s"].sum()) * rate * 2 / 1e9
        raise LakeError(
            f"{folder} cannot hold the decoded audio, {need:.1f} GB ({error.strerror or error}): free some space, run it again"
        ) from error
    return Audio(folder), failed
