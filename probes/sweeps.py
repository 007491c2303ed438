"""Test figures along a sweep: one row for each layer, and one for each weight decay, compared over the same units.

Each row is chosen on the validation clips alone: a layer at its best setting, a decay at its best layer and learning rate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tonelake.evaluate import (
    MAIN_METRIC,
    Estimate,
    Replicates,
    estimate_metric,
    max_t,
    replicate_metrics,
    stack_replicates,
)
from tonelake.probes.chosen import Chosen
from tonelake.probes.experiment import Experiment


class Judge:
    """The test clips of an experiment with the units of its intervals."""

    def __init__(self, experiment: Experiment) -> None:
        task = experiment.task
        self.kind, self.names, self.targets = task.kind, task.names, task.targets[experiment.judged_rows()]
        self.main, self.units = MAIN_METRIC[task.kind], experiment.units()

    def replicates(self, scores: list[np.ndarray]) -> dict[str, Replicates]:
        """Return every figure on all test clips and without each unit, the mean over seeds."""
        return replicate_metrics(self.kind, self.targets, scores, self.units, names=self.names)


def figure_columns(figures: dict[str, Estimate]) -> dict[str, float]:
    """Return columns NAME, NAME_low and NAME_high."""
    ends = (("", "value"), ("_low", "low"), ("_high", "high"))
    return {f"{name}{end}": getattr(figure, part) for name, figure in figures.items() for end, part in ends}


def sweep_row(chosen: Chosen, setting: int, figures: dict[str, Replicates]) -> dict[str, Any]:
    """Return the columns that rows of layers and of decays share: setting, validation score, figures with intervals."""
    config, shape = chosen.experiment.config, chosen.experiment.shape(chosen.spec)
    return {
        "rate": config.settings[setting].rate, "decay": config.settings[setting].decay, "parameters": shape.parameters(),
        "valid": float(chosen.scores[setting]), "train": chosen.running_accuracy(setting),
    } | figure_columns({name: estimate_metric(name, figure) for name, figure in figures.items()})


def mark_tied(rows: list[dict[str, Any]], figures: list[Replicates]) -> pl.DataFrame:
    """Return rows as a table with `tied`: not distinguishable from the row with the best test figure, by max-t."""
    found = max_t(stack_replicates(figures))
    tied = [number == found.best or bool(found.tied[number]) for number in range(len(rows))]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(tied=pl.Series(tied))


class DecaySweep:
    """The best layer and learning rate for each weight decay, by validation score."""

    def __init__(self) -> None:
        self.best: dict[float, tuple[float, Chosen, int]] = {}       # by decay: score, layer and number of the setting

    def add(self, chosen: Chosen) -> None:
        """Take a layer's fits into account."""
        for number, setting in enumerate(chosen.experiment.config.settings):
            known = self.best.get(setting.decay)
            score = float(chosen.scores[number])
            if np.isfinite(score) and (known is None or score > known[0]):
                self.best[setting.decay] = (score, chosen, number)

    def table(self, judge: Judge, chosen: Chosen) -> pl.DataFrame:
        """Return a row a decay: layer, rate, validation score, main test figure, and its paired difference from the chosen."""
        rows, figures = [], []
        for decay in sorted(self.best):
            _, own, setting = self.best[decay]
            figure = judge.replicates(own.test_scores(setting))[judge.main]
            picked = own.spec.name == chosen.spec.name and setting == chosen.setting
            place = {"decay": decay, "chosen": picked, "layer": own.spec.name}
            rows.append(place | sweep_row(own, setting, {judge.main: figure}))
            figures.append(figure)
        reference = figures[next(number for number, row in enumerate(rows) if row["chosen"])]
        for row, figure in zip(rows, figures, strict=True):
            away = (figure - reference).estimate()
            equal = away.low == away.high            # in every unit: then there is nothing to estimate
            row |= figure_columns({"away": Estimate(away.value, float("nan"), float("nan")) if equal else away})
        return mark_tied(rows, figures)
