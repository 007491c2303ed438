"""Train a fine-tuning on events and its frozen baseline, and judge both on the test clips.

After every epoch the validation clips are read whole, the settings of the decoder (thresholds of notes) are chosen on up to 100
of them, and the mean of the task's main score on these is the epoch's score.  The test clips are decoded with the settings that
all validation clips select with the weights of the best epoch.

A finished seed is three files in the run's work folder, the last of which marks it as finished:

    seed-<n>-scores.parquet     scores of each test clip, tuned and frozen
    seed-<n>-events.parquet     events found in each test clip by the tuned model
    seed-<n>.safetensors        trained weights, and as metadata settings of the decoders and histories
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from tonelake.evaluate import EVENT_METRICS, score_clips
from tonelake.finetune.checkpoint_file import CheckpointWeights
from tonelake.finetune.config import SCORE
from tonelake.finetune.data import ClipDataset
from tonelake.finetune.foreign_checkpoint import begin_at_epoch
from tonelake.finetune.frames.model import FrameModel, FrozenFrameModel
from tonelake.finetune.frames.posteriors import StoredPosteriors, clip_logits, probabilities
from tonelake.finetune.frames.setup import FrameSetup
from tonelake.finetune.frames.source import EventSource
from tonelake.finetune.initial_weights import load_initial_weights
from tonelake.finetune.seeds import EpochHistory, frozen_digest, read_seed_file, seed_suffix, write_seed_file
from tonelake.finetune.trainer import Finetuner, last_checkpoint, train_from_last_checkpoint
from tonelake.probes import DecodeSettings, choose_decoding, decode

MOST_SCORED = 100                        # validation clips by which an epoch is scored, evenly spread; the loss is of all
TUNED, FROZEN = "tuned", "frozen"

log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FrameTrained(EpochHistory):
    """One training, judged."""

    decoding: DecodeSettings             # chosen on the validation clips
    scores: pl.DataFrame                 # a row a test clip, in the order of the split


@dataclass(frozen=True, kw_only=True)
class FrameSeedResult:
    """The fine-tuning and the frozen baseline of one seed."""

    seed: int
    tuned: FrameTrained
    frozen: FrameTrained
    events: pl.DataFrame                 # found in the test clips by the tuned model, with clip_id
    weights: dict[str, torch.Tensor]     # trainable parameters of the fine-tuning, by name
    loaded: str                          # what was loaded from another run; empty without --start


class FrameFinetuner(Finetuner):
    """Trainer of a fine-tuning on events, or of its frozen baseline."""

    control: Any                         # of transformers, which declares no type

    def __init__(
        self, model: Any, setup: FrameSetup, source: EventSource, work: Path, *, quiet: bool = False
    ) -> None:
        train, valid = (clips_of(source, rows) for rows in (setup.split.train, setup.split.valid))
        super().__init__(
            model, setup.config, train, valid, setup.task.track, work, np.zeros(0, np.int64), quiet=quiet
        )
        self.setup, self.source, self.work = setup, source, work

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the loss and the score of the validation clips.  Each process of several computes both."""
        model = self.accelerator.unwrap_model(self.model)
        found, loss = validate(model, self.setup, self.source, self.work / f"valid-{os.environ.get('LOCAL_RANK', '0')}.bin")
        chosen = np.unique(np.linspace(0, len(found) - 1, min(MOST_SCORED, len(found))).round().astype(int))
        clips = [found[int(i)] for i in chosen]
        scores = score_decoded(self.setup, clips, choose_decoding(self.setup.frame_task, clips))
        score = scores[EVENT_METRICS[self.setup.frame_task.name]].to_numpy()
        known = score[np.isfinite(score)]
        mean = float(known.mean()) if len(known) else 0.0
        figures = {f"{metric_key_prefix}_loss": loss, f"{metric_key_prefix}_{SCORE}": mean}
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        found.path.unlink(missing_ok=True)
        return figures


