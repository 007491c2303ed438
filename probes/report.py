"""Markdown report of a probe: experiment, metrics beside baselines, layers, classes, leaks and cautions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import polars as pl

from tonelake.evaluate import Split, counted
from tonelake.probes.config import ProbeConfig
from tonelake.store import printable

MOST_ROWS = 12
METRIC_LABELS = {
    "accuracy": "accuracy (top-1)", "top_5": "top-5 accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1",
    "map": "mAP", "roc_auc": "ROC-AUC", "confidence_gap": "confidence gap, mean",
    "confidence_gap_median": "confidence gap, median", "calibration_error": "calibration error (RMS, debiased)", "r2": "R²",
    "rmse": "RMSE", "key_score": "MIREX key score", "tempo_1": "tempo accuracy 1", "tempo_2": "tempo accuracy 2",
}


HISTORY_LABELS = {
    "train_top_1": "top-1, training", "valid_top_1": "top-1, validation", "train_top_5": "top-5, training",
    "valid_top_5": "top-5, validation", "train_loss": "loss, training", "valid_loss": "loss, validation",
    "score": "validation score",
}
MONITOR_LABELS = {
    "auroc": "ROC-AUC", "r2": "R²", "key_score": "MIREX key score",
}
AVERAGED = {
    "none": "", "test": "; test probabilities averaged over the clips of a track",
    "tracks": "; logits averaged over the clips of a track for validation and test",
}


def write_report(
    config: ProbeConfig, metrics: dict[str, Any], tables: dict[str, pl.DataFrame], splits: Sequence[Split], drawn: Sequence[str]
) -> str:
    """Return the report as Markdown."""
    main = metrics["main"]
    title = f"# {', '.join(metrics['columns'])}, from {metrics['space']}"
    parts = [title, metrics["summary"], describe_experiment(config, metrics, splits)]
    parts += ["## Results", metrics_table(metrics)]
    if len(tables["layers"]) > 1:
        parts += ["## Layers", markdown_image(drawn, "layers.png", f"{main} by layer"), layers_table(metrics, tables["layers"])]
    if "decays" in tables:
        parts += ["## Weight decay", decays_table(metrics, tables["decays"])]
    parts += ["## Training", markdown_image(drawn, "history.png", "by epoch"), training_part(metrics, tables["history"])]
    if metrics["weights_of_layers"]:
        parts += ["## Layer weights", markdown_image(drawn, "weights.png", "learned share of each layer")]
    if "classes" in tables:
        kind = "Classes" if metrics["task"] == "multiclass" else "Tags"
        parts += [f"## {kind}", *class_parts(metrics, tables["classes"], drawn)]
    if "calibration.png" in drawn:
        parts += ["## Calibration", markdown_image(drawn, "calibration.png", "reliability"), calibration_sentence(metrics)]
    parts += ["## Overlap between training and test", leaks_table(metrics), "## Cautions", cautions(config, metrics)]
    parts += ["## Reproduce", f"    tonelake probe --config {shlex.quote('probes/' + metrics['run'] + '/config.yaml')}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_experiment(config: ProbeConfig, metrics: dict[str, Any], splits: Sequence[Split]) -> str:
    """Describe the experiment in words."""
    outputs = {"multiclass": f"{metrics['outputs']:,} classes", "multilabel": counted(metrics["outputs"], "tag")}.get(
        metrics["task"], f"{metrics['outputs']} numbers"
    )
    mlp = f"An MLP with one hidden layer, {config.hidden} wide, dropout {config.dropout:g},"
    head = "A linear head" if config.head == "linear" else mlp
    folds = f"{len(splits)} folds, each: " if len(splits) > 1 else ""
    weighted = "; classes weighted by inverse frequency" if config.class_weights == "balanced" else ""
    monitor: str = config.monitor
    if monitor == "auto":
        monitor = "accuracy, then loss" if metrics["task"] == "multiclass" else "loss"
    return (
        f"{metrics['clips']:,} clips, {outputs}. {head} on the {config.input} over time, {config.prepare}, "
        f"{metrics['parameters']:,} parameters; {describe_training(config, MONITOR_LABELS.get(monitor, monitor))}"
        f"{weighted}{AVERAGED[config.average]}. Split {config.split}: {folds}{splits[0]}."
        + (f" {counted(config.seeds, 'seed')}." if config.solver == "batches" else "")
    )


def describe_training(config: ProbeConfig, monitor: str) -> str:
    """Describe solver, length of training and selection in words."""
    if config.solver == "lbfgs":
        return f"fitted to convergence by L-BFGS in at most {config.epochs} iterations, selected by the validation {monitor}"
    batch = f"batches of {config.batch} tracks" if config.average == "tracks" else f"batch {config.batch}"
    stopped = f"stopped after {config.patience} without improvement" if config.patience else "without early stopping"
    halved = f", rates halved after {config.rate_patience} without improvement" if config.rate_patience else ""
    return (
        f"{config.optimizer}, {batch}, at most {config.epochs} epochs, {stopped} of the validation {monitor}{halved}, tested "
        f"after the {'best' if config.keep == 'best' else 'last'} epoch"
    )


def metrics_table(metrics: dict[str, Any]) -> str:
    names = list(metrics["figures"])
    baselines = list(metrics["baselines"])
    rows = []
    for name in names:
        values = [format_number(metrics["baselines"][baseline].get(name, {}).get("value")) for baseline in baselines]
        rows.append([metric_label(name, metrics), format_interval(metrics["figures"][name]), *values])
    text = markdown_table(["", f"probe (95 % {metrics['over']})", *baselines], rows)
    text += (
        "\n\nIntervals are for new test data from the same source and take the trained probe as given. `chance` is exact: "
        "equal probabilities of all classes, tags by their frequency, clips in random order."
    )
    seeds = metrics["by_seed"]
    if len(seeds) > 1:
        text += f"\n\n{METRIC_LABELS[metrics['main']]} by seed: {', '.join(format_number(seed) for seed in seeds)}."
    return text


def layers_table(metrics: dict[str, Any], layers: pl.DataFrame) -> str:
    main = metrics["main"]
    rows = [
        [
            row["name"] + (" *" if row["best"] else ""), figure_of(row, main), format_number(row["valid"]),
            format_number(row["train"]), format_rate(row), f"{row['decay']:g}", f"{row['parameters']:,}",
        ]
        for row in layers.to_dicts()
    ]
    header = [
        "layer", f"{METRIC_LABELS[main]} (95 % {metrics['over']})", "validation score", "training accuracy", "rate", "decay",
        "parameters",
    ]
    text = markdown_table(*without_empty_columns(header, rows))
    text += "\n\n\\* selected on the validation clips, so its test figure is not inflated by the choice."
    top = layers.row(int(layers[main].arg_max() or 0), named=True)
    tied = layers.filter(pl.col("tied") & (pl.col("name") != top["name"]))["name"].to_list()
    others = f"not distinguishable from {listed(tied)}" if tied else "distinguishable from every other layer"
    return f"{text}\n\nOn the test clips layer {top['name']} is highest; it is {others} (max-t, 95 % {metrics['over']})."


def decays_table(metrics: dict[str, Any], decays: pl.DataFrame) -> str:
    """Return the sweep of weight decays: each at the layer and rate that the validation clips select for it."""
    main = metrics["main"]
    rows = [
        [
            f"{row['decay']:g}" + (" *" if row["chosen"] else ""), row["layer"], format_rate(row),
            format_number(row["valid"]), format_number(row["train"]), figure_of(row, main),
            "" if row["chosen"] else figure_of(row, "away"),
        ]
        for row in decays.to_dicts()
    ]
    header = [
        "decay", "layer", "rate", "validation score", "training accuracy", f"test {METRIC_LABELS[main]} (95 %)",
        "minus the selected (95 %)",
    ]
    text = markdown_table(*without_empty_columns(header, rows))
    tied = decays.filter("tied")["decay"].to_list()
    return f"{text}\n\nNot distinguishable from the highest (max-t): {listed([f'{decay:g}' for decay in tied])}."


def without_empty_columns(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Drop columns in which every row is empty, such as the training accuracy of tags."""
    kept = [number for number in range(len(header)) if any(row[number] for row in rows)]
    return [header[number] for number in kept], [[row[number] for number in kept] for row in rows]


