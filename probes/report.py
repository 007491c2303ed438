"""A run as a page for people: what was asked, what was found, beside what, and what to beware of."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import polars as pl

from tonelake.evaluate import Split
from tonelake.probes.config import ProbeConfig
from tonelake.store import printable

MOST_ROWS = 12
METRIC_LABELS = {
    "accuracy": "accuracy (top-1)", "top_5": "top-5 accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1",
    "map": "mAP", "roc_auc": "ROC-AUC", "confidence_gap": "confidence gap, mean",
    "confidence_gap_median": "confidence gap, median", "calibration_error": "calibration error", "r2": "R²", "rmse": "RMSE",
}


def write_report(
    config: ProbeConfig, metrics: dict[str, Any], tables: dict[str, pl.DataFrame], splits: Sequence[Split], drawn: Sequence[str]
) -> str:
    """Markdown."""
    main = metrics["main"]
    parts = [f"# {', '.join(metrics['columns'])}, from {metrics['space']}", metrics["summary"], asked(config, metrics, splits)]
    parts += ["## How good", figures_table(metrics)]
    if len(tables["layers"]) > 1:
        parts += ["## Which layer", markdown_picture(drawn, "layers.png", f"{main} by layer"), layers_table(main, tables["layers"])]
    if metrics["weights_of_layers"]:
        parts += ["## What the weighting came to", markdown_picture(drawn, "weights.png", "learned share of each layer")]
    if "classes" in tables:
        kind = "Classes" if metrics["task"] == "multiclass" else "Tags"
        parts += [f"## {kind}", *class_parts(metrics, tables["classes"], drawn)]
    if "calibration.png" in drawn:
        parts += ["## How sure it may be", markdown_picture(drawn, "calibration.png", "reliability"), calibration_words(metrics)]
    parts += ["## What stands on both sides", leaks_table(metrics), "## What to beware of", cautions(config, metrics)]
    parts += ["## Again", f"    tonelake probe --config {shlex.quote('probes/' + metrics['run'] + '/config.yaml')}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def asked(config: ProbeConfig, metrics: dict[str, Any], splits: Sequence[Split]) -> str:
    """The experiment in words."""
    whom = {"multiclass": f"{metrics['outputs']:,} classes", "multilabel": f"{metrics['outputs']:,} tags"}.get(
        metrics["task"], f"{metrics['outputs']} numbers"
    )
    mlp = f"An MLP of one hidden layer, {config.hidden} wide, dropout {config.dropout:g},"
    head = "A linear head" if config.head == "linear" else mlp
    folds = f"{len(splits)} folds, each: " if len(splits) > 1 else ""
    weighted = "; classes weighted by inverse frequency" if config.class_weights == "balanced" else ""
    return (
        f"{metrics['clips']:,} clips, {whom}.  {head} on the {config.input} over time, {config.prepare}; {config.optimizer}, "
        f"batch {config.batch}, at most {config.epochs} epochs, "
        + (f"stopped after {config.patience} without a better one" if config.patience else "all of them")
        + f"{weighted}.  Split {config.split}: {folds}{splits[0]}.  {config.seeds} seeds."
    )


def figures_table(metrics: dict[str, Any]) -> str:
    names = list(metrics["figures"])
    others = list(metrics["baselines"])
    rows = []
    for name in names:
        beside = [format_number(metrics["baselines"][other][name]["value"]) for other in others]
        rows.append([word(name, metrics), format_interval(metrics["figures"][name]), *beside])
    text = markdown_table(["", "probe (95 %)", *others], rows)
    seeds = metrics["by_seed"]
    if len(seeds) > 1:
        text += f"\n\n{METRIC_LABELS[metrics['main']]} by seed: {', '.join(format_number(seed) for seed in seeds)}."
    return text


def layers_table(main: str, layers: pl.DataFrame) -> str:
    rows = [
        [
            row["name"] + (" *" if row["best"] else ""),
            format_interval({"value": row[main], "low": row[f"{main}_low"], "high": row[f"{main}_high"]}),
            format_number(row["valid"]), f"{row['rate']:g}", f"{row['decay']:g}",
        ]
        for row in layers.to_dicts()
    ]
    text = markdown_table(["layer", f"{METRIC_LABELS[main]} (95 %)", "validation score", "rate", "decay"], rows)
    best = layers.filter("best").row(0, named=True)
    near = layers.filter((pl.col("name") != best["name"]) & (pl.col(f"{main}_high") >= best[main]))["name"].to_list()
    if near:
        text += f"\n\nThe interval of {', '.join(near[:8])}{' …' if len(near) > 8 else ''} reaches the best layer's value too."
    return text


def class_parts(metrics: dict[str, Any], classes: pl.DataFrame, drawn: Sequence[str]) -> list[str]:
    """Those that go best and worst, and those that attract wrong predictions."""
    occurring = classes.filter(pl.col("support") > 0)
    ordered = occurring.sort("f1", "support", descending=True, nulls_last=True)
    names = ["name", "support", "precision", "recall", "f1", "ap"]
    shown = ordered if len(ordered) <= MOST_ROWS else pl.concat([ordered.head(MOST_ROWS // 2), ordered.tail(MOST_ROWS // 2)])
    parts = [frame_table(shown.select(names))]
    if len(ordered) > MOST_ROWS:
        parts.append(f"The {MOST_ROWS // 2} best and the {MOST_ROWS // 2} worst of {len(ordered)}; all are in classes.parquet.")
    if metrics["task"] == "multiclass":
        parts.append(markdown_picture(drawn, "confusion.png", "confusion"))
        attracting = classes.filter(pl.col("attracts") > 0).sort("attracts", descending=True).head(MOST_ROWS // 2)
        if len(attracting):
            rows = [
                [row["name"], f"{row['attracts']:.1f}", row["attracts_most"] or "", str(row["support"])]
                for row in attracting.to_dicts()
            ]
            parts += [
                "What clips of other classes are taken for:",
                markdown_table(["class", "wrong clips", "most often", "its own clips"], rows),
            ]
    return parts


def leaks_table(metrics: dict[str, Any]) -> str:
    rows = [
        [leak["column"], "" if leak["groups"] is None else f"{leak['groups']:,}", f"{leak['clips']:,}", f"{leak['share']:.1%}"]
        for leak in metrics["leaks"]
    ]
    return markdown_table(["shared by", "groups on both sides", "judged clips of them", "of all judged"], rows)


def cautions(config: ProbeConfig, metrics: dict[str, Any]) -> str:
    """What a reader should know before quoting a figure."""
    lines = [f"- {note[0].upper()}{note[1:]}." for note in metrics["notes"]]
    if not any(leak["column"] == "duplicate" for leak in metrics["leaks"]):
        lines.append(
            "- Nobody looked for duplicates: the same recording may stand on both sides under two names. `tonelake duplicates "
            "--save` finds them, and later splits keep them together."
        )
    shared = {leak["column"]: leak for leak in metrics["leaks"] if leak["clips"]}
    if {"track", "duplicate", "audio"} & shared.keys():
        lines.append(
            "- Clips of one recording stand on both sides: the probe may know the recording rather than what was asked. "
            "A split by track, where the labels allow one, tells them apart."
        )
    for name in ("artist", "album", "tune", "piece"):
        if name in shared and name not in metrics["columns"]:
            lines.append(f"- {shared[name]['share']:.0%} of the judged clips share their {name} with some learned from.")
    lines.append(
        "- Compare it only with figures of the same clips and the same split; the interval is over tracks drawn anew, not over "
        "other libraries."
    )
    if config.protocol:
        lines.append(f"- Settings are those of the {config.protocol} protocol.")
    return "\n".join(lines)


def calibration_words(metrics: dict[str, Any]) -> str:
    gap, middle = (metrics["figures"][name]["value"] for name in ("confidence_gap", "confidence_gap_median"))
    return f"Its first choice leads the second by {gap:.3f} in the mean, {middle:.3f} in the median."


def word(name: str, metrics: dict[str, Any]) -> str:
    kind, _, index = name.rpartition("_")
    if kind in ("r2", "rmse") and index.isdecimal():
        return f"{METRIC_LABELS[kind]} of {metrics['columns'][int(index)]}"
    return METRIC_LABELS.get(name, name)


def format_interval(figure: dict[str, Any]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return format_number(figure["value"])
    return f"{format_number(figure['value'])} ({format_number(figure['low'])} to {format_number(figure['high'])})"


def format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def frame_table(frame: pl.DataFrame) -> str:
    def cell(value: Any) -> str:
        return format_number(value) if isinstance(value, float | None) else str(value)

    return markdown_table(frame.columns, [[cell(value) for value in row] for row in frame.iter_rows()])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what would break one is escaped."""
    def safe(cell: str) -> str:
        return printable(cell).replace("|", "\\|").replace("\n", " ")

    return "\n".join(f"| {' | '.join(map(safe, line))} |" for line in [header, ["---"] * len(header), *rows])


def markdown_picture(drawn: Sequence[str], name: str, words: str) -> str:
    return f"![{words}]({name})" if name in drawn else ""
