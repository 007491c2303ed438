"""Markdown report of a fine-tuning on events."""

from __future__ import annotations

from typing import Any

import polars as pl

from tonelake.evaluate import Split
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.report import cautions, describe_seeds, format_difference, join_parts, last_parts
from tonelake.probes import (
    DecodeSettings,
    format_interval,
    frame_table,
    leak_warning,
    markdown_table,
)


def write_event_report(
    config: FinetuneConfig, metrics: dict[str, Any], tables: dict[str, pl.DataFrame], split: Split
) -> str:
    """Return the report as Markdown."""
    parts = [f"# {config.events}: {metrics['encoder']} with LoRA", metrics["summary"], describe(config, metrics, split)]
    parts += ["## Results", figures_table(metrics), describe_figures(metrics)]
    if len(tables["seeds"]) > 1:
        parts += ["## Seeds", frame_table(tables["seeds"]), describe_seeds(metrics, tables["seeds"])]
    if "groups" in tables and len(tables["groups"]):
        for (by,), group in tables["groups"].group_by("by", maintain_order=True):
            parts += [f"## Notes by {by}", groups_table(group)]
    parts += ["## Decoder", f"Chosen on the validation clips: {describe_decoding(metrics['decoding'])}."]
    return join_parts([*parts, *last_parts(metrics, tables, ["weights.png"], cautions(config, metrics))])


def summary(metrics: dict[str, Any]) -> str:
    """Describe the result in a few sentences."""
    main, seeds = metrics["main"], len(metrics["seeds"])
    mean = f" (mean of {seeds} seeds)" if seeds > 1 else ""
    kept = f" The adapter is that of seed {metrics['kept_seed']}, the best on validation." if seeds > 1 else ""
    return (
        f"{metrics['encoder']} with LoRA finds {metrics['events']} with {score_label(main)} "
        f"{format_interval(metrics['figures'][main])}{mean} on {metrics['judged']:,} test clips, after {metrics['best_epoch']} "
        f"of {metrics['epochs']} epochs; the same head on the frozen encoder reaches "
        f"{format_interval(metrics['frozen']['figures'][main])}, a difference of "
        f"{format_difference(metrics['difference'][main])}, paired, {metrics['over']}. {metrics['trainable']:,} parameters are "
        f"trained.{kept}{leak_warning(metrics['leaks'])}"
    )


def describe(config: FinetuneConfig, metrics: dict[str, Any], split: Split) -> str:
    """Describe the experiment in words."""
    which = f" of the blocks above layer {config.above}" if config.above else ""
    changed = f"; augmented by {', '.join(config.augments)}" if config.augments else ""
    monitored = "loss" if config.monitored == "loss" else score_label(metrics["main"])
    pitches = f" of MIDI pitches {config.lowest} to {config.highest}" if config.events == "notes" else ""
    return (
        f"{metrics['clips']:,} clips, {metrics['seconds'] / 3600:.2f} hours, {metrics['outputs']:,} outputs a frame{pitches}, "
        f"from audio in windows of {config.window_s:g} s, up to {config.crop_s:g} s of each clip in training{changed}. Head "
        f"{config.head} over a learned weighting of the layers. LoRA on {', '.join(config.targets or ())}{which} (rank "
        f"{config.rank}, alpha {config.alpha:g}): {metrics['trainable_lora']:,} of {metrics['trainable']:,} trainable "
        f"parameters. AdamW, head {config.head_rate:g}, adapter {config.lora_rate:g}, {config.schedule} by validation "
        f"{monitored}; batches of {config.batch}, {config.accumulated} per step; {config.precision} on {config.device}. Split "
        f"{config.split}: {split}."
    )


def score_label(name: str) -> str:
    """Return the name of a score in words.

    >>> score_label("onset_f1"), score_label("median_error_s")
    ('onset F1', 'median error (s)')
    """
    words = f"{name.removesuffix('_s')} (s)" if name.endswith("_s") else name
    return words.replace("_", " ").replace("f1", "F1")


def figures_table(metrics: dict[str, Any]) -> str:
    rows = [
        [
            score_label(name), format_interval(estimate), format_interval(metrics["frozen"]["figures"][name]),
            format_difference(metrics["difference"].get(name)),
        ] for name, estimate in metrics["figures"].items()
    ]
    return markdown_table(["", "with LoRA (95 %)", "frozen (95 %)", "difference (95 %)"], rows)


def describe_figures(metrics: dict[str, Any]) -> str:
    """Describe the columns of the results."""
    return (
        "Means over test clips for which a score is defined. Frozen: the same head with the same initial weights, on the same "
        "layers, trained in the same way on the encoder without an adapter. The difference is paired on the same test clips. "
        f"Intervals are 95 %, jackknifed {metrics['over']}. Settings of the decoder are chosen on the validation clips, each "
        "model's own."
    )


def groups_table(groups: pl.DataFrame) -> str:
    """Return a row a group, with its recall and F1."""
    scores = groups["score"].unique(maintain_order=True).to_list()
    rows = []
    for (group, clips), part in groups.group_by("group", "clips", maintain_order=True):
        found = {row["score"]: {key: finite(row[key]) for key in ("value", "low", "high")} for row in part.to_dicts()}
        rows.append([str(group), f"{clips:,}", *(format_interval(found[s]) if s in found else "" for s in scores)])
    return markdown_table(["", "clips", *(f"{score_label(name)} (95 %)" for name in scores)], rows)


def finite(value: float | None) -> float | None:
    """Return a number, None for NaN."""
    return None if value is None or value != value else value


def describe_decoding(settings: dict[str, Any]) -> str:
    """List the settings of a decoder that differ from the defaults."""
    usual = DecodeSettings().as_dict()
    changed = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
        if value != usual.get(name)
    ]
    return ", ".join(changed) or "the defaults"
