"""Markdown report of a fine-tuning: settings, results beside the frozen probe, classes, layer weights and cautions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import polars as pl

from tonelake.evaluate import Split
from tonelake.finetune.config import FinetuneConfig
from tonelake.probes import (
    METRIC_LABELS,
    format_interval,
    format_number,
    frame_table,
    leaks_table,
    markdown_image,
    markdown_table,
)

MOST_ROWS = 24
LABELS = METRIC_LABELS | {
    "primary_accuracy": "primary accuracy", "macro_f1_present": "macro-F1 of classes that occur",
}


def write_report(
    config: FinetuneConfig, metrics: dict[str, Any], tables: dict[str, pl.DataFrame], split: Split, drawn: Sequence[str]
) -> str:
    """Return the report as Markdown."""
    title = f"# {config.column}: {metrics['encoder']} with LoRA"
    parts = [title, metrics["summary"], describe_experiment(config, metrics, split)]
    parts += ["## Results before and after", metrics_table(metrics)]
    if metrics["frozen"]:
        parts.append(
            f"Before: run {metrics['frozen']['run']} on the vectors stored in {metrics['space']}, with the same split. On the "
            f"training clips: {format_number(metrics['frozen']['train'])} before, {format_number(metrics['train'])} after."
        )
    if "classes" in tables:
        parts += ["## Classes", classes_table(tables["classes"]), markdown_image(drawn, "confusion.png", "confusion")]
    parts += ["## Layer weights", markdown_image(drawn, "weights.png", "learned share of each layer")]
    parts += ["## Epochs", frame_table(tables["history"])]
    parts += ["## Overlap between training and test", leaks_table(metrics), "## Cautions", cautions(metrics)]
    parts += [
        "## Reproduce", f"    tonelake finetune --config {shlex.quote('adapters/' + metrics['run'] + '/config.yaml')}",
        "## Embed with this adapter", f"    tonelake embed --adapter {shlex.quote(metrics['run'])}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_experiment(config: FinetuneConfig, metrics: dict[str, Any], split: Split) -> str:
    """Describe the experiment in words."""
    outputs = f"{metrics['outputs']:,} {'classes' if metrics['task'] == 'multiclass' else 'outputs'}"
    which = f" of the blocks above layer {config.above}" if config.above else ""
    source = f"the stored frames of layer {config.above}" if config.frames else f"audio in windows of {config.window_s:g} s"
    changed = f"; augmented by {', '.join(config.augments)}" if config.augments else ""
    return (
        f"{metrics['clips']:,} clips, {outputs}, from {source}, up to {config.crop_s:g} s of each{changed}. LoRA on "
        f"{', '.join(config.targets)}{which} (rank {config.rank}, alpha {config.alpha:g}): {metrics['trainable_lora']:,} of "
        f"{metrics['trainable']:,} trainable parameters. AdamW, head {config.head_rate:g}, adapter {config.lora_rate:g}, "
        f"{config.schedule}; batches of {config.batch}, {config.accumulated} per step; {config.precision} on "
        f"{config.device}. Split {config.split}: {split}."
    )


def metrics_table(metrics: dict[str, Any]) -> str:
    before = metrics["frozen"]["figures"] if metrics["frozen"] else {}
    rows = []
    for name, estimate in metrics["figures"].items():
        known = before.get(name)
        rows.append([LABELS.get(name, name), format_interval(known) if known else "", format_interval(estimate)])
    return markdown_table(["", "frozen (95 %)", "with LoRA (95 %)"], rows)


def classes_table(classes: pl.DataFrame) -> str:
    """Return the classes that occur in the test set, best first; classes.parquet has all of them."""
    occurring = classes.filter(pl.col("support") > 0).sort("f1", "support", descending=True, nulls_last=True)
    columns = ["name", "support", "primary_accuracy", "ap", "f1", "frozen_accuracy", "frozen_ap"]
    text = frame_table(occurring.head(MOST_ROWS).select([c for c in columns if c in occurring.columns]))
    left = len(occurring) - MOST_ROWS
    return text + (f"\n\nclasses.parquet has {left} more." if left > 0 else "")


def cautions(metrics: dict[str, Any]) -> str:
    lines = [f"- {note[0].upper()}{note[1:]}." for note in metrics["notes"]]
    if metrics["started_from"]:
        lines.append(f"- Training began from other weights: {metrics['started_from']}.")
    lines.append("- One seed: another seed changes such results by a few points. Intervals are bootstrapped over tracks only.")
    return "\n".join(lines)
