"""Baselines that do not listen: what is most usual in the training clips.

    beats, onsets    a constant grid with the median interval of the training set, from the clip's start; downbeats of beats at
                     the median interval of downbeats
    chords, key      the class that lasts longest in total, all the time
    notes            none
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.evaluate import beat_times, onset_times
from tonelake.probes.frames.beat_decoding import beat_events, instants
from tonelake.probes.frames.note_decoding import EVENT_SCHEMA
from tonelake.probes.frames.targets import UNLABELLED, chord_class, key_class
from tonelake.probes.frames.tasks import FrameTask


@dataclass(frozen=True, kw_only=True)
class TrivialBaseline:
    """A guess that is the same for every clip."""

    task: FrameTask
    interval_s: float = 0.0              # of beats or onsets; 0: none
    downbeat_s: float = 0.0
    value: str | None = None             # chord or key

    def events(self, duration_s: float) -> pl.DataFrame:
        """Return the events of a clip of this length."""
        if self.task.kind == "multiclass":
            rows = [(self.task.event_kinds[0], 0.0, duration_s, self.value, None, None)] if self.value is not None else []
            return pl.DataFrame(rows, EVENT_SCHEMA, orient="row")
        times = grid(self.interval_s, duration_s)
        if self.task.name == "beats":
            return beat_events(times, [None] * len(times), grid(self.downbeat_s, duration_s))
        return instants("onset", times, [None] * len(times))


def grid(interval_s: float, duration_s: float) -> np.ndarray:
    return np.arange(0.0, duration_s, interval_s) if interval_s > 0 else np.empty(0)


def fit_trivial(task: FrameTask, training: Iterable[pl.DataFrame]) -> TrivialBaseline:
    """Return the baseline of a task, from the events of training clips."""
    if task.kind == "multiclass":
        return TrivialBaseline(task=task, value=longest_class(task, training))
    intervals: list[np.ndarray] = []
    downbeats: list[np.ndarray] = []
    for events in training if task.name != "notes" else ():
        intervals.append(np.diff(beat_times(events) if task.name == "beats" else onset_times(events)))
        downbeats.append(np.diff(beat_times(events.filter(pl.col("kind") == "downbeat"))))
    return TrivialBaseline(task=task, interval_s=median_of(intervals), downbeat_s=median_of(downbeats))


def median_of(parts: list[np.ndarray]) -> float:
    """Return the median of all values; 0 without any."""
    together = np.concatenate(parts) if parts else np.empty(0)
    return float(np.median(together)) if len(together) else 0.0


def longest_class(task: FrameTask, training: Iterable[pl.DataFrame]) -> str | None:
    """Return the class with the longest total duration; None if no event has a class."""
    seconds = np.zeros(len(task.outputs))
    class_of = chord_class if task.name == "chords" else key_class
    wanted = pl.col("kind").is_in(list(task.event_kinds)) & pl.col("value").is_not_null()
    for events in training:
        for row in events.filter(wanted).iter_rows(named=True):
            number = class_of(row["value"])
            if number != UNLABELLED:
                seconds[number] += row["end_s"] - row["start_s"]
    return task.outputs[int(seconds.argmax())] if seconds.any() else None
