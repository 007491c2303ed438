"""Clips without a vector -> vectors in the lake.  Killed at any point and run again, it goes on where it stood.

Clips are stored every half minute or 512, in one commit with all their layers; what is stored is never encoded again,
and a clip that another run stored meanwhile keeps that run's vector.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import polars as pl

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.windows import ClipVectors
from tonelake.embed.work import ReadClips, encoded, find_work
from tonelake.embed.writer import Writer
from tonelake.store import Lake, Progress, Space, silent_progress


@dataclass(frozen=True)
class EmbedReport:
    """What an embed did."""

    space: str
    new: int
    known: int
    failed: int
    framed: int = 0                      # clips whose frames were stored
    seconds_of_audio: float = 0.0
    seconds_taken: float = 0.0
    precision: str = ""                  # with the reason for it

    def __str__(self) -> str:
        counts = f"space {self.space}: {self.new} clips embedded, {self.known} known"
        if self.framed:
            counts += f", frames of {self.framed} stored"
        if self.failed:
            counts += f", {self.failed} failed (see `tonelake failures`)"
        if self.new or self.framed:
            counts += f"; {self.seconds_of_audio / max(self.seconds_taken, 1e-9):.1f} s of audio a second"
            counts += f"\n{self.precision}" if self.precision else ""
        return counts


def embed_clips(
    lake: Lake, space: Space, encoder: Encoder, read: ReadClips, *, frames: Sequence[int] = (), workers: int | None = None,
    progress: Progress = silent_progress, share: pl.Series | None = None,
) -> EmbedReport:
    """Embed every clip of the lake that has no vector in `space`, or lacks the frames of one of these layers.

    `share`: ids of the only clips to embed, where other processes do the rest; it is then theirs who shared out to merge
    the pieces in the end.
    """
    work = find_work(lake, space, frames)
    if share is not None:
        work = work.only(share)
    writer = Writer(lake, space, frames, compact=share is None, total=len(work))

    def outcomes() -> Generator[tuple[str, ClipVectors | Exception], None, None]:
        for due in work.slices():
            writer.expect(due)
            yield from encoded(due, space, encoder, read, frames=frames, workers=workers)

    started = time.monotonic()
    coming = outcomes()
    try:
        for clip_id, outcome in progress(coming, len(work), f"embedding into {space.name}"):
            writer.take(clip_id, outcome)
    except BaseException:
        coming.close()
        writer.flush()                   # also when interrupted: what is encoded is stored
        raise
    writer.flush()
    writer.tidy()
    return EmbedReport(
        space.name, writer.stored, work.known + writer.beaten, writer.failed, writer.framed, writer.seconds_of_audio,
        time.monotonic() - started, space.precision_reason,
    )
