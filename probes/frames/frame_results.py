"""Results of a trained grid of frame heads: choose settings and layer, decode, score, write the files of the run.

For each layer, the setting with the best mean validation score over seeds is chosen, and the best layer by the same score.
Thresholds of the decoder are chosen on validation clips.  Test clips have no influence, and are decoded once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import torch

from tonelake.evaluate import (
    EVENT_METRICS,
    SIDES,
    Estimate,
    counted,
    estimate_scores,
    estimates_as_dict,
    estimates_by_clips,
    estimates_by_notes,
    leaks,
    max_t,
    replicate_scores,
    score_clips,
    stack_replicates,
)
from tonelake.probes.frames.baselines import frame_baselines
from tonelake.probes.frames.decode_settings import DecodeSettings
from tonelake.probes.frames.decoding import choose_decoding, decode
from tonelake.probes.frames.experiment import FrameExperiment
from tonelake.probes.frames.frame_data import FrameInput
from tonelake.probes.frames.grid import HISTORY, FrameGridResults
from tonelake.probes.frames.posteriors import StoredHeads, clip_posteriors
from tonelake.probes.frames.report import write_frame_report
from tonelake.probes.frames.run import FRAMES
from tonelake.probes.heads import Tensors
from tonelake.probes.inputs import Preparation
from tonelake.probes.report import leak_warning
from tonelake.probes.runs import WEIGHTS, read_tensors, write_table, write_tensors
from tonelake.probes.sweeps import figure_columns
from tonelake.store import METRICS_FILE, REPORT_FILE, Blobs, InputError

RESULTS = ("score", "loss", "epoch", "epochs", "history")
VALIDATION_CLIPS = 300                   # by which thresholds are chosen, evenly spread, so that probabilities fit in memory
TRAINING_CLIPS = 2_000                   # from which changes of chords and keys are learned
HELD, SEEN = "held out", "seen"          # groups of test clips

ClipEvents = tuple[pl.DataFrame, pl.DataFrame, float]


def part_name(experiment: FrameExperiment, spec: FrameInput) -> str:
    """Return the file of one input's fits, while the run trains."""
    return f"frames-{experiment.specs.index(spec):03d}.safetensors"


def part_tensors(results: FrameGridResults, preparation: Preparation) -> Tensors:
    """Return the tensors to store for one input: states (fit, …), results of each fit, and standardisation."""
    assert preparation.mean is not None and preparation.scale is not None
    found = {f"state.{name}": value for name, value in results.states.items()}
    found |= {name: torch.from_numpy(np.asarray(getattr(results, name))) for name in RESULTS}
    return found | {"prepare.mean": torch.from_numpy(preparation.mean), "prepare.scale": torch.from_numpy(preparation.scale)}


class ChosenFits:
    """The fits of one input at the setting that the validation clips select."""

    def __init__(self, experiment: FrameExperiment, spec: FrameInput, tensors: Tensors) -> None:
        self.experiment, self.spec, self.tensors = experiment, spec, tensors
        config = experiment.config
        self.scores = tensors["score"].numpy().reshape(config.seeds, len(config.settings))
        means = self.scores.mean(axis=0)
        self.setting = int(np.argmax(means))
        self.score = float(means[self.setting])

    def heads(self) -> StoredHeads:
        """Return the heads of all seeds."""
        experiment, count = self.experiment, len(self.experiment.config.settings)
        states = [
            {
                name.removeprefix("state."): value[seed * count + self.setting]
                for name, value in self.tensors.items() if name.startswith("state.")
            }
            for seed in range(experiment.config.seeds)
        ]
        preparation = Preparation(False, *(self.tensors[f"prepare.{part}"].numpy() for part in ("mean", "scale")))
        return StoredHeads(
            kind=experiment.task.kind, shape=experiment.shape(self.spec), spec=self.spec, preparation=preparation,
            states=states, device=experiment.config.device,
        )

    def fits(self) -> pl.DataFrame:
        """Return a row a fit."""
        settings, seeds = self.experiment.config.settings, self.experiment.config.seeds
        return pl.DataFrame([
            {
                "layer": self.spec.name, "rate": setting.rate, "decay": setting.decay, "seed": seed,
                "chosen": number == self.setting, "score": float(self.tensors["score"][seed * len(settings) + number]),
                "loss": float(self.tensors["loss"][seed * len(settings) + number]),
                "epoch": int(self.tensors["epoch"][seed * len(settings) + number]),
                "epochs": int(self.tensors["epochs"][seed * len(settings) + number]),
            }
            for seed in range(seeds) for number, setting in enumerate(settings)
        ])

    def history(self) -> pl.DataFrame:
        """Return a row an epoch of each fit."""
        settings, values = self.experiment.config.settings, self.tensors["history"].numpy()
        fit, epoch = np.nonzero(np.isfinite(values).any(axis=2))
        number = fit % len(settings)
        return pl.DataFrame({
            "layer": [self.spec.name] * len(fit), "rate": [settings[i].rate for i in number],
            "decay": [settings[i].decay for i in number], "seed": fit // len(settings), "chosen": number == self.setting,
            "epoch": epoch + 1, **{name: values[fit, epoch, column] for column, name in enumerate(HISTORY)},
        })


