"""Markdown report of a frame probe: scores by layer, by group, thresholds, baselines, cautions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import polars as pl

from tonelake.evaluate import counted
from tonelake.probes.frames.config import FrameProbeConfig
from tonelake.probes.report import format_interval, format_number, leaks_table, listed, markdown_table

SHOWN = {                                # the scores of a task in tables, the main one first
    "notes": ("onset_f1", "onset_offset_f1", "frame_f1", "triad_recall", "median_error_s"),
    "onsets": ("f1", "precision", "recall", "median_error_s"),
    "beats": ("f1", "cmlt", "amlt", "downbeat_f1"),
    "chords": ("majmin", "root"),
    "key": ("key_score",),
}
SCORE_LABELS = {
    "onset_f1": "onset F1", "onset_offset_f1": "onset and offset F1", "frame_f1": "frame F1", "triad_recall": "triad recall",
    "median_error_s": "median error (s)", "f1": "F1", "precision": "precision", "recall": "recall", "cmlt": "CMLt",
    "amlt": "AMLt", "downbeat_f1": "downbeat F1", "majmin": "majmin", "root": "root", "key_score": "MIREX key score",
}


def write_frame_report(config: FrameProbeConfig, metrics: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> str:
    """Return the report as Markdown."""
    parts = [f"# {config.task}, from frames of {metrics['space']}", metrics["summary"], describe(config, metrics)]
    parts += ["## Results", results_table(metrics), "## Layers", layers_part(config, metrics, tables["layers"])]
    groups = tables["groups"]
    if len(groups.columns):
        for (by,), part in groups.group_by("by", maintain_order=True):
            parts += [f"## By {by}" if by != "seen or held out" else "## Seen and held out", groups_part(config, part)]
    parts += ["## Decoding", decoding_part(metrics), "## Training", training_part(metrics, tables["history"])]
    parts += ["## Overlap between training and test", leaks_table(dict(metrics)), "## Cautions", cautions(metrics)]
    settings = shlex.quote(f"probes/{metrics['run']}/config.yaml")
    parts += ["## Reproduce", f"    tonelake probe --frames --config {settings}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe(config: FrameProbeConfig, metrics: Mapping[str, Any]) -> str:
    """Describe the experiment in words."""
    sizes = {
        "linear": "one frame", "context": f"{config.context} frames", "mlp": f"one frame, {config.hidden} hidden units",
        "conv": f"{config.context} frames, {config.hidden} channels", "gru": f"a bidirectional GRU of {config.hidden} units",
    }
    head = f"Head {config.head} ({sizes[config.head]})" if config.head in sizes else f"Head {config.head}"
    sides = metrics["sides"]
    held = f", {config.hold_out} held out" if config.hold_out else ""
    weights = "positives and negatives weighted equally" if config.class_weights == "balanced" else "no class weights"
    return (
        f"{metrics['clips']:,} clips ({metrics['seconds'] / 60:.0f} minutes), a frame each {1e3 * metrics['period_s']:.1f} ms. "
        f"{head}, {metrics['parameters']:,} parameters; AdamW, batches of {config.batch} segments of {config.segment_s:g} s, "
        f"at most {config.epochs} epochs, {weights}. Split {config.split}{held}: {sides['train']:,} training, "
        f"{sides['valid']:,} validation and {sides['test']:,} test clips. {counted(config.seeds, 'seeds')}; probabilities are "
        "averaged over seeds."
    )


def results_table(metrics: Mapping[str, Any]) -> str:
    """Return every score of the chosen layer beside the baselines."""
    baselines = list(metrics["baselines"])
    rows = []
    for name, figure in metrics["figures"].items():
        others = [metrics["baselines"][baseline].get(name) for baseline in baselines]
        rows.append([
            SCORE_LABELS.get(name, name.replace("_", " ")), format_interval(figure),
            *("" if other is None else format_interval(other) for other in others),
        ])
    return markdown_table(["", f"probe (95 % {metrics['over']})", *baselines], rows)


def layers_part(config: FrameProbeConfig, metrics: Mapping[str, Any], layers: pl.DataFrame) -> str:
    """Return the table of layers, and which are not distinguishable from the highest."""
    shown = [name for name in SHOWN[config.task] if name in layers.columns]
    rows = [
        [
            row["name"] + (" *" if row["best"] else ""), *(format_interval(figure_in(row, name)) for name in shown),
            format_number(row["valid"]),
            f"{row['rate']:g}", f"{row['decay']:g}", f"{row['parameters']:,}",
        ]
        for row in layers.to_dicts()
    ]
    header = ["layer", *(SCORE_LABELS[name] for name in shown), "validation score", "rate", "decay", "parameters"]
    text = markdown_table(header, rows)
    text += "\n\n\\* selected on the validation clips, so its test figure is not inflated by the choice."
    if len(layers) == 1:
        return text
    main = metrics["main"]
    top = layers.row(int(layers[main].fill_nan(None).arg_max() or 0), named=True)
    tied = layers.filter(pl.col("tied") & (pl.col("name") != top["name"]))["name"].to_list()
    others = f"not distinguishable from {listed(tied)}" if tied else "distinguishable from every other layer"
    return f"{text}\n\nOn the test clips layer {top['name']} is highest; it is {others} (max-t, 95 % {metrics['over']})."


def groups_part(config: FrameProbeConfig, part: pl.DataFrame) -> str:
    """Return a row a group with the task's scores."""
    wanted = [name for name in (*SHOWN[config.task], "f1", "recall") if name in part["score"].to_list()]
    names = list(dict.fromkeys(wanted))
    rows = []
    for (group,), own in part.group_by("group", maintain_order=True):
        figures = {row["score"]: row for row in own.to_dicts()}
        rows.append([
            str(group), f"{own['clips'][0]:,}",
            *(format_interval(finite(figures[name])) if name in figures else "" for name in names),
        ])
    return markdown_table(["", "clips", *(SCORE_LABELS[name] for name in names)], rows)


