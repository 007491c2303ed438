"""Commands about gesture tokens: vocabularies, token sequences, the oracle over them, and live audio."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonelake.cli.names import named_clip
from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import (
    MARKUP,
    TOKENS,
    ClipId,
    Csv,
    Json,
    LakePath,
    Layer,
    NotSame,
    SpaceName,
    Where,
    WorkerCount,
    open_lake,
    say,
    show,
)

if TYPE_CHECKING:
    from tonelake.index import LiveGestures, LiveStep

app = typer.Typer()
tokens_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=MARKUP, help="Fit vocabularies of sounds, and compare clips by their tokens."
)
oracle_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=MARKUP, help="Find repeated passages, and continue sequences."
)
app.add_typer(tokens_app, name="tokens", rich_help_panel=TOKENS)
app.add_typer(oracle_app, name="oracle", rich_help_panel=TOKENS)

Vocabulary = Annotated[
    str | None, typer.Option("--vocabulary", help="Name of the vocabulary; required if the lake has several.")
]


@tokens_app.command(cls=library_command("tonelake.index:fit_vocabulary"))
def fit(
    lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None,
    k: Annotated[int, typer.Option("--k", help="Number of tokens.")] = FROM_LIBRARY,
    metric: Annotated[str, typer.Option(help="Metric: euclidean or cosine.")] = FROM_LIBRARY,
    name: Annotated[str | None, typer.Option(help="Name of the vocabulary; default: LAYER-K.")] = None,
    where: Where = None,
    seed: Annotated[int, typer.Option(help="Random seed of the sample and the initial centres.")] = FROM_LIBRARY,
) -> None:
    """Fit a vocabulary of sounds to stored frames, by k-means.

    Example: tonelake tokens fit --layer 7 --k 2048
    """
    made = open_lake(lake).fit_vocabulary(k=k, space=space, layer=layer, metric=metric, name=name, where=where, seed=seed)
    say(f"{made}.  Next: tonelake tokens apply {made.name} --space {made.space}")


@tokens_app.command()
def apply(
    name: Annotated[str | None, typer.Argument(help="Name of the vocabulary; required if there are several.")] = None,
    lake: LakePath = "lake", space: SpaceName = None,
) -> None:
    """Store the frames of each clip as tokens.

    Example: tonelake tokens apply 7-2048
    """
    vocabulary, done = open_lake(lake).apply_vocabulary(name, space=space)
    known = "" if done else "; every clip with stored frames of its layer already has them"
    say(f"{done:,} clips: tokens of {vocabulary.name} stored{known}")


@tokens_app.command(name="gestures")
def gestures_(
    name: Annotated[str | None, typer.Argument(help="Name of the vocabulary; required if there are several.")] = None,
    lake: LakePath = "lake", space: SpaceName = None,
    grid: Annotated[
        float | None, typer.Option("--grid", help="Seconds of a gesture on a fixed grid; default: from onset to onset.")
    ] = None,
    where: Where = None, workers: WorkerCount = None,
) -> None:
    """Store the gestures of each clip with tokens: times, token, loudness, pitch, consonance and rhythm.

    Example: tonelake tokens gestures 7-2048
    """
    vocabulary, done, failed = open_lake(lake).compute_gestures(name, grid_s=grid, space=space, where=where, workers=workers)
    known = "" if done or failed else "; every clip with tokens already has them"
    lost = f"; {failed:,} clips could not be read" if failed else ""
    say(f"{done:,} clips: gestures in {vocabulary.name} stored{known}{lost}")


@tokens_app.command(name="list")
def list_(lake: LakePath = "lake", as_json: Json = False, as_csv: Csv = False) -> None:
    """List the vocabularies, with measures of their quality.

    Example: tonelake tokens list
    """
    table = open_lake(lake).list_vocabularies()
    show(table, as_json, as_csv, "vocabularies", "no vocabularies: run `tonelake tokens fit`")


@tokens_app.command(name="show")
def show_(
    clip: ClipId,
    gestures: Annotated[bool, typer.Option("--gestures", help="Show its gestures instead, with their features.")] = False,
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Show a clip as runs of tokens, or as gestures.

    Example: tonelake tokens show 3fa9
    """
    opened = open_lake(lake)
    clip_id = named_clip(opened, clip)
    if gestures:
        found = opened.gestures_of_clip(clip_id, vocabulary, space=space)
        show(found, as_json, as_csv, "gestures", "no gestures: run `tonelake tokens gestures`")
        return
    show(opened.runs_of_clip(clip_id, vocabulary, space=space), as_json, as_csv)


