"""Commands about embedding: vectors of every clip, the spaces they are in, and the precision of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import EMBED, Csv, Json, LakePath, Strict, WorkerCount, config_option, open_lake, say, show

app = typer.Typer()

STUDY = "With --plan: a study of artists without files"


@app.command(rich_help_panel=EMBED, cls=library_command("tonelake:Lake.embed"))
def embed(
    lake: LakePath = "lake",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder by name (`tonelake encoders` lists them), a checkpoint folder, or module:Class; default: that of the "
            "lake's default space; in a new lake mert-95m if its weights are on this machine, else musicnn."
        ),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Fine-tuning run, or a folder in PEFT's format; sets the encoder and the window.")
    ] = None,
    space: Annotated[str | None, typer.Option("--space", help="Name of the space; default: from the encoder's name.")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds encoded at once; default: 30.")] = None,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next; default: the window's length, no overlap.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision: auto, float32, bfloat16 or float16.")] = FROM_LIBRARY,
    device: Annotated[
        str, typer.Option(help="Device: auto, cpu, cuda (every GPU), cuda:1 or mps; or several: cuda:0,cuda:2.")
    ] = FROM_LIBRARY,
    frames: Annotated[str | None, typer.Option(help="Layers whose frames are stored too: 5,7.")] = None,
    tags: Annotated[
        bool, typer.Option("--tags", help="Also write each clip's tags into a list column, with an encoder that has tags.")
    ] = False,
    projection: Annotated[
        str | None, typer.Option(help="Make a space from a stored one by the Linear layers of this safetensors file.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="With --projection: source SPACE/LAYER; default: the default space and layer.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="With --projection: relu, gelu or tanh; default: that of the file, else relu.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="With --projection: prefix of the tensors, for a file with several heads.")
    ] = None,
    hybrid: Annotated[
        str | None,
        typer.Option(
            help="Make a space of stored ones side by side: A/LAYER,B/LAYER, or with weights A/LAYER:0.7,B/LAYER:0.3."
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where to run: local (this machine) or ray (a cluster).")] = FROM_LIBRARY,
    address: Annotated[str | None, typer.Option(help="Address of the Ray cluster; default: this machine's.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only measure a few clips, and print time, disk, memory and cost.")
    ] = False,
    price: Annotated[float, typer.Option(min=0, help="Price of an hour of this machine, for --plan.")] = 0.0,
    artists: Annotated[
        int | None, typer.Option(min=2, rich_help_panel=STUDY, help="Number of artists; plans a study that has no files yet.")
    ] = None,
    tracks: Annotated[int, typer.Option(min=2, rich_help_panel=STUDY, help="Tracks of each artist.")] = 20,
    track_seconds: Annotated[float, typer.Option(min=1, rich_help_panel=STUDY, help="Length of a track.")] = 240.0,
    seconds: Annotated[float, typer.Option(rich_help_panel=STUDY, help="Length of a clip, as for `ingest folder`.")] = 30.0,
    per_track: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=STUDY, help="Clips of a track; default: all that fit.")
    ] = None,
    workers: WorkerCount = None, strict: Strict = False,
    config: Annotated[Any, config_option("embed_options")] = None,
) -> None:
    """Embed every clip that has no vector yet, at every layer.  Resumes if it was interrupted.

    Example: tonelake embed --encoder mert-95m
    """
    layers = [layer.strip() for layer in frames.split(",")] if frames else []
    encodes = bool(encoder or adapter or window or hop or layers or tags or plan or artists is not None)
    if hybrid is not None:
        if encodes or projection or source or activation or head:
            raise typer.BadParameter("--hybrid encodes nothing. Give only --space with it")
        say(str(open_lake(lake).hybrid(hybrid, name=space)))
        return
    if projection is not None:
        if encodes:
            raise typer.BadParameter("--projection encodes nothing. Give only --from, --activation, --head and --space with it")
        say(str(open_lake(lake).project(projection, source=source, activation=activation, head=head, name=space)))
        return
    if source or activation or head:
        raise typer.BadParameter("--from, --activation and --head belong to --projection FILE. Give it too")
    if artists is not None:
        if not plan:
            raise typer.BadParameter("--artists plans a study. Give --plan too, or leave it out")
        from tonelake.embed import EmbedSettings
        from tonelake.store import prepare_process
        from tonelake.study_plan import plan_study

        prepare_process()
        settings = EmbedSettings(
            encoder, space=space, window_s=window, hop_s=hop, device=device, adapter=adapter,
            precision=precision,         # type: ignore[arg-type]  # the settings check it
        )
        print(plan_study(
            artists, tracks, settings, track_s=track_seconds, seconds=seconds, per_track=per_track, frames=layers,
            workers=workers, price=price,
        ))
        return
    opened = open_lake(lake, pandas=True)            # Ray uses it
    if plan:
        print(opened.plan(
            encoder, space=space, window=window, hop=hop, precision=precision, device=device, adapter=adapter, frames=layers,
            workers=workers, price=price,
        ))
        return
    report = opened.embed(
        encoder, space=space, window=window, hop=hop, precision=precision, device=device, adapter=adapter, frames=layers,
        tags=tags, engine=engine, address=address, workers=workers,
    )
    say(str(report))
    raise typer.Exit(1 if strict and report.failed else 0)


@app.command(rich_help_panel=EMBED)
def spaces(
    lake: LakePath = "lake",
    default: Annotated[
        str | None,
        typer.Option("--default", help="Space that commands use without --space; auto: the newest learned one."),
    ] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List the embedding spaces of the lake, or set the default one.

    Example: tonelake spaces --default mert-v1-95m
    """
    opened = open_lake(lake)
    if default is not None:
        opened.spaces.set_default(None if default == "auto" else default)
    show(opened.list_spaces(), as_json, as_csv, "spaces", "no spaces: run `tonelake embed`")


