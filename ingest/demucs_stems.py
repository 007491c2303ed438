"""Clips to stems: each clip's drums, bass, vocals and the rest, by a separator, as clips of the same track.

A stem's clip has its mix's labels, an audio file of its own, the stem's name in column `stem`, and in `separated_from` the mix
that it came of, by which a second run knows what is done.  Mixes get `stem = 'mix'`, so that both can be asked for alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from tonelake.ingest.clip_audio import read_clips
from tonelake.ingest.recordings import IngestReport, Recording, ingest_recordings
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import to_source
from tonelake.ingest.stems import MIX
from tonelake.store import Added, Failure, InputError, Lake, Progress, failure_id, is_local, silent_progress

STAGE = "separate"
FROM = "separated_from"
CLIPS_AT_ONCE = 16                       # whose stems are added together
OWN = ("clip_id", "source", "digest", "start_s", "duration_s", "cut", "added_at", "flag", "stem", FROM)
DEFAULT_MODEL = "htdemucs"


class Separator(Protocol):
    """What takes a mix apart."""

    name: str
    rate: int                            # Hz, of what it takes and gives

    def separate(self, mix: np.ndarray) -> dict[str, np.ndarray]:
        """(samples,) float32 -> (samples,) of each stem by name."""
        ...


class Demucs:
    """Hybrid transformer Demucs (Rouard et al. 2023, arXiv 2211.08553): drums, bass, other, vocals.

    The demucs package fetches its weights from its own server, and loads them by its own means.
    """

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        """Raises InputError where the package is not installed, or knows no such model."""
        try:
            from demucs.api import Separator as DemucsSeparator
        except ImportError as error:
            raise InputError('separation needs demucs: in the clone, .venv/bin/pip install -e ".[stems]"') from error
        try:
            self._separator = DemucsSeparator(model=model, progress=False)
        except Exception as error:       # demucs raises its own, torch.hub's and urllib's
            raise InputError(f"demucs cannot load {model!r}: {error}") from error
        self.name, self.rate = model, int(self._separator.samplerate)

    def separate(self, mix: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        both = torch.from_numpy(np.stack([mix, mix]))                # it was trained on stereo, and clips are mono
        _, stems = self._separator.separate_tensor(both, self.rate)
        return {name: stem.mean(dim=0).cpu().numpy() for name, stem in stems.items()}


def separate_clips(
    lake: Lake, separator: Separator, *, where: str | None = None, folder: Path | None = None, workers: int | None = None,
    progress: Progress = silent_progress,
) -> IngestReport:
    """Separate every mix that is not separated yet; its stems are written as FLAC files to `folder` and added as clips.

    `folder`: by default `stems` in the lake.  Raises InputError where the lake is an object store and names no folder, or
    where no clip is left by `where`.
    """
    if folder is None and not is_local(lake.uri):
        raise InputError("the lake is an object store, and stems are files: name a folder for them with --out")
    home = folder if folder is not None else Path(lake.uri) / "stems"
    clips = lake.clips.read(where=where)
    mixes = clips.filter((pl.col("stem").is_null() | (pl.col("stem") == MIX)) & pl.col("flag").ne_missing("superseded"))
    if not len(mixes):
        raise InputError(f"the lake has no mixes{f' where {where}' if where else ''} to separate")
    done = set(lake.clips.read([FROM])[FROM].drop_nulls()) if FROM in lake.clips.columns() else set()
    due = mixes.filter(~pl.col("clip_id").is_in(sorted(done)))
    unnamed = mixes.filter(pl.col("stem").is_null())
    if len(unnamed):
        lake.clips.set_labels(unnamed.select("clip_id", stem=pl.lit(MIX)))
    labels = {row["clip_id"]: row for row in due.iter_rows(named=True)}
    added, failed, flagged = Added(), 0, 0
    waiting: list[Recording] = []

    def flush() -> None:
        nonlocal added, flagged, failed
        if waiting:
            report = ingest_recordings(lake, waiting, Cut(None), workers=workers)
            added, flagged, failed = added + report.added, flagged + report.flagged, failed + report.failed
            waiting.clear()

    try:
        waves = read_clips(due, separator.rate, workers)
        for number, (clip, wave) in enumerate(progress(waves, len(due), f"separating by {separator.name}")):
            if isinstance(wave, Exception):
                lake.failures.record([Failure(STAGE, labels[clip]["source"], str(wave), clip)])
                failed += 1
                continue
            waiting += stems_of(separator, wave, labels[clip], home / clip)
            lake.failures.clear([failure_id(STAGE, labels[clip]["source"], clip)])
            if (number + 1) % CLIPS_AT_ONCE == 0:
                flush()
    finally:
        flush()                          # also when interrupted: whole clips alone are waiting
    known = len(mixes) - len(due)
    notes = (f"{known} mixes are separated already",) if known else ()
    return IngestReport(len(due), added, flagged, failed, 0, notes)


def stems_of(separator: Separator, wave: np.ndarray, mix: dict[str, Any], folder: Path) -> list[Recording]:
    """Write a clip's stems, each as a whole file or not at all; the recordings to add."""
    import soundfile

    shared = {name: value for name, value in mix.items() if name not in OWN and name != "track" and value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for stem, samples in checked(separator.separate(wave), wave, separator.name):
        path, beside = folder / f"{stem}.flac", folder / f".{stem}.tmp"
        with soundfile.SoundFile(beside, "w", separator.rate, 1, format="FLAC") as file:
            # A loop sounds the same in each of its clips; told apart, each has a stem of its own, and is done.
            file.comment = f"{separator.name} {mix['clip_id']}"
            file.write(np.clip(samples, -1, 1))
        beside.replace(path)
        found.append(Recording(to_source(path), mix["track"], shared | {"stem": stem, FROM: mix["clip_id"]}))
    return found


def checked(stems: dict[str, np.ndarray], wave: np.ndarray, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """The stems, by names that can be file names, as long as the mix.  Raises InputError."""
    for stem, samples in stems.items():
        if not stem.replace("_", "").replace("-", "").isalnum() or stem == MIX:
            raise InputError(f"separator {name} calls a stem {stem!r}: letters, digits, '-' and '_' alone, and not {MIX!r}")
        if samples.shape != wave.shape or not np.isfinite(samples).all():
            raise InputError(f"separator {name}: {stem} is of shape {samples.shape} or not finite; the mix of {wave.shape}")
        yield stem, samples
