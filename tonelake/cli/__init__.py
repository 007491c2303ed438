"""The `tonelake` command.  Each command parses, calls the library, renders, and sets the exit code: 0 done, 1 failed,
2 wrong usage.  Heavy imports happen inside the commands, so that `tonelake --help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tonelake.cli import finetune, maintenance, probe, search, tokens
from tonelake.cli.shared import (
    ClipId,
    Csv,
    Dataset,
    Json,
    LakePath,
    Multi,
    Strict,
    Where,
    WorkerCount,
    finish,
    open_lake,
    say,
    show,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="An embedding store and similarity search for music audio.\n\n"
    "Start with: tonelake demo.  Or: tonelake ingest folder MUSIC, tonelake embed, tonelake similar FILE.",
)
ingest_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Bring audio in as clips.")
DATA_SETS = {                            # as ingest.SETS, which would take half a second to import
    "gtzan": "GTZAN: 1,000 clips of 30 s by genre",
    "fma": "FMA, any size, with fma_metadata: genre, genres, split",
    "jamendo": "MTG-Jamendo: tags by genre, instrument and mood, split",
    "magnatagatune": "MagnaTagATune: 188 tags, split by folder",
    "nsynth": "NSynth: single notes with pitch, family, qualities, split",
    "giantsteps": "GiantSteps key and MTG keys: key",
    "meter2800": "METER2800: meter in 2 and 4 classes, split",
    "slakh": "Slakh2100: mix and stems as clips of one track",
    "musdb": "MUSDB18-HQ: mix, drums, bass, other and vocals as clips of one track",
}
app.add_typer(ingest_app, name="ingest")
app.add_typer(search.app)
app.add_typer(probe.app)
app.add_typer(tokens.app)
app.add_typer(maintenance.app)
app.add_typer(finetune.app)

INTERRUPTED = 130                        # the exit code of a program that Ctrl-C ended: 128 + SIGINT


def show_version(wanted: bool) -> None:
    if wanted:
        import tonelake

        print(f"tonelake {tonelake.__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show it and exit.")] = False,
) -> None:
    pass


# -- ingest


@ingest_app.command("folder")
def ingest_folder(
    path: Annotated[Path, typer.Argument(help="Folder of wav, flac, mp3, ogg, opus, m4a or aiff files.")],
    lake: LakePath = "lake",
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 30.0,
    hop: Annotated[float | None, typer.Option(help="Seconds from one clip's start to the next; default: no overlap.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="One clip a file instead.")] = False,
    labels: Annotated[Path | None, typer.Option(help="CSV of label columns, joined by a column path, stem or track.")] = None,
    multi: Multi = None, dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Every audio file below PATH.   Example: tonelake ingest folder ~/Music --seconds 30 --labels labels.csv"""
    report = open_lake(lake).ingest_folder(
        path, seconds=None if whole else seconds, hop=hop, labels=labels, multi=multi or (), dataset=dataset, workers=workers
    )
    finish(report, strict)


