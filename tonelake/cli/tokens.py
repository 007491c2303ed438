"""Commands about gesture tokens: vocabularies, token sequences, and the oracle over them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tonelake.cli.names import named_clip
from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import (
    MARKUP,
    TOKENS,
    ClipId,
    Config,
    Csv,
    Json,
    LakePath,
    Layer,
    NotSame,
    SpaceName,
    Where,
    WorkerCount,
    config_option,
    configured,
    open_lake,
    say,
    show,
)

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
    config: Annotated[Any, config_option("fit_options")] = None,
) -> None:
    """Fit a vocabulary of sounds to stored frames, by k-means.

    Example: tonelake tokens fit --layer 7 --k 2048
    """
    opened = open_lake(lake)
    space = space if config is None or space is not None else config.space_in(opened)
    made = opened.fit_vocabulary(k=k, space=space, layer=layer, metric=metric, name=name, where=where, seed=seed)
    say(f"{made}.  Next: tonelake tokens apply {made.name} --space {made.space}")


@tokens_app.command()
def apply(
    name: Annotated[str | None, typer.Argument(help="Name of the vocabulary; required if there are several.")] = None,
    lake: LakePath = "lake", space: SpaceName = None, config: Config = None,
) -> None:
    """Store the frames of each clip as tokens.

    Example: tonelake tokens apply 7-2048
    """
    opened = open_lake(lake)
    space, name = configured(opened, config, space, name)
    vocabulary, done = opened.apply_vocabulary(name, space=space)
    known = "" if done else "; every clip with stored frames of its layer already has them"
    say(f"{done:,} clips: tokens of {vocabulary.name} stored{known}")


@tokens_app.command(name="gestures")
def gestures_(
    name: Annotated[str | None, typer.Argument(help="Name of the vocabulary; required if there are several.")] = None,
    lake: LakePath = "lake", space: SpaceName = None,
    grid: Annotated[
        float | None, typer.Option("--grid", help="Seconds of a gesture on a fixed grid; default: from onset to onset.")
    ] = None,
    where: Where = None, workers: WorkerCount = None, config: Config = None,
) -> None:
    """Store the gestures of each clip with tokens: times, token, loudness, pitch, consonance and rhythm.

    Example: tonelake tokens gestures 7-2048
    """
    opened = open_lake(lake)
    space, name = configured(opened, config, space, name)
    vocabulary, done, failed = opened.compute_gestures(name, grid_s=grid, space=space, where=where, workers=workers)
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
    config: Config = None,
) -> None:
    """Show a clip as runs of tokens, or as gestures.

    Example: tonelake tokens show 3fa9
    """
    opened = open_lake(lake)
    clip_id = named_clip(opened, clip)
    space, vocabulary = configured(opened, config, space, vocabulary)
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
    not_same: NotSame = None, where: Where = None, as_json: Json = False, as_csv: Csv = False, config: Config = None,
) -> None:
    """Find clips that share sequences of tokens, and where.

    Example: tonelake tokens similar 3fa9 --not-same track
    """
    opened = open_lake(lake)
    space, vocabulary = configured(opened, config, space, vocabulary)
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
    where: Where = None, as_json: Json = False, as_csv: Csv = False, config: Config = None,
) -> None:
    """List the tokens most characteristic of a group, and where to hear them.

    Example: tonelake tokens typical artist Nina
    """
    opened = open_lake(lake)
    space, vocabulary = configured(opened, config, space, vocabulary)
    found = opened.typical_tokens(column, group, vocabulary, k=k, space=space, where=where)
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
    where: Where = None, as_json: Json = False, as_csv: Csv = False, config: Config = None,
) -> None:
    """Find repeated passages, with their times.

    Example: tonelake oracle repeats --across --least 8
    """
    opened = open_lake(lake)
    only = named_clip(opened, clip) if clip is not None else None
    space, vocabulary = configured(opened, config, space, vocabulary)
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
        typer.Option(help="Condition on each event, or on steps counted from 0; repeatable, the most important first: "
                          "\"consonance >= 0.6\", \"ratio = 1:2\", \"3: token = 12\", \"2-5: artist = Nina\". It is relaxed "
                          "where no event meets it."),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option(help="Preference, repeatable, with a weight and steps if wanted: \"4-: loudness > -20 weight 2\"."),
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
    as_json: Json = False, as_csv: Csv = False, config: Config = None,
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
    space, vocabulary = configured(opened, config, space, vocabulary)
    found = opened.continuation(
        query, vocabulary, steps=steps, least=context, jump=jump, token=token, want=want or (), prefer=prefer or (),
        other_tracks=other_tracks, space=space, where=where, seed=seed,
    )
    if wav is not None or midi is not None:
        from tonelake.recombine import write_continuation

        for sentence in write_continuation(opened, found, vocabulary, space=space, wav=wav, midi=midi):
            say(sentence)
    show(found, as_json, as_csv, "continued")
