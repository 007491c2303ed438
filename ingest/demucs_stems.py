"""Separate clips into stems (drums, bass, vocals and other), and add these as clips of the same track.

The clip of a stem has the labels of its mix, its own audio file, the name of the stem in column `stem`, and the id of its mix
in `separated_from`, so that a second run can skip it.  Mixes get `stem = 'mix'`, so that one filter selects either.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from tonelake.ingest.clip_audio import read_clips
from tonelake.ingest.datasets.base import MIX
from tonelake.ingest.recording_hash import derived_recording
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import to_source
from tonelake.store import SEPARATED_FROM, Added, Failure, InputError, Lake, failure_id, import_extra, is_local

STAGE = "separate"
CLIPS_PER_BATCH = 16                     # their stems are added together
NOT_INHERITED = (                        # columns of a mix that its stems do not get
    "clip_id", "recording", "source", "digest", "start_s", "duration_s", "cut", "added_at", "flag", "state", "labelled", "stem",
    "track", SEPARATED_FROM,
)
DEFAULT_MODEL = "htdemucs"


class Separator(Protocol):
    """Separates a mix into stems."""

    name: str
    rate: int                            # Hz, of the mix and the stems

    def separate(self, mix: np.ndarray) -> dict[str, np.ndarray]:
        """Stems by name, each as long as the mix: (samples,) float32 -> (samples,) float32."""
        ...


class Demucs:
    """Hybrid transformer Demucs (Rouard et al. 2023, arXiv 2211.08553): drums, bass, other, vocals.

    The demucs package downloads its weights from its own server, and loads them with its own code.
    """

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        """Raises InputError if the package is not installed or does not have the model."""
        DemucsSeparator = import_extra("demucs.api", "stems", "separation").Separator
        try:
            self._separator = DemucsSeparator(model=model, progress=False)
        except Exception as error:       # its own, torch.hub's and urllib's errors
            raise InputError(f"demucs cannot load {model!r}: {error}") from error
        self.name, self.rate = model, int(self._separator.samplerate)

    def separate(self, mix: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        stereo = torch.from_numpy(np.stack([mix, mix]))              # Demucs was trained on stereo; clips are mono
        _, stems = self._separator.separate_tensor(stereo, self.rate)
        return {name: stem.mean(dim=0).cpu().numpy() for name, stem in stems.items()}


def separate_clips(
    lake: Lake, separator: Separator | None = None, *, model: str = DEFAULT_MODEL, where: str | None = None,
    folder: str | Path | None = None, workers: int | None = None,
) -> IngestReport:
    """Separate every mix that has no stems yet; write its stems as FLAC files to `folder` and add them as clips.

    `separator`: by default Demucs with `model`.  `folder`: by default `stems` in the lake.  Raises InputError if the lake is
    an object store and `folder` is not given, or if `where` selects no mix.
    """
    if folder is None and not is_local(lake.uri):
        raise InputError("separation: stems are local files, but the lake is an object store. Name a folder with --out")
    separator = separator or Demucs(model)
    home = Path(folder).expanduser() if folder is not None else Path(lake.uri) / "stems"
    clips = lake.clips.read(where=where)
    mixes = clips.filter(pl.col("stem").is_null() | (pl.col("stem") == MIX))
    if not len(mixes):
        raise InputError(f"separation: the lake has no mixes{f' where {where}' if where else ''}")
    separated = SEPARATED_FROM in lake.clips.columns()
    done = set(lake.clips.read([SEPARATED_FROM])[SEPARATED_FROM].drop_nulls()) if separated else set()
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
        audio = read_clips(due, separator.rate, workers)
        for number, (clip, samples) in enumerate(lake.progress(audio, len(due), f"separating by {separator.name}")):
            if isinstance(samples, Exception):
                lake.failures.record([Failure(STAGE, labels[clip]["source"], str(samples), clip)])
                failed += 1
                continue
            waiting += write_stems(separator, samples, labels[clip], home / clip)
            lake.failures.clear([failure_id(STAGE, labels[clip]["source"], clip)])
            if (number + 1) % CLIPS_PER_BATCH == 0:
                flush()
    finally:
        flush()                          # also when interrupted: only clips with all their stems are waiting
    known = len(mixes) - len(due)
    notes = (f"{known} mixes already separated",) if known else ()
    return IngestReport(recordings=len(due), added=added, flagged=flagged, failed=failed, notes=notes)


def write_stems(separator: Separator, samples: np.ndarray, mix: dict[str, Any], folder: Path) -> list[Recording]:
    """Separate a clip and write its stems, each atomically; returns the recordings to add.  `mix`: its row of `clips`."""
    import soundfile

    shared = {name: value for name, value in mix.items() if name not in NOT_INHERITED and value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    recordings = []
    for stem, part in checked(separator.separate(samples), samples, separator.name):
        path, beside = folder / f"{stem}.flac", folder / f".{stem}.tmp"
        with soundfile.SoundFile(beside, "w", separator.rate, 1, format="FLAC") as file:
            # A loop's clips have identical stems; the comment tells from which clip a file was made.
            file.comment = f"{separator.name} {mix['clip_id']}"
            file.write(np.clip(part, -1, 1))
        beside.replace(path)
        labels = shared | {"stem": stem, SEPARATED_FROM: mix["clip_id"]}
        identity = derived_recording(mix["recording"] or mix["digest"], mix["clip_id"], separator.name, stem)
        recordings.append(Recording(source=to_source(path), track=mix["track"], labels=labels, identity=identity))
    return recordings


def checked(stems: dict[str, np.ndarray], mix: np.ndarray, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a separator's stems.

    Raises InputError if a name cannot be a file name, or if samples are not finite or not as many as the mix's.
    """
    for stem, samples in stems.items():
        if not stem.replace("_", "").replace("-", "").isalnum() or stem == MIX:
            raise InputError(f"separator {name}: calls a stem {stem!r}. Use letters, digits, '-' and '_' only, and not {MIX!r}")
        if samples.shape != mix.shape or not np.isfinite(samples).all():
            raise InputError(f"separator {name}: {stem} has shape {samples.shape} or is not finite; the mix has {mix.shape}")
        yield stem, samples
