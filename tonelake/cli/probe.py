"""Commands that train on stored vectors: probes, their runs and predictions, and learned metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tonelake.cli.options import FROM_LIBRARY, given_settings, library_command
from tonelake.cli.shared import TRAIN, Csv, Json, LakePath, SpaceName, Where, open_lake, say, show

if TYPE_CHECKING:
    from tonelake import Lake
    from tonelake.probes import FrameRun, Run

app = typer.Typer()

ConfigFile = Annotated[Path | None, typer.Option("--config", help="File of settings, such as the config.yaml of a run.")]
RunName = Annotated[str | None, typer.Option("--name", help="Name of the run; default: from its column, space and digest.")]
Again = Annotated[bool, typer.Option("--again", help="Train a finished run again.")]
Report = Annotated[bool, typer.Option("--report", help="Print the report of one run, as Markdown.")]
Runs = Annotated[list[str] | None, typer.Argument(help="Name of one run, or of several to compare; default: all runs.")]


@app.command(
    rich_help_panel=TRAIN,
    cls=library_command(
        settings="tonelake.probes:ProbeConfig", without=("columns", "space", "where", "protocol", "task"),
        switch=("frames", "tonelake.probes:FrameProbeConfig"),
    ),
)
def probe(
    context: typer.Context,
    columns: Annotated[
        list[str] | None,
        typer.Argument(
            help="Label column to predict; several for a regression.  With --frames: notes, onsets, beats, chords or key."
        ),
    ] = None,
    lake: LakePath = "lake",
    frames: Annotated[
        bool, typer.Option("--frames", help="Find events over time, from stored frames: notes, onsets, beats, chords or key.")
    ] = False,
    task: Annotated[
        Literal["multiclass", "multilabel", "regression"] | None,
        typer.Option(help="Kind of task; default: by the type of the column."),
    ] = None,
    space: SpaceName = None, where: Where = None,
    protocol: Annotated[
        str | None, typer.Option(help="Settings of a published study: marble-v1, marble-v2 or chorales.")
    ] = None,
    config: ConfigFile = None, name: RunName = None, again: Again = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Train probes on stored vectors, or heads on stored frames: every learning rate and seed at once.

    Example: tonelake probe artist --split by:album, or tonelake probe notes --frames --hold-out timbre
    """
    opened = open_lake(lake)
    if frames:
        if protocol is not None or task is not None or len(columns or ()) > 1:
            raise typer.BadParameter("--frames: takes one of notes, onsets, beats, chords, key, without --protocol and --task")
        found = opened.probe_frames(
            columns[0] if columns else None, config=config, name=name, again=again, space=space, where=where,
            **given_settings(context),
        )
        report_run(found)
        show(found.table("layers"), as_json, as_csv, "frame_layers")
        return
    runs = opened.probe(
        columns or (), config=config, protocol=protocol, name=name, again=again, space=space, where=where, task=task,
        **given_settings(context),
    )
    for run in runs:
        report_run(run)
    if len(runs) == 1:
        show(runs[0].table("layers"), as_json, as_csv, "probe_layers")
    else:
        show(opened.compare_probes([run.name for run in runs]), as_json, as_csv, "probes")


def report_run(run: Run | FrameRun) -> None:
    """Print the summary and notes of a run for a person."""
    say(run.summary())
    for note in run.metrics["notes"]:
        say(f"note: {note}")
    say(f"run {run.name}: tonelake probes {run.name}")


