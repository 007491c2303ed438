"""Fine-tune an encoder by LoRA on clips of the lake, from settings to a finished run.  A killed run resumes from its last
epoch and ends with the same result."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tonelake.embed import CLIP_COLUMNS, ReadClips
from tonelake.finetune.config import FinetuneConfig, merge_settings
from tonelake.finetune.runs import FinetuneRun, work_folder
from tonelake.ingest import read_clips
from tonelake.store import CONFIG_FILE, METRICS_FILE, Blobs, Lake, check_same_run, lock_run, settings_to_yaml

log = logging.getLogger(__name__)


def finetune(
    lake: Lake, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, name: str | None = None,
    again: bool = False, workers: int | None = None, read: ReadClips = read_clips, **settings: Any,
) -> FinetuneRun:
    """Train LoRA updates of an encoder on a label column, resume a run that was interrupted, or return the finished run of
    the same settings and data.

    `settings` are those of `FinetuneConfig`; they change what `config` (settings, or a file of them) says.
    `name`: of the run's folder; by default made of the column, the space and a digest.  `again`: train a finished run again.
    `read`: gives the samples of clips at a rate.  Raises InputError if the settings cannot be met, or if `name` belongs to
    another run.
    """
    from tonelake.finetune.setup import make_setup

    log.info("reading labels")
    config = merge_settings(config, column, settings)
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
    is_main = is_main_process()
    with lock_run(files, name) if is_main else contextlib.nullcontext():
        done = FinetuneRun.find(lake, name)          # another process may have finished it meanwhile
        if done is not None and not again:
            return done
        if again:
            files.remove(METRICS_FILE)
            shutil.rmtree(work, ignore_errors=True)
        train_and_evaluate(setup, name, files, work, read, workers, is_main)
    found = FinetuneRun.find(lake, name)
    assert found is not None
    return found


def train_and_evaluate(
    setup: Any, name: str, files: Blobs, work: Path, read: ReadClips, workers: int | None, is_main: bool
) -> None:
    """Train from the last checkpoint in `work`, if there is one; the main process also writes the results."""
    from tonelake.finetune.initial_weights import load_initial_weights, read_initial_weights
    from tonelake.finetune.results import train_frozen_probe, write_results
    from tonelake.finetune.trainer import Finetuner, last_checkpoint

    start = read_initial_weights(setup.lake, setup.config.start) if setup.config.start else None
    encoder = setup.load_encoder()
    if is_main:
        files.put_text(CONFIG_FILE, settings_to_yaml(setup.config, setup.digest))
    started = datetime.now(UTC)
    source, failed = make_source(setup, encoder, read, work, workers)
    setup = setup.without_clips(set(failed), "; ".join(sorted(set(failed.values()))[:3]))
    log.info("training a probe on the frozen encoder, to compare with")
    frozen = train_frozen_probe(setup) if is_main else None
    model = make_model(setup, encoder)
    loaded = load_initial_weights(model, start) if start else None
    if loaded:
        log.info("%s", loaded)
    frozen_before = frozen_digest(model)
    train, valid = (make_clips(source, setup, side) for side in ("train", "valid"))
    trainer = Finetuner(model, setup.config, train, valid, setup.task.track, work)
    checkpoint = last_checkpoint(work)
    log.info("%s", f"resuming from {checkpoint.name}" if checkpoint else "training")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if frozen_digest(model) != frozen_before:
        raise RuntimeError("frozen weights of the encoder have changed during training")
    if is_main:
        log.info("evaluating")
        copy_tensorboard_log(files, work)
        write_results(setup, model, source, trainer.state.log_history, frozen, loaded, name, files, started)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def is_main_process() -> bool:
    """Return whether this process writes: the first of those that `torchrun` started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def make_source(
    setup: Any, encoder: Any, read: ReadClips, work: Path, workers: int | None
) -> tuple[Any, dict[str, str]]:
    """Return the source of clips (their decoded audio, or the stored frames), and the reason for each that cannot be read."""
    from accelerate import PartialState

    from tonelake.finetune.audio import decode
    from tonelake.finetune.data import AudioSource, FrameSource

    config, task = setup.config, setup.task
    if config.frames:
        return FrameSource(
            setup.lake, setup.space, task.ids.to_list(), task.clips["duration_s"].to_numpy(), config, encoder.frames_of
        ), {}
    wanted = setup.lake.clips.take(task.ids.to_list(), CLIP_COLUMNS)
    with PartialState(cpu=config.device == "cpu").local_main_process_first():
        audio, failed = decode(work, wanted, read, encoder.sample_rate, workers=workers, progress=setup.lake.progress)
    return AudioSource(audio, task.ids.to_list(), config, encoder.sample_rate), failed


def make_model(setup: Any, encoder: Any) -> Any:
    import torch

    from tonelake.finetune.model import LoraModel

    weights = setup.class_weights()
    return LoraModel(encoder, setup.config, len(setup.task.names), None if weights is None else torch.from_numpy(weights))


def make_clips(source: Any, setup: Any, side: str) -> Any:
    from tonelake.finetune.data import ClipDataset

    rows = getattr(setup.split, side)
    return ClipDataset(source, rows, setup.labels[rows])


def frozen_digest(model: Any) -> str:
    """Return a digest of every frozen weight, equal before and after training."""
    import hashlib

    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def copy_tensorboard_log(files: Blobs, work: Path) -> None:
    """Copy TensorBoard's log beside the run's files."""
    for log in sorted((work / "tensorboard").rglob("events.out.*")):
        def write(path: Path, log: Path = log) -> None:
            shutil.copyfile(log, path)

        Blobs(f"{files.uri}/tensorboard").put(log.name, write)
