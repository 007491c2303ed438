"""Train a grid of probes on stored vectors, from settings to a finished run.  Importing this loads no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tonelake.evaluate import Split
from tonelake.probes.config import ProbeConfig
from tonelake.probes.runs import Run, write_tensors
from tonelake.store import CONFIG_FILE, METRICS_FILE, Blobs, Lake, check_same_run, lock_run, settings_to_yaml

if TYPE_CHECKING:
    from tonelake.probes.experiment import Experiment

log = logging.getLogger(__name__)


def probe(
    lake: Lake, config: ProbeConfig, *, name: str | None = None, again: bool = False,
    splits: Sequence[Split] | None = None,
) -> Run:
    """Run an experiment, resume one that was interrupted, or return the finished run of the same settings and data.

    `name`: of the run's folder; by default made of the columns, the space and a digest.  `again`: train a finished run again.
    `splits`: rows of the task, if they come from elsewhere.
    Raises InputError if the settings cannot be met, if `name` belongs to another experiment, or if another process is
    training this run.
    """
    from tonelake.probes.experiment import make_experiment

    log.info("reading labels")
    experiment = make_experiment(lake, config, splits)
    digest = experiment.digest
    if name is None:
        name = f"{'-'.join(experiment.config.columns)}-{experiment.space.name}-{digest[:8]}"[-120:]
    files = Run.folder(lake, name)
    check_same_run(files, name, digest, "experiment")
    done = Run.find(lake, name)
    if done is not None and not again:
        return done
    with lock_run(files, name):
        done = Run.find(lake, name)             # another process may have finished it meanwhile
        if done is not None and not again:
            return done
        if again:
            delete_results(files, lake, name)
        files.put_text(CONFIG_FILE, settings_to_yaml(experiment.config, digest))
        train_and_evaluate(experiment, name, files, lake.files(f"probes/{name}/partial"))
    found = Run.find(lake, name)
    assert found is not None
    return found


def train_and_evaluate(experiment: Experiment, name: str, files: Blobs, partial: Blobs) -> None:
    """Train the fits missing from `partial`, and write the results."""
    from tonelake.probes.grid_parts import part_name, part_tensors
    from tonelake.probes.results import write_results

    started = datetime.now(UTC)
    resumed = 0
    parts = experiment.parts()
    for fold, specs in experiment.lake.progress(parts, len(parts), f"training {experiment.fits:,} fits"):
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


def delete_results(files: Blobs, lake: Lake, name: str) -> None:
    """Delete the results of a run, starting with its metrics, which mark it as finished."""
    files.remove(METRICS_FILE)
    partial = lake.files(f"probes/{name}/partial")
    for part in partial.names(".safetensors"):
        partial.remove(part)
