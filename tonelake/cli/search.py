"""Commands that answer from stored vectors: neighbours, groups, layers, indexes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonelake.cli.shared import (
    Csv,
    Json,
    LakePath,
    Layer,
    Like,
    SpaceName,
    Unlike,
    Where,
    WorkerCount,
    open_lake,
    say,
    show,
    write_file,
)

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer()
index_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Search among very many clips: approximate indexes.")
app.add_typer(index_app, name="index")


@app.command()
def similar(
    query: Annotated[
        list[str], typer.Argument(help="Clip ids (or their first digits) or audio files; what follows a - is subtracted.")
    ],
    lake: LakePath = "lake",
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    layer: Layer = None,
    layers: Annotated[
        str | None, typer.Option(help="A mixture: 3:0.5,11:0.5, or 3,11, or all, or auto:COLUMN (learned from its groups).")
    ] = None,
    space: SpaceName = None, where: Where = None,
    metric: Annotated[str, typer.Option(help="cosine, ip or l2.")] = "cosine",
    not_same: Annotated[
        str | None, typer.Option("--not-same", help="A column in which hits must differ: track, artist, …")
    ] = None,
    like: Like = None, unlike: Unlike = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also how near each hit is at every layer.")] = False,
    parts: Annotated[
        float | None, typer.Option(help="Where in each hit so many seconds are most like the query; needs stored frames.")
    ] = None,
    warp: Annotated[bool, typer.Option("--warp", help="With --parts: the hit may play it faster or slower.")] = False,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Clips that sound like QUERY.   Example: tonelake similar kick.wav -k 5 --layer 7 --not-same track"""
    opened = open_lake(lake, create=False)
    wanted, minus = signed(query)
    mixture: Any = layers
    if layers is not None and layers.startswith("auto:"):
        learned = opened.learn_weights(layers.removeprefix("auto:"), space=space)
        say(str(learned))
        mixture = learned.weights
    if parts is not None and (len(wanted) > 1 or minus):
        raise typer.BadParameter("--parts compares hits with one clip or file")
    hits = opened.similar(
        wanted, minus=minus, k=k, layer=layer, layers=mixture, space=space, where=where, metric=metric, not_same=not_same,
        like=like, unlike=unlike, explain=explain,
    )
    if (like or unlike) and layers is None:
        tell_facets(opened.facets(like=like, unlike=unlike, space=space, layers=[layer]))
    if parts is not None:
        hits = opened.parts(hits, wanted[0], space=space, layer=layer, seconds=parts, warp=warp)
    show(hits, as_json, as_csv, "hits", "no clip satisfies the filter")
    if explain and sys.stdout.isatty() and not (as_json or as_csv):
        show(hits, False, False, "by_layer")


