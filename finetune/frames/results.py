"""Results of a fine-tuning on events, written as the files of the run.

In place of classes and predictions there are the tables events (found in the test clips by the kept seed), scores (of each test
clip, seed and model) and groups (notes by octave and by instrument); the settings of the decoder are in metrics.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from tonelake.embed import read_adapter
from tonelake.evaluate import EVENT_METRICS, SIDES, estimates_as_dict, leaks, make_units
from tonelake.finetune.config import SCORE, FinetuneConfig
from tonelake.finetune.evaluation import WORD
from tonelake.finetune.frames.report import summary, write_event_report
from tonelake.finetune.frames.scores import judge_scores, note_groups
from tonelake.finetune.frames.setup import FrameSetup
from tonelake.finetune.frames.training import FROZEN, TUNED, FrameSeedResult
from tonelake.finetune.model import LoraModel
from tonelake.finetune.results import best_epoch, clips_table, count_trainable, history_rows, split_table, write_adapter
from tonelake.finetune.runs import HEAD
from tonelake.probes import draw_weights, save_plot, write_table, write_tensors
from tonelake.store import METRICS_FILE, REPORT_FILE, Blobs

SAME_HEAD = "same head, layers and training; encoder frozen"


def write_frame_results(
    setup: FrameSetup, results: Sequence[FrameSeedResult], model: LoraModel, name: str, files: Blobs, started: datetime
) -> None:
    """Judge every seed on the test clips and write a run's files, metrics last.  `model`: receives the kept weights."""
    task, config, split = setup.task, setup.config, setup.split
    main = EVENT_METRICS[setup.frame_task.name]
    sign = 1 if config.higher_is_better else -1
    kept = max(results, key=lambda one: np.nan_to_num(sign * one.tuned.best_valid(config), nan=-np.inf))
    model.load_state_dict(kept.weights, strict=False)
    units = make_units(task.track[split.test], WORD)
    figures = judge_scores([one.tuned.scores for one in results], [one.frozen.scores for one in results], units)
    names = setup.space.layers[config.first :]
    shares = {layer: round(float(share), 4) for layer, share in zip(names, model.layer_weights(), strict=True)}
    tables = {
        "history": event_history(kept.tuned.history, config), "seeds": seeds_table(results, kept, main, config),
        "layers": pl.DataFrame({"layer": list(shares), "share": list(shares.values())}),
        "events": kept.events, "scores": scores_table(setup, results), "split": split_table(setup),
    }
    if setup.frame_task.name == "notes":
        tables["groups"] = note_groups(clip_pairs(setup, kept.events), units)
    for key, table in tables.items():
        write_table(files, key, table)
    write_adapter(files, model, setup)
    write_tensors(files, HEAD, {name: tensor.detach().clone() for name, tensor in model.head.state_dict().items()}, {
        "names": json.dumps(list(setup.frame_task.outputs)), "kind": setup.frame_task.kind, "column": config.column,
        "head": config.head, "above": str(config.above), "first_layer": str(config.first), "window_s": str(config.window_s),
    })
    best = tables["seeds"].row(by_predicate=pl.col("kept"), named=True)
    metrics: dict[str, Any] = {
        "run": name, "task": setup.frame_task.kind, "events": setup.frame_task.name, "columns": [config.column],
        "space": setup.space.name, "fingerprint": setup.space.fingerprint, "encoder": setup.space.encoder,
        "revision": setup.space.revision, "adapter": read_adapter(f"{files.uri}/adapter").digest,
        "clips": sum(len(getattr(split, side)) for side in SIDES), "judged": len(split.test),
        "seconds": round(float(task.clips["duration_s"].sum()), 1), "outputs": len(setup.frame_task.outputs), "main": main,
        "figures": estimates_as_dict(figures.tuned),
        "frozen": {"head": SAME_HEAD, "figures": estimates_as_dict(figures.frozen)},
        "difference": estimates_as_dict(figures.difference),
        "over": str(units) + (f" and {config.seeds} seeds" if config.seeds > 1 else ""), "baselines": {},
        "decoding": kept.tuned.decoding.as_dict(), "seeds": list(config.all_seeds), "kept_seed": kept.seed,
        "trainable": count_trainable(model, lora=None), "trainable_lora": count_trainable(model, lora=True),
        "epochs": best["epochs"], "best_epoch": best["best_epoch"], "leaks": leaks(task, [split]).to_dicts(),
        "notes": setup.notes, "weights_of_layers": shares, "started_from": kept.loaded or None,
        "started": started.isoformat(timespec="seconds"), "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    metrics["summary"] = summary(metrics)
    save_plot(files, "weights.png", draw_weights(metrics))
    files.put_text(REPORT_FILE, write_event_report(config, metrics, tables, split))
    files.put_text(METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def event_history(history: Sequence[dict[str, float]], config: FinetuneConfig) -> pl.DataFrame:
    """Return a row an epoch: training loss; on validation the loss, the monitored metric (`valid`) and the score; the rate."""
    return history_rows(history, config.monitored, (SCORE,))


def seeds_table(
    results: Sequence[FrameSeedResult], kept: FrameSeedResult, main: str, config: FinetuneConfig
) -> pl.DataFrame:
    """Return a row a seed: best validation score, main score on the test clips, tuned and frozen, and the epochs."""
    rows = []
    for result in results:
        tuned, frozen = (event_history(one.history, config) for one in (result.tuned, result.frozen))
        after, before = (mean_of(one.scores, main) for one in (result.tuned, result.frozen))
        rows.append({
            "seed": result.seed, "kept": result is kept, "valid": result.tuned.best_valid(config), "test": after,
            "frozen": before, "difference": None if after is None or before is None else after - before,
            "epochs": len(tuned), "best_epoch": best_epoch(tuned, config),
            "frozen_epochs": len(frozen), "frozen_best_epoch": best_epoch(frozen, config),
        })
    return pl.DataFrame(rows, infer_schema_length=None)


def mean_of(scores: pl.DataFrame, name: str) -> float | None:
    """Return the mean of a score over the clips for which it is defined; None if there are none."""
    found = scores[name].fill_nan(None).mean()
    return found if isinstance(found, float) else None


def scores_table(setup: FrameSetup, results: Sequence[FrameSeedResult]) -> pl.DataFrame:
    """Return a row a test clip, seed and model (tuned or frozen): clip_id, track, song, seed, model and the scores."""
    clips = clips_table(setup, setup.split.test)
    return pl.concat([
        clips.with_columns(seed=pl.lit(result.seed, pl.Int64), model=pl.lit(name)).hstack(part.scores)
        for result in results for name, part in ((TUNED, result.tuned), (FROZEN, result.frozen))
    ], how="diagonal")


def clip_pairs(setup: FrameSetup, events: pl.DataFrame) -> list[tuple[pl.DataFrame, pl.DataFrame, float]]:
    """Return the reference, the events found, and the length of each test clip."""
    found = events.partition_by("clip_id", as_dict=True)
    none = events.clear()
    rows = setup.split.test
    ids, seconds = setup.task.ids.gather(rows), setup.task.clips["duration_s"].gather(rows)
    return [
        (setup.events.of(clip), found.get((clip,), none), float(length)) for clip, length in zip(ids, seconds, strict=True)
    ]
