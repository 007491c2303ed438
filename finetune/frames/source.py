"""Inputs of a fine-tuning on events: crops or mixes of clips with the targets of their frames, and whole clips to judge.

Clips are encoded in windows as `embed` does.  A frame's time is that of its centre, so targets and stored frames agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from tonelake.embed import MIN_TAIL_S, Encoder, place_windows
from tonelake.finetune.data import AudioSource
from tonelake.finetune.frames.setup import FrameSetup
from tonelake.finetune.stem_mixing import MixPart
from tonelake.probes import frame_targets, positive_weights, start_of_bias

NEIGHBOURS = {"beats": 0.5, "onsets": 0.5}       # weight in training of the frames beside a beat or onset, as in frame probes


class FrameClock:
    """Times of an encoder's frames in samples cut into windows."""

    def __init__(self, encoder: Encoder, window_s: float) -> None:
        self.rate, self.window = encoder.sample_rate, round(window_s * encoder.sample_rate)
        self.offset, self.step, self.frames_of = encoder.frame_offset, encoder.frame_samples, encoder.frames_of

    @property
    def period_s(self) -> float:
        return self.step / self.rate

    def windows(self, samples: int) -> list[tuple[int, int]]:
        """Return the begin and end of each window, in samples."""
        return [window[:2] for window in place_windows(samples, self.window, self.window, round(MIN_TAIL_S * self.rate))]

    def centres(self, samples: int) -> np.ndarray:
        """Return (frame,) the centre of each frame in seconds."""
        found = [
            begin + self.offset + self.step * np.arange(self.frames_of(end - begin)) for begin, end in self.windows(samples)
        ]
        return np.concatenate(found) / self.rate


class WholeClip(NamedTuple):
    """A clip to judge: its audio in pieces of whole windows, the times of its frames, its events, and its length."""

    pieces: list[np.ndarray]
    frame_s: np.ndarray
    events: pl.DataFrame
    duration_s: float


class EventSource:
    """Crops or mixes of clips with the targets of their frames; a source of `ClipDataset`."""

    def __init__(self, audio: AudioSource, setup: FrameSetup, clock: FrameClock) -> None:
        self.audio, self.setup, self.clock = audio, setup, clock
        self.silent, self.one_stem = setup.silent(), setup.reads_one_stem

    def with_seed(self, seed: int) -> EventSource:
        """Return a source of the same clips with other random crops and mixes."""
        return EventSource(self.audio.with_seed(seed), self.setup, self.clock)

    def use(self, setup: FrameSetup) -> None:
        """Take a setup without clips that cannot be read."""
        self.setup = setup

    def read(self, rows: np.ndarray, epoch: int | None) -> dict[str, Any]:
        """Return audio (samples,) and labels of each clip: (frame, output) float32, or (frame,) int64 of classes."""
        audio, labels = [], []
        for row in rows.tolist():
            parts = self.audio.parts(row, epoch)
            samples = self.audio.sound(row, parts)
            audio.append(torch.from_numpy(samples))
            labels.append(torch.from_numpy(self.targets(row, parts, len(samples))))
        return {"audio": audio, "labels": labels}

    def targets(self, row: int, parts: Sequence[MixPart], samples: int) -> np.ndarray:
        """Return the targets of what is heard: the union of the events of its parts, or those of the stem that is learned."""
        found = frame_targets(
            self.setup.frame_task, self.events(row, parts, samples), self.clock.centres(samples),
            period_s=self.clock.period_s, neighbours=NEIGHBOURS.get(self.setup.frame_task.name, 0.0),
        )
        return found if self.setup.frame_task.kind == "multiclass" else found.astype(np.float32)

    def events(self, row: int, parts: Sequence[MixPart], samples: int) -> pl.DataFrame:
        """Return the events that are to be found in what is heard, with times from its beginning."""
        own = self.audio.ids[row]
        if self.one_stem:
            parts = [part for part in parts if part.clip == own]
        elif len(parts) > 1:
            parts = [part for part in parts if part.clip not in self.silent]
        found = [self.setup.events.heard(p.clip, p.begin / self.clock.rate, samples / self.clock.rate) for p in parts]
        if len(found) > 1 and self.setup.frame_task.name == "onsets":
            found = [onsets_of(events) for events in found]
        return pl.concat(found) if found else self.setup.events.rows.clear()

    def whole(self, rows: np.ndarray) -> Iterator[WholeClip]:
        """Yield whole clips, unmixed, in pieces of at most a crop."""
        config, audio = self.setup.config, self.audio.audio
        at_once = max(1, int(config.crop_s // config.window_s))
        for row in rows.tolist():
            clip = self.audio.ids[row]
            samples = audio.read(clip)
            windows = self.clock.windows(len(samples))
            pieces = [
                samples[windows[first][0] : windows[min(first + at_once, len(windows)) - 1][1]]
                for first in range(0, len(windows), at_once)
            ]
            seconds = len(samples) / self.clock.rate
            yield WholeClip(
                pieces, self.clock.centres(len(samples)).astype(np.float32), self.setup.events.of(clip), seconds
            )

    def balance(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return weights (output,) of positives or classes in the loss, and the logits (output,) of their frequencies.

        Counted on the centre crops of the training clips.  The logits, None for classes, are the head's initial bias.
        """
        task = self.setup.frame_task
        counts, frames = np.zeros(len(task.outputs)), 0
        for row in self.setup.split.train.tolist():
            (part,) = self.audio.parts(row, None)
            crop = round(self.setup.config.crop_s * self.clock.rate)
            found = self.targets(row, [part], min(self.audio.audio.length(part.clip), crop))
            if task.kind == "multiclass":
                counts += np.bincount(found[found >= 0], minlength=len(counts))
            else:
                counts += (found == 1).sum(axis=0)
            frames += len(found)
        balanced = self.setup.config.class_weights == "balanced"
        weights = positive_weights(task.kind, counts, frames, task.groups, balanced=balanced)
        return weights, start_of_bias(task.kind, counts, frames, task.groups, weights)


def onsets_of(events: pl.DataFrame) -> pl.DataFrame:
    """Return the onsets that are given, else the beginnings of notes, so that those of several stems can be joined."""
    given = events.filter(pl.col("kind") == "onset")
    if len(given):
        return given
    notes = events.filter((pl.col("kind") == "note") & pl.col("begins"))
    return notes.with_columns(kind=pl.lit("onset"), end_s=pl.col("start_s"))
