"""Weights of single epochs of a finished run: kept during training (`keep_every`), and evaluated on the run's test clips.

    checkpoints/seed-<n>/epochs/epoch-<n>.safetensors     trained parameters after an epoch
    checkpoints/seed-<n>/tuned/checkpoint-<step>/         the last and the best epoch, kept of every run (`continuation`)
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tonelake.embed import ReadClips
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.continuation import INDEX, KEPT, STATE, WEIGHTS, read_state, seed_folder
from tonelake.finetune.runs import FinetuneRun
from tonelake.ingest import read_clips
from tonelake.store import Blobs, InputError, Lake

if TYPE_CHECKING:
    from tonelake.finetune.evaluation import Figures
    from tonelake.finetune.resolved import Setup

EPOCHS = "epochs"
EPOCH_FILE = re.compile(r"epoch-(\d+)\.safetensors")


def keep_epochs(files: Blobs, work: Path, config: FinetuneConfig) -> None:
    """Copy the weights of every `keep_every`th epoch of each seed into the run's folder."""
    if config.keep_every is None:
        return
    for seed in config.all_seeds:
        inside = Blobs(f"{files.uri}/{KEPT}/seed-{seed}/{EPOCHS}")
        for checkpoint in seed_folder(work, config, seed).glob("checkpoint-*"):
            if not ((checkpoint / STATE).is_file() and (checkpoint / WEIGHTS).is_file()):
                continue
            epoch = round(float(read_state(checkpoint)["epoch"]))
            if epoch % config.keep_every == 0:
                def write(target: Path, source: Path = checkpoint / WEIGHTS) -> None:
                    shutil.copyfile(source, target)

                inside.put(f"epoch-{epoch:04d}.safetensors", write)


def kept_epochs(run: FinetuneRun, seed: int | None = None) -> dict[int, tuple[str, str]]:
    """Return the folder and file of each epoch whose weights a run has kept, in order; `seed`: by default the kept one."""
    inside = f"{run.files.uri}/{KEPT}/seed-{seed_of(run, seed)}"
    found = {}
    for name, files in json.loads(Blobs(inside).read(INDEX) or "{}").get("tuned", ()):
        folder = f"{inside}/tuned/{Path(name).name}"
        state = json.loads(Blobs(folder).read(STATE) or "{}")
        if "epoch" in state and WEIGHTS in files:
            found[round(float(state["epoch"]))] = (folder, WEIGHTS)
    for name in Blobs(f"{inside}/{EPOCHS}").names(".safetensors"):
        match = EPOCH_FILE.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), (f"{inside}/{EPOCHS}", name))
    return dict(sorted(found.items()))


def seed_of(run: FinetuneRun, seed: int | None) -> int:
    """Return a seed of a run, by default the kept one.  Raises InputError if it has no such seed."""
    if seed is not None and seed not in run.config.all_seeds:
        raise InputError(f"run {run.name!r}: has no seed {seed}. Choose {', '.join(map(str, run.config.all_seeds))}")
    return int(run.metrics.get("kept_seed", run.config.seed)) if seed is None else seed


def read_epoch(run: FinetuneRun, epoch: int, seed: int | None = None) -> dict[str, Any]:
    """Return the trained parameters of a kept epoch by name.  Raises InputError if its weights were not kept."""
    from safetensors.torch import load_file

    kept = kept_epochs(run, seed)
    if epoch not in kept:
        have = f"Kept are {', '.join(map(str, kept))}; choose one of them" if kept else "It has none"
        raise InputError(
            f"run {run.name!r}: has not kept the weights of epoch {epoch}. {have}, or train with --keep-every to keep more"
        )
    folder, file = kept[epoch]
    with Blobs(folder).fetched(file) as path:
        if path is None:
            raise InputError(f"run {run.name!r}: the weights of epoch {epoch} are missing. Choose another epoch")
        return load_file(path)


def evaluate_epoch(
    lake: Lake, run: str, epoch: int, *, seed: int | None = None, workers: int | None = None, read: ReadClips = read_clips
) -> pl.DataFrame:
    """Evaluate a kept epoch of a run on its test clips, beside the epoch that the run chose on its validation clips.

    Returns a row a figure: figure, epoch, value, low, high; best_epoch, best and their paired difference (away, away_low,
    away_high), with 95 % intervals jackknifed over tracks.  Settings that turn probabilities into events are chosen on the
    validation clips for each epoch.  `seed`: by default the one whose adapter is kept.  Raises
    InputError if the epoch's weights were not kept, or if the classes or all test clips have changed.
    """
    found = FinetuneRun.named(lake, run)
    weights, number = read_epoch(found, epoch, seed), seed_of(found, seed)
    judge = judge_events if found.config.events else judge_columns
    figures = judge(lake, found, weights, number, workers, read)
    best_epoch = int(found.table("seeds").filter(seed=number)["best_epoch"].item())
    rows = [
        {
            "figure": name, "epoch": epoch, "value": own.value, "low": own.low, "high": own.high, "best_epoch": best_epoch,
            "best": figures.frozen[name].value,
            "away": figures.difference[name].value if name in figures.difference else None,
            "away_low": figures.difference[name].low if name in figures.difference else None,
            "away_high": figures.difference[name].high if name in figures.difference else None,
        } for name, own in figures.tuned.items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Float64).fill_nan(None))