@app.command()
def facets(
    lake: LakePath = "lake", like: Like = None, unlike: Unlike = None, space: SpaceName = None, as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """What a facet is worth at each layer, on tracks held out.   Example: tonelake facets --like meter --unlike artist"""
    show(open_lake(lake, create=False).facets(like=like, unlike=unlike, space=space), as_json, as_csv)


@app.command()
def path(
    start: Annotated[str, typer.Argument(help="A clip id (or its first digits) or an audio file.")],
    end: Annotated[str, typer.Argument(help="Another one.")],
    lake: LakePath = "lake",
    steps: Annotated[int, typer.Option(min=1, help="Clips in between.")] = 5,
    layer: Layer = None, layers: Annotated[str | None, typer.Option(help="A mixture: 3:0.5,11:0.5, or 3,11, or all.")] = None,
    space: SpaceName = None, where: Where = None, like: Like = None, unlike: Unlike = None, as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Clips that lead from one to another.   Example: tonelake path 3fa91c 77b0d2 --steps 8"""
    found = open_lake(lake, create=False).path(
        start, end, steps=steps, layer=layer, layers=layers, space=space, where=where, like=like, unlike=unlike
    )
    show(found, as_json, as_csv, "stations", "no clip satisfies the filter")


@app.command()
def align(
    query: Annotated[str, typer.Argument(help="A clip id (or its first digits) or an audio file.")],
    other: Annotated[str, typer.Argument(help="Another one.")],
    lake: LakePath = "lake",
    seconds: Annotated[float, typer.Option(help="Length of the match.")] = 5.0,
    warp: Annotated[bool, typer.Option("--warp", help="The other may play it faster or slower.")] = False,
    layer: Layer = None, space: SpaceName = None, as_json: Json = False,
) -> None:
    """Where in two clips the best match lies, by stored frames.   Example: tonelake align 3fa91c 77b0d2 --seconds 3"""
    found = open_lake(lake, create=False).align(query, other, space=space, layer=layer, seconds=seconds, warp=warp)
    if as_json or not sys.stdout.isatty():
        import json

        print(json.dumps(vars(found)))
    else:
        print(found)


@index_app.command("build")
def index_build(
    lake: LakePath = "lake", space: SpaceName = None,
    layers: Annotated[str | None, typer.Option(help="Layers to index: 5,7, or all; default: the space's.")] = None,
    metric: Annotated[str, typer.Option(help="cosine, ip or l2.")] = "cosine",
    recall: Annotated[float, typer.Option(help="Share of the true ten nearest that a search has to find.")] = 0.95,
    kind: Annotated[str, typer.Option(help="auto, hnsw or ivf-pq.")] = "auto",
) -> None:
    """Index layers, or bring their indexes up to date.   Example: tonelake index build --layers 5,7 --recall 0.98"""
    opened = open_lake(lake, create=False)
    names: list[str] = layers.split(",") if layers else []
    if layers == "all":
        names = list(opened.lake.spaces.get(space).layers)
    for line in opened.build_indexes([name.strip() for name in names], space=space, metric=metric, kind=kind, recall=recall):
        say(line)


@index_app.command("list")
def index_list(lake: LakePath = "lake", as_json: Json = False, as_csv: Csv = False) -> None:
    """The indexes there are, and which have fallen behind.   Example: tonelake index list"""
    show(open_lake(lake, create=False).indexes(), as_json, as_csv, "indexes", "no indexes: every search is exact")


@index_app.command("drop")
def index_drop(lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None) -> None:
    """Delete indexes; search is exact again.   Example: tonelake index drop --layer 7"""
    count = open_lake(lake, create=False).drop_indexes(space=space, layer=layer)
    say(f"{count} indexes dropped" if count else "there was no index to drop")


@app.command()
def groups(
    column: Annotated[str, typer.Argument(help="Label column: artist, album, piece, …")],
    name: Annotated[str | None, typer.Argument(help="One group: list those nearest to it.")] = None,
    lake: LakePath = "lake",
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many groups.")] = None,
    by: Annotated[str, typer.Option(help="centroid, mean (of all pairs of clips) or chamfer (of nearest ones).")] = "centroid",
    min_clips: Annotated[int, typer.Option("--min-clips", min=1, help="Leave out groups of fewer.")] = 1,
    matrix: Annotated[Path | None, typer.Option(help="Write the similarity of every pair to this CSV file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it as a clustered heat map: a PNG, SVG or PDF file.")] = None,
    layer: Layer = None, space: SpaceName = None, where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Artists (or pieces, …) as sets of clips: which are near.   Example: tonelake groups artist "Nina Simone\""""
    opened = open_lake(lake, create=False)
    if matrix is None and picture is None:
        found = opened.groups(
            column, name, k=k, layer=layer, space=space, where=where, measure=by, min_clips=min_clips
        )
        show(found, as_json, as_csv)
        return
    table = opened.group_matrix(column, layer=layer, space=space, where=where, measure=by, min_clips=min_clips)
    if matrix is not None:
        write_file(matrix, table.write_csv())
        say(f"{matrix}: {len(table)} × {len(table)} similarities")
    if picture is not None:
        from tonelake.charts import draw_matrix

        draw_matrix(table, picture, f"{column}, by {by}")
        say(f"{picture}: drawn")


@app.command("map")
def make_map(
    lake: LakePath = "lake", layer: Layer = None, space: SpaceName = None,
    method: Annotated[str, typer.Option(help="umap or pca.")] = "umap",
    neighbours: Annotated[int, typer.Option(min=2, help="Clips each clip is kept near: fewer, finer.")] = 15,
    min_dist: Annotated[float, typer.Option(min=0, max=1, help="How close points may lie: smaller, denser clumps.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The same one gives the same map.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Forget the map there is.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw it to this PNG, SVG or PDF file.")] = None,
    colour: Annotated[str | None, typer.Option(help="Label column to colour the picture by; default: clusters.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """The clips as a map, and its clusters with what tells of them.   Example: tonelake map --layer 7 --picture map.png"""
    opened = open_lake(lake, create=False)
    if colour is not None:
        opened.lake.clips.check_column(colour)
    found = opened.map(
        layer, space=space, method=method, neighbours=neighbours, min_dist=min_dist, seed=seed, again=again
    )
    show(found.clusters, as_json, as_csv, "clusters", "no clusters: too few clips, or all of a kind")
    say(str(found))
    say(found.file)
    if picture is not None:
        from tonelake.charts import draw_map

        labels = opened.lake.clips.take(found.points["clip_id"].to_list(), [colour])[colour] if colour else None
        draw_map(found, picture, labels)
        say(f"{picture}: drawn")


@app.command()
def typical(
    column: Annotated[str, typer.Argument(help="Label column: artist, album, piece, …")],
    name: Annotated[str | None, typer.Argument(help="One group; default: over all groups.")] = None,
    lake: LakePath = "lake",
    k: Annotated[int, typer.Option("-k", min=1, help="How many of either kind.")] = 5,
    min_clips: Annotated[int, typer.Option("--min-clips", min=1, help="Leave out groups of fewer.")] = 1,
    layer: Layer = None, space: SpaceName = None, where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """The clips nearest to their group's other tracks, and those farthest.   Example: tonelake typical artist "Nina Simone\""""
    found = open_lake(lake, create=False).typical(
        column, name, k=k, layer=layer, space=space, where=where, min_clips=min_clips
    )
    show(found, as_json, as_csv, "typical")


@app.command()
def layers(
    column: Annotated[str, typer.Argument(help="Label column whose groups should be told apart.")],
    lake: LakePath = "lake", space: SpaceName = None, where: Where = None,
    prepare: Annotated[str, typer.Option(help="What is done to vectors first: l2 (cosine), raw, centred, whitened.")] = "l2",
    compare_all: Annotated[bool, typer.Option("--effects", help="What each of these does to every layer, instead.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the report to this PNG, SVG or PDF file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap, and of the sample where clips are many.")] = 0,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """For each layer, how well it separates COLUMN.   Example: tonelake layers artist --picture artist.png"""
    opened = open_lake(lake, create=False)
    if compare_all:
        show(opened.effects(column, space=space, where=where, seed=seed), as_json, as_csv, "effects")
        return
    report = opened.layers(column, space=space, where=where, prepare=prepare, seed=seed)
    show(report.table, as_json, as_csv, "layers")
    say(report.summary())
    if picture is not None:
        from tonelake.charts import draw_layers

        draw_layers(report, picture)
        say(f"{picture}: drawn")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A space.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    column: Annotated[str | None, typer.Argument(help="Label column: which space tells its groups apart better.")] = None,
    lake: LakePath = "lake", where: Where = None,
    seed: Annotated[int, typer.Option(help="Of the samples and the bootstrap.")] = 0,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Two spaces, layer by layer.   Example: tonelake compare mert-v1-95m mert-v1-95m-5s artist"""
    found = open_lake(lake, create=False).compare(first, second, column, where=where, seed=seed)
    show(found, as_json, as_csv, "comparison")


@app.command()
def overlap(
    column: Annotated[str, typer.Argument(help="Label column: artist, piece, …")],
    reference: Annotated[Path, typer.Argument(help="CSV: a group, its neighbour and, if need be, rank or score.")],
    lake: LakePath = "lake",
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of each that are compared.")] = 10,
    by: Annotated[str, typer.Option(help="As for groups: centroid, mean or chamfer.")] = "centroid",
    min_clips: Annotated[int, typer.Option("--min-clips", min=1, help="Leave out groups of fewer.")] = 1,
    layer: Layer = None, space: SpaceName = None, where: Where = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Nearest groups against a list from elsewhere.   Example: tonelake overlap artist recommended.csv -k 20"""
    found = open_lake(lake, create=False).overlap(
        column, reference, k=k, space=space, layer=layer, where=where, measure=by, min_clips=min_clips, seed=seed
    )
    show(found.table, as_json, as_csv)
    say(str(found))


@app.command()
def duplicates(
    lake: LakePath = "lake",
    cosine: Annotated[float, typer.Option(min=-1, max=1, help="Of centred vectors: from here on clips are compared.")] = 0.9,
    correlation: Annotated[float, typer.Option(min=0, max=1, help="Of waveforms: from here on they are the same.")] = 0.8,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Do not listen: the embedding alone decides.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the sets as label column same_as; they then count as one track everywhere.")
    ] = False,
    layer: Layer = None, space: SpaceName = None, where: Where = None, workers: WorkerCount = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Clips that are the same recording, confirmed on the audio.   Example: tonelake duplicates --save"""
    found = open_lake(lake, create=False).duplicates(
        space=space, layer=layer, cosine=cosine, correlation=correlation, confirm=not no_audio, where=where, save=save,
        workers=workers,
    )
    show(found, as_json, as_csv, "duplicates", "no clip stands twice")
    number = found["set"].n_unique()
    say(f"{len(found)} clips in {number} sets" + (", kept as label column same_as" if save and number else ""))


# -- shared by these


def signed(words: list[str]) -> tuple[list[str], list[str]]:
    """What is wanted, and what is subtracted: `A B - C + D` is A, B and D less C."""
    from tonelake.store import InputError

    parts: dict[str, list[str]] = {"+": [], "-": []}
    sign = ""
    for word in words:
        if word in parts and not sign:
            sign = word
        else:
            parts[sign or "+"].append(word)
            sign = ""
    if sign or not parts["+"]:
        raise InputError(f"{' '.join(words)!r}: write clips or files, as in A B or A - B")
    return parts["+"], parts["-"]


def tell_facets(table: pl.DataFrame) -> None:
    """What the facets of a search are worth, a sentence each."""
    verbs = {"like": "looks at", "unlike": "leaves out"}
    for row in table.to_dicts():
        what = f"{verbs[row['facet']]} {row['column']}"
        if row["auc_after"] is None:
            say(f"{what}; too few tracks to tell what that is worth")
        else:
            say(f"{what}: on what was held out, pairs that share it are told from others with AUC {row['auc_after']:.3f}, "
                f"before {row['auc_before']:.3f}")
