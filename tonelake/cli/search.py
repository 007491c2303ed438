"""Commands that find clips: neighbours, paths, matching passages, duplicates, and indexes for large lakes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonelake.cli.names import named, named_clip
from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import (
    MARKUP,
    SEARCH,
    Csv,
    EachClip,
    Hubs,
    Json,
    LakePath,
    Layer,
    Like,
    M3u,
    NotSame,
    SpaceName,
    Unlike,
    Where,
    WorkerCount,
    open_lake,
    say,
    show,
    write_playlist,
)

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer()
index_app = typer.Typer(no_args_is_help=True, rich_markup_mode=MARKUP, help="Index large lakes for approximate search.")

QUERY = "Name of a song, id of a clip (or its first digits), or an audio file"
Query = Annotated[str, typer.Argument(help=f"{QUERY}.")]
Metric = Annotated[str, typer.Option(help="Metric: cosine, ip or l2.")]
Mixture = "Mixture of layers: 3:0.5,11:0.5, or 3,11, or all"


@app.command(rich_help_panel=SEARCH, cls=library_command("tonelake.index:similar"))
def similar(
    query: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of songs, ids of clips (or their first digits) or audio files; those after a - are subtracted."
        ),
    ] = None,
    lake: LakePath = "lake",
    text: Annotated[
        list[str] | None,
        typer.Option(help='Words to search for, alone or with QUERY; repeatable; "-vocals" is subtracted.'),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = FROM_LIBRARY,
    layer: Layer = None,
    layers: Annotated[str | None, typer.Option(help=f"{Mixture}, or auto:COLUMN (weights learned from its groups).")] = None,
    space: SpaceName = None,
    spaces: Annotated[
        str | None, typer.Option(help="Several spaces with weights: A:0.7,B:0.3, or with layers A/3:0.7,B/mel:0.3.")
    ] = None,
    where: Where = None,
    metric: Metric = FROM_LIBRARY, not_same: NotSame = None,
    per: Annotated[
        tuple[str, int] | None, typer.Option("--per", help="Column and number of hits that may share a value: artist 2.")
    ] = None,
    order: Annotated[
        str, typer.Option(help="Order of the hits: nearest, or walk (each near the one before it).")
    ] = FROM_LIBRARY,
    hubs: Hubs = FROM_LIBRARY, clips: EachClip = False, m3u: M3u = None, like: Like = None, unlike: Unlike = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also show each hit's similarity at every layer, and its tags if there are any.")
    ] = False,
    parts: Annotated[
        float | None, typer.Option(help="Seconds of the best matching passage to find in each hit; needs stored frames.")
    ] = None,
    warp: Annotated[bool, typer.Option("--warp", help="With --parts: also match a faster or slower passage.")] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Find songs that sound like QUERY, or like words.

    Example: tonelake similar "love theme" -k 20 --not-same artist --per artist 2 --m3u like-it.m3u8
    """
    if not (query or text):
        raise typer.BadParameter("nothing to search for. Give a song, a clip, a file or --text")
    opened = open_lake(lake)
    wanted, minus = ([named(opened, word) for word in words] for words in signed(query or [], text is not None))
    mixture: Any = layers
    if layers is not None and layers.startswith("auto:"):
        learned = opened.learn_weights(layers.removeprefix("auto:"), space=space)
        say(str(learned))
        mixture = learned.weights
    if parts is not None and (len(wanted) != 1 or minus or text):
        raise typer.BadParameter("--parts compares hits with one clip or file. Give one query")
    if parts is not None and spaces is not None:
        raise typer.BadParameter("--parts compares frames of one space. Leave out --spaces")
    hits = opened.similar(
        wanted, minus=minus, text=text or (), k=k, layer=layer, layers=mixture, space=space, spaces=spaces, where=where,
        metric=metric, not_same=not_same, like=like, unlike=unlike, explain=explain, clips=clips, per=per, order=order,
        hubs=hubs,
    )
    if (like or unlike) and layers is None:
        say_facets(opened.facets(like=like, unlike=unlike, space=space, layers=[layer]))
    if parts is not None:
        hits = opened.add_parts(hits, wanted[0], space=space, layer=layer, seconds=parts, warp=warp)
    show(hits, as_json, as_csv, "hits", f"no {'clip' if clips else 'other song'} satisfies the filter")
    write_playlist(opened, hits, m3u)
    if explain and sys.stdout.isatty() and not (as_json or as_csv):
        show(hits, False, False, "by_layer")


