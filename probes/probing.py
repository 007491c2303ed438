"""Train a grid of probes on stored vectors, from settings to a finished run.  Importing this loads no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tonelake.evaluate import Split, counted
from tonelake.probes.config import ProbeConfig
from tonelake.probes.run_training import train_run
from tonelake.probes.runs import Run, write_tensors
from tonelake.store import (
    Blobs,
    Lake,
)

if TYPE_CHECKING:
    from tonelake.probes.experiment import Experiment

log = logging.getLogger(__name__)


def probe(
    lake: Lake, config: ProbeConfig, *, name: str | None = None, again: bool = False,
    splits: Sequence[Split] | None = None,
) -> Run:
    """Run an experiment, resume one that was interrupted, or return the finished run of the same settings and data.

    `name`: of the run's folder; by default made of the columns, the space and a digest of settings and data.  `again`: train a
    finished run again, also if its data has changed.  `splits`: rows of the task, if they come from elsewhere.
    Raises InputError if the settings cannot be met, if `name` belongs to another experiment or to other data (with what has
    changed), or if another process is training this run.
    """
    from tonelake.probes.experiment import make_experiment

    log.info("reading labels")
    experiment = make_experiment(lake, config, splits)
    return train_run(
        Run, lake, experiment, name, label="-".join(experiment.config.columns), again=again, train=train_and_evaluate
    )


def train_and_evaluate(experiment: Experiment, name: str, files: Blobs, partial: Blobs) -> None:
    """Train the fits missing from `partial`, and write the results."""
    from tonelake.probes.grid_parts import part_name, part_tensors
    from tonelake.probes.results import write_results

    started = datetime.now(UTC)
    resumed = 0
    parts = experiment.parts()
    for fold, specs in experiment.lake.progress(parts, len(parts), f"training {counted(experiment.fits, 'fit')}"):
        known = set(partial.names(".safetensors"))
        missing = [spec for spec in specs if part_name(experiment, fold, spec) not in known]
        resumed += len(specs) - len(missing)
        if missing:
            results, preparations = experiment.fit(fold, missing)
            for number, (spec, preparation) in enumerate(zip(missing, preparations, strict=True)):
                write_tensors(partial, part_name(experiment, fold, spec), part_tensors(results, number, preparation))
    log.info("evaluating")
    write_results(experiment, name, files, partial, started, resumed)
    for part in partial.names(".safetensors"):
        partial.remove(part)
