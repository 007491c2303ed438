"""Commands about gesture tokens: vocabularies, token sequences, the oracle over them, and listening."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonelake.cli.shared import ClipId, Csv, Json, LakePath, Layer, SpaceName, Where, open_lake, say, show

if TYPE_CHECKING:
    from tonelake.index import LiveStep

app = typer.Typer()
tokens_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Vocabularies of sounds, and clips as their tokens.")
oracle_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What comes again, and how a sequence could go on.")
app.add_typer(tokens_app, name="tokens")
app.add_typer(oracle_app, name="oracle")

Vocabulary = Annotated[str | None, typer.Option("--vocabulary", help="Its name; needed where there are several.")]
Count = Annotated[int, typer.Option("-k", min=1, help="How many.")]


@tokens_app.command()
def fit(
    lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None,
    k: Annotated[int, typer.Option("--k", help="Tokens.")] = 2048,
    metric: Annotated[str, typer.Option(help="euclidean or cosine.")] = "euclidean",
    name: Annotated[str | None, typer.Option(help="Default: LAYER-K.")] = None,
    where: Where = None, seed: Annotated[int, typer.Option(help="Of the sample and the start.")] = 0,
) -> None:
    """Find a vocabulary of sounds in stored frames, by k-means.   Example: tonelake tokens fit --layer 7 --k 2048"""
    made = open_lake(lake, create=False).tokens.fit(
        k=k, space=space, layer=layer, metric=metric, name=name, where=where, seed=seed
    )
    say(f"{made}.  Now: tonelake tokens apply {made.name} --space {made.space}")


@tokens_app.command()
def apply(
    name: Annotated[str | None, typer.Argument(help="A vocabulary; needed where there are several.")] = None,
    lake: LakePath = "lake", space: SpaceName = None,
) -> None:
    """Write each clip's frames as tokens.   Example: tonelake tokens apply 7-2048"""
    vocabulary, done = open_lake(lake, create=False).tokens.apply(name, space=space)
    known = "" if done else "; all clips with frames of its layer have them"
    say(f"{done:,} clips: tokens of {vocabulary.name} stored{known}")


@tokens_app.command(name="list")
def list_(lake: LakePath = "lake", as_json: Json = False, as_csv: Csv = False) -> None:
    """The vocabularies, and how good they are.   Example: tonelake tokens list"""
    table = open_lake(lake, create=False).tokens.list()
    show(table, as_json, as_csv, "vocabularies", "no vocabulary: run `tonelake tokens fit`")


