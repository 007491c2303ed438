"""Commands that train on stored vectors: probes, their runs, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tonelake.cli.shared import Csv, Json, LakePath, SpaceName, Where, open_lake, say, show

app = typer.Typer()


def numbers(text: str | None, what: str) -> tuple[float, ...] | None:
    """`1e-3,1e-2` as numbers."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{what} {text!r}: write numbers with commas between them, as 1e-3,1e-2") from error


@app.command()
def probe(
    columns: Annotated[list[str] | None, typer.Argument(help="The label column to learn; several for regression.")] = None,
    lake: LakePath = "lake",
    space: SpaceName = None, where: Where = None,
    task: Annotated[str | None, typer.Option(help="multiclass, multilabel or regression; default: by the column.")] = None,
    layers: Annotated[str | None, typer.Option(help="each, all (side by side), weighted, or layers: 3,7,weighted.")] = None,
    stat: Annotated[str | None, typer.Option("--input", help="Over time: mean, max or mean+max.")] = None,
    prepare: Annotated[str | None, typer.Option(help="raw, centre, standardise, l2 or l2+standardise.")] = None,
    head: Annotated[str | None, typer.Option(help="linear or mlp.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of the mlp.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Of the mlp.")] = None,
    class_weights: Annotated[str | None, typer.Option(help="none, or balanced: by inverse frequency.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Of tags, only where they are absent.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw or sgd.")] = None,
    rates: Annotated[str | None, typer.Option(help="Learning rates: 1e-4,1e-3,1e-2.")] = None,
    decays: Annotated[str | None, typer.Option(help="Weight decays: 1e-4,1e-6,0.")] = None,
    batch: Annotated[int | None, typer.Option(help="Clips a step.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most.")] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs without a better state; 0: train them all.")] = None,
    split: Annotated[str | None, typer.Option(help="random, by:COLUMN, column:COLUMN, folds:K or folds:K:COLUMN.")] = None,
    shares: Annotated[str | None, typer.Option(help="Of train, valid and test: 0.7,0.1,0.2.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Another draw of the split.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs that differ by start and order.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, …")] = None,
    precision: Annotated[str | None, typer.Option(help="Of the products: auto, float32 or bfloat16.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Settings of a study: marble or chorales.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a file, as a run's config.yaml.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train it anew where it is finished.")] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Train probes on stored vectors, every layer and setting at once.   Example: tonelake probe artist --split by:album"""
    opened = open_lake(lake, create=False)
    wanted: dict[str, Any] = {
        "space": space, "where": where, "task": task, "layers": tuple(layers.split(",")) if layers else None, "input": stat,
        "prepare": prepare, "head": head, "hidden": hidden, "dropout": dropout, "class_weights": class_weights,
        "label_smoothing": label_smoothing, "optimizer": optimizer, "rates": numbers(rates, "--rates"),
        "decays": numbers(decays, "--decays"), "batch": batch, "epochs": epochs, "patience": patience, "split": split,
        "shares": numbers(shares, "--shares"), "split_seed": split_seed, "seeds": seeds, "device": device,
        "precision": precision,
    }
    runs = opened.probe(
        tuple(columns or ()), config=config, protocol=protocol, name=name, again=again,
        **{key: value for key, value in wanted.items() if value is not None},
    )
    for run in runs:
        say(run.summary())
        for note in run.metrics["notes"]:
            say(f"note: {note}")
        say(f"run {run.name}: tonelake probes {run.name}")
    if len(runs) == 1:
        show(runs[0].table("layers"), as_json, as_csv, "probe_layers")
    else:
        show(opened.compare_probes([run.name for run in runs]), as_json, as_csv, "probes")


@app.command()
def probes(
    name: Annotated[list[str] | None, typer.Argument(help="One run, or several to compare; default: all.")] = None,
    lake: LakePath = "lake",
    table: Annotated[
        str | None, typer.Option(help="Of one run: layers, fits, classes, confusion, calibration, predictions or split.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="The report of one run, as Markdown.")] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Runs and what came of them.   Example: tonelake probes --csv"""
    opened = open_lake(lake, create=False)
    chosen = name or []
    if (table or report) and len(chosen) != 1:
        raise typer.BadParameter("--table and --report are of one run: name it")
    if report:
        typer.echo(opened.probe_run(chosen[0]).report(), nl=False)
    elif table:
        show(opened.probe_run(chosen[0]).table(table), as_json, as_csv, "probe_layers" if table == "layers" else None)
    elif len(chosen) == 1:
        run = opened.probe_run(chosen[0])
        say(run.summary())
        show(run.table("layers"), as_json, as_csv, "probe_layers")
    else:
        show(opened.compare_probes(chosen), as_json, as_csv, "probes", "no probe yet: tonelake probe COLUMN")


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="A run, by its name or a part of it.")],
    lake: LakePath = "lake",
    where: Where = None,
    save: Annotated[bool, typer.Option("--save", help="Write them to the clips, as COLUMN_predicted.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write them to a file: .parquet or .csv.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """What a probe says of clips.   Example: tonelake predict artist --where "artist IS NULL" --save"""
    opened = open_lake(lake, create=False)
    found = opened.predict(run, where=where, save=save, out=out)
    if save:
        say(f"{len(found.table):,} clips: {', '.join(c for c in found.as_labels().columns if c != 'clip_id')} written")
    if out is not None:
        say(f"{len(found.table):,} clips: {out} written")
    if not (save or out) or as_json or as_csv:
        show(found.table, as_json, as_csv, "predicted")


@app.command()
def review(
    run: Annotated[str, typer.Argument(help="A run of a probe or fine-tuning, by its name or a part of it.")],
    lake: LakePath = "lake",
    by: Annotated[
        str, typer.Option(help="loss: where run and label disagree; confidence: where the run does not know.")
    ] = "loss",
    target: Annotated[str | None, typer.Option(help="Only clips with this label.")] = None,
    predicted: Annotated[str | None, typer.Option(help="Only clips of which the run says this.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 20,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Judged clips that a person should listen to, the most doubtful first.   Example: tonelake review artist -k 10"""
    found = open_lake(lake, create=False).review(run, by=by, target=target, predicted=predicted, k=k)
    show(found, as_json, as_csv, "reviewed", "no clip of that kind was judged")


@app.command()
def metric(
    column: Annotated[str | None, typer.Argument(help="Clips with one value of this label column shall lie near.")] = None,
    lake: LakePath = "lake",
    space: SpaceName = None,
    layer: Annotated[str | None, typer.Option(help="Layer by number or name, or all side by side.")] = None,
    dim: Annotated[int, typer.Option(help="Width of the new vectors.")] = 128,
    loss: Annotated[str, typer.Option(help="contrastive or proxy.")] = "contrastive",
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 3e-3,
    epochs: Annotated[int, typer.Option(help="At most.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the groups held out, and of the start.")] = 0,
    where: Where = None,
    name: Annotated[str | None, typer.Option(help="Of the new space; default: the space's and the column's.")] = None,
    extend: Annotated[str | None, typer.Option(help="Bring new clips into this projected space.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Learn a space in which a column's groups lie near.   Example: tonelake metric artist --layer 7"""
    opened = open_lake(lake, create=False)
    if (column is None) == (extend is None):
        raise typer.BadParameter("name a label column to learn from, or a space with --extend")
    if extend is not None:
        say(f"space {extend}: {opened.extend_metric(extend):,} clips new")
        return
    assert column is not None
    found = opened.learn_metric(
        column, space=space, layer=layer, dim=dim, loss=loss, rate=rate, epochs=epochs, seed=seed, where=where, name=name,
    )
    say(f"{found}.  Now: tonelake similar CLIP --space {found.space}")
    show(found.table(), as_json, as_csv)
