"""The cost, before you pay: a few clips are encoded and thrown away, and the rest reckoned from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.windows import encode_clips
from tonelake.embed.work import ReadClips, clumps, find_work
from tonelake.store import InputError, Lake, Space

SAMPLED_CLIPS = 4                        # spread over the clips that are due, after one that warms up; batches take more
BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Plan:
    """What an embed would take on this machine."""

    space: str
    precision: str
    clips: int                           # without a vector yet
    hours: float                         # of audio in them
    speed: float                         # seconds of audio a second, measured
    disk_bytes: int                      # of vectors and frames
    price: float                         # of an hour of this machine

    @property
    def seconds(self) -> float:
        """How long it would run."""
        return self.hours * 3600 / self.speed if self.speed else 0.0

    @property
    def cost(self) -> float:
        return self.seconds / 3600 * self.price

    def __str__(self) -> str:
        if not self.clips:
            return f"space {self.space}: every clip is embedded, there is nothing to do"
        text = (
            f"space {self.space}, {self.precision}: {self.clips:,} clips, {self.hours:,.1f} hours of audio\n"
            f"time  {timedelta(seconds=round(self.seconds))} at {self.speed:.1f} s of audio a second, measured here\n"
            f"disk  {self.disk_bytes / 1e9:,.2f} GB"
        )
        return text + (f"\ncost  {self.cost:,.2f} at {self.price:g} an hour" if self.price else "")


def make_plan(
    lake: Lake, space: Space, encoder: Encoder, read: ReadClips, *, frames: Sequence[int] = (),
    workers: int | None = None, price: float = 0.0,
) -> Plan:
    """Measure a few of the clips that `embed_clips` would embed; nothing is stored, and no space is made.

    Raises InputError where none of the clips that were tried can be read.
    """
    due = find_work(lake, space, frames).due()
    width = 2 * sum(space.dims) * BYTES[space.dtype] + 40            # mean and max, and what else a row has
    seconds = float(due["duration_s"].sum())
    speed = measure(due, space, encoder, read, workers) if len(due) else 0.0
    framed = seconds * encoder.sample_rate / encoder.frame_samples * sum(2 * space.dims[layer] for layer in frames)
    return Plan(space.name, space.precision, len(due), seconds / 3600, speed, round(len(due) * width + framed), price)


def measure(due: pl.DataFrame, space: Space, encoder: Encoder, read: ReadClips, workers: int | None) -> float:
    """Seconds of audio a second, decoding included, over clips spread evenly over those that are due."""
    together = encoder.clips_at_once
    count = (SAMPLED_CLIPS + 1) * together if together == 1 else 3 * together
    rows = np.unique(np.linspace(0, len(due) - 1, count).round().astype(int))
    encoder.prepare(round(space.window_s * encoder.sample_rate))
    waves = read(due[rows.tolist()], encoder.sample_rate, workers)
    problem: Exception | None = None
    tried: list[tuple[float, float]] = []                            # (seconds of audio, seconds taken) of each batch
    started = time.perf_counter()
    for batch in clumps(waves, together):
        problem = next((wave for _, wave in batch if isinstance(wave, Exception)), problem)
        good = [wave for _, wave in batch if not isinstance(wave, Exception)]
        if good:
            encode_clips(encoder, good, space.window_s, space.hop_s)
            now = time.perf_counter()
            tried.append((sum(map(len, good)) / encoder.sample_rate, now - started))
            started = now
    if not tried:
        raise InputError(f"none of {len(rows)} clips could be tried: {problem}")
    heard, taken = (sum(column) for column in zip(*(tried[1:] or tried), strict=True))      # the first one warms up
    return heard / taken
