"""Stored frames of clips as segments in batches, in memory or streamed from the store.

A clip is divided into segments of equal length; the last one begins earlier if needed, and only its new frames are judged.
An epoch takes clips in random order in stretches of about STRETCH_S seconds of audio, and the segments of a stretch in random
order.  In memory all stretches are held; streamed, the next stretch is read during training.  Both give the same batches.

States are standardised by mean and standard deviation over the training frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tonelake.probes.frames.frame_losses import Cells, FrameTargets
from tonelake.probes.frames.targets import frame_targets
from tonelake.probes.frames.tasks import FrameTask
from tonelake.probes.inputs import Preparation
from tonelake.store import Frames, InputError, Lake, Space

STRETCH_S = 1_200.0                      # seconds of audio read at once
FRAMES_AT_ONCE = 4_096                   # standardised at once, so that they stay in the cache
NEIGHBOURS = {"beats": 0.5, "onsets": 0.5}       # weight of the frames beside a beat or onset, in training


@dataclass(frozen=True)
class FrameInput:
    """The layers that a head reads, side by side or under a learned weighting."""

    name: str                            # name of a layer, `all` or `weighted`
    layers: tuple[int, ...]
    parts: int                           # number of weighted layers; 0 if layers are concatenated
    width: int                           # of the head's input


def frame_inputs(frames: Frames, names: Sequence[str]) -> list[FrameInput]:
    """Return the inputs for names of layers, `each`, `all` or `weighted`, which mean the layers that have stored frames.

    Raises InputError if no layer has, or a named one has not, or if widths differ under a weighting.
    """
    space, stored = frames.space, frames.layers()
    if not stored:
        name = space.layers[space.default_layer]
        raise InputError(
            f"space {space.name!r}: has no stored frames. Run `tonelake embed --space {space.name} --frames {name}`"
        )
    found: list[FrameInput] = []
    for name in names:
        if name == "each":
            found += [FrameInput(space.layers[n], (n,), 0, space.dims[n]) for n in stored]
        elif name == "all" and name not in space.layers:
            found.append(FrameInput("all", tuple(stored), 0, sum(space.dims[n] for n in stored)))
        elif name == "weighted" and name not in space.layers:
            widths = {space.dims[n] for n in stored}
            if len(widths) > 1:
                raise InputError(
                    f"space {space.name!r}: its layers are {min(widths)} to {max(widths)} wide and cannot be weighted. Use "
                    "`all`, which concatenates them"
                )
            found.append(FrameInput("weighted", tuple(stored), len(stored), widths.pop()))
        else:
            number = space.layer_index(name)
            if number not in stored:
                raise InputError(
                    f"layer {space.layers[number]}: has no stored frames. Run `tonelake embed --space {space.name} --frames "
                    f"{space.layers[number]}`, or choose one of {', '.join(space.layers[n] for n in stored)}"
                )
            found.append(FrameInput(space.layers[number], (number,), 0, space.dims[number]))
    return list(dict.fromkeys(found))


def read_times(frames: Frames, layer: int) -> pl.DataFrame:
    """Return the frame times of one layer: clip_id, n_frames, frame_s (a list)."""
    found = pl.from_arrow(frames.table.read(["clip_id", "n_frames", "frame_s"], where=f"layer = {layer}"))
    assert isinstance(found, pl.DataFrame)
    return found


def times_reader(frames: Frames, clip_ids: Sequence[str], layer: int) -> Callable[[Sequence[int]], list[np.ndarray]]:
    """A function that reads the (frame,) float32 centres of some of these clips, given by index: as `Frames.reader`."""
    snapshot = frames.table.snapshot()
    keys = pa.array([f"{clip}-{layer:02d}" for clip in clip_ids], pa.string())
    rows = pc.index_in(keys, value_set=snapshot.keys).to_numpy(zero_copy_only=False)

    def read(wanted: Sequence[int]) -> list[np.ndarray]:
        taken = frames.table.take_rows(snapshot, rows[list(wanted)], ["frame_s"]).column("frame_s").combine_chunks()
        return [taken[i].values.to_numpy(zero_copy_only=True) for i in range(len(taken))]

    return read


class FrameClips:
    """Clips with stored frames of some layers, their frame times, and their events.

    `clips`: clip_id and further columns, a row a clip; `events`: rows of `Events.of_clips`.
    """

    def __init__(
        self, lake: Lake, space: Space, task: FrameTask, clips: pl.DataFrame, events: pl.DataFrame, layer: int
    ) -> None:
        self.frames, self.space, self.task, self.clips = lake.frames(space), space, task, clips
        ids = clips["clip_id"]
        stored = read_times(self.frames, layer)
        own = clips.select("clip_id").join(stored, on="clip_id", how="left", maintain_order="left")
        self.n_frames = own["n_frames"].to_numpy()
        times = own["frame_s"].explode(empty_as_null=False)
        self._times, self._starts = times.to_numpy(), np.concatenate([[0], np.cumsum(self.n_frames)])
        steps = [np.diff(self.frame_s(i)) for i in range(min(len(ids), 20))]
        self.period_s = float(np.median(np.concatenate(steps))) if sum(map(len, steps)) else 0.02
        self._events = events.partition_by("clip_id", as_dict=True)
        self._none = events.clear()

    def __len__(self) -> int:
        return len(self.clips)

    def frame_s(self, clip: int) -> np.ndarray:
        """Return (frame,) float32 centres of a clip's frames, in seconds from its start."""
        return self._times[self._starts[clip] : self._starts[clip + 1]]

    def events_of(self, clip: int) -> pl.DataFrame:
        """Return the events of a clip, with times from its start."""
        return self._events.get((self.clips["clip_id"][clip],), self._none)

    def targets(self, clip: int, *, soft: bool = False) -> np.ndarray:
        """Return the targets at each frame of a clip (see `frame_targets`); `soft`: beats and onsets spread to neighbours."""
        return frame_targets(
            self.task, self.events_of(clip), self.frame_s(clip), period_s=self.period_s,
            neighbours=NEIGHBOURS.get(self.task.name, 0.0) if soft else 0.0,
        )

    def byte_size(self, spec: FrameInput, clips: np.ndarray) -> int:
        """Return the bytes of the states of some clips in memory."""
        return 2 * int(self.n_frames[clips].sum()) * spec.width * max(spec.parts, 1)

    def reader(self, spec: FrameInput) -> StateReader:
        return StateReader(self, spec)

    def stretches(self, clips: np.ndarray) -> list[np.ndarray]:
        """Divide clips, in their order, into stretches of about STRETCH_S seconds."""
        ends = np.cumsum(self.n_frames[clips]) * self.period_s
        return np.split(clips, np.flatnonzero(np.diff((ends // STRETCH_S).astype(np.int64))) + 1) if len(clips) else []


class StateReader:
    """Reader for the states of one input."""

    def __init__(self, clips: FrameClips, spec: FrameInput) -> None:
        self.clips, self.spec = clips, spec
        ids = clips.clips["clip_id"].to_list()
        self._read = [clips.frames.reader(ids, layer) for layer in spec.layers]

    def __call__(self, clips: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the states of clips: (frame, width) float16 each, or (layer, frame, width) if weighted."""
        wanted = [int(clip) for clip in clips]
        layers = [read(wanted) for read in self._read]
        for clip, *parts in zip(wanted, *layers, strict=True):
            if any(len(part) != self.clips.n_frames[clip] for part in parts):
                raise InputError(
                    f"clip {self.clips.clips['clip_id'][clip]}: its layers have different numbers of frames. Embed it again"
                )
        if len(layers) == 1 and not self.spec.parts:
            return layers[0]
        join = np.stack if self.spec.parts else lambda parts: np.concatenate(parts, axis=1)
        return [join(parts) for parts in zip(*layers, strict=True)]


def fit_standardisation(reader: StateReader, clips: np.ndarray, *, jointly: bool = False) -> Preparation:
    """Return mean and standard deviation over all frames of some clips, (width,), or (layer, 1, width) if weighted.

    `jointly`: one mean and deviation for all dimensions.  Raises InputError for states that are not finite.
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for stretch in reader.clips.stretches(clips):
        for states in reader(stretch):
            wide = states.astype(np.float64)
            count += wide.shape[-2]
            total, squares = total + wide.sum(axis=-2), squares + np.square(wide).sum(axis=-2)
    if not np.isfinite(total).all():
        raise InputError(
            f"space {reader.clips.space.name!r}: stored frames of layer {reader.spec.name} hold NaN or infinity. Embed the "
            "clips again, or leave the layer out"
        )
    mean, square = total / max(count, 1), squares / max(count, 1)
    if jointly:
        mean, square = (np.broadcast_to(part.mean(axis=-1, keepdims=True), part.shape) for part in (mean, square))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    spread[spread < 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1                   # constant dimensions stay constant
    mean, spread = mean.astype(np.float32), spread.astype(np.float32)
    return Preparation(False, mean[:, None] if reader.spec.parts else mean, spread[:, None] if reader.spec.parts else spread)


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Segments of clips.  Shape: (segment,) int each."""

    clip: np.ndarray
    start: np.ndarray                    # first frame
    length: np.ndarray                   # number of frames
    judged: np.ndarray                   # first judged frame, from the segment's start: earlier ones belong to another segment
    frames: int                          # of a whole segment


def make_segments(n_frames: np.ndarray, clips: np.ndarray, frames: int) -> Segments:
    """Divide clips into segments of `frames` frames, shorter ones only where a clip is shorter."""
    counts = -(-n_frames[clips] // frames)
    clip = np.repeat(clips, counts)
    number = np.concatenate([np.arange(count) for count in counts]) if len(clips) else np.zeros(0, np.int64)
    begin = number * frames
    start = np.maximum(np.minimum(begin, n_frames[clip] - frames), 0)
    return Segments(
        clip=clip, start=start, length=np.minimum(n_frames[clip], frames), judged=begin - start, frames=frames
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Segments of one batch."""

    x: torch.Tensor                      # (1 or layer, segment, frame, width) states
    stretch: Stretch
    spans: list[tuple[int, int, int]]    # of each segment: first frame in the stretch, frames, first judged frame
    number: int                          # of the batch in its epoch

    def block(self, start: int, stop: int) -> tuple[torch.Tensor, FrameTargets, torch.Tensor | None]:
        """Return states, targets and unjudged rows of some of the segments."""
        device, frames = self.x.device, self.x.shape[2]
        spans = self.spans[start:stop]
        skipped = [
            np.concatenate([np.arange(judged), np.arange(length, frames)]) + number * frames
            for number, (_, length, judged) in enumerate(spans) if judged or length < frames
        ]
        unjudged = torch.from_numpy(np.concatenate(skipped)).to(device) if skipped else None
        return self.x[:, start:stop], self.stretch.targets_of(spans, frames, device), unjudged


class Stretch:
    """Standardised states, and targets, of some clips in memory."""

    def __init__(self, data: SegmentData, clips: np.ndarray) -> None:
        states = data.reader(clips)
        together = np.concatenate(states, axis=-2) if len(states) != 1 else states[0]
        self.states = data.standardised(together)                                # (…, frame, width)
        own = [data.reader.clips.targets(int(clip), soft=data.soft) for clip in clips]
        self.classes: np.ndarray | None = None
        if own[0].ndim == 1:
            self.classes = np.concatenate(own)                                   # (frame,) int64
        else:
            cells = [np.nonzero(targets) for targets in own]
            amounts = [targets[cell].astype(np.float32) for targets, cell in zip(own, cells, strict=True)]
            ends = np.cumsum([len(targets) for targets in own])
            rows = [cell[0] + end - len(targets) for cell, end, targets in zip(cells, ends, own, strict=True)]
            self._rows, self._outputs = np.concatenate(rows), np.concatenate([cell[1] for cell in cells])
            self._amounts = np.concatenate(amounts)
            self._first_cell = np.searchsorted(self._rows, np.arange(int(ends[-1]) + 1))         # of each frame
        lengths = data.reader.clips.n_frames[clips]
        self.first = dict(zip(clips.tolist(), (np.cumsum(lengths) - lengths).tolist(), strict=True))     # frame of each clip

    def targets_of(self, spans: Sequence[tuple[int, int, int]], frames: int, device: torch.device) -> FrameTargets:
        """Return the targets of segments as rows of a block; only judged frames have any."""
        if self.classes is not None:
            found = np.full((len(spans), frames), -1, np.int64)
            for number, (first, length, judged) in enumerate(spans):
                found[number, judged:length] = self.classes[first + judged : first + length]
            return torch.from_numpy(found.reshape(-1)).to(device)
        cells = [slice(*self._first_cell[[first + judged, first + length]]) for first, length, judged in spans]
        shifts = [number * frames - first for number, (first, _, _) in enumerate(spans)]
        rows = np.concatenate([self._rows[cell] + shift for cell, shift in zip(cells, shifts, strict=True)])
        outputs, amounts = (np.concatenate([held[cell] for cell in cells]) for held in (self._outputs, self._amounts))
        return Cells(*(torch.from_numpy(part).to(device) for part in (rows, outputs, amounts)))


class SegmentData:
    """Segments of training or validation clips, standardised, on a device."""

    def __init__(
        self, reader: StateReader, clips: np.ndarray, frames: int, preparation: Preparation, *, device: str,
        dtype: torch.dtype, batch: int, in_memory: bool, soft: bool = False,
    ) -> None:
        self.reader, self.clips, self.batch, self.soft = reader, clips, batch, soft
        self.segments = make_segments(reader.clips.n_frames, clips, frames)
        self.device, self.dtype = torch.device(device), dtype
        assert preparation.mean is not None and preparation.scale is not None
        self._mean, self._scale = torch.from_numpy(preparation.mean), torch.from_numpy(1 / preparation.scale)
        self._held = Stretch(self, clips) if in_memory and len(clips) else None

    def standardised(self, states: np.ndarray) -> torch.Tensor:
        """Return (…, frame, width) states on the CPU, standardised, in the type of the products."""
        found = torch.empty(states.shape, dtype=self.dtype)
        for start in range(0, states.shape[-2], FRAMES_AT_ONCE):
            part = (..., slice(start, start + FRAMES_AT_ONCE), slice(None))
            found[part] = torch.from_numpy(states[part].astype(np.float32)).sub_(self._mean).mul_(self._scale)
        return found

    def batches(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        """Yield batches of segments: in random order, or in their own order without a generator."""
        order = self.clips if rng is None else rng.permutation(self.clips)
        by_clip: dict[int, list[int]] = {}
        for number, clip in enumerate(self.segments.clip.tolist()):
            by_clip.setdefault(clip, []).append(number)
        plan = []
        for clips in self.reader.clips.stretches(order):
            chosen = np.array([number for clip in clips.tolist() for number in by_clip[clip]], np.int64)
            plan.append((clips, chosen if rng is None else rng.permutation(chosen)))
        number = 0
        for stretch, chosen in self._stretches(plan):
            for start in range(0, len(chosen), self.batch):
                yield self._gather(stretch, chosen[start : start + self.batch], number)
                number += 1

    def _stretches(self, plan: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[Stretch, np.ndarray]]:
        """Yield each stretch with its segments; streamed, the next one is read meanwhile."""
        if self._held is not None:
            yield from ((self._held, chosen) for _, chosen in plan)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(Stretch, self, clips) for clips, _ in plan[:1]]
            for number, (_, chosen) in enumerate(plan):
                stretch = ahead.pop().result()
                if number + 1 < len(plan):
                    ahead.append(pool.submit(Stretch, self, plan[number + 1][0]))
                yield stretch, chosen

    def _gather(self, stretch: Stretch, chosen: np.ndarray, number: int) -> Batch:
        own, states = self.segments, stretch.states
        frames = int(own.length[chosen].max())
        x = torch.zeros(*states.shape[:-2], len(chosen), frames, states.shape[-1], dtype=self.dtype)     # padding is zero
        spans = []
        for row, segment in enumerate(chosen):
            length = int(own.length[segment])
            first = stretch.first[int(own.clip[segment])] + int(own.start[segment])
            x[..., row, :length, :] = states[..., first : first + length, :]
            spans.append((first, length, int(own.judged[segment])))
        return Batch(x=x.to(self.device).view(-1, *x.shape[-3:]), stretch=stretch, spans=spans, number=number)

    def count_targets(self, outputs: int) -> tuple[np.ndarray, int]:
        """Return (output,) positive or labelled frames, and the number of frames."""
        counts, frames = np.zeros(outputs, np.int64), 0
        for clip in self.clips.tolist():
            targets = self.reader.clips.targets(clip)
            frames += len(targets)
            counts += targets.sum(axis=0, dtype=np.int64) if targets.ndim == 2 else np.bincount(
                targets[targets >= 0], minlength=outputs
            )
        return counts, frames