@app.command(rich_help_panel=SEARCH)
def facets(
    lake: LakePath = "lake", like: Like = None, unlike: Unlike = None, space: SpaceName = None, as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Measure how well --like and --unlike work at each layer, on held-out tracks.

    Example: tonelake facets --like meter --unlike artist
    """
    show(open_lake(lake).facets(like=like, unlike=unlike, space=space), as_json, as_csv)


@app.command(rich_help_panel=SEARCH, cls=library_command("tonelake.index:path"))
def path(
    start: Annotated[str | None, typer.Argument(help=f"{QUERY}.")] = None,
    end: Annotated[str | None, typer.Argument(help=f"{QUERY}.")] = None,
    lake: LakePath = "lake",
    start_text: Annotated[
        list[str] | None, typer.Option(help="Words instead of START; repeatable; the song that answers them best is taken.")
    ] = None,
    end_text: Annotated[list[str] | None, typer.Option(help="Words instead of END.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of songs between the two.")] = FROM_LIBRARY,
    layer: Layer = None, layers: Annotated[str | None, typer.Option(help=f"{Mixture}.")] = None,
    space: SpaceName = None, where: Where = None, like: Like = None, unlike: Unlike = None, clips: EachClip = False,
    m3u: M3u = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Find songs that lead from one song or clip, or from words, to another.

    Example: tonelake path "love theme" 77b0d2 --steps 8 --m3u walk.m3u8
    """
    if start_text and end is None:       # the one argument is then the other end
        start, end = None, start
    opened = open_lake(lake)
    found = opened.path(
        *(None if one is None else named(opened, one) for one in (start, end)), start_text=start_text or (),
        end_text=end_text or (), steps=steps, layer=layer, layers=layers, space=space, where=where, like=like,
        unlike=unlike, clips=clips,
    )
    show(found, as_json, as_csv, "stations", f"no {'clip' if clips else 'other song'} satisfies the filter")
    write_playlist(opened, found, m3u)


@app.command(rich_help_panel=SEARCH, cls=library_command("tonelake.index:cosine"))
def cosine(
    first: Query,
    second: Annotated[str | None, typer.Argument(help=f"{QUERY}.")] = None,
    lake: LakePath = "lake",
    text: Annotated[list[str] | None, typer.Option(help="Words to compare with, instead of SECOND; repeatable.")] = None,
    layer: Layer = None,
    layers: Annotated[str | None, typer.Option(help="Layers by number or name: 3,11, or all.")] = None,
    space: SpaceName = None,
    seed: Annotated[int, typer.Option(help="Random seed of the pairs that the cosine is compared with.")] = FROM_LIBRARY,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Compare two songs, clips or files, or one with words: their cosine, and its percentile among random pairs of the lake.

    Example: tonelake cosine first.wav second.wav --layers all
    """
    opened = open_lake(lake)
    found = opened.cosine(
        named(opened, first), None if second is None else named(opened, second), text=text or (), space=space, layer=layer,
        layers=layers, seed=seed,
    )
    show(found, as_json, as_csv, "cosines")


@app.command(rich_help_panel=SEARCH, cls=library_command("tonelake.index:align"))
def align(
    query: Query,
    other: Query,
    lake: LakePath = "lake",
    seconds: Annotated[float, typer.Option(help="Length of the match.")] = FROM_LIBRARY,
    warp: Annotated[bool, typer.Option("--warp", help="Also match a faster or slower passage of the other clip.")] = False,
    layer: Layer = None, space: SpaceName = None, as_json: Json = False,
) -> None:
    """Find the best matching passage of two clips, by their stored frames.

    Example: tonelake align 3fa91c 77b0d2 --seconds 3
    """
    opened = open_lake(lake)
    first, second = named_clip(opened, query), named_clip(opened, other)
    found = opened.align(first, second, space=space, layer=layer, seconds=seconds, warp=warp)
    if as_json or not sys.stdout.isatty():
        import json

        print(json.dumps(vars(found)))
    else:
        print(found)


@app.command(rich_help_panel=SEARCH, cls=library_command("tonelake.index:duplicates"))
def duplicates(
    lake: LakePath = "lake",
    cosine: Annotated[
        float, typer.Option(min=-1, max=1, help="Cosine of centred vectors above which the audio of two clips is compared.")
    ] = FROM_LIBRARY,
    correlation: Annotated[
        float, typer.Option(min=0, max=1, help="Correlation of waveforms above which two clips are the same.")
    ] = FROM_LIBRARY,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Decide by the vectors alone.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Store the confirmed sets as label column same_as; each set then counts as one song.")
    ] = False,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer by number or name, -1 for the last; default: chroma, else the space's default."),
    ] = None,
    space: SpaceName = None, where: Where = None, clips: EachClip = False, m3u: M3u = None, workers: WorkerCount = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Find recordings with the same audio, confirmed by comparing it.

    Example: tonelake duplicates --save
    """
    opened = open_lake(lake)
    found = opened.duplicates(
        space=space, layer=layer, cosine=cosine, correlation=correlation, confirm=not no_audio, where=where, save=save,
        workers=workers, clips=clips,
    )
    show(found, as_json, as_csv, "duplicates", "no duplicates found")
    number, what = found["set"].n_unique(), "clips" if clips else "recordings"
    say(f"{len(found)} {what} in {number} sets" + (", stored as label column same_as" if save and number else ""))
    write_playlist(opened, found, m3u)


# -- indexes

app.add_typer(index_app, name="index", rich_help_panel=SEARCH)


@index_app.command("build", cls=library_command("tonelake.index:build_indexes"))
def index_build(
    lake: LakePath = "lake", space: SpaceName = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to index: 5,7, or all; default: the space's default layer.")
    ] = None,
    metric: Metric = FROM_LIBRARY,
    recall: Annotated[float, typer.Option(help="Share of the true ten nearest clips that a search must find.")] = FROM_LIBRARY,
    kind: Annotated[
        str, typer.Option(help="Kind of index: auto, hnsw, ivf-rabitq, ivf-pq or lance (inside the lake).")
    ] = FROM_LIBRARY,
    engine: Annotated[
        str, typer.Option(help="Where to encode: local (this machine) or ray (a cluster; only kind lance).")
    ] = FROM_LIBRARY,
    address: Annotated[str | None, typer.Option(help="Address of the Ray cluster; default: this machine's.")] = None,
) -> None:
    """Index layers, or bring their indexes up to date.  With --engine ray, a cluster encodes the clips of a new index.

    Example: tonelake index build --layers 5,7 --recall 0.98
    """
    names = [name.strip() for name in layers.split(",")] if layers else []
    lines = open_lake(lake).build_indexes(
        names, space=space, metric=metric, kind=kind, recall=recall, engine=engine, address=address
    )
    for line in lines:
        say(line)


@index_app.command("list")
def index_list(lake: LakePath = "lake", as_json: Json = False, as_csv: Csv = False) -> None:
    """List the indexes, and which of them are behind the lake.

    Example: tonelake index list
    """
    show(open_lake(lake).list_indexes(), as_json, as_csv, "indexes", "no indexes: every search is exact")


@index_app.command("drop")
def index_drop(lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None) -> None:
    """Delete indexes; searches are exact afterwards.

    Example: tonelake index drop --layer 7
    """
    count = open_lake(lake).drop_indexes(space=space, layer=layer)
    say(f"{count} indexes dropped" if count else "no indexes to drop")


# -- helpers


def signed(words: list[str], with_text: bool = False) -> tuple[list[str], list[str]]:
    """Queries to add and queries to subtract: `A B - C + D` is A, B and D less C; with words, all can be subtracted.

    Raises InputError.
    """
    from tonelake.store import InputError

    parts: dict[str, list[str]] = {"+": [], "-": []}
    sign = ""
    for word in words:
        if word in parts and not sign:
            sign = word
        else:
            parts[sign or "+"].append(word)
            sign = ""
    if sign or not (parts["+"] or with_text):
        raise InputError(f"query {' '.join(words)!r}: is not a list of clips or files. Write A B, or A - B")
    return parts["+"], parts["-"]


def say_facets(table: pl.DataFrame) -> None:
    """Print how well the facets of a search work, one sentence each."""
    verbs = {"like": "compares by", "unlike": "ignores"}
    for row in table.to_dicts():
        what = f"{verbs[row['facet']]} {row['column']}"
        if row["auc_after"] is None:
            say(f"{what}; too few tracks to measure the effect")
        else:
            say(f"{what}: on held-out data, pairs that share it are separated from others with AUC {row['auc_after']:.3f}, "
                f"{row['auc_before']:.3f} without")
