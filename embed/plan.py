"""Estimate the cost of an embedding: a few clips are encoded and discarded, and the rest is extrapolated from them.

Every figure of a printed plan says whether it was measured or derived.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from tonelake.embed.encoders.base import Encoder, check_frames
from tonelake.embed.memory import peak_memory
from tonelake.embed.settings import EmbedSettings, find_or_describe
from tonelake.embed.work import ReadClips, check_clips, find_work, read_and_encode
from tonelake.store import InputError, Lake, Space

SAMPLED_CLIPS = 4                        # spread over the clips that are due, after one warm-up; batches take more
BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Estimated time, disk space, memory and price of an embedding on this machine."""

    space: str
    precision: str
    clips: int                           # without a vector yet
    sources: int                         # files, or other sources, of these clips
    hours: float                         # of audio in these clips
    speed: float                         # seconds of audio per second, measured
    disk_bytes: int                      # of vectors and frames
    memory_bytes: int                    # measured peak, of the GPU or of this process
    price: float                         # per hour of this machine

    @property
    def seconds(self) -> float:
        """Estimated run time."""
        return self.hours * 3600 / self.speed if self.speed else 0.0

    @property
    def cost(self) -> float:
        """Estimated price of the run."""
        return self.seconds / 3600 * self.price

    def __str__(self) -> str:
        if not self.clips:
            return f"space {self.space}: all clips are embedded, there is nothing to do"
        text = (
            f"space {self.space}, {self.precision}: {self.clips:,} clips, {self.hours:,.1f} hours of audio\n"
            f"time    {timedelta(seconds=round(self.seconds))} at {self.speed:.1f} s of audio per second, measured here; "
            f"{self.seconds / self.sources:.1f} s a track, derived\n"
            f"disk    {self.disk_bytes / 1e9:,.2f} GB, derived from the width of the vectors\n"
            f"memory  {self.memory_bytes / 1e9:,.2f} GB peak, measured here"
        )
        if not self.price:
            return text
        each = self.cost / self.sources
        return f"{text}\ncost    {self.cost:,.2f} at {self.price:g} per hour, {each:.2g} a track, derived from the time"


def plan_embed(
    lake: Lake, settings: EmbedSettings, read: ReadClips, *, frames: Sequence[int | str] = (), workers: int | None = None,
    price: float = 0.0,
) -> Plan:
    """Estimate an embedding by these settings, frames of these layers included, on a few clips.

    `price`: of an hour of this machine.  Raises InputError as `embed_lake`, and if none of the sampled clips can be read.
    """
    check_clips(lake)
    space, encoder = find_or_describe(lake, settings)
    check_frames(encoder, frames)
    layers = sorted({space.layer_index(layer) for layer in frames})
    return make_plan(lake, space, encoder, read, frames=layers, workers=workers, price=price)


def make_plan(
    lake: Lake, space: Space, encoder: Encoder, read: ReadClips, *, frames: Sequence[int] = (),
    workers: int | None = None, price: float = 0.0,
) -> Plan:
    """Encode a few of the clips that `embed_clips` would embed, and extrapolate; nothing is stored, and no space is made.

    Raises InputError if none of the sampled clips can be read.
    """
    due = find_work(lake, space, frames).due()
    seconds = float(due["duration_s"].sum())
    speed = measure(due, space, encoder, read, workers) if len(due) else 0.0
    return Plan(
        space=space.name, precision=space.precision, clips=len(due), sources=due["source"].n_unique(), hours=seconds / 3600,
        speed=speed, disk_bytes=stored_bytes(space, encoder, len(due), seconds, frames), memory_bytes=peak_memory(space.device),
        price=price,
    )


def stored_bytes(space: Space, encoder: Encoder, clips: int, seconds: float, frames: Sequence[int] = ()) -> int:
    """Return the size of the vectors of clips, and of the frames of `seconds` of audio in these layers."""
    width = 2 * sum(space.dims) * BYTES[space.dtype] + 40            # mean and max, and the other columns of a row
    framed = seconds * encoder.sample_rate / encoder.frame_samples * sum(2 * space.dims[layer] for layer in frames)
    return round(clips * width + framed)


def measure(due: pl.DataFrame, space: Space, encoder: Encoder, read: ReadClips, workers: int | None) -> float:
    """Measure seconds of audio per second, decoding included, on clips spread evenly over those that are due."""
    encoder.prepare(round(space.window_s * encoder.sample_rate))
    together = max(encoder.clips_at_once, encoder.clips_in_parallel)
    count = (SAMPLED_CLIPS + 1) * together if encoder.clips_at_once == 1 else 3 * together
    rows = np.unique(np.linspace(0, len(due) - 1, count).round().astype(int))
    seconds = dict(due[rows.tolist()].select("clip_id", "duration_s").iter_rows())
    problem: Exception | None = None
    done: list[tuple[float, float]] = []                             # (seconds of audio, time at which it was encoded)
    started = time.perf_counter()
    for clip_id, outcome in read_and_encode(due[rows.tolist()], space, encoder, read, workers=workers):
        if isinstance(outcome, Exception):
            problem = outcome
        else:
            done.append((seconds[clip_id], time.perf_counter()))
    if not done:
        raise InputError(f"none of {len(rows)} sampled clips could be read: {problem}")
    if len(done) > together:             # the first ones warm up
        started, done = done[together - 1][1], done[together:]
    return sum(audio_s for audio_s, _ in done) / max(done[-1][1] - started, 1e-9)