@app.command(rich_help_panel=TRAIN)
def probes(
    name: Runs = None,
    lake: LakePath = "lake",
    table: Annotated[
        str | None,
        typer.Option(
            help="Table of one run: layers, decays, fits, history, classes, confusion, calibration, predictions, "
            "training_predictions or split; of a run on frames: layers, fits, history, clips, groups, predictions or split."
        ),
    ] = None,
    report: Report = False, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List the runs of probes, compare some, or show one.

    Example: tonelake probes --csv
    """
    from tonelake.probes import named_run

    opened = open_lake(lake)
    chosen = name or []
    check_one_run(chosen, table, report)
    if report:
        typer.echo(named_run(opened, chosen[0]).report(), nl=False)
    elif table or len(chosen) == 1:
        run = named_run(opened, chosen[0])
        view = "frame_layers" if "on" in run.metrics else "probe_layers"
        if not table:
            say(run.summary())
        show(run.table(table or "layers"), as_json, as_csv, view if table in (None, "layers") else None)
    else:
        show(opened.compare_probes(chosen), as_json, as_csv, "probes", "no probes: run `tonelake probe COLUMN`")


def check_one_run(chosen: list[str], table: str | None, report: bool) -> None:
    """Raise BadParameter if a table or a report is wanted and not exactly one run is named."""
    if (table or report) and len(chosen) != 1:
        raise typer.BadParameter("--table and --report show one run. Name one run")


@app.command(rich_help_panel=TRAIN)
def predict(
    run: Annotated[str | None, typer.Argument(help="Name of a run, or a part of it.")] = None,
    lake: LakePath = "lake",
    text: Annotated[str | None, typer.Option(help="Labels to choose from, instead of a run: happy,sad,calm.")] = None,
    template: Annotated[
        str, typer.Option(help='With --text: prompt of a label, with {} in its place: "This audio is a {} song".')
    ] = "{}",
    space: Annotated[
        str | None, typer.Option(help="With --text: space whose encoder understands words; default: the one that has such.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="With --text: store the labels as label columns NAME_predicted and NAME_predicted_by.")
    ] = None,
    where: Where = None,
    save: Annotated[
        bool,
        typer.Option(
            "--save", help="Store predictions as label columns COLUMN_predicted and COLUMN_predicted_by (the run); those of a "
            "run on frames as events from source predicted:RUN."
        ),
    ] = False,
    midi: Annotated[
        Path | None, typer.Option(help="Write the notes that a run on frames finds: a MIDI file a recording, in this folder.")
    ] = None,
    jams: Annotated[
        Path | None, typer.Option(help="Write the events that a run on frames finds: a JAMS file a recording, in this folder.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the predictions to this .parquet or .csv file.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Apply a probe to clips, or choose a label for each by words, without training.

    Example: tonelake predict artist --where "artist IS NULL" --save, or tonelake predict notes --midi transcribed
    """
    if (run is None) == (text is None):
        raise typer.BadParameter("Name a run, or give labels by --text")
    if text is not None:
        if save or out is not None or midi is not None or jams is not None:
            raise typer.BadParameter(
                "--save, --out, --midi and --jams are for a run. With --text, store labels by --column, print by --csv"
            )
        table = open_lake(lake).label_by_words(text, template=template, space=space, where=where, column=column)
        if column is not None:
            say(f"{len(table):,} clips: {column}_predicted_by, {column}_predicted written")
        if column is None or as_json or as_csv:
            show(table, as_json, as_csv, "labelled")
        return
    if space is not None or column is not None or template != "{}":
        raise typer.BadParameter("--template, --space and --column go with --text. A run has its own")
    assert run is not None
    from tonelake.probes import FrameRun, named_run

    opened = open_lake(lake)
    chosen = named_run(opened, run)
    if isinstance(chosen, FrameRun):
        predict_over_time(opened, chosen, where, save, midi, jams, out, as_json, as_csv)
        return
    if midi is not None or jams is not None:
        raise typer.BadParameter(f"--midi and --jams: run {chosen.name} was not trained on frames. Use --save or --out")
    found = opened.predict(chosen, where=where, save=save, out=out)
    if save:
        say(f"{len(found.table):,} clips: {', '.join(c for c in found.as_labels().columns if c != 'clip_id')} written")
    if out is not None:
        say(f"{len(found.table):,} clips: {out} written")
    if not (save or out) or as_json or as_csv:
        show(found.table, as_json, as_csv, "predicted")


def predict_over_time(
    lake: Lake, run: FrameRun, where: str | None, save: bool, midi: Path | None, jams: Path | None, out: Path | None,
    as_json: bool, as_csv: bool,
) -> None:
    """Find events by a run on frames, and store, write or print them."""
    if out is not None:
        raise typer.BadParameter("--out: is for runs on vectors. Use --midi, --jams, --csv or --save")
    found = lake.predict_events(run, where=where, save=save, midi=midi, jams=jams)
    done = f"{len(found.events):,} events of {len(found.recordings):,} recordings"
    if save:
        say(f"{done}: stored with source {found.source}")
    for folder in (midi, jams):
        if folder is not None:
            say(f"{done}: written to {folder}")
    if not (save or midi or jams) or as_json or as_csv:
        show(found.events, as_json, as_csv, "found_events", "no events found")


@app.command(rich_help_panel=TRAIN, cls=library_command("tonelake:Lake.review"))
def review(
    run: Annotated[str, typer.Argument(help="Name of a run of a probe or fine-tuning, or a part of it.")],
    lake: LakePath = "lake",
    by: Annotated[
        str, typer.Option(help="Order: loss (disagreement with the label) or confidence (uncertain predictions first).")
    ] = FROM_LIBRARY,
    side: Annotated[str, typer.Option(help="Set of clips: train, valid, test or all.")] = FROM_LIBRARY,
    target: Annotated[str | None, typer.Option(help="Only clips with this label.")] = None,
    predicted: Annotated[str | None, typer.Option(help="Only clips with this prediction.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of clips.")] = FROM_LIBRARY,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List clips of a run whose labels or predictions are doubtful, most doubtful first.

    Example: tonelake review artist -k 10
    """
    found = open_lake(lake).review(run, by=by, side=side, target=target, predicted=predicted, k=k)
    show(found, as_json, as_csv, "reviewed", "no clip of the run matches")


@app.command(rich_help_panel=TRAIN, cls=library_command("tonelake.probes:learn_metric"))
def metric(
    column: Annotated[
        str | None, typer.Argument(help="Label column: clips of one group should be near each other.")
    ] = None,
    lake: LakePath = "lake",
    space: SpaceName = None,
    layer: Annotated[str | None, typer.Option(help="Layer by number or name, or all: side by side.")] = None,
    dim: Annotated[int, typer.Option(help="Width of the new vectors.")] = FROM_LIBRARY,
    loss: Annotated[str, typer.Option(help="Loss: contrastive or proxy.")] = FROM_LIBRARY,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = FROM_LIBRARY,
    epochs: Annotated[int, typer.Option(help="Maximum number of epochs.")] = FROM_LIBRARY,
    seed: Annotated[
        int, typer.Option(help="Random seed of the held-out groups and the initial weights.")
    ] = FROM_LIBRARY,
    where: Where = None,
    name: Annotated[str | None, typer.Option(help="Name of the new space; default: from the space and the column.")] = None,
    extend: Annotated[str | None, typer.Option(help="Only add new clips to this learned space.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Learn a space in which clips of one group are near each other.

    Example: tonelake metric artist --layer 7
    """
    opened = open_lake(lake)
    if extend is not None and column is None:
        say(f"space {extend}: {opened.extend_metric(extend):,} new clips")
        return
    if column is None or extend is not None:
        raise typer.BadParameter("give either a label column to learn from, or a space with --extend")
    found = opened.learn_metric(
        column, space=space, layer=layer, dim=dim, loss=loss, rate=rate, epochs=epochs, seed=seed, where=where, name=name,
    )
    say(f"{found}.  Next: tonelake similar CLIP --space {found.space}")
    show(found.table(), as_json, as_csv)
