"""Commands that bring audio in: folders, manifests, catalogues, chorales, published data sets, and stems of mixes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import (
    AUDIO,
    MARKUP,
    Csv,
    Json,
    LakePath,
    Strict,
    SubsonicPassword,
    Where,
    WorkerCount,
    ask_password,
    finish,
    open_lake,
    show,
)
from tonelake.ingest import FoundDataSet, find_datasets

app = typer.Typer()
ingest_app = typer.Typer(no_args_is_help=True, rich_markup_mode=MARKUP, help="Bring audio in as clips.")
app.add_typer(ingest_app, name="ingest", rich_help_panel=AUDIO)

Multi = Annotated[
    list[str] | None,
    typer.Option(
        "--multi", metavar="COLUMN[=SEPARATOR]",
        help="Label column of lists, split at | or ; or at SEPARATOR: --multi tags, --multi \"tags=,\". May be repeated.",
    ),
]
Dataset = Annotated[str | None, typer.Option("--dataset", help="Value of the clips' column `dataset`.")]
Seconds = Annotated[float, typer.Option("--seconds", help="Length of a clip.")]
Hop = Annotated[float | None, typer.Option("--hop", help="Seconds from one clip's start to the next; default: its length.")]
Whole = Annotated[bool, typer.Option("--whole", help="Make each file one clip.")]
PerTrack = Annotated[
    int | None,
    typer.Option("--per-track", min=1, help="Maximum number of clips of a file, evenly spread; a later run adds the others."),
]
ServerMusic = Annotated[
    Path | None,
    typer.Option("--music", help="Folder of the server's music on this disk: songs that the lake lacks are read there."),
]
SETS = "Published data sets"


@ingest_app.command("folder", cls=library_command("tonelake.ingest:ingest_folder"))
def ingest_folder(
    path: Annotated[Path, typer.Argument(help="Folder of wav, flac, mp3, ogg, opus, m4a or aiff files.")],
    lake: LakePath = "lake",
    seconds: Seconds = FROM_LIBRARY, hop: Hop = None, whole: Whole = False, per_track: PerTrack = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV or JSON file of label columns, joined by a column path, stem or track.")
    ] = None,
    multi: Multi = None,
    track_by: Annotated[
        str | None, typer.Option(
            metavar="COLUMN|folder|name", help="Files that are one track: equal in a label column, folder or name."
        ),
    ] = None,
    dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Bring the lake in step with the audio files below PATH: add new ones, follow renamed ones, mark missing ones.

    Example: tonelake ingest folder ~/Music --seconds 30 --labels labels.csv
    """
    report = open_lake(lake, create=True).ingest_folder(
        path, seconds=None if whole else seconds, hop=hop, per_track=per_track, labels=labels, multi=multi or (),
        track_by=track_by, dataset=dataset, workers=workers,
    )
    finish(report, strict)