@dataclass(kw_only=True)
class Judged:
    """One input at its chosen setting, judged on the test clips."""

    chosen: ChosenFits
    decoding: DecodeSettings
    scores: pl.DataFrame                 # a row a test clip
    estimates: list[pl.DataFrame] = field(repr=False)            # events found in each test clip


class TestClips:
    """The test clips of an experiment: reference events, lengths and the units of intervals."""

    def __init__(self, experiment: FrameExperiment) -> None:
        self.experiment, self.rows = experiment, experiment.split.split.test
        self.units = experiment.units(self.rows)
        self.references = [experiment.clips.events_of(int(row)) for row in self.rows]
        self.seconds = experiment.targets.clips["duration_s"].gather(self.rows).to_list()

    def judge(self, chosen: ChosenFits) -> Judged:
        """Choose thresholds on the validation clips, decode the test clips, and score them."""
        experiment, task = self.experiment, self.experiment.task
        heads, ids = chosen.heads(), experiment.targets.ids
        valid = experiment.split.split.valid
        if len(valid) > VALIDATION_CLIPS:
            valid = valid[np.linspace(0, len(valid) - 1, VALIDATION_CLIPS).astype(np.int64)]
        lengths = experiment.targets.clips["duration_s"]
        known = [
            (found.probabilities, found.frame_s, experiment.clips.events_of(int(row)), lengths[int(row)])
            for row, found in zip(
                valid, clip_posteriors(experiment.lake, experiment.space, heads, ids.gather(valid).to_list()), strict=True
            )
        ]
        training = experiment.split.split.train[: TRAINING_CLIPS if task.kind == "multiclass" else 0]
        decoding = choose_decoding(task, known, training=[experiment.clips.events_of(int(row)) for row in training])
        del known
        estimates = [
            decode(task, found.probabilities, found.frame_s, decoding)
            for found in clip_posteriors(experiment.lake, experiment.space, heads, ids.gather(self.rows).to_list())
        ]
        scores = score_clips(task.name, self.pairs(estimates))
        return Judged(chosen=chosen, decoding=decoding, scores=scores, estimates=estimates)

    def pairs(self, estimates: Sequence[pl.DataFrame]) -> list[ClipEvents]:
        return list(zip(self.references, estimates, self.seconds, strict=True))

    def groups(self) -> dict[str, list[str | None]]:
        """Return groupings of the test clips: by whether their group is held out, and by group."""
        split = self.experiment.split
        if split.held_out is None or split.groups is None:
            return {}
        held = split.held_out[self.rows]
        column = str(self.experiment.config.hold_out)
        return {
            "seen or held out": [HELD if one else SEEN for one in held], column: split.groups.gather(self.rows).to_list(),
        }

    def group_table(self, judged: Judged) -> pl.DataFrame:
        """Return scores by group: by, group, clips, score, value, low, high."""
        tables = [
            estimates_by_clips(judged.scores, self.units, groups).select(pl.lit(by).alias("by"), pl.all())
            for by, groups in self.groups().items()
        ]
        if self.experiment.task.name == "notes":
            for by, name in (("octave", "octave"), ("value", "instrument")):
                table = estimates_by_notes(self.pairs(judged.estimates), self.units, by)
                tables.append(table.select(pl.lit(name).alias("by"), pl.all()))
        return pl.concat(tables) if tables else pl.DataFrame()