def figure_in(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a score of a row of the table of layers, with None in place of NaN."""
    return finite({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]})


def finite(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure with None in place of NaN."""
    values = {name: figure[name] for name in ("value", "low", "high")}
    return {name: None if value is None or value != value else value for name, value in values.items()}


def decoding_part(metrics: Mapping[str, Any]) -> str:
    """Return the settings of the decoder."""
    values = ", ".join(f"{name} {value}" for name, value in metrics["decoding"].items() if value not in (None, []))
    return f"Chosen on the validation clips: {values}."


def training_part(metrics: Mapping[str, Any], history: pl.DataFrame) -> str:
    """Return the epochs of the chosen fits, means over seeds."""
    means = frame_history(history, metrics["layer"])
    shown = means if len(means) <= 12 else pl.concat([means.head(6), means.tail(6)])
    rows = [
        [str(row["epoch"]), *(format_number(row[name]) for name in ("train_loss", "valid_loss", "score"))]
        for row in shown.to_dicts()
    ]
    return markdown_table(["epoch", "loss, training", "loss, validation", "validation score"], rows)


def frame_history(history: pl.DataFrame, layer: str) -> pl.DataFrame:
    """Return a row an epoch of a layer's chosen setting: train_loss, valid_loss and score, means over seeds."""
    own = history.filter(pl.col("chosen") & (pl.col("layer") == layer))
    return own.group_by("epoch").agg(pl.col("train_loss", "valid_loss", "score").mean()).sort("epoch")


def cautions(metrics: Mapping[str, Any]) -> str:
    """List what a reader should know before quoting the results."""
    lines = [f"- {note[0].upper()}{note[1:]}." for note in metrics["notes"]]
    shared = {leak["column"] for leak in metrics["leaks"] if leak["clips"]}
    if shared & {"track", "duplicate", "audio"}:
        lines.append("- Training and test set share recordings, so the figures are too high. Split by track.")
    lines.append(
        f"- Compare only with results on the same clips and the same split; intervals are jackknifed {metrics['over']} of the "
        "test set and say nothing about other libraries."
    )
    return "\n".join(lines)
