"""Plan a study of artists before any file exists: the time, disk space, memory and price of ingest, embedding and comparison.

A few files of noise of the planned length are written, ingested and encoded in a temporary lake, and the comparison is timed on
random vectors of the space's widest layer.  Nothing is kept.  Every figure of the printed plan says whether it was measured or
derived.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from tonelake.embed import EmbedSettings, Plan, find_or_describe, make_plan, peak_memory, stored_bytes
from tonelake.index import group_pairs, layers
from tonelake.ingest import Cut, ingest_folder, read_clips
from tonelake.store import InputError, Lake, Space, cores

TRACK_S = 240.0
FILES, FILE_RATE = 3, 44_100             # written as 16-bit stereo FLAC
SAMPLED_CLIPS = 96                       # cut from these files, as many as a GPU encodes at once
COMPARED_CLIPS = 2_000                   # random vectors that the comparison is timed on
TIMINGS = 2                              # of each comparison; the faster one counts


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Estimated time, disk space, memory and price of a study of artists on this machine."""

    artists: int
    tracks: int                          # of each artist
    track_s: float
    clips: int                           # of all tracks
    embedding: Plan                      # of all clips
    ingest_s: float                      # a track, measured on one process
    workers: int
    layers: int                          # of the space
    layers_s: float                      # the layer report, extrapolated from `compared` clips and one layer
    pairs_s: float                       # all pairs of artists at one layer, likewise
    compared: int
    compare_bytes: int                   # of one layer while it is compared

    @property
    def total_tracks(self) -> int:
        return self.artists * self.tracks

    @property
    def ingest_total_s(self) -> float:
        return self.total_tracks * self.ingest_s / self.workers

    @property
    def seconds(self) -> float:
        """Estimated time of ingest, embedding and comparison."""
        return self.ingest_total_s + self.embedding.seconds + self.layers_s + self.pairs_s

    @property
    def cost(self) -> float:
        """Estimated price of the study."""
        return self.seconds / 3600 * self.embedding.price

    def __str__(self) -> str:
        plan, price = self.embedding, self.embedding.price
        processes = f", divided by {self.workers} processes" if self.workers > 1 else ""
        larger = ", extrapolated with the square of their number" if self.compared < self.clips else ""
        each = f", {self.cost / self.total_tracks:.2g} a track; derived from the time"
        return "\n".join([
            f"study    {self.artists:,} artists × {self.tracks:,} tracks of {clock(self.track_s)}, {self.clips:,} clips, "
            f"{plan.hours:,.1f} hours of audio in clips; derived",
            f"ingest   {clock(self.ingest_total_s)}; {self.ingest_s:.2f} s a track measured on {FILES} FLAC files{processes}",
            f"embed    {clock(plan.seconds)}; space {plan.space}, {plan.precision}: {plan.speed:.1f} s of audio per second, "
            "measured on clips of these files",
            f"compare  {clock(self.layers_s + self.pairs_s)}; layer report (one layer measured, times {self.layers}) and pairs "
            f"of artists, measured on random vectors of {self.compared:,} clips{larger}",
            f"time     {clock(self.seconds)} in all, {self.seconds / self.total_tracks:.2f} s a track; derived, the sum",
            f"disk     {plan.disk_bytes / 1e9:,.3f} GB of vectors; derived from their width. Audio is not copied",
            f"memory   {plan.memory_bytes / 1e9:,.2f} GB peak while encoding, measured; {self.compare_bytes / 1e9:,.2f} GB for "
            "the layer that is compared, derived",
            f"cost     {self.cost:,.2f} at {price:g} per hour{each}" if price else "cost     add --price to derive it",
        ])


def plan_study(
    artists: int, tracks: int, settings: EmbedSettings, *, track_s: float = TRACK_S, seconds: float | None = 30.0,
    per_track: int | None = None, frames: Sequence[int | str] = (), workers: int | None = None, price: float = 0.0,
) -> StudyPlan:
    """Estimate a study of `artists` × `tracks` recordings of `track_s` seconds, cut as by `ingest_folder`.

    `settings`: of the embedding; `seconds`: of a clip, None for whole files; `per_track`: at most as many clips of a track;
    `frames`: layers whose frames are stored; `workers`: decoding processes; `price`: of an hour of this machine.

    Raises InputError for numbers that allow no comparison, EncoderError as `embed_lake`.
    """
    if artists < 2 or tracks < 2:
        raise InputError(f"{artists} artists × {tracks} tracks: nothing to compare. Plan two of each or more")
    if not 1 <= track_s <= 24 * 3600:
        raise InputError(f"tracks of {track_s:g} s: not supported. Choose 1 to 86,400 seconds")
    spans = Cut(seconds, None, per_track).spans(track_s)
    clips = artists * tracks * len(spans)
    with TemporaryDirectory(prefix="tonelake-plan-") as folder, quiet():
        lake = Lake(Path(folder) / "lake")
        ingest_s = time_ingest(lake, Path(folder) / "files", track_s, seconds)
        space, encoder = find_or_describe(lake, settings)
        stored = sorted({space.layer_index(layer) for layer in frames})
        sampled = make_plan(lake, space, encoder, read_clips, frames=stored, workers=workers, price=price)
        memory = peak_memory(space.device)
        layers_s, pairs_s, compared = time_comparison(Path(folder), space, artists, tracks * len(spans), len(spans))
    hours = artists * tracks * sum(length for _, length in spans) / 3600
    embedding = replace(
        sampled, clips=clips, sources=artists * tracks, hours=hours, memory_bytes=memory,
        disk_bytes=stored_bytes(space, encoder, clips, hours * 3600, stored),
    )
    return StudyPlan(
        artists=artists, tracks=tracks, track_s=track_s, clips=clips, embedding=embedding, ingest_s=ingest_s,
        workers=workers or cores(), layers=len(space.layers), layers_s=layers_s * len(space.layers), pairs_s=pairs_s,
        compared=compared, compare_bytes=2 * 8 * clips * max(space.dims),               # stored and prepared, in float64
    )