def write_frame_results(
    experiment: FrameExperiment, name: str, files: Blobs, partial: Blobs, started: datetime, resumed: int
) -> None:
    """Choose settings and layer, judge each layer on the test clips, and write a run's files, metrics last.

    Raises InputError if no fit has a finite loss.
    """
    config, main = experiment.config, EVENT_METRICS[experiment.task.name]
    tests = TestClips(experiment)
    rows: list[dict[str, Any]] = []
    figures, fits, histories, diverged = [], [], [], []
    best: Judged | None = None
    for spec in experiment.lake.progress(experiment.specs, len(experiment.specs), "decoding"):
        chosen = ChosenFits(experiment, spec, read_tensors(partial, part_name(experiment, spec), name))
        fits.append(chosen.fits())
        histories.append(chosen.history())
        if not np.isfinite(chosen.score):
            diverged.append(spec.name)
            continue
        judged = tests.judge(chosen)
        setting = config.settings[chosen.setting]
        rows.append({
            "layer": len(rows), "name": spec.name, "rate": setting.rate, "decay": setting.decay,
            "parameters": experiment.shape(spec).parameters(), "valid": chosen.score,
        } | figure_columns(estimate_scores(judged.scores, tests.units)))
        figures.append(replicate_scores(judged.scores, tests.units, main))
        if best is None or chosen.score > best.chosen.score:
            best = judged
    if best is None:
        raise InputError("no fit reached a finite loss. Lower the learning rates")
    notes = [f"no setting of layer {', '.join(diverged)} reached a finite loss; lower the learning rates"] if diverged else []
    heads, spec = best.chosen.heads(), best.chosen.spec
    estimates = estimate_scores(best.scores, tests.units)
    baselines, missing = frame_baselines(
        experiment, lambda events: estimate_scores(score_clips(experiment.task.name, tests.pairs(events)), tests.units)
    )
    ids = experiment.targets.ids.gather(tests.rows)
    tables = {
        "fits": pl.concat(fits), "history": pl.concat(histories), "layers": layers_table(rows, figures, spec.name),
        "clips": clip_table(experiment, tests, best), "groups": tests.group_table(best),
        "predictions": pl.concat([
            events.select(pl.lit(clip).alias("clip_id"), pl.all())
            for clip, events in zip(ids, best.estimates, strict=True)
        ]),
        "split": split_table(experiment),
    }
    for key, table in tables.items():
        if len(table.columns):
            write_table(files, key, table)
    write_tensors(files, WEIGHTS, heads.tensors(), heads.metadata())
    metrics: dict[str, Any] = {
        "run": name, "on": FRAMES, "task": config.task, "columns": [config.task], "space": experiment.space.name,
        "fingerprint": experiment.space.fingerprint, "layer": spec.name,
        "layers": [experiment.space.layers[layer] for layer in spec.layers],
        "setting": str(config.settings[best.chosen.setting]), "fits": experiment.fits,
        "parameters": experiment.shape(spec).parameters(), "resumed": resumed, "clips": len(experiment.targets),
        "sides": {side: len(part) for side, part in zip(SIDES, sides_of(experiment), strict=True)},
        "seconds": round(float(experiment.targets.clips["duration_s"].sum()), 1), "period_s": experiment.clips.period_s,
        "judged": len(tests.rows), "main": main, "over": str(tests.units), "figures": estimates_as_dict(estimates),
        "validation": best.chosen.score, "decoding": best.decoding.as_dict(),
        "head": {"shape": asdict(heads.shape), "kind": heads.kind, "input": asdict(heads.spec)},
        "baselines": {baseline: estimates_as_dict(found) for baseline, found in baselines.items()},
        "leaks": leaks(experiment.targets, [experiment.split.split]).to_dicts(),
        "notes": [*experiment.notes, *notes, *missing], "weights_of_layers": layer_weights(experiment, heads),
        "started": started.isoformat(timespec="seconds"), "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    metrics["summary"] = summary(metrics, estimates)
    files.put_text(REPORT_FILE, write_frame_report(config, metrics, tables))
    files.put_text(METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def layers_table(rows: list[dict[str, Any]], figures: list, best: str) -> pl.DataFrame:
    """Return a row a layer, with `best` (chosen by validation) and `tied` (not distinguishable from the highest, max-t)."""
    found = max_t(stack_replicates(figures))
    tied = [number == found.best or bool(found.tied[number]) for number in range(len(rows))]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(tied=pl.Series(tied), best=pl.col("name") == best)


def clip_table(experiment: FrameExperiment, tests: TestClips, judged: Judged) -> pl.DataFrame:
    """Return the scores of each test clip with its id, group and whether the group is held out."""
    columns = {"clip_id": experiment.targets.ids.gather(tests.rows)}
    split = experiment.split
    if split.held_out is not None and split.groups is not None:
        columns |= {"group": split.groups.gather(tests.rows), "held_out": pl.Series(split.held_out[tests.rows])}
    return pl.DataFrame(columns).hstack(judged.scores)


def sides_of(experiment: FrameExperiment) -> list[np.ndarray]:
    split = experiment.split.split
    return [split.train, split.valid, split.test]


def split_table(experiment: FrameExperiment) -> pl.DataFrame:
    """Return a row a clip that is in one of the sets: its set, and whether its group is held out."""
    held = experiment.split.held_out
    return pl.concat([
        pl.DataFrame({"clip_id": experiment.targets.ids.gather(rows)}).with_columns(
            side=pl.lit(side), held_out=pl.Series(held[rows]) if held is not None else pl.lit(None, pl.Boolean)
        )
        for side, rows in zip(SIDES, sides_of(experiment), strict=True)
    ])


def layer_weights(experiment: FrameExperiment, heads: StoredHeads) -> dict[str, float] | None:
    """Return each layer's share of a learned weighting, the mean over seeds; None without a weighting."""
    if not heads.spec.parts:
        return None
    shares = np.mean([torch.softmax(state["mix"], dim=0).numpy() for state in heads.states], axis=0)
    return {experiment.space.layers[n]: round(float(share), 4) for n, share in zip(heads.spec.layers, shares, strict=True)}


def summary(metrics: Mapping[str, Any], estimates: Mapping[str, Estimate]) -> str:
    """Describe the result in a few sentences."""
    main = str(metrics["main"])
    return (
        f"Layer {metrics['layer']} of {metrics['space']} finds {metrics['task']} with {main.replace('_', ' ')} "
        f"{estimates[main]} {metrics['over']} on {counted(metrics['judged'], 'test clips')} ({metrics['setting']}; the best of "
        f"{counted(metrics['fits'], 'fit')} on the validation clips, {metrics['parameters']:,} parameters each)."
    ) + leak_warning(metrics["leaks"])