def judge_columns(
    lake: Lake, run: FinetuneRun, weights: Mapping[str, Any], seed: int, workers: int | None, read: ReadClips
) -> Figures:
    """Judge weights of a run that learned a label column (`tuned`) beside its own scores (`frozen`)."""
    from tonelake.finetune.evaluation import HeldOut, judge
    from tonelake.finetune.inputs import make_model, make_source
    from tonelake.finetune.seeds import scores_of
    from tonelake.finetune.setup import make_setup

    stored = run.table("scores").filter(seed=seed)
    config = replace(run.config, split=f"run:{run.name}", start=None, resume=None, device="auto", seed=seed, seeds=1)
    setup = only_test(make_setup(lake, config), set(stored["clip_id"]), run)
    encoder = setup.load_encoder()
    with TemporaryDirectory() as folder:
        source, failed = make_source(setup, encoder, read, Path(folder), workers)
        setup = setup.without_clips(set(failed), "; ".join(sorted(set(failed.values()))[:3]))
        model = make_model(setup, encoder)
        load_trained(model, weights, run)
        model.to(setup.config.device)
        scores = scores_of(setup, model, source, "test")
    rows, task = setup.split.test, setup.task
    by_clip = dict(zip(stored["clip_id"], stored["scores"].to_list(), strict=True))
    best = np.array([by_clip[clip] for clip in task.ids.gather(rows)])
    test = HeldOut(
        kind=task.kind, names=task.names, targets=task.targets[rows], primary=setup.primary_class()[rows],
        track=task.track[rows],
    )
    return judge(test, [scores], [best])


def judge_events(
    lake: Lake, run: FinetuneRun, weights: Mapping[str, Any], seed: int, workers: int | None, read: ReadClips
) -> Figures:
    """Judge weights of a run that learned events (`tuned`) beside its own scores (`frozen`), on validation and test clips."""
    from tonelake.evaluate import Split, make_units
    from tonelake.finetune.evaluation import WORD
    from tonelake.finetune.frames.scores import judge_scores
    from tonelake.finetune.frames.setup import FrameSetup
    from tonelake.finetune.frames.training import judge_model, training_events
    from tonelake.finetune.initial_weights import head_names
    from tonelake.finetune.inputs import make_model, make_source
    from tonelake.finetune.setup import make_setup

    stored = run.table("scores").filter(seed=seed, model="tuned")
    config = replace(
        run.config, split=f"run:{run.name}", start=None, resume=None, device="auto", seed=seed, seeds=1, mix_stems=None, mix=0.0
    )
    setup = make_setup(lake, config)
    assert isinstance(setup, FrameSetup)
    if tuple(setup.frame_task.outputs) != tuple(head_names(run)):
        raise InputError(f"run {run.name!r}: its outputs have changed since it was trained. Train it again")
    sides = run.table("split").filter(pl.col("side") != "train")
    known = setup.task.ids.is_in(sides["clip_id"].implode()).to_numpy()
    valid, test = (rows[known[rows]] for rows in (setup.split.valid, setup.split.test))
    if not len(valid) or not len(test):
        raise InputError(f"run {run.name!r}: its validation or test clips have left the lake. Train it again")
    training, rows = training_events(setup), np.concatenate([valid, test])
    number = np.arange(len(rows))
    setup = replace(
        setup, task=setup.task.subset(rows), split=Split(number[: len(valid)], number[: len(valid)], number[len(valid) :])
    )
    encoder = setup.load_encoder()
    with TemporaryDirectory() as folder:
        source, failed = make_source(setup, encoder, read, Path(folder), workers)
        remaining = setup.without_clips(set(failed), "; ".join(sorted(set(failed.values()))[:3]))
        assert isinstance(remaining, FrameSetup)
        setup = remaining
        source.use(setup)
        model = make_model(setup, encoder, source)
        load_trained(model, weights, run)
        model.to(setup.config.device)
        _, scores, _ = judge_model(model, setup, source, Path(folder), training)
    ids = pl.DataFrame({"clip_id": setup.task.ids.gather(setup.split.test)})
    best = ids.join(stored, on="clip_id", how="left", maintain_order="left")
    units = make_units(setup.task.track[setup.split.test], WORD)
    return judge_scores([scores], [best.select([name for name in scores.columns if name in best.columns])], units)


def only_test(setup: Setup, clips: set[str], run: FinetuneRun) -> Setup:
    """Return a setup whose test set is those of `clips` that are still in the lake, with nothing else to decode.

    Raises InputError if none is left, or if the classes are no longer those of the run.
    """
    from tonelake.evaluate import Split
    from tonelake.finetune.initial_weights import head_names

    names = head_names(run)
    if setup.task.kind != "regression" and tuple(setup.task.names) != tuple(names):
        raise InputError(f"run {run.name!r}: its classes have changed since it was trained. Train it again")
    mean = run.head().get("target.mean")
    scale = setup.scale() if mean is None else (mean.numpy(), run.head()["target.scale"].numpy())
    rows = np.flatnonzero(setup.task.ids.is_in(list(clips)).to_numpy())
    rows = rows[np.isin(rows, setup.split.test)]
    if not len(rows):
        raise InputError(f"run {run.name!r}: none of its test clips is in the lake. Train it again")
    kept = setup.task.subset(rows)
    everything = np.arange(len(rows))
    return replace(setup, task=kept, split=Split(everything, everything, everything), fixed_scale=scale)


def load_trained(model: Any, weights: Mapping[str, Any], run: FinetuneRun) -> None:
    """Load trained parameters.  Raises InputError if they are not those of the model."""
    own = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != own:
        raise InputError(f"run {run.name!r}: its weights do not fit the model that its settings describe. Train it again")
    model.load_state_dict(dict(weights), strict=False)
    model.eval()
