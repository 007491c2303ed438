"""Train a grid of probes on stored vectors: from settings to a finished run.  Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tonelake.evaluate import Split
from tonelake.probes import runs
from tonelake.probes.config import ProbeConfig
from tonelake.probes.runs import Run
from tonelake.store import CONFIG_FILE, METRICS_FILE, Blobs, Lake, Progress, check_same_run, lock_run, silent_progress, to_plain

if TYPE_CHECKING:
    from tonelake.probes.experiment import Experiment

Step = Callable[[str], None]


def probe(
    lake: Lake, config: ProbeConfig, *, name: str | None = None, again: bool = False, progress: Progress = silent_progress,
    step: Step = lambda name: None, splits: Sequence[Split] | None = None,
) -> Run:
    """Run an experiment, go on with one that was interrupted, or give the finished run of the same settings and data.

    `name`: of the run's folder; by default made of the columns, the space and a digest.  `again`: train it anew.  `splits`:
    rows of the task, where they come from elsewhere.
    Raises InputError where the settings cannot be met, where `name` belongs to another experiment, or where another process
    is at this one.
    """
    from tonelake.probes.experiment import make_experiment

    step("reading labels")
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
        done = Run.find(lake, name)             # by now, perhaps
        if done is not None and not again:
            return done
        if again:
            forget(files, lake, name)
        files.put_text(CONFIG_FILE, to_plain(experiment.config, digest))
        train_and_judge(experiment, name, files, lake.files(f"probes/{name}/partial"), progress, step)
    found = Run.find(lake, name)
    assert found is not None
    return found


def train_and_judge(
    experiment: Experiment, name: str, files: Blobs, partial: Blobs, progress: Progress, step: Step
) -> None:
    """Train what is not kept in `partial` yet, and write what it all came to."""
    from tonelake.probes.grid_parts import part_name, part_tensors
    from tonelake.probes.results import conclude

    started = datetime.now(UTC)
    resumed = 0
    parts = experiment.parts()
    for fold, slots in progress(parts, len(parts), f"training {experiment.fits:,} fits"):
        known = set(partial.names(".safetensors"))
        missing = [slot for slot in slots if part_name(experiment, fold, slot) not in known]
        resumed += len(slots) - len(missing)
        if missing:
            fitted, preparations = experiment.fit(fold, missing)
            for number, (slot, made) in enumerate(zip(missing, preparations, strict=True)):
                runs.write_tensors(partial, part_name(experiment, fold, slot), part_tensors(fitted, number, made))
    step("judging")
    conclude(experiment, name, files, partial, started, resumed)
    for part in partial.names(".safetensors"):
        partial.remove(part)


def forget(files: Blobs, lake: Lake, name: str) -> None:
    """Delete what a run came to, its mark of being done first."""
    files.remove(METRICS_FILE)
    partial = lake.files(f"probes/{name}/partial")
    for part in partial.names(".safetensors"):
        partial.remove(part)
