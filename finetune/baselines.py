"""Exact figures without a model, beside a fine-tuning's: nothing is drawn at random.

    chance      the expected figures of guessing (`evaluate.chance_metrics`)
    majority    the most common class of the training set; for tags, their frequencies there; for numbers, their mean there
"""

from __future__ import annotations

import numpy as np

from tonelake.evaluate import METRICS_BY_KIND, Estimate, chance_metrics
from tonelake.finetune.evaluation import HeldOut

CHANCE, MAJORITY = "chance", "majority"


def exact_baselines(test: HeldOut, training: np.ndarray) -> dict[str, dict[str, Estimate]]:
    """Return figures by baseline and metric, on the test clips; `training`: targets of the training clips.

    Figures have no interval.  A figure that a baseline leaves undefined is missing.
    """
    nan = float("nan")
    shares = label_shares(test, training)
    scores = np.broadcast_to(shares, (len(test.targets), len(shares)))
    values = METRICS_BY_KIND[test.kind](test.targets, scores, np.ones((1, len(scores))))
    names = [name for name in values if not name.startswith("confidence")]
    majority = {name: float(values[name][0]) for name in names}
    chance = chance_metrics(test.kind, test.targets, len(test.names), frequencies=shares)
    if test.kind == "multilabel":
        has_primary = test.primary >= 0
        chance["primary_accuracy"] = 1 / len(test.names)
        if has_primary.any():
            majority["primary_accuracy"] = float((test.primary[has_primary] == shares.argmax()).mean())
    found = {CHANCE: chance, MAJORITY: majority}
    return {
        key: {name: Estimate(value, nan, nan) for name, value in figures.items() if np.isfinite(value)}
        for key, figures in found.items()
    }


def label_shares(test: HeldOut, training: np.ndarray) -> np.ndarray:
    """Return (output,) the share of training clips with each class or tag, or the mean of each regression target."""
    if test.kind == "multiclass":
        return np.bincount(training, minlength=len(test.names)) / max(len(training), 1)
    return training.mean(axis=0)