def time_ingest(lake: Lake, folder: Path, track_s: float, seconds: float | None) -> float:
    """Write files of noise and ingest them into a lake; return the seconds a file took on one process.

    Clips overlap until there are SAMPLED_CLIPS of them, enough to measure an encoder on.
    """
    import soundfile

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        with soundfile.SoundFile(folder / f"{number}.flac", "w", FILE_RATE, 2, "PCM_16") as file:
            for start in range(0, round(track_s * FILE_RATE), FILE_RATE):
                file.write(rng.uniform(-0.5, 0.5, (min(FILE_RATE, round(track_s * FILE_RATE) - start), 2)).astype(np.float32))
    hop = None
    if seconds is not None and track_s > seconds:
        hop = max(0.1, min(seconds, (track_s - seconds) / (SAMPLED_CLIPS // FILES)))
    started = time.perf_counter()
    ingest_folder(lake, folder, seconds=seconds, hop=hop, workers=1)
    return (time.perf_counter() - started) / FILES


def time_comparison(folder: Path, space: Space, artists: int, clips: int, clips_a_track: int) -> tuple[float, float, int]:
    """Return the seconds of the layer report at one layer and of all pairs of artists, and the clips that they were timed on.

    `clips`: of each artist.  Up to COMPARED_CLIPS are timed; for more, the time is extrapolated with the square of their
    number from two sizes, so that what does not grow is not multiplied.
    """
    own = min(clips, COMPARED_CLIPS // 4)                            # at least two artists at each size
    number = min(artists, COMPARED_CLIPS // own)
    whole = time_sample(folder / "whole", space, number, own, clips_a_track)
    if number == artists and own == clips:
        return *whole, number * own
    half = time_sample(folder / "half", space, number // 2, own, clips_a_track)
    sizes = (number * own) ** 2, (number // 2 * own) ** 2
    ratio = ((artists * clips) ** 2 - sizes[0]) / (sizes[0] - sizes[1])
    growth = [max(large - small, 0.0) for large, small in zip(whole, half, strict=True)]
    return whole[0] + growth[0] * ratio, whole[1] + growth[1] * ratio, number * own


def time_sample(folder: Path, space: Space, artists: int, clips: int, clips_a_track: int) -> tuple[float, float]:
    """Return the seconds of the layer report and of all pairs of artists, on random vectors of `clips` of each artist."""
    lake = Lake(folder)
    number, dim = artists * clips, max(space.dims)
    row = np.arange(number)
    track = row // clips * clips + row % clips // clips_a_track
    ids = [f"{i:020x}" for i in row]
    lake.clips.add(pl.DataFrame({
        "clip_id": ids, "track": [f"t{t}" for t in track], "artist": [f"a{i // clips}" for i in row],
        "source": [f"made:{t}" for t in track], "digest": [f"{t:032x}" for t in track],
        "start_s": (row % clips % clips_a_track * 30.0), "duration_s": np.full(number, 30.0),
    }))
    made = lake.spaces.make(replace(space, layers=("0",), dims=(dim,), default_layer=0))
    vectors = np.random.default_rng(0).standard_normal((number, dim)).astype(np.float32)
    lake.vectors(made).add(ids, [vectors], [vectors], [1] * number)
    return fastest(lambda: layers(lake, "artist")), fastest(lambda: group_pairs(lake, "artist", min_tracks=1))


@contextmanager
def quiet() -> Iterator[None]:
    """Show no sentences about the temporary lakes, only warnings."""
    log = logging.getLogger("tonelake")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the faster of TIMINGS runs: the first one loads modules."""
    found = []
    for _ in range(TIMINGS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def clock(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds; in tenths below ten seconds.

    >>> clock(3725.4), clock(0.25)
    ('1:02:05', '0.2 s')
    """
    return str(timedelta(seconds=round(seconds))) if seconds >= 10 else f"{seconds:.1f} s"
