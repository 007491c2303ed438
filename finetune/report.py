"""Markdown report of a fine-tuning: settings, results beside the frozen baseline, seeds, classes, layers and cautions."""

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
    parts += ["## Results", metrics_table(metrics), describe_baseline(metrics)]
    if len(tables["seeds"]) > 1:
        parts += ["## Seeds", frame_table(tables["seeds"]), describe_seeds(metrics, tables["seeds"])]
    if "classes" in tables:
        parts += [
            "## Classes", classes_table(tables["classes"]), describe_accuracy(metrics),
            markdown_image(drawn, "confusion.png", "confusion"),
        ]
    return join_parts([*parts, *last_parts(metrics, tables, drawn, cautions(config, metrics))])


def last_parts(metrics: dict[str, Any], tables: dict[str, pl.DataFrame], drawn: Sequence[str], cautions: str) -> list[str]:
    """Return the parts with which the report of any fine-tuning ends: layers, epochs, overlap, cautions and commands."""
    return [
        "## Layer weights", markdown_image(drawn, "weights.png", "learned share of each layer"),
        "## Epochs", frame_table(tables["history"]),
        "## Overlap between training and test", leaks_table(metrics), "## Cautions", cautions,
        "## Reproduce", f"    tonelake finetune --config {shlex.quote('adapters/' + metrics['run'] + '/config.yaml')}",
        "## Embed with this adapter", f"    tonelake embed --adapter {shlex.quote(metrics['run'])}",
    ]


def join_parts(parts: Sequence[str]) -> str:
    """Return parts of a page as Markdown; empty ones are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_experiment(config: FinetuneConfig, metrics: dict[str, Any], split: Split) -> str:
    """Describe the experiment in words."""
    outputs = f"{metrics['outputs']:,} {'classes' if metrics['task'] == 'multiclass' else 'outputs'}"
    which = f" of the blocks above layer {config.above}" if config.above else ""
    source = f"the stored frames of layer {config.above}" if config.frames else f"audio in windows of {config.window_s:g} s"
    targets = ", ".join(config.targets or ())
    changed = f"; augmented by {', '.join(config.augments)}" if config.augments else ""
    return (
        f"{metrics['clips']:,} clips, {outputs}, from {source}, up to {config.crop_s:g} s of each{changed}. LoRA on "
        f"{targets}{which} (rank {config.rank}, alpha {config.alpha:g}): {metrics['trainable_lora']:,} of "
        f"{metrics['trainable']:,} trainable parameters. AdamW, head {config.head_rate:g}, adapter {config.lora_rate:g}, "
        f"{config.schedule} by validation {LABELS.get(config.monitored, config.monitored)}; batches of {config.batch}, "
        f"{config.accumulated} per step; {config.precision} on {config.device}. Split {config.split}: {split}."
    )


def metrics_table(metrics: dict[str, Any]) -> str:
    before, away, baselines = metrics["frozen"]["figures"], metrics["difference"], metrics["baselines"]
    rows = [
        [
            LABELS.get(name, name), format_interval(estimate), format_interval(before[name]), format_difference(away.get(name)),
            *(format_number(found.get(name, {}).get("value")) for found in baselines.values()),
        ]
        for name, estimate in metrics["figures"].items()
    ]
    return markdown_table(["", "with LoRA (95 %)", "frozen (95 %)", "difference (95 %)", *baselines], rows)


def describe_baseline(metrics: dict[str, Any]) -> str:
    """Describe the columns of the results."""
    return (
        "Frozen: the same head, initial weights, layers and pooling, trained in the same way on the encoder without an "
        f"adapter. The difference is paired on the same test clips. Intervals are 95 %, jackknifed {metrics['over']}. "
        f"On the training clips: {format_number(metrics['frozen']['train'])} frozen, {format_number(metrics['train'])} with "
        "LoRA."
    )


def describe_seeds(metrics: dict[str, Any], seeds: pl.DataFrame) -> str:
    """Say which seed is kept, and how much of the difference varies with the seed."""
    kept = seeds.row(by_predicate=pl.col("kept"), named=True)
    return (
        f"Figures above and in the table of classes are means over the {len(seeds)} seeds; their standard deviation is "
        f"{format_number(spread(seeds['test']))} with LoRA, {format_number(spread(seeds['frozen']))} frozen and "
        f"{format_number(spread(seeds['difference']))} of the difference. Adapter, head, predictions, layer weights and epochs "
        f"are those of seed {kept['seed']}, which is best on the validation clips; `embed` uses this adapter."
    )


def spread(values: pl.Series) -> float | None:
    """Return the standard deviation between seeds."""
    found = values.std()
    return found if isinstance(found, float) else None


def describe_accuracy(metrics: dict[str, Any]) -> str:
    """Define the accuracy in the table of classes."""
    if metrics["task"] == "multiclass":
        return "Accuracy: share of the class's clips for which it is the likeliest class."
    return (
        "Accuracy: share of the clips that list the tag first for which it is the likeliest tag (the overall figure is the "
        "primary accuracy)."
    )


def format_difference(figure: dict[str, Any] | None) -> str:
    """Return a difference with its sign, and its interval.

    >>> format_difference({"value": 0.05, "low": -0.01, "high": 0.11})
    '+0.050 (-0.010 to +0.110)'
    """
    if figure is None or figure["value"] is None:
        return ""
    text = f"{figure['value']:+.3f}"
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text} ({figure['low']:+.3f} to {figure['high']:+.3f})"


def classes_table(classes: pl.DataFrame) -> str:
    """Return the classes that occur in the test set, best first; classes.parquet has all of them."""
    occurring = classes.filter(pl.col("support") > 0).sort("f1", "support", descending=True, nulls_last=True)
    shown = {
        "name": "name", "support": "clips", "primary_accuracy": "accuracy", "frozen_primary_accuracy": "frozen", "ap": "AP",
        "frozen_ap": "frozen AP", "f1": "F1", "frozen_f1": "frozen F1",
    }
    text = frame_table(occurring.head(MOST_ROWS).select(pl.col(name).alias(label) for name, label in shown.items()))
    left = len(occurring) - MOST_ROWS
    return text + (f"\n\nclasses.parquet has {left} more." if left > 0 else "")


def cautions(config: FinetuneConfig, metrics: dict[str, Any]) -> str:
    """List the run's notes and what limits its figures."""
    lines = [f"- {note[0].upper()}{note[1:]}." for note in metrics["notes"]]
    if metrics["started_from"]:
        lines.append(f"- Training began from other weights: {metrics['started_from']}.")
    if config.recipe_changes:
        lines.append(f"- Settings that differ from the recipe {config.recipe}: {', '.join(config.recipe_changes)}.")
    if len(metrics["seeds"]) == 1:
        lines.append(
            "- One seed: intervals cover the test set's tracks only, and another seed gives other figures. `--seeds 5` trains "
            "several, and its intervals cover both."
        )
    if metrics["leaks"] and any(leak["clips"] for leak in metrics["leaks"] if leak["column"] == "artist"):
        lines.append("- Intervals are for other tracks of these artists; other artists can differ by more.")
    return "\n".join(lines)