@tokens_app.command(name="show")
def show_(
    clip: ClipId,
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """A clip as runs of tokens.   Example: tonelake tokens show 3fa9"""
    show(open_lake(lake, create=False).tokens.of(clip, vocabulary, space=space), as_json, as_csv)


@tokens_app.command()
def similar(
    clip: ClipId,
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None, k: Count = 10,
    by: Annotated[
        str, typer.Option(help="histogram: how often each token sounds; ngrams: sequences that are shared.")
    ] = "ngrams",
    n: Annotated[int, typer.Option("-n", min=1, help="Runs of a sequence.")] = 3,
    not_same: Annotated[
        str | None, typer.Option("--not-same", help="A column in which hits must differ: track, artist.")
    ] = None,
    where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Clips that share sequences of tokens, and where.   Example: tonelake tokens similar 3fa9 --not-same track"""
    found = open_lake(lake, create=False).tokens.similar(
        clip, vocabulary, by=by, n=n, k=k, space=space, where=where, not_same=not_same
    )
    show(found, as_json, as_csv, "token_hits", "no other clip has tokens")


@tokens_app.command()
def typical(
    column: Annotated[str, typer.Argument(help="A label column.")],
    group: Annotated[str | None, typer.Argument(help="One of its values; default: each.")] = None,
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None, k: Count = 5, where: Where = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """The tokens that tell most of a group, and where to hear them.   Example: tonelake tokens typical artist Nina"""
    found = open_lake(lake, create=False).tokens.typical(column, group, vocabulary, k=k, space=space, where=where)
    show(found, as_json, as_csv, empty="no token tells of it")


@oracle_app.command()
def repeats(
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None, k: Count = 20,
    clip: Annotated[str | None, typer.Option(help="Only passages of this clip.")] = None,
    least: Annotated[int, typer.Option(min=2, help="Runs that a passage has.")] = 5,
    across: Annotated[
        bool | None, typer.Option("--across/--within", help="Only between tracks, or only within a clip; default: both.")
    ] = None,
    where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Passages that come again, with their times.   Example: tonelake oracle repeats --across --least 8"""
    found = open_lake(lake, create=False).tokens.repeats(
        vocabulary, clip=clip, least=least, across=across, k=k, space=space, where=where
    )
    show(found, as_json, as_csv, "passages", "nothing of that length comes again")


@oracle_app.command(name="continue")
def continue_(
    sequence: Annotated[str, typer.Argument(help="A clip, which goes on from its end, or tokens: 12,7,7,130.")],
    vocabulary: Vocabulary = None, lake: LakePath = "lake", space: SpaceName = None,
    steps: Annotated[int, typer.Option(min=1, help="Runs.")] = 32,
    context: Annotated[int, typer.Option(min=1, help="Runs that two places share before one goes on as the other.")] = 2,
    jump: Annotated[float, typer.Option(min=0, max=1, help="Chance to go on elsewhere, at each step.")] = 0.3,
    token: Annotated[int | None, typer.Option(help="That it begins with.")] = None,
    other_tracks: Annotated[bool, typer.Option("--other-tracks", help="Leave the clip's own track out.")] = False,
    where: Annotated[
        str | None, typer.Option(help="Only among these clips: labels or ranges, \"consonance BETWEEN 0.2 AND 0.6\".")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choices.")] = 0,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """How a sequence could go on, in the lake's own sounds.   Example: tonelake oracle continue 3fa9 --other-tracks"""
    asked: str | list[int] = sequence
    if "," in sequence:
        try:
            asked = [int(part) for part in sequence.split(",") if part]
        except ValueError as error:
            raise typer.BadParameter(f"{sequence!r}: write tokens with commas between them, as 12,7,7,130") from error
    found = open_lake(lake, create=False).tokens.continuation(
        asked, vocabulary, steps=steps, least=context, jump=jump, token=token, other_tracks=other_tracks, space=space,
        where=where, seed=seed,
    )
    show(found, as_json, as_csv, "continued")


@app.command()
def listen(
    source: Annotated[str, typer.Argument(help="An audio file, or - for raw samples on standard input.")],
    lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None,
    vocabulary: Annotated[str | None, typer.Option(help="Also print tokens of this vocabulary.")] = None,
    k: Count = 3, where: Where = None,
    window: Annotated[float, typer.Option(help="Seconds that the encoder hears at once.")] = 5.0,
    hop: Annotated[float, typer.Option(help="Seconds between two runs of it.")] = 0.5,
    heard: Annotated[float, typer.Option(help="Seconds that are compared with clips.")] = 3.0,
    rate: Annotated[int, typer.Option(help="Of raw samples, Hz.")] = 44_100,
    channels: Annotated[int, typer.Option(help="Of raw samples.")] = 1,
    form: Annotated[str, typer.Option("--format", help="Of raw samples: s16le, s32le or f32le.")] = "s16le",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: an accelerator where there is one.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Do not wait for a file to play.")] = False,
    as_json: Json = False,
) -> None:
    """What a file, or sound on standard input, is like while it plays.   Example: tonelake listen song.mp3 --layer 7"""
    from tonelake.listen import Lateness, listen_to_file, listen_to_stream, standard_input

    path = Path(source).expanduser()
    live = open_lake(lake, create=False).tokens.live(
        rate=rate if source == "-" else 48_000, space=space, layer=layer, vocabulary=vocabulary, k=k, where=where,
        window_s=window, hop_s=hop, heard_s=heard, device=device,
    )
    say(f"space {live.space.name}, layer {live.space.layers[live.layer]}: frames come {live.frames.latency_s:.2f} s after "
        "their sound, and what computing takes")
    if source == "-":
        pieces = listen_to_stream(live, standard_input(), channels=channels, form=form)
    else:
        pieces = listen_to_file(live, path, real_time=not fast)
    late, shown = Lateness(), None
    plain = as_json or not sys.stdout.isatty()
    for one in pieces:
        if one.tokens is not None and len(one.tokens) and plain:
            print(json.dumps({"at_s": round(float(one.time_s[-1]), 3), "tokens": one.tokens.tolist()}), flush=True)
        shown = report(one, shown, plain)
        if len(one.time_s) and not fast and (sentence := late.note(float(one.time_s[-1]))):
            say(sentence)


def report(heard: LiveStep, shown: Any, plain: bool) -> Any:
    """Print neighbours where they are others than those shown last, which are returned."""
    if heard.hits is None or heard.hits_at_s is None or not len(heard.hits):
        return shown
    now = heard.hits["clip_id"].to_list()
    if now == shown:
        return shown
    if plain:
        hits = heard.hits.select("rank", "score", "clip_id", "artist", "title", "track", "start_s").to_dicts()
        print(json.dumps({"at_s": round(heard.hits_at_s, 3), "hits": hits}, ensure_ascii=False), flush=True)
        return now
    from tonelake.store import printable

    minutes, seconds = divmod(heard.hits_at_s, 60)
    names = [
        f"{hit['title'] or hit['track']}{' - ' + hit['artist'] if hit['artist'] else ''} {hit['score']:.3f}"
        for hit in heard.hits.iter_rows(named=True)
    ]
    typer.echo(printable(f"{minutes:3.0f}:{seconds:04.1f}  {'  |  '.join(names)}"))
    return now