@app.command(rich_help_panel=EMBED)
def encoders(as_json: Json = False, as_csv: Csv = False) -> None:
    """List the encoders: rate, layers, licence, whether their weights are here, and what they are good for.

    Example: tonelake encoders
    """
    from tonelake.embed import list_encoders

    show(list_encoders(), as_json, as_csv, "encoders")


@app.command(rich_help_panel=EMBED, cls=library_command("tonelake.embed:fetch_weights"))
def weights(
    name: Annotated[str, typer.Argument(help="Encoder whose weights are fetched, such as musicnn.")],
    file: Annotated[Path | None, typer.Option(help="File fetched on another machine, such as musicnn's wheel.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace the weights that are on this machine.")] = False,
) -> None:
    """Put the weights of a built-in encoder on this machine, before `embed` needs them.

    Example: tonelake weights musicnn
    """
    from tonelake.embed import fetch_weights

    say(f"weights of {name}: {fetch_weights(name, file, again=again)}")


@app.command(rich_help_panel=EMBED, cls=library_command("tonelake.doctor:diagnose"))
def doctor(
    encoder: Annotated[str | None, typer.Option(help="Encoder as for `embed` in a new lake.")] = None,
    precision: Annotated[
        str, typer.Option(help="Precision to compare with float32; auto: the one that `embed` would choose.")
    ] = FROM_LIBRARY,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = FROM_LIBRARY,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Measure an encoder on this machine: its precision, layer by layer, and on a CPU the kernels that compute it.

    Example: tonelake doctor --precision bfloat16
    """
    from tonelake.doctor import diagnose

    found = diagnose(encoder, precision=precision, device=device)
    for name, fact in found.facts.items():
        say(f"{name:16} {fact}")
    if found.table is not None:
        show(found.table, as_json, as_csv, "precision")
    say(found.verdict)
    raise typer.Exit(0 if found.healthy else 1)
