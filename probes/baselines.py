"""Baselines of a probe: class frequencies, random guesses, the nearest clip, and hand-crafted descriptors.

    majority    the most common class of the training set; for tags, their frequencies; for numbers, their mean
    random      guesses drawn from the label distribution (mean of ten)
    nearest     the label of the nearest training clip by cosine, on the same layer, prepared as for the probe
    spectral    a linear probe on hand-crafted descriptors of the same clips, if the lake has them
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tonelake.evaluate import Estimate, estimate_metrics, one_hot
from tonelake.probes.grid_parts import part_tensors, preparation_from
from tonelake.probes.inputs import Inputs, input_specs
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.probes.chosen import Chosen
    from tonelake.probes.experiment import Experiment

GUESSES = 10
MAX_PRODUCTS = 2e12                      # of the nearest-neighbour search: ten seconds; beyond it, test clips are sampled


@dataclass
class Baselines:
    """Estimates by baseline and metric, and notes for the report."""

    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def compute_baselines(experiment: Experiment, best: Chosen, *, draws: int, seed: int = 0) -> Baselines:
    """Evaluate every baseline on the test clips of the probe."""
    task, baselines = experiment.task, Baselines()
    test = experiment.test_rows()
    targets, track = task.targets[test], task.track[test]
    rng = np.random.default_rng(seed)
    majority = majority_scores(experiment)
    baselines.estimates["majority"] = estimate_metrics(task.kind, targets, [majority], track, draws=draws)
    guesses = [random_scores(experiment, rng) for _ in range(GUESSES)]
    baselines.estimates["random"] = estimate_metrics(task.kind, targets, guesses, track, draws=draws)
    scores, sampled = nearest_scores(experiment, best, rng)
    baselines.estimates["nearest"] = estimate_metrics(task.kind, targets[sampled], [scores], track[sampled], draws=draws)
    if len(sampled) < len(test):
        baselines.notes.append(f"the nearest-neighbour baseline is computed on {len(sampled):,} random test clips")
    try:
        spectral = spectral_scores(experiment)
    except InputError as error:
        spectral = None
        baselines.notes.append(f"no spectral baseline: {error}")
    if spectral is not None:
        baselines.estimates["spectral"] = estimate_metrics(task.kind, targets, spectral, track, draws=draws)
    return baselines


def label_scores(experiment: Experiment, rows: np.ndarray) -> np.ndarray:
    """Return (clip, out): the labels of these clips as if predicted with certainty."""
    targets = experiment.task.targets[rows]
    if experiment.task.kind != "multiclass":
        return targets.astype(np.float32)
    return one_hot(targets, len(experiment.task.names)).toarray().astype(np.float32)


def majority_scores(experiment: Experiment) -> np.ndarray:
    """Return (test clip, out): the mean of the training labels of each fold."""
    parts = [
        np.repeat(label_scores(experiment, split.train).mean(axis=0, keepdims=True), len(split.test), axis=0)
        for split in experiment.splits
    ]
    return np.concatenate(parts)


def random_scores(experiment: Experiment, rng: np.random.Generator) -> np.ndarray:
    """Return (test clip, out): labels of random training clips of each fold."""
    return np.concatenate([label_scores(experiment, rng.choice(split.train, len(split.test))) for split in experiment.splits])


def nearest_scores(experiment: Experiment, best: Chosen, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (test clip, out) labels of the nearest training clips, and which of the test clips these rows are."""
    scores, sampled, before = [], [], 0
    for fold, split in enumerate(experiment.splits):
        preparation = preparation_from(experiment.config, best.parts[fold], "")
        products = len(split.train) * len(split.test) * experiment.inputs.byte_size(best.spec, 1) / 4
        count = min(len(split.test), max(int(len(split.test) * MAX_PRODUCTS / max(products, 1)), 1))
        mine = np.sort(rng.permutation(len(split.test))[:count])
        test = to_unit_length(preparation.apply(experiment.inputs.read_rows(best.spec, split.test[mine])))
        nearest_cosine, nearest_row = np.full(count, -np.inf, np.float32), np.zeros(count, np.int64)
        for block in experiment.inputs.blocks(best.spec, split.train):
            cosines = test @ to_unit_length(preparation.apply(experiment.inputs.read_rows(best.spec, block))).T
            first = cosines.argmax(axis=1)
            value = cosines[np.arange(count), first]
            nearest_row = np.where(value > nearest_cosine, block[first], nearest_row)
            nearest_cosine = np.maximum(value, nearest_cosine)
        scores.append(label_scores(experiment, nearest_row))
        sampled.append(before + mine)
        before += len(split.test)
    return np.concatenate(scores), np.concatenate(sampled)


def to_unit_length(vectors: np.ndarray) -> np.ndarray:
    """Return (clip, width) of length 1, with weighted layers concatenated."""
    flat = vectors.reshape(len(vectors), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def spectral_scores(experiment: Experiment) -> list[np.ndarray] | None:
    """Return, for each seed, (test clip, out) of a linear probe on the spectral space; None if this is the space of the probe.

    Raises InputError if the lake has no such space, or if it lacks some of the clips.
    """
    from tonelake.probes.chosen import Chosen

    if experiment.space.encoder == "spectral":
        return None
    space = next((space for space in experiment.lake.spaces.all() if space.encoder == "spectral"), None)
    if space is None:
        raise InputError("the lake has no spectral space. Run `tonelake embed --encoder spectral`")
    config = experiment.config.with_(space=space.name, head="linear", layers=("all",), prepare="standardise")
    spectral = replace(
        experiment, space=space, config=config, specs=input_specs(space, ("all",)),
        inputs=Inputs(experiment.lake, space, experiment.task.ids),
    )
    parts = []
    for fold in range(len(spectral.splits)):
        results, (preparation,) = spectral.fit(fold, spectral.specs)
        parts.append(part_tensors(results, 0, preparation))
    return Chosen(spectral, spectral.specs[0], parts).test_scores()
