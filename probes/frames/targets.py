"""Events of a clip to targets at the frames of an encoder.

Times are seconds from the clip's start; `frame_s` (frame,) are the centres of the frames, increasing, at irregular distances
where two windows of an encoder meet.

    instants    (an onset, an offset, a beat) belong to the frame with the nearest centre, the later of two equally near ones.
                Instants more than one period from every centre belong to no frame
    spans       (a note, a chord, a key) cover the frames with start <= centre < end

Centres are stored as float32, so times that differ by less than 10 µs count as equal.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import polars as pl

from tonelake.evaluate import merge_unisons, parse_key
from tonelake.probes.frames.tasks import KEYS, NO_CHORD, FrameTask
from tonelake.store import InputError

SAME_S = 1e-5                            # float32 at 60 s has a precision of 4 µs
UNLABELLED = -1


def frame_targets(
    task: FrameTask, events: pl.DataFrame, frame_s: np.ndarray, *, period_s: float, neighbours: float = 0.0
) -> np.ndarray:
    """Return the targets of one clip: multilabel (frame, output) uint8, multiclass (frame,) int64, -1 where unlabelled.

    `events`: rows of `Events.of_clips` for this clip (kind, start_s, end_s, value, pitch, begins, ends); other kinds than the
    task's are ignored.  `period_s`: distance of neighbouring frames.  `neighbours`: weight of the frames beside that of a beat
    or onset (tasks beats and onsets); other than 0, the targets are float16.

    Raises InputError if the centres do not increase.
    """
    centres = np.asarray(frame_s, np.float64)
    if len(centres) > 1 and not (np.diff(centres) > 0).all():
        raise InputError("frames: their centres do not increase. Embed the clip again")
    events = events.filter(pl.col("kind").is_in(list(task.event_kinds)))
    if task.kind == "multiclass":
        return class_targets(task, events, centres)
    if task.name == "notes":
        return note_targets(task, events, centres, period_s)
    found = np.zeros((len(centres), len(task.outputs)), np.uint8)
    for column, times in enumerate(instants_of(task, events)):
        frames = nearest_frames(times, centres, period_s)
        found[frames[frames >= 0], column] = 1
    return widened(found, neighbours) if neighbours else found


def nearest_frames(times_s: np.ndarray, frame_s: np.ndarray, period_s: float) -> np.ndarray:
    """Return (time,) int: the frame with the nearest centre, the later of two; -1 if it is more than a period away."""
    times, centres = np.asarray(times_s, np.float64), np.asarray(frame_s, np.float64)
    if not len(centres):
        return np.full(len(times), -1)
    frames = np.searchsorted((centres[1:] + centres[:-1]) / 2 - SAME_S, times, side="right")
    return np.where(np.abs(centres[frames] - times) <= period_s + SAME_S, frames, -1)


def covered_frames(start_s: np.ndarray, end_s: np.ndarray, frame_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (span,) first and (span,) last + 1 of the frames with start <= centre < end."""
    centres = np.asarray(frame_s, np.float64) + SAME_S
    first, last = np.searchsorted(centres, start_s, side="left"), np.searchsorted(centres, end_s, side="left")
    return first, np.maximum(first, last)