@tokens_app.command(cls=library_command("tonelake.index:similar_by_tokens"))
def similar(
    clip: ClipId,
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = FROM_LIBRARY,
    by: Annotated[
        str, typer.Option(help="Measure: ngrams (shared sequences) or histogram (how often each token sounds).")
    ] = FROM_LIBRARY,
    n: Annotated[int, typer.Option("-n", min=1, help="Length of a shared sequence, in runs.")] = FROM_LIBRARY,
    not_same: NotSame = None, where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Find clips that share sequences of tokens, and where.

    Example: tonelake tokens similar 3fa9 --not-same track
    """
    opened = open_lake(lake)
    found = opened.similar_by_tokens(
        named_clip(opened, clip), vocabulary, by=by, n=n, k=k, space=space, where=where, not_same=not_same
    )
    show(found, as_json, as_csv, "token_hits", "no other clip has tokens")


@tokens_app.command(cls=library_command("tonelake.index:typical_tokens"))
def typical(
    column: Annotated[str, typer.Argument(help="Label column.")],
    group: Annotated[str | None, typer.Argument(help="One of its groups; default: every group.")] = None,
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of tokens of each group.")] = FROM_LIBRARY,
    where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List the tokens most characteristic of a group, and where to hear them.

    Example: tonelake tokens typical artist Nina
    """
    found = open_lake(lake).typical_tokens(column, group, vocabulary, k=k, space=space, where=where)
    show(found, as_json, as_csv, empty="no token is characteristic")


@oracle_app.command(cls=library_command("tonelake.index:repeats"))
def repeats(
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of passages.")] = FROM_LIBRARY,
    clip: Annotated[str | None, typer.Option(help="Only passages of this clip: an id, or the name of a song.")] = None,
    least: Annotated[int, typer.Option(min=2, help="Minimum length of a passage, in runs.")] = FROM_LIBRARY,
    across: Annotated[
        bool | None, typer.Option("--across/--within", help="Only between tracks, or only within a clip; default: both.")
    ] = None,
    where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Find repeated passages, with their times.

    Example: tonelake oracle repeats --across --least 8
    """
    opened = open_lake(lake)
    only = named_clip(opened, clip) if clip is not None else None
    found = opened.repeats(vocabulary, clip=only, least=least, across=across, k=k, space=space, where=where)
    show(found, as_json, as_csv, "passages", "no passage of that length is repeated")


@oracle_app.command(name="continue", cls=library_command("tonelake.index:continuation", context="least"))
def continue_(
    sequence: Annotated[
        str, typer.Argument(help="Clip (id, or name of a song) to continue from its end, or tokens: 12,7,7,130.")
    ],
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None,
    steps: Annotated[int, typer.Option(min=1, help="Length of the continuation, in runs.")] = FROM_LIBRARY,
    context: Annotated[
        int, typer.Option(min=1, help="Runs that two passages must share before one may continue as the other.")
    ] = FROM_LIBRARY,
    jump: Annotated[float, typer.Option(min=0, max=1, help="Probability of a jump to another passage, at each step.")]
    = FROM_LIBRARY,
    token: Annotated[int | None, typer.Option(help="Token to start with.")] = None,
    want: Annotated[
        list[str] | None,
        typer.Option(help="Condition on each event, repeatable, the most important first: \"consonance >= 0.6\", "
                          "\"ratio = 1:2\", \"token = 12\". It is relaxed where no event meets it."),
    ] = None,
    prefer: Annotated[
        list[str] | None, typer.Option(help="Preference, repeatable, with a weight if wanted: \"loudness > -20 weight 2\".")
    ] = None,
    other_tracks: Annotated[bool, typer.Option("--other-tracks", help="Leave out the clip's own track.")] = False,
    where: Annotated[
        str | None, typer.Option(help="Use only these clips: labels or ranges, \"consonance BETWEEN 0.2 AND 0.6\".")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = FROM_LIBRARY,
    wav: Annotated[Path | None, typer.Option("--wav", help="Write the audio of the continuation to this file.")] = None,
    midi: Annotated[
        Path | None, typer.Option("--midi", help="Write the pitches of its gestures to this MIDI file.")
    ] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Continue a sequence in the lake's own sounds.

    Example: tonelake oracle continue 3fa9 --want "consonance >= 0.6" --want "ratio = 1:2" --prefer "loudness > -20"
    """
    opened = open_lake(lake)
    query: str | list[int]
    if re.fullmatch(r"\s*\d+\s*(,\s*\d*\s*)+", sequence):
        query = [int(part) for part in sequence.split(",") if part.strip()]
    else:
        query = named_clip(opened, sequence)
        if query == sequence and "," in sequence:
            raise typer.BadParameter(
                f"{sequence!r}: neither a clip nor a list of tokens. Separate tokens by commas: 12,7,7,130"
            )
    found = opened.continuation(
        query, vocabulary, steps=steps, least=context, jump=jump, token=token, want=want or (), prefer=prefer or (),
        other_tracks=other_tracks, space=space, where=where, seed=seed,
    )
    if wav is not None or midi is not None:
        from tonelake.recombine import write_continuation

        for sentence in write_continuation(opened, found, vocabulary, space=space, wav=wav, midi=midi):
            say(sentence)
    show(found, as_json, as_csv, "continued")


@app.command(rich_help_panel=TOKENS)
def listen(
    source: Annotated[str, typer.Argument(help="Audio file, or - for raw samples on standard input.")],
    lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None,
    vocabulary: Annotated[str | None, typer.Option(help="Also print the tokens of this vocabulary.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = 3, where: Where = None,
    window: Annotated[float, typer.Option(help="Seconds encoded at once.")] = 5.0,
    hop: Annotated[float, typer.Option(help="Seconds between two runs of the encoder.")] = 0.5,
    heard: Annotated[float, typer.Option(help="Seconds of the stream that are compared with clips.")] = 3.0,
    rate: Annotated[int, typer.Option(help="Sample rate of raw samples, in Hz.")] = 44_100,
    channels: Annotated[int, typer.Option(help="Channels of raw samples.")] = 1,
    form: Annotated[str, typer.Option("--format", help="Format of raw samples: s16le, s32le or f32le.")] = "s16le",
    device: Annotated[
        str | None, typer.Option(help="Device: cpu, cuda or mps; default: an accelerator if there is one.")
    ] = None,
    gestures: Annotated[
        bool, typer.Option("--gestures", help="Also print each gesture with its features; needs --vocabulary.")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Read a file as fast as possible, not in real time.")] = False,
    as_json: Json = False,
) -> None:
    """Show which clips a file, or sound on standard input, resembles while it plays.

    Example: tonelake listen song.mp3 --layer 7
    """
    from tonelake.listen import Lateness, listen_to_file, listen_to_stream, standard_input

    path = Path(source).expanduser()
    live = open_lake(lake).live(
        rate=rate if source == "-" else 48_000, space=space, layer=layer, vocabulary=vocabulary, k=k, where=where,
        window_s=window, hop_s=hop, heard_s=heard, device=device,
    )
    say(f"space {live.space.name}, layer {live.space.layers[live.layer]}: frames are {live.frames.latency_s:.2f} s behind "
        "their sound, plus the time to compute them")
    cut: LiveGestures | None = None
    if gestures:
        from tonelake.index import LiveGestures

        cut = LiveGestures(live)
        say(f"gestures are complete at most {cut.latency_s:.2f} s after their end, plus that time")
    if source == "-":
        pieces = listen_to_stream(cut or live, standard_input(), channels=channels, form=form)
    else:
        pieces = listen_to_file(cut or live, path, real_time=not fast)
    late = Lateness()
    shown: list[str] | None = None
    plain = as_json or not sys.stdout.isatty()
    for one in pieces:
        if one.tokens is not None and len(one.tokens) and plain:
            print(json.dumps({"at_s": round(float(one.time_s[-1]), 3), "tokens": one.tokens.tolist()}), flush=True)
        for row in cut.take() if cut is not None else ():
            print_gesture(row, plain)
        shown = print_hits(one, shown, plain)
        if len(one.time_s) and not fast and (sentence := late.note(float(one.time_s[-1]))):
            say(sentence)


def print_gesture(row: dict[str, Any], plain: bool) -> None:
    """Print a gesture: its row as JSON, or its main features on a line."""
    if plain:
        print(json.dumps({"at_s": round(row["end_s"], 3), "gesture": row}), flush=True)
        return
    figures = [f"token {row['token']}", f"{row['loudness']:.0f} dB"]
    figures += [f"pitch {row['pitch']:.1f}", f"consonance {row['consonance']:.2f}"] if row["pitch"] is not None else []
    figures += [row["ratio"]] if row["ratio"] else []
    minutes, seconds = divmod(row["start_s"], 60)
    typer.echo(f"{minutes:3.0f}:{seconds:04.1f}  {'  '.join(figures)}")


def print_hits(step: LiveStep, shown: list[str] | None, plain: bool) -> list[str] | None:
    """Print the nearest clips if they differ from those shown last; returns the ids that are shown now."""
    if step.hits is None or step.hits_at_s is None or not len(step.hits):
        return shown
    now = step.hits["clip_id"].to_list()
    if now == shown:
        return shown
    if plain:
        hits = step.hits.select("rank", "score", "clip_id", "artist", "title", "track", "start_s").to_dicts()
        print(json.dumps({"at_s": round(step.hits_at_s, 3), "hits": hits}, ensure_ascii=False), flush=True)
        return now
    from tonelake.store import printable

    minutes, seconds = divmod(step.hits_at_s, 60)
    names = [
        f"{hit['title'] or hit['track']}{' - ' + hit['artist'] if hit['artist'] else ''} {hit['score']:.3f}"
        for hit in step.hits.iter_rows(named=True)
    ]
    typer.echo(printable(f"{minutes:3.0f}:{seconds:04.1f}  {'  |  '.join(names)}"))
    return now
