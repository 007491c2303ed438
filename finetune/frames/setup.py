"""Resolve a fine-tuning on events: the clips whose recordings have events, their events, the task, and the split.

Clips need a space, whose encoder is fine-tuned, but neither vectors nor stored frames in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tonelake.evaluate import Targets
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.resolved import Setup
from tonelake.finetune.stem_mixing import DRUMS, MIX, STEM, StemMixer
from tonelake.probes import FrameTask, digest_events, frame_task
from tonelake.store import InputError, Lake, Manifest, read_songs

UNUSED = ("source", "digest", "cut", "added_at")         # long columns of clips, which no report groups by
ALL = "clips"                            # the only label, because a split needs one to balance
PREDICTED = "predicted:"


class ClipEvents:
    """The events of clips, with times in seconds from the start of each clip."""

    def __init__(self, events: pl.DataFrame) -> None:
        """`events`: rows of `Events.of_clips`, of any clips and kinds."""
        self.rows = events.sort("clip_id", maintain_order=True)
        spans = self.rows.group_by("clip_id", maintain_order=True).len()
        starts = np.concatenate([[0], np.cumsum(spans["len"].cast(pl.Int64).to_numpy())])
        self._spans = dict(zip(spans["clip_id"], zip(starts[:-1].tolist(), spans["len"].to_list(), strict=True), strict=True))

    def of(self, clip: str) -> pl.DataFrame:
        """Return the events of a clip, without copying them."""
        start, count = self._spans.get(clip, (0, 0))
        return self.rows.slice(start, count)

    def heard(self, clip: str, begin_s: float, length_s: float) -> pl.DataFrame:
        """Return the events in a part of a clip, with times from the beginning of the part, cut at its ends."""
        return cut_events(self.of(clip), begin_s, length_s)


def cut_events(events: pl.DataFrame, begin_s: float, length_s: float) -> pl.DataFrame:
    """Return the events in a part of a clip as `Events.of_clips` gives those of a clip.

    Instants at the end of the part do not belong to it.
    """
    start, end = (pl.col(name) - begin_s for name in ("start_s", "end_s"))
    inside = pl.when(end <= start).then((start >= 0) & (start < length_s)).otherwise((start < length_s) & (end > 0))
    return events.filter(inside).with_columns(
        start.clip(0.0, length_s).alias("start_s"), end.clip(0.0, length_s).alias("end_s"),
        begins=pl.col("begins") & (start >= 0), ends=pl.col("ends") & (end <= length_s),
    )


@dataclass(kw_only=True)
class FrameSetup(Setup):
    """Resolved settings and data of a fine-tuning on events."""

    frame_task: FrameTask
    events: ClipEvents                   # of the clips of the task, and of the stems that mixes are made of

    def manifest(self) -> Manifest:
        """Return the manifest of the run; the events are one of its parts."""
        found = super().manifest()
        return replace(found, parts={**found.parts, "events": digest_events(self.events.rows, self.frame_task)})

    @property
    def reads_one_stem(self) -> bool:
        """Return whether all clips are of one stem, so that in a mix only its events are to be found."""
        stems = set(self.task.clips[STEM].unique()) if STEM in self.task.clips.columns else {None}
        return len(stems) == 1 and not stems & {None, MIX}

    def mixer(self, failed: set[str]) -> StemMixer:
        """Return what mixes training clips with stems, and remakes clips of whole songs from the stems of their track."""
        assert self.stems is not None
        songs = read_songs(self.lake.clips).of(self.task.ids)
        return StemMixer(self.stems.without(failed), self.task.clips, songs, self.config, whole=True)

    def frames_of(self, clips: int) -> int:
        """Return about how many frames the longest clips have in all, at 100 frames a second."""
        return round(100 * float(self.task.clips["duration_s"].sort(descending=True).head(clips).sum()))

    def silent(self) -> frozenset[str]:
        """Return the stems in a mix whose events are not to be found: drums, whose pitches are no notes, unless only they are
        learned."""
        if self.stems is None or self.frame_task.name != "notes":
            return frozenset()
        drums = self.stems.clips.filter(pl.col(STEM) == DRUMS)["clip_id"]
        return frozenset(drums)


def read_event_clips(lake: Lake, config: FinetuneConfig) -> tuple[FrameTask, Targets]:
    """Return the task, and the clips of recordings that have its events as targets of one label, which a split can divide.

    Raises InputError, which names the remedy, if there are none.
    """
    task = frame_task(str(config.events), config.lowest, config.highest)
    columns = [name for name in lake.clips.columns() if name not in UNUSED]
    clips = lake.clips.read(columns, where=config.where)
    filtered = f" where {config.where}" if config.where else ""
    if not len(clips):
        raise InputError(f"the lake has no clips{filtered}. Change --where, or run `tonelake ingest`")
    recordings = set[str]()
    for part in batches(clips["recording"].drop_nulls().unique(maintain_order=True)):
        events = lake.events.read(recordings=part, kinds=task.event_kinds, source=config.source)
        if config.source is None:
            events = events.filter(~pl.col("source").str.starts_with(PREDICTED))
        recordings |= set(events["recording"].unique())
    known = clips.filter(pl.col("recording").is_in(list(recordings))).sort("clip_id")
    if not len(known):
        source = f" from source {config.source!r}" if config.source else ""
        raise InputError(
            f"{task.name}: no clip{filtered} has {' or '.join(task.event_kinds)} events{source}. Run `tonelake ingest events` "
            "on the folder of their annotations"
        )
    notes: tuple[str, ...] = ()
    if len(known) < len(clips):
        left = len(clips) - len(known)
        notes = (f"{left:,} clips of recordings without {' or '.join(task.event_kinds)} events are left out",)
    return task, Targets(
        kind="multilabel", columns=(task.name,), names=(ALL,), clips=known, targets=np.ones((len(known), 1), np.float32),
        track=read_songs(lake.clips).dense(known["clip_id"]), notes=notes,
    )


def batches(values: pl.Series, size: int = 2_000) -> Iterator[list[str]]:
    """Yield values in lists of at most `size`, so that the events of a large lake are not all in memory."""
    for start in range(0, len(values), size):
        yield values[start : start + size].to_list()


def make_frame_setup(setup: Setup, task: FrameTask) -> FrameSetup:
    """Return a setup with the events of its clips and of the stems that are mixed in."""
    columns = ["clip_id", "recording", "start_s", "duration_s"]
    spans = setup.task.clips.select(columns)
    if setup.stems is not None:
        spans = pl.concat([spans, setup.stems.clips.select(columns)]).unique("clip_id", keep="first", maintain_order=True)
    events = setup.lake.events.of_clips(spans, task.event_kinds, source=setup.config.source)
    return FrameSetup(**vars(setup), frame_task=task, events=ClipEvents(events))
