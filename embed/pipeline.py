"""Embed clips that have no vector yet, in one process.  Killed at any point and run again, it resumes.

Clips are stored every half minute or every 512, in one commit with all their layers; a stored clip is never encoded again,
and a clip that another run stored meanwhile keeps that run's vector.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import polars as pl

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.tagging import TagReport
from tonelake.embed.windows import ClipVectors
from tonelake.embed.work import ReadClips, find_work, read_and_encode
from tonelake.embed.writer import Writer
from tonelake.store import Lake, Space


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """Counts and timing of an embedding run."""

    space: str
    new: int
    known: int
    failed: int
    framed: int = 0                      # clips whose frames were stored
    seconds_of_audio: float = 0.0
    seconds_taken: float = 0.0
    precision: str = ""                  # and the reason for it
    tagged: TagReport | None = None      # if tags were requested

    def __str__(self) -> str:
        counts = f"space {self.space}: {self.new} clips embedded, {self.known} known"
        if self.framed:
            counts += f", frames of {self.framed} stored"
        if self.failed:
            counts += f", {self.failed} failed (see `tonelake failures`)"
        if self.new or self.framed:
            counts += f"; {self.seconds_of_audio / max(self.seconds_taken, 1e-9):.1f} s of audio per second"
            counts += f"\n{self.precision}" if self.precision else ""
        return f"{counts}\n{self.tagged}" if self.tagged else counts


def embed_clips(
    lake: Lake, space: Space, encoder: Encoder, read: ReadClips, *, frames: Sequence[int] = (), workers: int | None = None,
    share: pl.Series | None = None,
) -> EmbedReport:
    """Embed every clip of the lake that has no vector in `space`, or lacks frames of one of the layers `frames`.

    `share`: ids of the clips to embed if other processes embed the rest; compacting the tables is then left to the caller.
    """
    work = find_work(lake, space, frames)
    if share is not None:
        work = work.only(share)
    writer = Writer(lake, space, frames, compact=share is None, total=len(work))

    def outcomes() -> Generator[tuple[str, ClipVectors | Exception], None, None]:
        for due in work.slices():
            writer.expect(due)
            yield from read_and_encode(due, space, encoder, read, frames=frames, workers=workers)

    started = time.monotonic()
    results = outcomes()
    try:
        for clip_id, outcome in lake.progress(results, len(work), f"embedding into {space.name}"):
            writer.add(clip_id, outcome)
    except BaseException:
        results.close()
        writer.flush()                   # also when interrupted: encoded clips are stored
        raise
    writer.flush()
    writer.compact()
    return EmbedReport(
        space=space.name, new=writer.stored, known=work.known + writer.stored_elsewhere, failed=writer.failed,
        framed=writer.framed, seconds_of_audio=writer.seconds_of_audio, seconds_taken=time.monotonic() - started,
        precision=space.precision_reason,
    )
