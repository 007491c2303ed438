"""Chords and keys over time by the Viterbi algorithm, over fixed or learned transitions between classes.

A class stays for `stay_s` seconds on average.  When it changes, the new class is any other with equal probability, or with
learned probabilities that depend on the modes and on the interval between the roots, so that changes in one key teach about
changes in all: 11 intervals to the same mode, 12 to the other mode, and (chords) to and from "N".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from tonelake.probes.frames.decode_settings import DecodeSettings
from tonelake.probes.frames.note_decoding import EVENT_SCHEMA
from tonelake.probes.frames.peaks import boundaries, median_period
from tonelake.probes.frames.targets import chord_class, key_class
from tonelake.probes.frames.tasks import FrameTask

SMOOTHING = 0.5                          # added to the count of each change
LEAST = 1e-10                            # probability of a class at a frame, at least


def viterbi(probabilities: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Return the (frame,) most probable sequence of classes.

    `probabilities`: (frame, class) of a classifier, taken as likelihoods: all classes are equally probable beforehand.
    `transitions`: (…, class, class) from row to column, several matrices give several sequences (…, frame).  The first frame's
    class is free.  librosa.sequence.viterbi gives the same, but compiles for ten seconds in each process that uses it first.
    """
    emissions = np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST))
    with np.errstate(divide="ignore"):
        steps = np.log(np.swapaxes(np.asarray(transitions, np.float64), -1, -2))      # (…, to, from)
    shape = steps.shape[:-2]
    if not len(emissions):
        return np.zeros((*shape, 0), np.int64)
    score = np.broadcast_to(emissions[0], (*shape, emissions.shape[1]))
    back = np.zeros((len(emissions), *shape, emissions.shape[1]), np.int64)
    for frame in range(1, len(emissions)):
        reached = steps + score[..., None, :]
        back[frame] = reached.argmax(axis=-1)
        score = np.take_along_axis(reached, back[frame][..., None], axis=-1)[..., 0] + emissions[frame]
    path = np.zeros((*shape, len(emissions)), np.int64)
    path[..., -1] = score.argmax(axis=-1)
    for frame in range(len(emissions) - 1, 0, -1):
        path[..., frame - 1] = np.take_along_axis(back[frame], path[..., frame, None], axis=-1)[..., 0]
    return path


def transition_matrix(classes: int, stay_s: float, period_s: float, changes: Sequence[float] = ()) -> np.ndarray:
    """Return (class, class) probabilities of the next frame's class; rows add up to 1.

    `changes`: learned probabilities as returned by `learn_changes`, or none for equal ones.
    """
    stay = float(np.clip(1 - period_s / stay_s, 0.0, 1 - 1e-12))
    away = change_matrix(classes, changes)
    matrix = (1 - stay) * away
    np.fill_diagonal(matrix, stay)
    return matrix


def change_matrix(classes: int, changes: Sequence[float] = ()) -> np.ndarray:
    """Return (class, class) probabilities of the class after a change, zero on the diagonal."""
    if len(changes):
        matrix = np.asarray(changes, np.float64)[change_numbers(classes)]
    else:
        matrix = np.ones((classes, classes))
    np.fill_diagonal(matrix, 0.0)
    return matrix / matrix.sum(axis=1, keepdims=True)


def change_numbers(classes: int) -> np.ndarray:
    """Return (class, class) int: the kind of each change, by modes and interval.

    Classes 0 to 11 are major, 12 to 23 minor, 24 is "N".  0 to 47: 12 intervals of major to major, major to minor, minor to
    major, minor to minor; 48 and 49 from major and minor to "N", 50 and 51 back.
    """
    number = np.arange(classes)
    mode, root = number // 12, number % 12
    kinds = (mode[:, None] * 2 + mode[None, :]) * 12 + (root[None, :] - root[:, None]) % 12
    if classes > 24:
        kinds[:, 24], kinds[24, :] = 48 + mode, 50 + mode
        kinds[24, 24] = 0
    return kinds


def learn_changes(task: FrameTask, clips: Iterable[pl.DataFrame]) -> tuple[float, ...]:
    """Return the learned relative frequency of each kind of change in the events of training clips; none without changes."""
    classes = len(task.outputs)
    kinds, class_of = change_numbers(classes), chord_class if task.name == "chords" else key_class
    counts = np.zeros(int(kinds.max()) + 1)
    for events in clips:
        own = events.filter(pl.col("kind").is_in(list(task.event_kinds)) & pl.col("value").is_not_null()).sort("start_s")
        found = np.array([class_of(value) for value in own["value"]], np.int64)
        for a, b in pairwise(found):
            if a >= 0 and b >= 0 and a != b:
                counts[kinds[a, b]] += 1
    if not counts.any():
        return ()
    cells = np.bincount(kinds[~np.eye(classes, dtype=bool)], minlength=len(counts))     # of the matrix, for each kind
    frequency = (counts + SMOOTHING) / np.maximum(cells, 1)
    return tuple(np.round(frequency / frequency.sum(), 8).tolist())


def decode_classes(task: FrameTask, probabilities: np.ndarray, frame_s: np.ndarray, settings: DecodeSettings) -> pl.DataFrame:
    """Return the chords or keys of (frame, class) probabilities as spans without gaps."""
    if not len(frame_s):
        return pl.DataFrame(schema=EVENT_SCHEMA)
    matrix = transition_matrix(len(task.outputs), settings.stay_s, median_period(frame_s), settings.changes)
    return class_events(task, viterbi(probabilities, matrix), frame_s)


def class_events(task: FrameTask, path: np.ndarray, frame_s: np.ndarray) -> pl.DataFrame:
    """Return the spans of equal classes of a (frame,) path."""
    starts = np.flatnonzero(np.diff(path, prepend=-1) != 0)
    ends = np.append(starts[1:], len(path))
    edges = boundaries(frame_s)
    none, values = [None] * len(starts), [task.outputs[number] for number in path[starts]]
    return pl.DataFrame({
        "kind": [task.event_kinds[0]] * len(starts), "start_s": edges[starts], "end_s": edges[ends], "value": values,
        "pitch": none, "velocity": none,
    }, schema=EVENT_SCHEMA)