@ingest_app.command("manifest")
def ingest_manifest(
    file: Annotated[Path, typer.Argument(help="CSV or JSON file: path, start, seconds or end, and any label columns.")],
    lake: LakePath = "lake", multi: Multi = None, dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Ingest the clips that FILE lists, one per row.

    Example: tonelake ingest manifest clips.csv --multi tags
    """
    report = open_lake(lake, create=True).ingest_manifest(file, multi=multi or (), dataset=dataset, workers=workers)
    finish(report, strict)


@ingest_app.command("beets", cls=library_command("tonelake.ingest:ingest_beets"))
def ingest_beets(
    library: Annotated[Path, typer.Argument(help="beets' library, such as library.db; `beet config` names it.")],
    lake: LakePath = "lake",
    music: Annotated[
        Path | None, typer.Option(help="Music folder of beets; default: as beets' configuration says.")
    ] = None,
    attributes: Annotated[
        list[str] | None, typer.Option(
            "--attributes", metavar="NAME[,NAME…]",
            help="Fields of beets and flexible attributes that become label columns: mood,bpm,genres. May be repeated.",
        ),
    ] = None,
    seconds: Seconds = FROM_LIBRARY, hop: Hop = None, whole: Whole = False, per_track: PerTrack = None,
    dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Bring the lake in step with a library of beets: its songs, with the tags and attributes that beets has for them.

    Example: tonelake ingest beets ~/.config/beets/library.db --attributes mood,bpm
    """
    names = [name.strip() for text in attributes or () for name in text.split(",") if name.strip()]
    report = open_lake(lake, create=True).ingest_beets(
        library, music=music, attributes=names, seconds=None if whole else seconds, hop=hop, per_track=per_track,
        dataset=dataset, workers=workers,
    )
    finish(report, strict)


@ingest_app.command("subsonic", cls=library_command("tonelake.ingest:ingest_subsonic"))
def ingest_subsonic(
    url: Annotated[str, typer.Argument(help="Address of the server, such as http://localhost:4533.")],
    lake: LakePath = "lake",
    user: Annotated[
        str | None, typer.Option(
            help="Name of the user there; default: TONELAKE_SUBSONIC_USER, or as ~/.netrc says. The password is read from "
            "TONELAKE_SUBSONIC_PASSWORD or ~/.netrc, or asked for.",
        ),
    ] = None,
    music: ServerMusic = None,
    fetch: Annotated[bool, typer.Option(help="Download songs that are neither in the lake nor on this disk.")] = True,
    cache_gb: Annotated[
        float | None, typer.Option(
            "--cache-gb", help="Bound of the cache of downloaded files, for all servers; default: as before, at first 10."
        ),
    ] = None,
    insecure: SubsonicPassword = False,
    seconds: Seconds = FROM_LIBRARY, hop: Hop = None, whole: Whole = False, per_track: PerTrack = None,
    dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Match the songs of a music server (Navidrome, Gonic, …) to the lake, and bring in those that it lacks.

    Songs are matched by path, else by title, artist and length. With --json or --csv, songs without a match are printed.

    Example: tonelake ingest subsonic http://localhost:4533 --user ada --music ~/Music
    """
    report = open_lake(lake, create=True).ingest_subsonic(
        url, user=user, music=music, fetch=fetch, cache_gb=cache_gb, insecure=insecure, seconds=None if whole else seconds,
        hop=hop, per_track=per_track, dataset=dataset, ask=ask_password, workers=workers,
    )
    if as_json or as_csv:
        show(report.unmatched_frame(), as_json, as_csv)
    finish(report, strict)


@ingest_app.command("jellyfin", cls=library_command("tonelake.ingest:ingest_jellyfin"))
def ingest_jellyfin(
    url: Annotated[str, typer.Argument(help="Address of the server, such as http://localhost:8096.")],
    lake: LakePath = "lake",
    user: Annotated[
        str | None, typer.Option(
            help="Name of a user of the server: only its songs; default: all. The API key is read from TONELAKE_JELLYFIN_KEY, "
            "or asked for.",
        ),
    ] = None,
    music: ServerMusic = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send the API key even if others on the network could read it.")
    ] = False,
    seconds: Seconds = FROM_LIBRARY, hop: Hop = None, whole: Whole = False, per_track: PerTrack = None,
    dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Match the songs of a Jellyfin server to the lake, and bring in those whose files are below --music.

    Songs are matched by path, else by title, artist and length. Nothing is downloaded. With --json or --csv, songs without a
    match are printed.

    Example: tonelake ingest jellyfin http://localhost:8096 --music ~/Music
    """
    report = open_lake(lake, create=True).ingest_jellyfin(
        url, user=user, music=music, insecure=insecure, seconds=None if whole else seconds, hop=hop, per_track=per_track,
        dataset=dataset, ask=ask_password, workers=workers,
    )
    if as_json or as_csv:
        show(report.unmatched_frame(), as_json, as_csv)
    finish(report, strict)


@ingest_app.command("catalogue", cls=library_command("tonelake.ingest:ingest_catalogue"))
def ingest_catalogue(
    file: Annotated[Path, typer.Argument(help="JSON file: a list of songs with meters and sources.")],
    lake: LakePath = "lake",
    out: Annotated[Path | None, typer.Option(help="Folder for the audio files; default: beside FILE.")] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Confirm that you may download what FILE lists.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of songs to take from the start of the list.")] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Look up songs without sources on YouTube, by artist and title.")
    ] = False,
    override: Annotated[
        Path | None, typer.Option(help="CSV or JSON file of artist, title, and url or video_id: recordings to use instead.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of a segment.")] = FROM_LIBRARY,
    min_seconds: Annotated[float, typer.Option(help="Minimum length of a song's last segment.")] = FROM_LIBRARY,
    margin: Annotated[float, typer.Option(help="Seconds left out at both ends of a song.")] = FROM_LIBRARY,
    max_segments: Annotated[int, typer.Option(help="Maximum number of segments of a song.")] = FROM_LIBRARY,
    write_segments: Annotated[
        Path | None, typer.Option(help="Folder to write the segments to as FLAC files, for `tonelake ingest wikimeter`.")
    ] = None,
    workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Download and ingest songs labelled by meter.

    Example: tonelake ingest catalogue wikimeter.json --accept-terms
    """
    report = open_lake(lake, create=True).ingest_catalogue(
        file, folder=out, accept_terms=accept_terms, limit=limit, search=search, override=override, seconds=seconds,
        min_seconds=min_seconds, margin=margin, max_segments=max_segments, write_segments=write_segments, workers=workers,
    )
    finish(report, strict)


@ingest_app.command("chorales", cls=library_command("tonelake.ingest:ingest_chorales"))
def ingest_chorales(
    lake: LakePath = "lake",
    bars: Annotated[int, typer.Option(min=1, help="Bars in a clip.")] = FROM_LIBRARY,
    hop: Annotated[int, typer.Option(min=1, help="Bars from one clip's start to the next.")] = FROM_LIBRARY,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of pieces, spread over the corpus.")] = None,
    seed_rule: Annotated[
        bool, typer.Option("--seed-rule", help="Keep analyses and repeated windows: 430 pieces, 3,008 snippets.")
    ] = False,
    soundfont: Annotated[
        Path | None, typer.Option(metavar="FILE.sf2", help="Soundfont that FluidSynth plays; default: the built-in organ.")
    ] = None,
    program: Annotated[
        str | None, typer.Option(
            metavar="PROGRAM[,PROGRAM…]",
            help="General MIDI program (0 to 127, or a name) of all voices, or one for each, soprano first; default: 19.",
        ),
    ] = None,
    reverb: Annotated[bool, typer.Option("--reverb", help="Add FluidSynth's reverberation.")] = False,
    labels: Annotated[
        Path | None, typer.Option(help="CSV or JSON file of label columns, joined by a column piece, bwv or name.")
    ] = None,
    multi: Multi = None, strict: Strict = False,
) -> None:
    """Render and ingest Bach's chorales from music21, played by a built-in organ or a soundfont.

    Example: tonelake ingest chorales --limit 40
    Example: tonelake ingest chorales --soundfont TimGM6mb.sf2 --program 52,53,54,54
    """
    report = open_lake(lake, create=True).ingest_chorales(
        bars=bars, hop=hop, limit=limit, seed_rule=seed_rule, soundfont=soundfont, program=program, reverb=reverb,
        labels=labels, multi=multi or (),
    )
    finish(report, strict)


@ingest_app.command("events")
def ingest_events(
    folder: Annotated[Path | None, typer.Argument(help="Folder of audio in the lake; default: all of it.")] = None,
    lake: LakePath = "lake",
    labels: Annotated[
        Path | None, typer.Option(help="Folder of the label files; default: FOLDER, or the folders of the audio.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(
            "--kind", metavar="KIND",
            help="Only this kind: note, onset, beat, downbeat, chord, key or section. With one, text files without a word in "
            "their name are of that kind. May be repeated.",
        ),
    ] = None,
    sustain: Annotated[bool, typer.Option(help="Let notes of MIDI files last as long as the pedal holds them.")] = True,
    workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Store notes, beats, chords, keys and sections from label files beside the audio (MIDI, JAMS, .beats, .lab, .key, …).

    Example: tonelake ingest events ~/Music --labels ~/annotations
    """
    report = open_lake(lake).ingest_events(folder, labels=labels, kinds=kind or (), sustain=sustain, workers=workers)
    finish(report, strict)


@ingest_app.command("mirdata", cls=library_command("tonelake.ingest:ingest_mirdata"), rich_help_panel=SETS)
def ingest_mirdata(
    name: Annotated[str, typer.Argument(help="Name of the set in mirdata, such as guitarset.")],
    path: Annotated[Path, typer.Argument(help="Folder of the set, which mirdata calls data_home.")],
    lake: LakePath = "lake",
    version: Annotated[str, typer.Option(help="Version of the set, as mirdata names it.")] = FROM_LIBRARY,
    index: Annotated[Path | None, typer.Option(help="JSON file of the set's index; default: the one in mirdata.")] = None,
    audio: Annotated[
        list[str] | None, typer.Option("--audio", help="Kind of audio file to read, such as audio_mic. May be repeated.")
    ] = None,
    validate: Annotated[bool, typer.Option(help="Compare the checksum of every file with the index.")] = True,
    seconds: Seconds = FROM_LIBRARY, hop: Hop = None, whole: Whole = False,
    workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Ingest a data set by its loader in mirdata. Nothing is downloaded.

    Example: tonelake ingest mirdata guitarset ~/sets/guitarset --audio audio_mic
    """
    report = open_lake(lake, create=True).ingest_mirdata(
        name, path, version=version, index=index, audio=audio or (), validate=validate, seconds=None if whole else seconds,
        hop=hop, workers=workers,
    )
    finish(report, strict)


@ingest_app.command("hf", cls=library_command("tonelake.ingest:ingest_hf"), rich_help_panel=SETS)
def ingest_hf(
    path: Annotated[str, typer.Argument(help="Folder of `save_to_disk` or of parquet files, or name of a cached data set.")],
    lake: LakePath = "lake",
    config: Annotated[str | None, typer.Option(help="Configuration, if the set has several.")] = None,
    column: Annotated[str | None, typer.Option(help="Audio column; default: the first.")] = None,
    track: Annotated[str | None, typer.Option(help="Column that names the track of a row; default: the file's name.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for audio that is inside tables; default: `audio` in the lake.")
    ] = None,
    seconds: Seconds = FROM_LIBRARY, hop: Hop = None, whole: Whole = False,
    dataset: Dataset = None, workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Ingest a Hugging Face data set that is on this machine. Nothing is downloaded.

    Example: tonelake ingest hf ~/sets/my-songs --track song_id
    """
    report = open_lake(lake, create=True).ingest_hf(
        path, config=config, column=column, track=track, folder=out, seconds=None if whole else seconds, hop=hop,
        dataset=dataset, workers=workers,
    )
    finish(report, strict)


def add_dataset_command(found: FoundDataSet) -> None:
    """Add `tonelake ingest NAME`.  The command of a data set that cannot be loaded fails with the reason."""

    def command(
        path: Annotated[Path, typer.Argument(help="Folder that the set unpacks to, audio and tables.")],
        lake: LakePath = "lake",
        seconds: Annotated[float | None, typer.Option(help="Length of a clip; default: as the set is usually cut.")] = None,
        hop: Annotated[float | None, typer.Option(help="Seconds from one clip's start to the next, with --seconds.")] = None,
        workers: WorkerCount = None, strict: Strict = False,
    ) -> None:
        report = open_lake(lake, create=True).ingest_dataset(found.name, path, seconds=seconds, hop=hop, workers=workers)
        finish(report, strict)

    about = found.dataset
    title = about.title if about is not None else "Cannot be loaded"
    parts = [f"{title}."]
    if about is not None:
        parts += [f"Citation: {about.citation}.", f"Licence: {about.licence}.", f"Folder: {about.layout}."]
    parts.append(f"Example: tonelake ingest {found.name} ~/sets/{found.name}")
    command.__doc__ = "\n\n".join(parts)
    ingest_app.command(found.name, rich_help_panel=SETS)(command)


for _found in find_datasets():
    add_dataset_command(_found)


@app.command(rich_help_panel=AUDIO, cls=library_command("tonelake.ingest:separate_clips"))
def separate(
    lake: LakePath = "lake", where: Where = None,
    model: Annotated[str, typer.Option(help="Demucs model: htdemucs, htdemucs_ft, htdemucs_6s, mdx_extra, …")] = FROM_LIBRARY,
    out: Annotated[Path | None, typer.Option(help="Folder for the stems; default: `stems` in the lake.")] = None,
    workers: WorkerCount = None, strict: Strict = False,
) -> None:
    """Separate each clip into drums, bass, vocals and the rest, as further clips of its track.

    Example: tonelake separate --model htdemucs_6s
    """
    finish(open_lake(lake).separate(model=model, where=where, folder=out, workers=workers), strict)