@ingest_app.command("manifest")
def ingest_manifest(
    file: Annotated[Path, typer.Argument(help="CSV: path, start, seconds and any label columns.")],
    lake: LakePath = "lake", multi: Multi = None, dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """The clips that FILE lists, one a row.   Example: tonelake ingest manifest clips.csv --multi tags"""
    finish(open_lake(lake).ingest_manifest(file, multi=multi or (), dataset=dataset, workers=workers), strict)


@ingest_app.command("catalogue")
def ingest_catalogue(
    file: Annotated[Path, typer.Argument(help="JSON: a list of songs with meters and sources.")],
    lake: LakePath = "lake",
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: beside FILE.")] = None,
    accept_terms: Annotated[bool, typer.Option("--accept-terms", help="You may fetch what FILE lists.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many songs.")] = None,
    workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Songs by meter, fetched and cut.   Example: tonelake ingest catalogue wikimeter.json --accept-terms"""
    done = open_lake(lake).ingest_catalogue(file, folder=out, accept_terms=accept_terms, limit=limit, workers=workers)
    finish(done, strict)


def add_dataset_command(name: str, what: str) -> None:
    """`tonelake ingest NAME`."""

    def command(
        path: Annotated[Path, typer.Argument(help="Folder that the set unpacks to, audio and tables.")],
        lake: LakePath = "lake",
        seconds: Annotated[float | None, typer.Option(help="Length of a clip; default: as the set is used.")] = None,
        hop: Annotated[float | None, typer.Option(help="Seconds from one clip's start to the next, with --seconds.")] = None,
        workers: WorkerCount = None, strict: Strict = False,
    ) -> None:
        finish(open_lake(lake).ingest_dataset(name, path, seconds=seconds, hop=hop, workers=workers), strict)

    command.__doc__ = f"{what}.   Example: tonelake ingest {name} ~/sets/{name}"
    ingest_app.command(name)(command)


for _name, _what in DATA_SETS.items():
    add_dataset_command(_name, _what)


@ingest_app.command("chorales")
def ingest_chorales(
    lake: LakePath = "lake",
    bars: Annotated[int, typer.Option(min=1, help="Bars in a clip.")] = 4,
    hop: Annotated[int, typer.Option(min=1, help="Bars from one clip's start to the next.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="So many pieces, spread over the corpus.")] = None,
    seed_rule: Annotated[
        bool, typer.Option("--seed-rule", help="Keep analyses and repeated windows: 430 pieces, 3,008 snippets.")
    ] = False,
    strict: Strict = False,
) -> None:
    """Bach's chorales from music21, on a built-in organ.   Example: tonelake ingest chorales --limit 40"""
    finish(open_lake(lake).ingest_chorales(bars=bars, hop=hop, limit=limit, seed_rule=seed_rule), strict)


@app.command()
def separate(
    lake: LakePath = "lake", where: Where = None,
    model: Annotated[str, typer.Option(help="Of Demucs: htdemucs, htdemucs_ft, htdemucs_6s, mdx_extra, …")] = "htdemucs",
    out: Annotated[Path | None, typer.Option(help="Folder for the stems' files; default: stems in the lake.")] = None,
    workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Drums, bass, vocals and the rest of each clip, as clips of its track.   Example: tonelake separate --model htdemucs_6s"""
    opened = open_lake(lake, create=False)
    finish(opened.separate(model=model, where=where, folder=out, workers=workers), strict)


# -- embed


@app.command()
def embed(
    lake: LakePath = "lake",
    encoder: Annotated[
        str | None, typer.Option(help="mert-95m (default), mert-330m, small, spectral, or a checkpoint folder.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="A fine-tuning run, or a folder in PEFT's form; its encoder and window are taken up.")
    ] = None,
    space: Annotated[str | None, typer.Option("--space", help="Name of the space; default: made of the encoder's.")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds the encoder hears at once; default 30.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds from window to window; default: the window, no overlap.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (every GPU), cuda:1, mps; or several: cuda:0,cuda:2.")] = "auto",
    frames: Annotated[str | None, typer.Option(help="Layers whose frames to store as well: 5,7.")] = None,
    engine: Annotated[str, typer.Option(help="local (this machine), or ray (a cluster).")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; default: this machine's.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Embed nothing: measure a few clips; print time, disk, cost.")] = False,
    price: Annotated[float, typer.Option(min=0, help="Of an hour of this machine, for --plan.")] = 0.0,
    workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Every clip without a vector, at every layer.  Goes on where it stood.   Example: tonelake embed --encoder mert-95m"""
    opened = open_lake(lake, create=False)
    layers = [layer.strip() for layer in frames.split(",")] if frames else []
    if plan:
        print(opened.plan(
            encoder, space=space, window=window, hop=hop, precision=precision, device=device, frames=layers, workers=workers,
            price=price, adapter=adapter,
        ))
        return
    report = opened.embed(
        encoder, space=space, window=window, hop=hop, precision=precision, device=device, frames=layers, engine=engine,
        address=address, workers=workers, adapter=adapter,
    )
    say(str(report))
    raise typer.Exit(1 if strict and report.failed else 0)


# -- what is there


@app.command()
def status(lake: LakePath = "lake", as_json: Json = False) -> None:
    """What the lake holds, and what comes next.   Example: tonelake status --lake mylake"""
    import json

    found = open_lake(lake, create=False).status()
    if as_json or not sys.stdout.isatty():
        print(json.dumps(vars(found) | {"spaces": found.spaces.to_dicts()}))
        return
    from tonelake import views
    from tonelake.render import show_table

    print(f"{found.uri}\n{found.clips:,} clips of {found.tracks:,} tracks, {found.hours:.1f} hours; "
          f"{found.flagged:,} flagged, {found.failures:,} failures")
    print(f"label columns: {', '.join(found.labels) or 'none'}")
    show_table(views.spaces(found.spaces), title="spaces", empty="no spaces yet")
    print(f"next: {found.next_step()}")


@app.command()
def clips(
    lake: LakePath = "lake", where: Where = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many; default: 20 on a terminal, else all.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Clips and their labels.   Example: tonelake clips --where "artist LIKE 'Nina%'" --csv"""
    found = open_lake(lake, create=False).clips(where)
    if k is None and sys.stdout.isatty() and not (as_json or as_csv):
        k = 20
    show(found if k is None else found.head(k), as_json, as_csv, "clips", "no clips: run `tonelake ingest`")
    if k is not None and k < len(found):
        say(f"the first {k} of {len(found)} clips; -k shows more")


@app.command()
def failures(
    lake: LakePath = "lake",
    stage: Annotated[str | None, typer.Option(help="ingest, or embed:SPACE.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """What could not be ingested or embedded, and why.   Example: tonelake failures --stage ingest"""
    show(open_lake(lake, create=False).failures(stage), as_json, as_csv, empty="no failures")


@app.command()
def spaces(lake: LakePath = "lake", as_json: Json = False, as_csv: Csv = False) -> None:
    """The embedding spaces of the lake.   Example: tonelake spaces"""
    show(open_lake(lake, create=False).spaces(), as_json, as_csv, "spaces", "no spaces: run `tonelake embed`")


@app.command()
def doctor(
    encoder: Annotated[str | None, typer.Option(help="As for embed; default: mert-95m.")] = None,
    precision: Annotated[str, typer.Option(help="Compare this one with float32; auto: what embed would take.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """What this machine does to an encoder's precision, by layer.   Example: tonelake doctor --precision bfloat16"""
    from tonelake.doctor import diagnose

    found = diagnose(encoder, precision=precision, device=device)
    for name, fact in found.facts.items():
        say(f"{name:12} {fact}")
    if found.table is not None:
        show(found.table, as_json, as_csv, "precision")
    say(found.verdict)
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def spectrogram(
    clip: ClipId,
    file: Annotated[Path, typer.Argument(help="The PNG file to write.")],
    lake: LakePath = "lake",
    seconds: Annotated[float | None, typer.Option(help="Only the first seconds.", min=0.1)] = None,
) -> None:
    """A clip's mel spectrogram as a picture.   Example: tonelake spectrogram 3fa9 clip.png"""
    picture = open_lake(lake, create=False).spectrogram(clip, seconds=seconds)
    try:
        file.write_bytes(picture)
    except OSError as error:
        from tonelake.store import InputError

        raise InputError(f"{file} cannot be written: {error.strerror or error}") from error
    say(f"{file}: drawn")


@app.command()
def demo(
    lake: Annotated[str, typer.Option("--lake", help="Folder of the demo's lake.")] = "demo-lake",
) -> None:
    """Forty chorales from notes to neighbours, in a minute or two.   Example: tonelake demo"""
    from tonelake.demo import run_demo

    run_demo(lake)


@app.command()
def ui(
    lake: LakePath = "lake",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.", min=0, max=65535)] = 8501,
    address: Annotated[str, typer.Option(help="Address to listen on. Others than 127.0.0.1 let the network in.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """The lake in a browser: what it holds, and what sounds like what.   Example: tonelake ui --lake mylake"""
    from tonelake.ui import serve_app

    serve_app(open_lake(lake, create=False).lake.uri, port=port, address=address, browser=browser)


def main() -> None:
    """The console script: run a command, turn our errors into one message and an exit code."""
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            say("interrupted: what was finished is stored; run it again to go on")
        raise
    except Exception as error:
        from tonelake.store import InputError, TonelakeError

        if not isinstance(error, TonelakeError | OSError):
            raise
        say(f"error: {error}")
        sys.exit(2 if isinstance(error, InputError) else 1)

