"""Fine-tune an encoder by LoRA on clips of the lake, from settings to a finished run.  A killed run resumes from its last
epoch and ends with the same result."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tonelake.embed import ReadClips
from tonelake.finetune.config import FinetuneConfig, merge_settings
from tonelake.finetune.inputs import make_model, make_source
from tonelake.finetune.runs import FinetuneRun, claim_work, work_folder
from tonelake.ingest import read_clips
from tonelake.store import (
    CONFIG_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    Blobs,
    Lake,
    Manifest,
    check_same_run,
    lock_run,
    notes_on_earlier_runs,
    settings_to_yaml,
    write_manifest,
)

log = logging.getLogger(__name__)


def finetune(
    lake: Lake, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, name: str | None = None,
    again: bool = False, encoder: str | None = None, workers: int | None = None, read: ReadClips = read_clips, **settings: Any,
) -> FinetuneRun:
    """Train LoRA updates of an encoder on a label column or on events, resume a run that was interrupted, or return the
    finished run of the same settings and data.

    `settings` are those of `FinetuneConfig`; they change what `config` (settings, or a file of them) says.
    `name`: of the run's folder; by default made of the column, the space and a digest of settings and data.  `again`: train a
    finished run again, also if its data has changed.  `encoder`: to fine-tune, in place of a space; if the lake has no space of
    it, one without vectors is made, which is enough for events.  `read`: gives the samples of clips at a rate.  Raises
    InputError if the settings cannot be met, or if `name` belongs to another run or to other data (with what has changed).
    """
    from tonelake.finetune.setup import make_setup, use_encoder

    log.info("reading labels")
    config = use_encoder(lake, merge_settings(continued_config(lake, config, settings), column, settings), encoder)
    setup = make_setup(lake, config)
    manifest = setup.manifest()
    chosen = name is not None
    if name is None:
        name = f"{setup.config.column}-{setup.space.name}-{manifest.digest[:8]}"[-120:].lstrip(".-")
    files, work = FinetuneRun.folder(lake, name), work_folder(lake, name)
    check_same_run(files, name, setup.config, manifest, "fine-tuning", again=again)
    done = FinetuneRun.find(lake, name)
    if done is not None and not again:
        shutil.rmtree(work, ignore_errors=True)
        return done
    is_main = is_main_process()
    with lock_run(files, name) if is_main else contextlib.nullcontext():
        check_same_run(files, name, setup.config, manifest, "fine-tuning", again=again)
        done = FinetuneRun.find(lake, name)          # another process may have finished it meanwhile
        if done is not None and not again:
            return done
        if again and is_main:
            for file in (METRICS_FILE, CONFIG_FILE, MANIFEST_FILE):
                files.remove(file)
            shutil.rmtree(work, ignore_errors=True)
        if is_main and not chosen:
            notes = notes_on_earlier_runs(lake, FinetuneRun, manifest)
            setup.notes.extend(notes)
            for note in notes:
                log.info("%s", note)
        train_and_evaluate(setup, manifest, name, files, work, read, workers, is_main)
    found = FinetuneRun.find(lake, name)
    assert found is not None
    return found


def train_and_evaluate(
    setup: Any, manifest: Manifest, name: str, files: Blobs, work: Path, read: ReadClips, workers: int | None, is_main: bool
) -> None:
    """Train each seed from the last checkpoint in `work`, if there is one; the main process also writes the results."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from tonelake.finetune.continuation import (
        check_steps,
        fill_work,
        is_checkpoint_file,
        keep_checkpoints,
        steps_per_epoch,
    )
    from tonelake.finetune.initial_weights import read_initial_weights
    from tonelake.finetune.kept_epochs import keep_epochs
    from tonelake.finetune.seed_steps import seed_steps
    from tonelake.finetune.seeds import with_seed

    config = setup.config
    steps = seed_steps(config)
    weights = config.start or (config.resume if config.resume and is_checkpoint_file(config.resume) else None)
    start = read_initial_weights(setup.lake, weights) if weights else None
    encoder = setup.load_encoder()
    note = None
    if os.environ.get("LOCAL_RANK", "0") == "0":         # before another process of this machine uses the folder
        claim_work(work, manifest.digest)
        note = fill_work(setup.lake, config, work)
    if is_main:
        write_manifest(files, manifest)
        files.put_text(CONFIG_FILE, settings_to_yaml(config, manifest.digest))
    started = datetime.now(UTC)
    source, failed = make_source(setup, encoder, read, work, workers)
    setup = setup.without_clips(set(failed), "; ".join(sorted(set(failed.values()))[:3]))
    source.use(setup)
    if note is not None:
        setup.notes.append(note)
        check_steps(config, work, steps_per_epoch(len(setup.split.train), config, world_size()))
    finished = [None if not is_main else [steps.read(work, seed) is not None for seed in config.all_seeds]]
    state = PartialState(cpu=config.device == "cpu")
    broadcast_object_list(finished, from_process=0)
    shared = model = None
    for seed, done in zip(config.all_seeds, finished[0] or (), strict=True):
        if done:
            log.info("seed %s is finished", seed)
            continue
        own = with_seed(setup, seed)
        model = make_model(own, encoder or own.load_encoder(), source)
        encoder = None                           # its modules are now the model's
        if shared is None:
            shared = steps.prepare(setup, model, source, work)
        folder = work if seed == config.seed else work / f"seed-{seed}"
        result = steps.train(own, model, source.with_seed(seed), shared, folder, start, is_main)
        if result is not None:
            steps.write(work, result)
        state.wait_for_everyone()
    if is_main:
        results = [result for seed in config.all_seeds if (result := steps.read(work, seed)) is not None]
        assert len(results) == config.seeds
        copy_tensorboard_log(files, work)
        keep_checkpoints(files, work, config)
        keep_epochs(files, work, config)
        steps.write_results(setup, results, model or make_model(setup, encoder), name, files, started)
        shutil.rmtree(work, ignore_errors=True)
    state.wait_for_everyone()


def continued_config(lake: Lake, config: str | Path | FinetuneConfig | None, settings: dict[str, Any]) -> Any:
    """Return `config`, or without one the settings of the run that `resume` names."""
    from tonelake.finetune.continuation import resumed_run

    run = resumed_run(lake, str(settings["resume"])) if settings.get("resume") and config is None else None
    return config if run is None else replace(run.config, start=None, resume=None)


def world_size() -> int:
    """Return the number of processes that `torchrun` started, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this process writes: the first of those that `torchrun` started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def copy_tensorboard_log(files: Blobs, work: Path) -> None:
    """Copy TensorBoard's logs beside the run's files; those of further seeds into folders of their own."""
    for log in sorted(work.rglob("events.out.*")):
        def write(path: Path, log: Path = log) -> None:
            shutil.copyfile(log, path)

        seed = [part for part in log.relative_to(work).parts if part.startswith("seed-")]
        Blobs("/".join([f"{files.uri}/tensorboard", *seed])).put(log.name, write)
