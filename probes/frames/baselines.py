"""Baselines of a frame probe, scored on its test clips: a guess that does not listen, and spectral peaks without training.

    grid              beats and onsets at the constant tempo of the training set (`trivial_baselines`)
    most frequent     the chord or key that lasts longest in the training set
    peaks of SPACE    notes by harmonic salience in stored frames of vqt, cqt or logmel, if the lake has them of the same clips;
                      its thresholds are chosen on the validation clips (`peaks_baseline`)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.evaluate import Estimate
from tonelake.probes.frames.decoding import choose_decoding, decode
from tonelake.probes.frames.note_thresholds import MOST_CLIPS
from tonelake.probes.frames.peaks_baseline import SPECTRA, spectral_peaks, spectrum_frequencies
from tonelake.probes.frames.trivial_baselines import fit_trivial

if TYPE_CHECKING:
    from tonelake.probes.frames.experiment import FrameExperiment
    from tonelake.store import Space

MOST_TRAINING = 2_000                    # clips, evenly spread, whose events are counted
Judge = Callable[[Sequence[pl.DataFrame]], dict[str, Estimate]]


def frame_baselines(experiment: FrameExperiment, judge: Judge) -> tuple[dict[str, dict[str, Estimate]], list[str]]:
    """Return the estimates of each baseline, and notes for the report.

    `judge`: scores events of the test clips, in their order.
    """
    task, split, lengths = experiment.task, experiment.split.split, experiment.targets.clips["duration_s"]
    if task.name != "notes":
        training = (experiment.clips.events_of(row) for row in spread(split.train, MOST_TRAINING))
        guess = fit_trivial(task, training)
        name = "most frequent" if task.kind == "multiclass" else "grid"
        return {name: judge([guess.events(float(lengths[int(row)])) for row in split.test])}, []
    valid = spread(split.valid, MOST_CLIPS)
    space = spectral_space(experiment, [*valid, *split.test.tolist()])
    if space is None:
        return {}, [
            "the baseline of spectral peaks is missing: no spectrum has stored frames of all these clips. Run `tonelake embed "
            "--encoder vqt --frames vqt`"
        ]
    known = [
        (p, frame_s, experiment.clips.events_of(row), float(lengths[row]))
        for row, p, frame_s in peaks_of(experiment, space, valid)
    ]
    settings = choose_decoding(task, known)
    del known
    found = {
        row: decode(task, p, frame_s, settings) for row, p, frame_s in peaks_of(experiment, space, split.test.tolist())
    }
    return {f"peaks of {space.name}": judge([found[int(row)] for row in split.test])}, []


def spread(rows: np.ndarray, most: int) -> list[int]:
    """Return at most `most` of some rows, evenly spread."""
    if len(rows) <= most:
        return rows.tolist()
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)].tolist()


def spectral_space(experiment: FrameExperiment, rows: list[int]) -> Space | None:
    """Return a space of a spectral encoder that has frames of all these clips, the probe's own if it is one; else None."""
    lake, ids = experiment.lake, experiment.targets.ids.gather(rows)
    spaces = [space for space in lake.spaces.all() if space.encoder in SPECTRA]
    order = {name: number for number, name in enumerate(SPECTRA)}
    spaces.sort(key=lambda space: (space.name != experiment.space.name, order[space.encoder], space.name))
    for space in spaces:
        if ids.is_in(lake.frames(space).complete([0]).implode()).all():
            return space
    return None


def peaks_of(experiment: FrameExperiment, space: Space, rows: list[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (row, probabilities, frame_s) of clips, in the order in which they are stored."""
    hz, ids = spectrum_frequencies(space.encoder), experiment.targets.ids.gather(rows).to_list()
    numbers = dict(zip(ids, rows, strict=True))
    for frames in experiment.lake.frames(space).each(ids, 0):
        yield numbers[frames.clip_id], spectral_peaks(experiment.task, frames.states, frames.frame_s, hz), frames.frame_s
