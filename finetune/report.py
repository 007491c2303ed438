"""A fine-tuning as a page for people: what was trained, what it came to beside the frozen probe, class by class."""

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
    markdown_picture,
    markdown_table,
)

MOST_ROWS = 24
MORE_WORDS = METRIC_LABELS | {
    "primary_accuracy": "primary accuracy", "macro_f1_present": "macro-F1 of classes that occur",
}


def write_report(
    config: FinetuneConfig, metrics: dict[str, Any], tables: dict[str, pl.DataFrame], split: Split, drawn: Sequence[str]
) -> str:
    """Markdown."""
    parts = [f"# {config.column}: {metrics['encoder']} with LoRA", metrics["summary"], asked(config, metrics, split)]
    parts += ["## Before and after", figures_table(metrics)]
    if metrics["frozen"]:
        parts.append(
            f"Before: run {metrics['frozen']['run']} on the vectors stored in {metrics['space']}, the same clips on the same "
            f"sides. On the clips learned from: {format_number(metrics['frozen']['train'])} before, {format_number(metrics['train'])} after."
        )
    if "classes" in tables:
        parts += ["## Classes", classes_table(tables["classes"]), markdown_picture(drawn, "confusion.png", "confusion")]
    parts += ["## Which layers it looks at", markdown_picture(drawn, "weights.png", "learned share of each layer")]
    parts += ["## Epochs", frame_table(tables["history"])]
    parts += ["## What stands on both sides", leaks_table(metrics), cautions(metrics)]
    parts += [
        "## Again", f"    tonelake finetune --config {shlex.quote('adapters/' + metrics['run'] + '/config.yaml')}",
        "## Its vectors", f"    tonelake embed --adapter {shlex.quote(metrics['run'])}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def asked(config: FinetuneConfig, metrics: dict[str, Any], split: Split) -> str:
    """The experiment in words."""
    whom = f"{metrics['outputs']:,} {'classes' if metrics['task'] == 'multiclass' else 'outputs'}"
    which = f" of the blocks above layer {config.above}" if config.above else ""
    source = f"the stored frames of layer {config.above}" if config.frames else f"audio in windows of {config.window_s:g} s"
    changed = f"; augmented by {', '.join(config.augments)}" if config.augments else ""
    return (
        f"{metrics['clips']:,} clips, {whom}, from {source}, up to {config.crop_s:g} s of each{changed}. LoRA on "
        f"{', '.join(config.targets)}{which} (rank {config.rank}, alpha {config.alpha:g}): {metrics['trainable_lora']:,} of "
        f"{metrics['trainable']:,} parameters that learn. AdamW, head {config.head_rate:g}, adapter {config.lora_rate:g}, "
        f"{config.schedule}; {config.batch} clips at once, {config.accumulated} times a step; {config.precision} on "
        f"{config.device}. Split {config.split}: {split}."
    )


def figures_table(metrics: dict[str, Any]) -> str:
    before = metrics["frozen"]["figures"] if metrics["frozen"] else {}
    rows = []
    for name, figure in metrics["figures"].items():
        known = before.get(name)
        rows.append([MORE_WORDS.get(name, name), format_interval(known) if known else "", format_interval(figure)])
    return markdown_table(["", "frozen (95 %)", "with LoRA (95 %)"], rows)


def classes_table(classes: pl.DataFrame) -> str:
    """The classes that occur, best first; all are in classes.parquet."""
    occurring = classes.filter(pl.col("support") > 0).sort("f1", "support", descending=True, nulls_last=True)
    columns = ["name", "support", "primary_accuracy", "ap", "f1", "frozen_accuracy", "frozen_ap"]
    text = frame_table(occurring.head(MOST_ROWS).select([c for c in columns if c in occurring.columns]))
    left = len(occurring) - MOST_ROWS
    return text + (f"\n\n{left} more are in classes.parquet." if left > 0 else "")


def cautions(metrics: dict[str, Any]) -> str:
    lines = [f"- {note[0].upper()}{note[1:]}." for note in metrics["notes"]]
    if metrics["started_from"]:
        lines.append(f"- It began from other weights: {metrics['started_from']}.")
    lines.append("- One seed: another one moves such figures by a few points. The intervals are over tracks drawn anew alone.")
    return "\n".join(lines)
