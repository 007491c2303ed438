"""Resolve the settings of a frame probe to clips with frames and events, a split and heads, and train input after input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from tonelake.embed import EmbedSettings, cpu_has_bfloat16, products_preserved, resolve_device
from tonelake.evaluate import LEAK_COLUMNS, Targets, Units, closed_groups, digest_text, make_manifest, make_units, plural
from tonelake.probes.experiment import LARGE_HEAD, MEMORY_SHARE, available_memory, held_out_column
from tonelake.probes.frames.config import FRAME_PROBE_VERSION, FrameProbeConfig
from tonelake.probes.frames.frame_data import (
    FrameClips,
    FrameInput,
    SegmentData,
    fit_standardisation,
    frame_inputs,
)
from tonelake.probes.frames.frame_losses import FrameLoss, positive_weights, start_of_bias
from tonelake.probes.frames.grid import FrameGridResults, FrameSchedule, train
from tonelake.probes.frames.heads import AUTOCAST, JOINT_SCALE, HeadShape
from tonelake.probes.frames.held_out import FrameSplit, group_targets, make_frame_split
from tonelake.probes.frames.tasks import FrameTask, frame_task
from tonelake.probes.inputs import Preparation
from tonelake.store import InputError, Lake, Manifest, Space, read_songs

UNUSED = ("source", "digest", "cut", "added_at")     # clip columns that are long and not groups
BEATS = ("beat", "downbeat")             # read beside notes: chords are judged at the middles of beats


@dataclass(kw_only=True)
class FrameExperiment:
    """Resolved settings and data: nothing in `config` is auto or None, except filters."""

    lake: Lake
    space: Space
    config: FrameProbeConfig
    task: FrameTask
    clips: FrameClips
    targets: Targets                     # the clips with their tracks; its targets are the groups of `hold_out`
    split: FrameSplit
    specs: list[FrameInput]
    events_digest: str
    notes: list[str]

    def manifest(self) -> Manifest:
        """Return the manifest of the run: settings, and a digest of each part of the data."""
        columns = [held_out_column(self.config.split), self.config.hold_out]
        groups = [*LEAK_COLUMNS, *(column for column in columns if column)]
        return make_manifest(
            self.config.identity(), FRAME_PROBE_VERSION, self.space.fingerprint, self.targets, [self.split.split],
            groups=groups, more={"events": self.events_digest},
        )

    @property
    def fits(self) -> int:
        """Return the number of fits in the grid."""
        return len(self.specs) * len(self.config.settings) * self.config.seeds

    def shape(self, spec: FrameInput) -> HeadShape:
        """Return the architecture of the head for an input."""
        config = self.config
        return HeadShape(
            kind=config.head, width=spec.width, outputs=len(self.task.outputs), hidden=config.hidden, context=config.context,
            dropout=config.dropout, layers=spec.parts, lowest=self.task.lowest,
        )

    def compute_dtype(self, spec: FrameInput) -> torch.dtype:
        """Return the type of the products; for one fit it does not depend on the other fits."""
        shape = self.shape(spec)
        kernels = shape.kernels()
        if self.config.precision != "bfloat16" or kernels is None or shape.parameters() < LARGE_HEAD:
            return torch.float32
        kernel, outputs = kernels[0]
        return torch.bfloat16 if products_preserved(self.config.device, kernel * shape.width, outputs) else torch.float32

    @property
    def segment_frames(self) -> int:
        """Return the number of frames in a segment."""
        return max(round(self.config.segment_s / self.clips.period_s), 1)

    def fits_memory(self, spec: FrameInput) -> bool:
        """Return whether the states of the training and validation clips are held in memory, not streamed."""
        rows = np.concatenate([self.split.split.train, self.split.split.valid])
        return self.clips.byte_size(spec, rows) <= MEMORY_SHARE * available_memory("cpu")

    def fit(self, spec: FrameInput, step: Callable[[], None] = lambda: None) -> tuple[FrameGridResults, Preparation]:
        """Train every fit of one input; return their results and the preparation of its states.  `step`: called each epoch."""
        config, split, shape = self.config, self.split.split, self.shape(spec)
        reader = self.clips.reader(spec)
        preparation = fit_standardisation(reader, split.train, jointly=config.head in JOINT_SCALE)
        in_memory, dtype = self.fits_memory(spec), self.compute_dtype(spec)

        def data(clips: np.ndarray, *, soft: bool = False) -> SegmentData:
            return SegmentData(
                reader, clips, self.segment_frames, preparation, device=config.device, dtype=dtype, batch=config.batch,
                in_memory=in_memory, soft=soft,
            )

        training = data(split.train, soft=True)
        counts, frames = training.count_targets(len(self.task.outputs))
        weights = positive_weights(
            self.task.kind, counts, frames, self.task.groups, balanced=config.class_weights == "balanced"
        )
        results = train(
            training, [data(part) for part in self.valid_parts()], shape,
            FrameLoss(self.task.kind, torch.from_numpy(weights).to(config.device)), self.task.groups, config.settings,
            range(config.seeds), FrameSchedule(epochs=config.epochs, patience=config.patience),
            bias=start_of_bias(self.task.kind, counts, frames, self.task.groups, weights), step=step,
            autocast=config.head in AUTOCAST and config.precision == "bfloat16",
        )
        return results, preparation

    def valid_parts(self) -> list[np.ndarray]:
        """Return the validation clips, those of held-out groups apart, whose scores are averaged."""
        valid, held = self.split.split.valid, self.split.held_out
        parts = [valid] if held is None else [valid[~held[valid]], valid[held[valid]]]
        return [part for part in parts if len(part)]

    def units(self, rows: np.ndarray) -> Units:
        """Return the jackknife units of some clips: the groups that the split holds out, else tracks."""
        column = held_out_column(self.config.split)
        values = self.targets.track
        if column not in (None, "track") and column in self.targets.clips.columns:
            values = closed_groups(self.targets, column)
        else:
            column = "track"
        return make_units(values[rows], plural(column))


def make_frame_experiment(lake: Lake, config: FrameProbeConfig) -> FrameExperiment:
    """Resolve settings against a lake.  Raises InputError if they cannot be met."""
    space = lake.spaces.get(config.space)
    frames, task = lake.frames(space), frame_task(config.task, config.lowest, config.highest)
    specs = frame_inputs(frames, config.layers)
    clips, notes = choose_clips(lake, space, config, task, specs)
    events = read_events(lake, clips, config, task)
    names, indicators = group_targets(clips, config.hold_out)
    targets = Targets(
        kind="multilabel", columns=(config.task,), names=names, clips=clips, targets=indicators,
        track=read_songs(lake.clips).dense(clips["clip_id"]),
    )
    split = make_frame_split(targets, config)
    if not len(split.split.valid):
        raise InputError(
            f"--shares {','.join(f'{share:g}' for share in config.shares)}: leave no validation clip, by which thresholds are "
            "chosen. Give a validation share above 0"
        )
    device = resolve_device(EmbedSettings(device=config.device), None)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.startswith("cuda") or (device == "cpu" and cpu_has_bfloat16()) else "float32"
    resolved = config.with_(space=space.name, device=device, precision=precision)
    layer = specs[0].layers[0]
    found = FrameClips(lake, space, task, clips, events, layer)
    experiment = FrameExperiment(
        lake=lake, space=space, config=resolved, task=task, clips=found, targets=targets, split=split, specs=specs,
        events_digest=digest_events(events, task), notes=[*notes, *split.notes],
    )
    for spec in specs:
        experiment.shape(spec).make()            # raises InputError if the head does not suit the layer
    return experiment


def choose_clips(
    lake: Lake, space: Space, config: FrameProbeConfig, task: FrameTask, specs: list[FrameInput]
) -> tuple[pl.DataFrame, list[str]]:
    """Return the clips that have frames of every layer and a recording with events, and notes on those left out.

    Raises InputError, which names the remedy, if there are none.
    """
    columns = [name for name in lake.clips.columns() if name not in UNUSED]
    clips = lake.clips.read(columns, where=config.where)
    filtered = f" where {config.where}" if config.where else ""
    if not len(clips):
        raise InputError(f"the lake has no clips{filtered}. Change --where, or run `tonelake ingest`")
    layers = sorted({layer for spec in specs for layer in spec.layers})
    stored = lake.frames(space).complete(layers)
    framed = clips.filter(pl.col("clip_id").is_in(stored.implode()))
    if not len(framed):
        shown = ",".join(space.layers[layer] for layer in layers)
        raise InputError(f"no clip{filtered} has stored frames. Run `tonelake embed --space {space.name} --frames {shown}`")
    recordings = lake.events.read(kinds=task.event_kinds, source=config.source)
    recordings = recordings if config.source else recordings.filter(~pl.col("source").str.starts_with("predicted:"))
    known = framed.filter(pl.col("recording").is_in(recordings["recording"].unique().implode()))
    if not len(known):
        source = f" from source {config.source!r}" if config.source else ""
        raise InputError(
            f"{config.task}: no clip with frames has {' or '.join(task.event_kinds)} events{source}. Run `tonelake ingest "
            "events` on the folder of their annotations"
        )
    notes = []
    if len(framed) < len(clips):
        notes.append(f"{len(clips) - len(framed):,} clips without stored frames of these layers are left out")
    if len(known) < len(framed):
        notes.append(f"{len(framed) - len(known):,} clips of recordings without {task.event_kinds[0]} events are left out")
    return known.sort("clip_id"), notes


def read_events(lake: Lake, clips: pl.DataFrame, config: FrameProbeConfig, task: FrameTask) -> pl.DataFrame:
    """Return the events of the task in each clip, and for notes the beats, if they are known, for the recall of triads."""
    spans = clips.select("clip_id", "recording", "start_s", "duration_s")
    events = lake.events.of_clips(spans, task.event_kinds, source=config.source)
    if task.name != "notes":
        return events
    try:
        beats = lake.events.of_clips(spans, BEATS, source=config.source)
    except InputError:                   # beats from two sources: the notes can be judged without them
        return events
    return pl.concat([events, beats])


def digest_events(events: pl.DataFrame, task: FrameTask) -> str:
    """Return a digest of the events that decide the targets."""
    rows = events.filter(pl.col("kind").is_in(list(task.event_kinds)))
    rows = rows.sort("clip_id", "kind", "start_s", "pitch", "end_s", "value", nulls_last=True)
    text = rows.select(
        pl.concat_str(
            "clip_id", "kind", pl.col("start_s").round(6), pl.col("end_s").round(6), pl.col("pitch").fill_null(-1),
            pl.col("value").fill_null(""), "begins", "ends", separator=" ",
        ).alias("text")
    )["text"]
    return digest_text(text)
