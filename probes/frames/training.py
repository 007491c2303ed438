"""Train frame probes, from settings to a finished run.  Importing this loads no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tonelake.evaluate import counted
from tonelake.probes.frames.config import FrameProbeConfig
from tonelake.probes.frames.run import FrameRun
from tonelake.probes.run_training import train_run
from tonelake.probes.runs import write_tensors
from tonelake.store import (
    Blobs,
    InputError,
    Lake,
)

if TYPE_CHECKING:
    from tonelake.probes.frames.experiment import FrameExperiment

log = logging.getLogger(__name__)


def probe_frames(
    lake: Lake, task: str | None = None, *, config: str | Path | FrameProbeConfig | None = None, name: str | None = None,
    again: bool = False, **settings: Any,
) -> FrameRun:
    """Train heads on stored frames that find notes, onsets, beats, chords or keys; resume, or return the finished run.

    `settings` are those of `FrameProbeConfig`; `task` and `settings` change what `config` (settings, or a file of them) says.
    `name`: of the run; by default made of the task, the space and a digest.  `again`: train a finished run again.
    Raises InputError if nothing names a task, if frames or events are missing, or if `name` belongs to another experiment.
    """
    from tonelake.probes.frames.experiment import make_frame_experiment

    if isinstance(config, str | Path):
        config = FrameProbeConfig.from_file(Path(config).expanduser())
    if config is None and task is None:
        raise InputError("no task given. Choose notes, onsets, beats, chords or key, as in: tonelake probe notes --frames")
    base = config if config is not None else FrameProbeConfig(task=task)         # type: ignore[arg-type]  # it checks the name
    log.info("reading events")
    experiment = make_frame_experiment(lake, base.with_(task=task, **settings))
    return train_run(FrameRun, lake, experiment, name, label=experiment.config.task, again=again, train=train_and_judge)


def train_and_judge(experiment: FrameExperiment, name: str, files: Blobs, partial: Blobs) -> None:
    """Train the inputs missing from `partial`, and write the results."""
    from tonelake.probes.frames.frame_results import part_name, part_tensors, write_frame_results

    started, resumed = datetime.now(UTC), 0
    epochs = Epochs(experiment)
    for spec in experiment.specs:
        if part_name(experiment, spec) in partial.names(".safetensors"):
            resumed += 1
        else:
            write_tensors(partial, part_name(experiment, spec), part_tensors(*experiment.fit(spec, epochs.step)))
        epochs.next_input()
    epochs.close()
    write_frame_results(experiment, name, files, partial, started, resumed)
    for part in partial.names(".safetensors"):
        partial.remove(part)


class Epochs:
    """Progress over the epochs of every input; those that early stopping saves count as done."""

    def __init__(self, experiment: FrameExperiment) -> None:
        self.each, inputs = experiment.config.epochs, len(experiment.specs)
        self.done, self.inputs = 0, 0
        total = self.each * inputs
        bar = experiment.lake.progress(range(total), total, f"training {counted(experiment.fits, 'fit')}")
        self._bar: Iterator[Any] = iter(bar)

    def step(self) -> None:
        """Count an epoch."""
        self.done += 1
        next(self._bar, None)

    def next_input(self) -> None:
        """Count the epochs that the input did not need."""
        self.inputs += 1
        while self.done < self.inputs * self.each:
            self.step()

    def close(self) -> None:
        for _ in self._bar:
            pass


