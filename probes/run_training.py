"""Train an experiment into its run's folder once, whatever it trains on.  Importing this loads no torch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from tonelake.probes.runs import Run, check_kind
from tonelake.store import (
    CONFIG_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    Blobs,
    FinishedRun,
    Lake,
    check_same_run,
    lock_run,
    notes_on_earlier_runs,
    settings_to_yaml,
    write_manifest,
)

Kind = TypeVar("Kind", bound=FinishedRun[Any])

log = logging.getLogger(__name__)


def train_run(
    kind: type[Kind], lake: Lake, experiment: Any, name: str | None, *, label: str, again: bool,
    train: Callable[[Any, str, Blobs, Blobs], None],
) -> Kind:
    """Return the finished run of an experiment: trained now, resumed, or as it is.

    `kind`: class of the run; `name`: of its folder, by default made of `label`, the space and a digest; `again`: train a
    finished run again; `train`: trains what is missing from the partial results, the last argument, and writes the metrics.
    Raises InputError if `name` belongs to another experiment or to other data, or if another process is training this run.
    """
    manifest = experiment.manifest()
    chosen = name is not None
    if name is None:
        name = f"{label}-{experiment.space.name}-{manifest.digest[:8]}"[-120:]
    files, partial = kind.folder(lake, name), lake.files(f"probes/{name}/partial")
    check_kind(files, name, on_frames=kind is not Run)
    check_same_run(files, name, experiment.config, manifest, "experiment", again=again)
    done = kind.find(lake, name)
    if done is not None and not again:
        return done
    with lock_run(files, name):                 # another process may have started or finished it meanwhile
        check_same_run(files, name, experiment.config, manifest, "experiment", again=again)
        done = kind.find(lake, name)
        if done is not None and not again:
            return done
        if again or files.read(CONFIG_FILE) is None:         # fits without settings are of an unknown run
            delete_results(files, partial)
        if not chosen:
            experiment.notes += log_notes(notes_on_earlier_runs(lake, kind, manifest))
        write_manifest(files, manifest)
        files.put_text(CONFIG_FILE, settings_to_yaml(experiment.config, manifest.digest))
        train(experiment, name, files, partial)
    found = kind.find(lake, name)
    assert found is not None
    return found


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
