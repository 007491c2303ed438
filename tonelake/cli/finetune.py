"""Commands about fine-tuned encoders: training them by LoRA, their runs, and the angles between their updates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonelake.cli.options import given_settings, library_command
from tonelake.cli.probe import Again, ConfigFile, Report, RunName, Runs, check_one_run
from tonelake.cli.shared import TRAIN, Csv, Json, LakePath, SpaceName, Where, WorkerCount, open_lake, say, show

if TYPE_CHECKING:
    from tonelake.finetune import Angles

app = typer.Typer()


@app.command(
    rich_help_panel=TRAIN,
    cls=library_command(settings="tonelake.finetune:FinetuneConfig", without=("column", "space", "where")),
)
def finetune(
    context: typer.Context,
    column: Annotated[str | None, typer.Argument(help="Label column to predict.")] = None,
    lake: LakePath = "lake",
    space: SpaceName = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder to fine-tune, such as mert-95m; makes a space without vectors if the lake has none of it."),
    ] = None,
    where: Where = None, config: ConfigFile = None, name: RunName = None, again: Again = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only measure a few steps, and print data, memory, time, disk and cost.")
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Column, such as stem, for each value of which --plan plans an adapter.")
    ] = None,
    price: Annotated[float, typer.Option(min=0, help="Price of an hour of this machine, for --plan.")] = 0.0,
    workers: WorkerCount = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Fine-tune an encoder by LoRA on a label column or on events, such as notes.  Resumes if it was interrupted.

    Example: tonelake finetune meter --split by:track
    """
    opened = open_lake(lake)
    given = {"space": space, "where": where} | given_settings(context)
    settings = {setting: value for setting, value in given.items() if value is not None}
    if by is not None and not plan:
        raise typer.BadParameter("--by plans an adapter for each value. Give --plan with it")
    if plan and by is not None:
        show(
            opened.plan_finetunes(
                column, by=by, config=config, workers=workers, price=price, encoder=encoder, **settings
            ), as_json, as_csv, "finetune_plans",
        )
        return
    if plan:
        print(opened.plan_finetune(column, config=config, workers=workers, price=price, encoder=encoder, **settings))
        return
    run = opened.finetune(column, config=config, name=name, again=again, encoder=encoder, workers=workers, **settings)
    say(run.summary())
    for note in run.metrics["notes"]:
        say(f"note: {note}")
    say(f"run {run.name}: tonelake adapters {run.name} --report.  Embed with it: tonelake embed --adapter {run.name}")
    show(run.table("history"), as_json, as_csv, "epochs")


@app.command(rich_help_panel=TRAIN)
def adapters(
    name: Runs = None,
    lake: LakePath = "lake",
    table: Annotated[
        str | None,
        typer.Option(
            help="Table of one run: seeds, history, layers, classes, confusion, predictions, training_predictions, scores or "
            "split."
        ),
    ] = None,
    report: Report = False,
    epoch: Annotated[
        int | None, typer.Option(min=1, help="Evaluate the kept weights of this epoch of one run on its test clips.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed whose epoch is evaluated; default: that of the adapter.")] = None,
    workers: WorkerCount = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List fine-tuning runs, compare some on the tracks that all of them held out, or show one.

    Example: tonelake adapters meter-mix meter-bass
    """
    opened = open_lake(lake)
    chosen = name or []
    check_one_run(chosen, table, report)
    if epoch is not None:
        if len(chosen) != 1:
            raise typer.BadParameter("--epoch evaluates one run. Name one run")
        show(opened.evaluate_epoch(chosen[0], epoch, seed=seed, workers=workers), as_json, as_csv, "finetune_epoch")
    elif report:
        typer.echo(opened.finetune_run(chosen[0]).report(), nl=False)
    elif table:
        show(opened.finetune_run(chosen[0]).table(table), as_json, as_csv)
    elif len(chosen) == 1:
        run = opened.finetune_run(chosen[0])
        say(run.summary())
        show(run.table("history"), as_json, as_csv, "epochs")
    elif chosen:
        show(opened.compare_finetunes(chosen), as_json, as_csv, "finetunes_compared")
    else:
        show(opened.list_finetunes(), as_json, as_csv, "finetunes", "no fine-tuning runs: run `tonelake finetune COLUMN`")


@app.command(rich_help_panel=TRAIN)
def orthogonality(
    run: Annotated[str, typer.Argument(help="Fine-tuning run, or a checkpoint file with PEFT's names.")],
    lake: LakePath = "lake",
    layers: Annotated[bool, typer.Option("--layers", help="Compare updates of layers, not classes of the head.")] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Measure angles between the class directions of a head, or between the updates of layers.

    Example: tonelake orthogonality meter --layers
    """
    found = angles_of(run, lake)
    show(found.layers if layers else found.classes, as_json, as_csv, None, "nothing to compare: fewer than two of them")


def angles_of(run: str, lake: str) -> Angles:
    """Angles of a run of the lake, or of a checkpoint file, which needs no lake."""
    from tonelake.finetune import WEIGHT_SUFFIXES
    from tonelake.finetune import orthogonality as angles

    if Path(run).suffix in WEIGHT_SUFFIXES:
        return angles(None, run)
    return open_lake(lake).orthogonality(run)
