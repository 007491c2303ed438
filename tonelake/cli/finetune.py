"""Commands that change an encoder: LoRA fine-tunes, their runs, and the angles between what they learned."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from tonelake.cli.probe import numbers
from tonelake.cli.shared import Csv, Json, LakePath, SpaceName, Where, WorkerCount, open_lake, say, show

app = typer.Typer()

# Settings of `finetune.FinetuneConfig` as options: (type, help).  A test holds this against the settings themselves.
SETTINGS: dict[str, tuple[Any, str]] = {
    "task": (str, "multiclass, multilabel or regression; default: by the column."),
    "rank": (int, "Of the updates; default 16."),
    "alpha": (float, "They are scaled by alpha / rank; default 32."),
    "lora_dropout": (float, "Before each update; default 0.05."),
    "targets": (str, "Linear layers of each block: q_proj,v_proj (default), k_proj, out_proj, …"),
    "above": (int, "Only the blocks above this layer learn; default 0, all of them."),
    "hidden": (int, "Width of the head; default 256."),
    "dropout": (float, "Of the head; default 0.4."),
    "window_s": (float, "Seconds the encoder hears at once; default 5."),
    "crop_s": (float, "Seconds of a clip that are heard at most; default 30."),
    "frames": (bool, "Train from the stored frames of layer --above, and compute nothing below it."),
    "class_weights": (str, "Of tags: balanced (default) or none."),
    "label_smoothing": (float, "Of tags, only where they are absent; default 0.1."),
    "noise": (float, "Augment by white noise of this deviation, say 0.01."),
    "shift_s": (float, "Augment by circular shifts of up to so many seconds, say 0.5."),
    "gain": (float, "Augment by gains of 1 ± this, say 0.2."),
    "pitch": (float, "Augment by shifts of up to so many semitones, say 2."),
    "mix": (float, "Share of clips into which a stem of another track is mixed, say 0.5."),
    "head_rate": (float, "Learning rate of the head; default 1e-3, for large encoders 5e-4."),
    "lora_rate": (float, "Learning rate of the updates; default 5e-5."),
    "decay": (float, "Weight decay; default 1e-4."),
    "schedule": (str, "plateau (default) or cosine."),
    "wait": (int, "Epochs without a better one before plateau halves the rates; default 5."),
    "lowest_rate": (float, "Where plateau stops; default 1e-6."),
    "warmup": (float, "Share of the steps, for cosine; default 0.05."),
    "clip_norm": (float, "Gradients are clipped to this norm; default 1."),
    "batch": (int, "Clips at once; default 8, for large encoders 4."),
    "together": (int, "Clips a step, gathered over several batches; default 32."),
    "epochs": (int, "At most; default 50."),
    "patience": (int, "Epochs without a better one before it stops; default 15."),
    "split": (str, "by:COLUMN (default by:track), column:COLUMN, column:COLUMN+GROUP, random, or run:NAME."),
    "shares": (str, "Of train, valid and test: 0.7,0.1,0.2."),
    "split_seed": (int, "Another draw of the split."),
    "seed": (int, "Of weights, order and augmentation."),
    "start": (str, "A run, or a checkpoint file, whose weights are taken up where they fit."),
    "checkpointing": (bool, "Less memory for a third more time; default: for large encoders."),
    "device": (str, "auto, cpu, cuda or mps."),
    "precision": (str, "auto, float32 or bfloat16."),
}


def run_finetune(
    column: Annotated[str | None, typer.Argument(help="The label column to learn.")] = None,
    lake: LakePath = "lake",
    space: SpaceName = None, where: Where = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a file, as a run's config.yaml.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train it anew where it is finished.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Train nothing: measure a few steps; print memory, time, cost.")] = False,
    price: Annotated[float, typer.Option(min=0, help="Of an hour of this machine, for --plan.")] = 0.0,
    workers: WorkerCount = None, as_json: Json = False, as_csv: Csv = False, **settings: Any,
) -> None:
    """Teach an encoder a label column by LoRA.  Goes on where it stood.   Example: tonelake finetune meter --split by:track"""
    opened = open_lake(lake, create=False)
    wanted = {key: value for key, value in settings.items() if value is not None} | {"space": space, "where": where}
    if "targets" in wanted:
        wanted["targets"] = tuple(part.strip() for part in wanted["targets"].split(","))
    if "shares" in wanted:
        wanted["shares"] = numbers(wanted["shares"], "--shares")
    if column is not None:
        wanted["column"] = column
    given = {key: value for key, value in wanted.items() if value is not None}
    if plan:
        print(opened.plan_finetune(config=config, workers=workers, price=price, **given))
        return
    run = opened.finetune(config=config, name=name, again=again, workers=workers, **given)
    say(run.summary())
    for note in run.metrics["notes"]:
        say(f"note: {note}")
    say(f"run {run.name}: tonelake adapters {run.name} --report.  Its vectors: tonelake embed --adapter {run.name}")
    show(run.table("history"), as_json, as_csv, "epochs")


def with_settings(command: Any) -> Any:
    """The command with an option for each of SETTINGS."""
    fixed = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = []
    for setting, (kind, text) in SETTINGS.items():
        flag = f"--{setting.replace('_', '-')}"
        names = (f"{flag}/--no-{setting.replace('_', '-')}",) if kind is bool else (flag,)
        options.append(inspect.Parameter(
            setting, inspect.Parameter.KEYWORD_ONLY, default=None,
            annotation=Annotated[kind | None, typer.Option(*names, help=text)],
        ))
    fixed = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in fixed]
    command.__signature__ = inspect.Signature([*fixed, *options])
    command.__annotations__ = {p.name: p.annotation for p in (*fixed, *options)} | {"return": None}
    return command


app.command("finetune")(with_settings(run_finetune))


@app.command()
def adapters(
    name: Annotated[list[str] | None, typer.Argument(help="One run, or several to compare; default: all.")] = None,
    lake: LakePath = "lake",
    table: Annotated[
        str | None, typer.Option(help="Of one run: history, layers, classes, confusion, predictions or split.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="The report of one run, as Markdown.")] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Fine-tuning runs; several: on the tracks all held out.   Example: tonelake adapters meter-mix meter-bass"""
    opened = open_lake(lake, create=False)
    chosen = name or []
    if (table or report) and len(chosen) != 1:
        raise typer.BadParameter("--table and --report are of one run: name it")
    if report:
        typer.echo(opened.adapter_run(chosen[0]).report(), nl=False)
    elif table:
        show(opened.adapter_run(chosen[0]).table(table), as_json, as_csv)
    elif len(chosen) == 1:
        run = opened.adapter_run(chosen[0])
        say(run.summary())
        show(run.table("history"), as_json, as_csv, "epochs")
    elif chosen:
        show(opened.compare_adapters(chosen), as_json, as_csv, "tunings_compared")
    else:
        show(opened.adapters(), as_json, as_csv, "tunings", "no fine-tuning yet: tonelake finetune COLUMN")


@app.command()
def orthogonality(
    run: Annotated[str, typer.Argument(help="A fine-tuning run, or a checkpoint file in PEFT's names.")],
    lake: LakePath = "lake",
    layers: Annotated[bool, typer.Option("--layers", help="Between layers' updates, not the head's classes.")] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Angles between class directions, or between layers' updates.   Example: tonelake orthogonality meter --layers"""
    found = angles_of(run, lake)
    show(found.layers if layers else found.classes, as_json, as_csv, None, "nothing to compare: fewer than two of them")


def angles_of(run: str, lake: str) -> Any:
    from tonelake.finetune import WEIGHT_SUFFIXES
    from tonelake.finetune import orthogonality as angles

    if Path(run).suffix in WEIGHT_SUFFIXES:
        return angles(None, run)
    return open_lake(lake, create=False).orthogonality(run)
