"""Train a grid of probes on stored vectors, from settings to a finished run.  Importing this loads no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tonelake.evaluate import Split, counted
from tonelake.probes.config import ProbeConfig
from tonelake.probes.runs import Run, check_kind, write_tensors
from tonelake.store import (
    CONFIG_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    Blobs,
    Lake,
    check_same_run,
    lock_run,
    notes_on_earlier_runs,
    settings_to_yaml,
    write_manifest,
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
    manifest = experiment.manifest()
    chosen = name is not None
    if name is None:
        name = f"{'-'.join(experiment.config.columns)}-{experiment.space.name}-{manifest.digest[:8]}"[-120:]
    files, partial = Run.folder(lake, name), lake.files(f"probes/{name}/partial")
    check_kind(files, name, on_frames=False)
    check_same_run(files, name, experiment.config, manifest, "experiment", again=again)
    done = Run.find(lake, name)
    if done is not None and not again:
        return done
    with lock_run(files, name):                 # another process may have started or finished it meanwhile
        check_same_run(files, name, experiment.config, manifest, "experiment", again=again)
        done = Run.find(lake, name)
        if done is not None and not again:
            return done
        if again or files.read(CONFIG_FILE) is None:         # fits without settings are of an unknown run
            delete_results(files, partial)
        if not chosen:
            experiment.notes += log_notes(notes_on_earlier_runs(lake, Run, manifest))
        write_manifest(files, manifest)
        files.put_text(CONFIG_FILE, settings_to_yaml(experiment.config, manifest.digest))
        train_and_evaluate(experiment, name, files, partial)
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


def log_notes(notes: list[str]) -> list[str]:
    for note in notes:
        log.info("%s", note)
    return notes


def delete_results(files: Blobs, partial: Blobs) -> None:
    """Delete the results of a run, finished or partial, starting with its metrics, which mark it as finished."""
    for name in (METRICS_FILE, CONFIG_FILE, MANIFEST_FILE):
        files.remove(name)
    for part in partial.names(".safetensors"):
        partial.remove(part)
