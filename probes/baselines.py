"""What a probe has to beat: knowing only how common labels are, guessing, the nearest clip, and hand-crafted descriptors.

    majority    always what is commonest among what was learned from; of tags, how common each is; of numbers, their mean
    random      guesses drawn as labels are distributed (the mean of ten)
    nearest     the label of the nearest clip by cosine, of the same layer, prepared as the probe's
    spectral    a linear probe on hand-crafted descriptors of the same clips, side by side, where the lake has them
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tonelake.evaluate import Figure, figures
from tonelake.probes.grid_parts import part_tensors, preparation_from
from tonelake.probes.inputs import Inputs, slots_of
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.probes.chosen import Chosen
    from tonelake.probes.experiment import Experiment

GUESSES = 10
MOST_PRODUCTS = 2e12                     # of the nearest neighbours: ten seconds; judged clips are sampled beyond it


@dataclass
class Baselines:
    """Figures by name, and what is to be said."""

    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def all_of(experiment: Experiment, best: Chosen, *, draws: int, seed: int = 0) -> Baselines:
    """Every baseline, judged on the same clips."""
    task, found = experiment.task, Baselines()
    judged = experiment.judged()
    targets, track = task.targets[judged], task.track[judged]
    rng = np.random.default_rng(seed)
    found.figures["majority"] = figures(task.kind, targets, [commonest(experiment)], track, draws=draws)
    guesses = [guessed(experiment, rng) for _ in range(GUESSES)]
    found.figures["random"] = figures(task.kind, targets, guesses, track, draws=draws)
    scores, asked = nearest(experiment, best, rng)
    found.figures["nearest"] = figures(task.kind, targets[asked], [scores], track[asked], draws=draws)
    if len(asked) < len(judged):
        found.notes.append(f"the nearest-neighbour baseline is judged on {len(asked):,} of the clips, drawn at random")
    try:
        spectral = spectral_scores(experiment)
    except InputError as error:
        spectral = None
        found.notes.append(f"no spectral baseline: {error}")
    if spectral is not None:
        found.figures["spectral"] = figures(task.kind, targets, spectral, track, draws=draws)
    return found


def as_scores(experiment: Experiment, rows: np.ndarray) -> np.ndarray:
    """(clip, out) the labels of these clips, as if they had been predicted with certainty."""
    targets = experiment.task.targets[rows]
    if experiment.task.kind != "multiclass":
        return targets.astype(np.float32)
    scores = np.zeros((len(rows), len(experiment.task.names)), np.float32)
    scores[np.arange(len(rows)), targets] = 1
    return scores


def commonest(experiment: Experiment) -> np.ndarray:
    """(judged clip, out) of each fold's labels, what is commonest."""
    parts = [
        np.repeat(as_scores(experiment, split.train).mean(axis=0, keepdims=True), len(split.test), axis=0)
        for split in experiment.splits
    ]
    return np.concatenate(parts)


def guessed(experiment: Experiment, rng: np.random.Generator) -> np.ndarray:
    """(judged clip, out) the labels of clips drawn from each fold's."""
    return np.concatenate([as_scores(experiment, rng.choice(split.train, len(split.test))) for split in experiment.splits])


def nearest(experiment: Experiment, best: Chosen, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(judged clip, out) the labels of the nearest clips, and which of the judged clips these are."""
    scores, asked, before = [], [], 0
    for fold, split in enumerate(experiment.splits):
        made = preparation_from(experiment.config, best.parts[fold], "")
        products = len(split.train) * len(split.test) * experiment.inputs.bytes_of(best.slot, 1) / 4
        count = min(len(split.test), max(int(len(split.test) * MOST_PRODUCTS / max(products, 1)), 1))
        mine = np.sort(rng.permutation(len(split.test))[:count])
        test = unit(made.apply(experiment.inputs.some(best.slot, split.test[mine])))
        nearest_cosine, nearest_row = np.full(count, -np.inf, np.float32), np.zeros(count, np.int64)
        for block in experiment.inputs.blocks(best.slot, split.train):
            cosines = test @ unit(made.apply(experiment.inputs.some(best.slot, block))).T
            first = cosines.argmax(axis=1)
            value = cosines[np.arange(count), first]
            nearest_row = np.where(value > nearest_cosine, block[first], nearest_row)
            nearest_cosine = np.maximum(value, nearest_cosine)
        scores.append(as_scores(experiment, nearest_row))
        asked.append(before + mine)
        before += len(split.test)
    return np.concatenate(scores), np.concatenate(asked)


def unit(vectors: np.ndarray) -> np.ndarray:
    """(clip, width) of length 1, the parts of weighed layers side by side."""
    flat = vectors.reshape(len(vectors), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def spectral_scores(experiment: Experiment) -> list[np.ndarray] | None:
    """For each seed, (judged clip, out) of a linear probe on the spectral space; None where this is the spectral space.

    Raises InputError where there is none, or where it lacks some of the clips.
    """
    from tonelake.probes.chosen import Chosen

    if experiment.space.encoder == "spectral":
        return None
    space = next((space for space in experiment.lake.spaces.all() if space.encoder == "spectral"), None)
    if space is None:
        raise InputError("`tonelake embed --encoder spectral` makes its space")
    config = experiment.config.with_(space=space.name, head="linear", layers=("all",), prepare="standardise")
    beside = replace(
        experiment, space=space, config=config, slots=slots_of(space, ("all",)),
        inputs=Inputs(experiment.lake, space, experiment.task.ids),
    )
    parts = []
    for fold in range(len(beside.splits)):
        fitted, (made,) = beside.fit(fold, beside.slots)
        parts.append(part_tensors(fitted, 0, made))
    return Chosen(beside, beside.slots[0], parts).scores_of_judged()