def clips_of(source: EventSource, rows: np.ndarray) -> ClipDataset:
    """Return a data set of clips; the source gives their labels, which depend on what is heard."""
    return ClipDataset(source, rows, np.zeros(len(rows), np.float32))


def validate(model: Any, setup: FrameSetup, source: EventSource, path: Path) -> tuple[StoredPosteriors, float]:
    """Return the probabilities of the validation clips, in a file, and the mean loss over their frames."""
    return read_clips(model, setup, source, setup.split.valid, path)


def read_clips(
    model: Any, setup: FrameSetup, source: EventSource, rows: np.ndarray, path: Path
) -> tuple[StoredPosteriors, float]:
    """Return the probabilities of whole clips, in a file, and the mean loss over their frames."""
    from tonelake.probes import frame_targets

    task = setup.frame_task
    owner = model.encoder[0] if isinstance(model, FrozenFrameModel) else model
    found = StoredPosteriors(path, len(task.outputs))
    total, frames = 0.0, 0
    for clip, logits in clip_logits(model, source, rows, setup.config):
        wanted = frame_targets(task, clip.events, clip.frame_s, period_s=source.clock.period_s)
        labels = torch.from_numpy(wanted if task.kind == "multiclass" else wanted.astype(np.float32)).to(logits.device)
        count = int((labels >= 0).sum()) if task.kind == "multiclass" else len(labels)
        total, frames = total + count * float(owner.frame_loss([logits], [labels])), frames + count
        found.add(clip, probabilities(task.kind, logits))
    return found, total / max(frames, 1)


def decoded(setup: FrameSetup, clips: Sequence[Any], settings: DecodeSettings) -> list[pl.DataFrame]:
    """Return the events found in each clip."""
    return [decode(setup.frame_task, p, frame_s, settings) for p, frame_s, _, _ in clips]


def score_decoded(setup: FrameSetup, clips: Sequence[Any], settings: DecodeSettings) -> pl.DataFrame:
    """Return the scores of each clip."""
    found = decoded(setup, clips, settings)
    return score_clips(
        setup.frame_task.name,
        ((reference, own, duration) for own, (_, _, reference, duration) in zip(found, clips, strict=True)),
    )


def judge_model(
    model: Any, setup: FrameSetup, source: EventSource, folder: Path, training: Sequence[pl.DataFrame]
) -> tuple[DecodeSettings, pl.DataFrame, pl.DataFrame]:
    """Choose settings on the validation clips, and decode and score the test clips; return settings, scores and events.

    `training`: the events of training clips, see `training_events`.
    """
    valid, _ = validate(model, setup, source, folder / "valid.bin")
    settings = choose_decoding(setup.frame_task, valid, training=training)
    valid.path.unlink(missing_ok=True)
    test, _ = read_clips(model, setup, source, setup.split.test, folder / "test.bin")
    scores, events = [], []
    for number, clip in zip(setup.split.test.tolist(), test, strict=True):
        (found,) = decoded(setup, [clip], settings)
        scores.append((clip[2], found, clip[3]))
        events.append(found.with_columns(pl.lit(setup.task.ids[number]).alias("clip_id")))
    test.path.unlink(missing_ok=True)
    table = score_clips(setup.frame_task.name, scores)
    return settings, table, pl.concat(events).select("clip_id", pl.exclude("clip_id"))


def training_events(setup: FrameSetup) -> list[pl.DataFrame]:
    """Return the events of each training clip, from which changes of chords and keys are learned; none for other tasks."""
    if setup.frame_task.kind != "multiclass":
        return []
    return [setup.events.of(clip) for clip in setup.task.ids.gather(setup.split.train)]


