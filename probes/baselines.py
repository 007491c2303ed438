"""Baselines of a probe: guesses, class frequencies, the nearest clip, and hand-crafted descriptors.

    chance      expected figures of guesses: each class with equal probability, each tag with its frequency in the training set,
                clips in random order.  Computed exactly (`evaluate.chance`), so without an interval; none for numbers
    majority    the most common class of the training set; for tags, their frequencies; for numbers, their mean
    nearest     the label of the nearest training clip by cosine, on the same layer, prepared as for the probe
    spectral    a linear probe on hand-crafted descriptors of the same clips, if the lake has them
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tonelake.embed import BASELINE_ENCODER
from tonelake.evaluate import Estimate, chance_metrics, estimate_metrics, key_scores, one_hot
from tonelake.probes.grid_parts import part_tensors, preparation_from
from tonelake.probes.inputs import Inputs, input_specs
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.probes.chosen import Chosen
    from tonelake.probes.experiment import Experiment

MAX_PRODUCTS = 2e12                      # of the nearest-neighbour search: ten seconds; beyond it, test clips are sampled


@dataclass
class Baselines:
    """Estimates by baseline and metric, and notes for the report."""

    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def compute_baselines(experiment: Experiment, best: Chosen, *, seed: int = 0) -> Baselines:
    """Evaluate every baseline on the test clips of the probe."""
    task, baselines, units = experiment.task, Baselines(), experiment.units()
    judged = experiment.judged_rows()
    rng = np.random.default_rng(seed)

    def add(name: str, scores: list[np.ndarray], which: np.ndarray | None = None) -> None:
        which = np.arange(len(judged)) if which is None else which
        baselines.estimates[name] = estimate_metrics(
            task.kind, task.targets[judged[which]], scores, units.take(which), names=task.names
        )

    chance = chance_estimates(experiment, task.targets[judged])
    if chance:
        baselines.estimates["chance"] = chance
    add("majority", [majority_scores(experiment)])
    scores, sampled = nearest_scores(experiment, best, rng)
    add("nearest", [scores], sampled)
    if len(sampled) < len(judged):
        baselines.notes.append(f"the nearest-neighbour baseline is computed on {len(sampled):,} random test clips")
    try:
        spectral = spectral_scores(experiment)
    except InputError as error:
        spectral = None
        baselines.notes.append(f"no spectral baseline: {error}")
    if spectral is not None:
        add("spectral", spectral)
    return baselines


def chance_estimates(experiment: Experiment, targets: np.ndarray) -> dict[str, Estimate]:
    """Return the expected figures of guessing; without an interval, since they are exact."""
    task, frequencies = experiment.task, None
    if task.kind == "multilabel" and len(experiment.splits) == 1:
        frequencies = task.targets[experiment.splits[0].train].mean(axis=0)
    credit = key_scores(task.names) if task.kind == "multiclass" else None
    found = chance_metrics(task.kind, targets, len(task.names), frequencies=frequencies, credit=credit)
    return {name: Estimate(value, float("nan"), float("nan")) for name, value in found.items()}


def label_scores(experiment: Experiment, rows: np.ndarray) -> np.ndarray:
    """Return (clip, out): the labels of these clips as if predicted with certainty."""
    targets = experiment.task.targets[rows]
    if experiment.task.kind != "multiclass":
        return targets.astype(np.float32)
    return one_hot(targets, len(experiment.task.names)).toarray().astype(np.float32)


def majority_scores(experiment: Experiment) -> np.ndarray:
    """Return (judged clip, out): the mean of the training labels of each fold."""
    parts = []
    for fold, split in enumerate(experiment.splits):
        shares = label_scores(experiment, split.train).mean(axis=0, keepdims=True)
        parts.append(experiment.mean_of_tracks(np.repeat(shares, len(split.test), axis=0), fold))
    return np.concatenate(parts)


def nearest_scores(experiment: Experiment, best: Chosen, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (judged clip, out) labels of the nearest training clips, and which of the judged clips these rows are."""
    scores, sampled, before = [], [], 0
    for fold, split in enumerate(experiment.splits):
        preparation = preparation_from(experiment.config, best.parts[fold], "")
        products = len(split.train) * len(split.test) * experiment.inputs.byte_size(best.spec, 1) / 4
        count = min(len(split.test), max(int(len(split.test) * MAX_PRODUCTS / max(products, 1)), 1))
        count = count if experiment.judged(fold) is None else len(split.test)        # the clips of a track are averaged
        mine = np.sort(rng.permutation(len(split.test))[:count])
        test = to_unit_length(preparation.apply(experiment.inputs.read_rows(best.spec, split.test[mine])))
        nearest_cosine, nearest_row = np.full(count, -np.inf, np.float32), np.zeros(count, np.int64)
        for block in experiment.inputs.blocks(best.spec, split.train):
            cosines = test @ to_unit_length(preparation.apply(experiment.inputs.read_rows(best.spec, block))).T
            first = cosines.argmax(axis=1)
            value = cosines[np.arange(count), first]
            nearest_row = np.where(value > nearest_cosine, block[first], nearest_row)
            nearest_cosine = np.maximum(value, nearest_cosine)
        found = label_scores(experiment, nearest_row)
        averaged = found if experiment.judged(fold) is None else experiment.mean_of_tracks(found, fold)
        mine = mine if averaged is found else np.arange(len(averaged))
        scores.append(averaged)
        sampled.append(before + mine)
        before += len(split.test) if averaged is found else len(averaged)
    return np.concatenate(scores), np.concatenate(sampled)


def to_unit_length(vectors: np.ndarray) -> np.ndarray:
    """Return (clip, width) of length 1, with weighted layers concatenated."""
    flat = vectors.reshape(len(vectors), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def spectral_scores(experiment: Experiment) -> list[np.ndarray] | None:
    """Return, for each seed, (judged clip, out) of a linear probe on the spectral space; None if that is the probe's space.

    Raises InputError if the lake has no such space, or if it lacks some of the clips.
    """
    from tonelake.probes.chosen import Chosen

    if experiment.space.encoder == BASELINE_ENCODER:
        return None
    space = next((space for space in experiment.lake.spaces.all() if space.encoder == BASELINE_ENCODER), None)
    if space is None:
        raise InputError(f"the lake has no {BASELINE_ENCODER} space. Run `tonelake embed --encoder {BASELINE_ENCODER}`")
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