def training_part(metrics: dict[str, Any], history: pl.DataFrame) -> str:
    """Return the training figures of the selected fits, beside the test figures, and their first and last epochs."""
    rows = [
        [metric_label(name, metrics), format_number(value), format_interval(metrics["figures"][name])]
        for name, value in metrics["training"].items()
    ]
    parts = [markdown_table(["", "training clips", f"test {metrics['judged_are']} (95 %)"], rows)]
    epochs, converged = mean_history(history, metrics["layer"]), not (history["rate"] > 0).any()
    names = [name for name in HISTORY_LABELS if epochs[name].null_count() < len(epochs)]
    shown = epochs if len(epochs) <= MOST_ROWS else pl.concat([epochs.head(MOST_ROWS // 2), epochs.tail(MOST_ROWS // 2)])
    parts.append(markdown_table(
        ["iteration" if converged else "epoch", "fits", *(HISTORY_LABELS[name] for name in names)],
        [[str(row["epoch"]), str(row["fits"]), *(format_number(row[name]) for name in names)] for row in shown.to_dicts()],
    ))
    parts.append(
        "Means over the folds that had not converged, by iteration; each fit is validated after its last one. history.parquet "
        "has every fit." if converged else
        "Means over the seeds and folds that were still training. Training figures by epoch are those of its batches, with "
        "dropout and while weights change; history.parquet has every fit."
    )
    return "\n\n".join(parts)


def mean_history(history: pl.DataFrame, layer: str) -> pl.DataFrame:
    """Return a row an epoch of a layer's selected setting: the number of fits, and means over seeds and folds."""
    own = history.filter(pl.col("chosen") & (pl.col("layer") == layer))
    means = [pl.col(name).mean() for name in HISTORY_LABELS]
    return own.group_by("epoch").agg(pl.len().alias("fits"), *means).sort("epoch")


def class_parts(metrics: dict[str, Any], classes: pl.DataFrame, drawn: Sequence[str]) -> list[str]:
    """Return the sections on classes: the best and worst, the confusion, and those that attract wrong predictions."""
    occurring = classes.filter(pl.col("support") > 0)
    ordered = occurring.sort("f1", "support", descending=True, nulls_last=True)
    names = ["name", "support", "precision", "recall", "f1", "ap"]
    shown = ordered if len(ordered) <= MOST_ROWS else pl.concat([ordered.head(MOST_ROWS // 2), ordered.tail(MOST_ROWS // 2)])
    parts = [frame_table(shown.select(names))]
    if len(ordered) > MOST_ROWS:
        half = MOST_ROWS // 2
        parts.append(f"The {half} best and the {half} worst of {len(ordered)}; classes.parquet has all of them.")
    if metrics["task"] == "multiclass":
        parts.append(markdown_image(drawn, "confusion.png", "confusion"))
        attracting = classes.filter(pl.col("attracts") > 0).sort("attracts", descending=True).head(MOST_ROWS // 2)
        if len(attracting):
            rows = [
                [row["name"], f"{row['attracts']:.1f}", row["attracts_most"] or "", str(row["support"])]
                for row in attracting.to_dicts()
            ]
            parts += [
                "Classes most often predicted for clips of other classes:",
                markdown_table(["class", "wrong clips", "most often from", "own clips"], rows),
            ]
    return parts


def leaks_table(metrics: dict[str, Any]) -> str:
    rows = [
        [leak["column"], "" if leak["groups"] is None else f"{leak['groups']:,}", f"{leak['clips']:,}", f"{leak['share']:.1%}"]
        for leak in metrics["leaks"]
    ]
    return markdown_table(["shared", "groups in both", "test clips of these groups", "share of test clips"], rows)


def leak_warning(leaks: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on test clips that share a recording with the training set; empty if there are none."""
    names = {"track": "a track", "duplicate": "a duplicated recording", "audio": "audio"}
    shared = [
        f"{leak['share']:.0%} share {names[leak['column']]}" for leak in leaks if leak["clips"] and leak["column"] in names
    ]
    return f" Likely optimistic: of the test clips, {', '.join(shared)} with the training set." if shared else ""


def cautions(config: ProbeConfig, metrics: dict[str, Any]) -> str:
    """List what a reader should know before quoting the results."""
    lines = [f"- {note[0].upper()}{note[1:]}." for note in metrics["notes"]]
    if not any(leak["column"] == "duplicate" for leak in metrics["leaks"]):
        lines.append(
            "- Duplicates were not searched for: a recording may be in both training and test set under two names. `tonelake "
            "duplicates --save` finds duplicates, and later splits keep them together."
        )
    shared = {leak["column"]: leak for leak in metrics["leaks"] if leak["clips"]}
    if {"track", "duplicate", "audio"} & shared.keys():
        lines.append(
            "- Training and test set share recordings: the probe may recognise the recording instead of the label. Compare "
            "with a split by track, if the labels allow one."
        )
    for name in ("artist", "album", "tune", "piece"):
        if name in shared and name not in metrics["columns"]:
            lines.append(f"- {shared[name]['share']:.0%} of the test clips share their {name} with training clips.")
    lines.append(
        f"- Compare only with results on the same clips and the same split; intervals are jackknifed {metrics['over']} of the "
        "test set and say nothing about other libraries."
    )
    differences = metrics["protocol_differences"]
    if differences:
        followed = config.protocol.removesuffix("-like")
        lines.append(f"- Settings follow the {followed} protocol, except: {'; '.join(differences)}.")
    elif config.protocol:
        lines.append(f"- Settings follow the {config.protocol} protocol.")
    return "\n".join(lines)


def calibration_sentence(metrics: dict[str, Any]) -> str:
    mean, median = (metrics["figures"][name]["value"] for name in ("confidence_gap", "confidence_gap_median"))
    return f"The first choice leads the second by {mean:.3f} on average (median {median:.3f})."


def metric_label(name: str, metrics: dict[str, Any]) -> str:
    kind, _, index = name.rpartition("_")
    if kind in ("r2", "rmse") and index.isdecimal():
        return f"{METRIC_LABELS[kind]} of {metrics['columns'][int(index)]}"
    return METRIC_LABELS.get(name, name)


def format_interval(figure: dict[str, Any]) -> str:
    if figure["low"] is None or figure["high"] is None or figure["low"] != figure["low"]:        # no interval
        return format_number(figure["value"])
    return f"{format_number(figure['value'])} ({format_number(figure['low'])} to {format_number(figure['high'])})"


def figure_of(row: dict[str, Any], name: str) -> str:
    """Return a figure of a table's row with its interval."""
    return format_interval({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]})


def format_rate(row: dict[str, Any]) -> str:
    """Return the learning rate of a row; empty where the solver has none."""
    return f"{row['rate']:g}" if row["rate"] else ""


def listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def frame_table(frame: pl.DataFrame) -> str:
    def cell(value: Any) -> str:
        return format_number(value) if isinstance(value, float | None) else str(value)

    return markdown_table(frame.columns, [[cell(value) for value in row] for row in frame.iter_rows()])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; characters that would break it are escaped."""
    def safe(cell: str) -> str:
        return printable(cell).replace("|", "\\|").replace("\n", " ")

    return "\n".join(f"| {' | '.join(map(safe, line))} |" for line in [header, ["---"] * len(header), *rows])


def markdown_image(drawn: Sequence[str], name: str, text: str) -> str:
    return f"![{text}]({name})" if name in drawn else ""