def train_frame_seed(
    setup: FrameSetup, model: FrameModel, source: EventSource, folder: Path, start: CheckpointWeights | None, is_main: bool
) -> FrameSeedResult | None:
    """Train the frozen baseline and the fine-tuning of `setup.config.seed`, each from its last checkpoint in `folder`.

    `model`: untrained, holds the weights of the best epoch afterwards.  Only the main process returns a result.
    """
    log.info("training the frozen baseline%s", seed_suffix(setup))
    baseline = FrozenFrameModel(model)
    trainer = FrameFinetuner(baseline, setup, source, folder / FROZEN, quiet=True)
    model.to(trainer.args.device)
    train_from_last_checkpoint(trainer, folder / FROZEN)
    before = judged(baseline, setup, source, folder, trainer.state.log_history) if is_main else None
    report = load_initial_weights(model, start, ()) if start else None
    loaded = str(report) if report else ""
    digest = frozen_digest(model)
    trainer = FrameFinetuner(model, setup, source, folder)
    if start and report and setup.config.resume:
        loaded += f"; {begin_at_epoch(trainer, start, report, folder, is_main)}"
    if loaded:
        log.info("%s", loaded)
    checkpoint = last_checkpoint(folder)
    log.info("%s%s", f"resuming from {checkpoint.name}" if checkpoint else "training", seed_suffix(setup))
    train_from_last_checkpoint(trainer, folder)
    if frozen_digest(model) != digest:
        raise RuntimeError("frozen weights of the encoder have changed during training")
    if not is_main or before is None:
        return None
    log.info("evaluating")
    tuned, events = judged(model, setup, source, folder, trainer.state.log_history)
    return FrameSeedResult(
        seed=setup.config.seed, tuned=tuned, frozen=before[0], events=events, weights=model.trained(), loaded=loaded
    )


def judged(
    model: Any, setup: FrameSetup, source: EventSource, folder: Path, history: Sequence[dict[str, float]]
) -> tuple[FrameTrained, pl.DataFrame]:
    """Judge a trained model on the test clips; return the result and the events found."""
    settings, scores, events = judge_model(model, setup, source, folder, training_events(setup))
    return FrameTrained(decoding=settings, scores=scores, history=list(history)), events


# -- finished seeds on disk


def table_file(work: Path, seed: int, table: str) -> Path:
    return work / f"seed-{seed}-{table}.parquet"


def write_frame_seed(work: Path, result: FrameSeedResult) -> None:
    """Write a finished seed; its last file appears complete."""
    scores = pl.concat([
        part.scores.with_columns(pl.lit(name).alias("model")) for name, part in ((TUNED, result.tuned), (FROZEN, result.frozen))
    ], how="diagonal")
    scores.write_parquet(table_file(work, result.seed, "scores"))
    result.events.write_parquet(table_file(work, result.seed, "events"))
    described = {"seed": result.seed, "loaded": result.loaded} | {
        name: {"decoding": part.decoding.as_dict(), "history": list(part.history)}
        for name, part in ((TUNED, result.tuned), (FROZEN, result.frozen))
    }
    write_seed_file(work, result.seed, result.weights, "frames", described)


def read_frame_seed(work: Path, seed: int) -> FrameSeedResult | None:
    """Read a finished seed; None if it is not finished."""
    stored = read_seed_file(work, seed, "frames")
    if stored is None:
        return None
    weights, described = stored
    try:
        scores, events = (pl.read_parquet(table_file(work, seed, table)) for table in ("scores", "events"))
    except (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError):
        return None
    parts = {
        name: FrameTrained(
            decoding=DecodeSettings.from_dict(described[name]["decoding"]), history=described[name]["history"],
            scores=scores.filter(pl.col("model") == name).drop("model"),
        ) for name in (TUNED, FROZEN)
    }
    return FrameSeedResult(
        seed=described["seed"], tuned=parts[TUNED], frozen=parts[FROZEN], events=events, weights=weights,
        loaded=described["loaded"],
    )


def with_frame_seed(setup: FrameSetup, seed: int) -> FrameSetup:
    return replace(setup, config=replace(setup.config, seed=seed))