def note_targets(task: FrameTask, events: pl.DataFrame, centres: np.ndarray, period_s: float) -> np.ndarray:
    """Return (frame, onset, frame and offset of each pitch) uint8.

    Notes of one pitch that begin together are one note (see `merge_unisons`).  A note held over from before the clip has no
    onset, one that is cut at the clip's end no offset, and one of no length an onset alone.  Where a note is repeated without
    a break, the frame before the new onset is left empty, unless it is the only frame of the earlier note.  Notes outside the
    range of pitches are ignored.
    """
    found = np.zeros((len(centres), len(task.outputs)), np.uint8)
    notes = merge_unisons(events)
    numbers = notes["pitch"].to_numpy().round().astype(np.int64) - task.pitches.start
    inside = (numbers >= 0) & (numbers < len(task.pitches))
    notes, numbers = notes.filter(pl.Series(inside)), numbers[inside]
    start, end = notes["start_s"].to_numpy(), notes["end_s"].to_numpy()
    begins, ends = notes["begins"].to_numpy(), notes["ends"].to_numpy()
    onset = np.where(begins, nearest_frames(start, centres, period_s), -1)
    offset = np.where(ends & (end > start), nearest_frames(end, centres, period_s), -1)
    first, last = covered_frames(start, end, centres)
    held, offsets, onsets = (found[:, task.groups[name]] for name in ("frame", "offset", "onset"))
    change = np.zeros((len(centres) + 1, len(task.pitches)), np.int16)
    np.add.at(change, (first, numbers), 1)
    np.add.at(change, (last, numbers), -1)
    held[:] = np.cumsum(change, axis=0, dtype=np.int16, out=change)[:-1] > 0
    order = np.argsort(numbers, kind="stable")
    earlier, later = order[:-1], order[1:]
    gap = onset[later] - 1               # the frame before a new onset that directly follows a note of the pitch
    repeated = (numbers[earlier] == numbers[later]) & (last[earlier] >= first[later]) & (onset[later] >= 0)
    repeated &= (gap >= first[earlier]) & (gap < last[earlier]) & (last[earlier] - first[earlier] > 1)
    held[gap[repeated], numbers[later][repeated]] = 0
    onsets[onset[onset >= 0], numbers[onset >= 0]] = 1
    offsets[offset[offset >= 0], numbers[offset >= 0]] = 1
    return found


def instants_of(task: FrameTask, events: pl.DataFrame) -> list[np.ndarray]:
    """Return the times (time,) of each output of the tasks onsets and beats.

    Onsets are those that are given, else the beginnings of notes.  Downbeats are beats as well.
    """
    times = {kind: events.filter(pl.col("kind") == kind) for kind in task.event_kinds}
    if task.name == "beats":
        downbeats = times["downbeat"]["start_s"].to_numpy()
        return [np.concatenate([times["beat"]["start_s"].to_numpy(), downbeats]), downbeats]
    notes = times["note"].filter(pl.col("begins")) if "begins" in events.columns else times["note"]
    return [(times["onset"] if len(times["onset"]) else notes)["start_s"].to_numpy()]


def widened(hard: np.ndarray, weight: float) -> np.ndarray:
    """Return (frame, output) float16 targets with `weight` at the frames beside each positive one."""
    soft = hard.astype(np.float16)
    beside = np.float16(weight)
    soft[1:] = np.maximum(soft[1:], beside * hard[:-1])
    soft[:-1] = np.maximum(soft[:-1], beside * hard[1:])
    return soft


def class_targets(task: FrameTask, events: pl.DataFrame, centres: np.ndarray) -> np.ndarray:
    """Return (frame,) int64 classes of chords or keys.  Where two spans overlap, the one that starts later counts."""
    number = chord_class if task.name == "chords" else key_class
    found = np.full(len(centres), UNLABELLED)
    events = events.sort("start_s", maintain_order=True)
    first, last = covered_frames(events["start_s"].to_numpy(), events["end_s"].to_numpy(), centres)
    for value, a, b in zip(events["value"], first, last, strict=True):
        found[a:b] = number(value) if value is not None else UNLABELLED
    return found


@lru_cache(maxsize=4096)
def chord_class(label: str) -> int:
    """Return the number in CHORDS of a chord in Harte's syntax, reduced to a major or minor triad as mir_eval does.

    -1 for chords without such a triad (diminished, augmented, suspended, a single note), for X, and for other text.

    >>> [chord_class(label) for label in ("C", "Eb:maj7", "A:min/b3", "N", "B:dim", "X", "G:sus4", "??")]
    [0, 3, 21, 24, -1, -1, -1, -1]
    """
    from mir_eval.chord import InvalidChordException, encode

    try:
        root, intervals, _ = encode(label)
    except InvalidChordException:
        return UNLABELLED
    if root < 0:
        return NO_CHORD if label.strip() == "N" else UNLABELLED
    triad = np.flatnonzero(intervals[:8]).tolist()
    return int(root) if triad == [0, 4, 7] else int(root) + 12 if triad == [0, 3, 7] else UNLABELLED


def key_class(name: str) -> int:
    """Return the number in KEYS of a key ("Db major", "F#m"), -1 for other text."""
    parsed = parse_key(name)
    return KEYS.index(parsed) if parsed is not None else UNLABELLED
