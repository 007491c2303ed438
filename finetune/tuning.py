"""Fine-tune an encoder by LoRA on clips of the lake: from settings to a finished run.  Killed and run again, it goes on from
its last epoch to the same end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tonelake.embed import CLIP_COLUMNS, ReadClips
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.runs import FinetuneRun, work_folder
from tonelake.store import CONFIG_FILE, METRICS_FILE, Blobs, Lake, Progress, check_same_run, lock_run, silent_progress, to_plain

Step = Callable[[str], None]


@dataclass(frozen=True)
class Watch:
    """How a run tells what it is at: bars of decoding and probing, sentences, and each epoch's figures."""

    progress: Progress = silent_progress
    step: Step = lambda text: None
    epoch: Callable[[dict[str, float]], None] = lambda line: None


def finetune(
    lake: Lake, config: FinetuneConfig, read: ReadClips, *, name: str | None = None, again: bool = False,
    workers: int | None = None, watch: Watch | None = None,
) -> FinetuneRun:
    """Run a fine-tuning, go on with one that was interrupted, or give the finished run of the same settings and data.

    `read`: clips and a rate to samples, as `ingest.read_clips`.  `name`: of the run's folder; by default made of the column,
    the space and a digest.  `again`: train it anew.  Raises InputError where the settings cannot be met, or where `name`
    belongs to another run.
    """
    from tonelake.finetune.setup import make_setup

    watch = watch or Watch()
    watch.step("reading labels")
    setup = make_setup(lake, config)
    digest = setup.digest
    if name is None:
        name = f"{setup.config.column}-{setup.space.name}-{digest[:8]}"[-120:].lstrip(".-")
    files, work = FinetuneRun.folder(lake, name), work_folder(lake, name)
    check_same_run(files, name, digest, "fine-tuning")
    done = FinetuneRun.find(lake, name)
    if done is not None and not again:
        shutil.rmtree(work, ignore_errors=True)
        return done
    alone = is_main_process()
    with lock_run(files, name) if alone else contextlib.nullcontext():
        done = FinetuneRun.find(lake, name)          # by now, perhaps
        if done is not None and not again:
            return done
        if again:
            files.remove(METRICS_FILE)
            shutil.rmtree(work, ignore_errors=True)
        train_and_judge(setup, name, files, work, read, workers, watch, alone)
    found = FinetuneRun.find(lake, name)
    assert found is not None
    return found


def train_and_judge(
    setup: Any, name: str, files: Blobs, work: Path, read: ReadClips, workers: int | None, watch: Watch, alone: bool
) -> None:
    """Train from the last checkpoint in `work`, if there is one, and write what it came to where this is the main process."""
    from tonelake.finetune.initial_weights import read_start, start_from
    from tonelake.finetune.results import conclude, frozen_probe
    from tonelake.finetune.trainer import Finetuner, last_checkpoint

    start = read_start(setup.lake, setup.config.start) if setup.config.start else None
    encoder = setup.load_encoder()
    if alone:
        files.put_text(CONFIG_FILE, to_plain(setup.config, setup.digest))
    started = datetime.now(UTC)
    source, failed = make_source(setup, encoder, read, work, workers, watch)
    setup = setup.without(set(failed), "; ".join(sorted(set(failed.values()))[:3]))
    watch.step("the frozen probe, to compare with")
    frozen = frozen_probe(setup, watch.progress) if alone else None
    model = make_model(setup, encoder)
    begun = start_from(model, start) if start else None
    if begun:
        watch.step(str(begun))
    frozen_before = digest_of_frozen(model)
    train, valid = (make_clips(source, setup, side) for side in ("train", "valid"))
    trainer = Finetuner(model, setup.config, train, valid, setup.task.track, work, watch.epoch)
    checkpoint = last_checkpoint(work)
    watch.step(f"going on from {checkpoint.name}" if checkpoint else "training")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if digest_of_frozen(model) != frozen_before:
        raise RuntimeError("weights of the encoder that were to stay frozen have changed")
    if alone:
        watch.step("judging")
        keep_log(files, work)
        conclude(setup, model, source, trainer.state.log_history, frozen, begun, name, files, started)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def is_main_process() -> bool:
    """Whether this process writes, of those that `torchrun` started, or it is the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def make_source(
    setup: Any, encoder: Any, read: ReadClips, work: Path, workers: int | None, watch: Watch
) -> tuple[Any, dict[str, str]]:
    """Where clips come from: their audio, decoded once, or the stored frames; and what cannot be read."""
    from accelerate import PartialState

    from tonelake.finetune.audio import decode
    from tonelake.finetune.data import States, Waves

    config, task = setup.config, setup.task
    if config.frames:
        return States(
            setup.lake, setup.space, task.ids.to_list(), task.clips["duration_s"].to_numpy(), config, encoder.frames_of
        ), {}
    wanted = setup.lake.clips.take(task.ids.to_list(), CLIP_COLUMNS)
    with PartialState(cpu=config.device == "cpu").local_main_process_first():
        audio, failed = decode(work, wanted, read, encoder.sample_rate, workers=workers, progress=watch.progress)
    return Waves(audio, task.ids.to_list(), config, encoder.sample_rate), failed


def make_model(setup: Any, encoder: Any) -> Any:
    import torch

    from tonelake.finetune.model import Tuned

    weights = setup.class_weights()
    return Tuned(encoder, setup.config, len(setup.task.names), None if weights is None else torch.from_numpy(weights))


def make_clips(source: Any, setup: Any, side: str) -> Any:
    from tonelake.finetune.data import Clips

    rows = getattr(setup.split, side)
    return Clips(source, rows, setup.labels[rows])


def digest_of_frozen(model: Any) -> str:
    """Of every weight that is not to learn: equal before and after."""
    import hashlib

    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def keep_log(files: Blobs, work: Path) -> None:
    """TensorBoard's log, moved beside the run's files."""
    for log in sorted((work / "tensorboard").rglob("events.out.*")):
        def write(path: Path, log: Path = log) -> None:
            shutil.copyfile(log, path)

        Blobs(f"{files.uri}/tensorboard").put(log.name, write)
