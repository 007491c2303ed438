"""Commands that analyse stored vectors: layers, groups, maps, and comparisons of spaces and lists."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonelake.cli.options import FROM_LIBRARY, library_command
from tonelake.cli.shared import (
    ANALYSE,
    Csv,
    EachClip,
    Hubs,
    Json,
    LakePath,
    Layer,
    M3u,
    SpaceName,
    Where,
    open_lake,
    say,
    show,
    write_file,
    write_playlist,
)

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer()

PAIRS_SHOWN = 40                         # on a terminal

Column = Annotated[str, typer.Argument(help="Label column: artist, album, piece, …")]
MinClips = Annotated[int, typer.Option("--min-clips", min=1, help="Minimum number of clips of a group.")]
MinTracks = Annotated[
    int, typer.Option("--min-tracks", min=1, help="Minimum number of tracks of a group, or of clips with --over clip.")
]
Over = Annotated[
    str | None,
    typer.Option(help="Unit of size and intervals: track, or clip (the default where every group is one track)."),
]
Centre = Annotated[
    bool | None,
    typer.Option("--centre/--no-centre", help="Centre the vectors; default: if two tracks have a mean cosine above 0.5."),
]
By = Annotated[str, typer.Option(help="Measure: centroid, mean (over all pairs of clips) or chamfer (over nearest clips).")]
Across = Annotated[
    str | None,
    typer.Option(
        help="Leave out pairs of clips with the same value of this column and those of one track, or, with none, pairs that "
        "share audio; default: track, or none where no group has two tracks."
    ),
]
Within = Annotated[
    str | None,
    typer.Option(help="Compare only clips with the same value of this column, such as artists within one genre; default: all."),
]
IntervalsOver = Annotated[
    str | None,
    typer.Option(
        "--over", help="Column whose values are the units of intervals: artist for claims about other artists; default: the "
        "column of --across, else track."
    ),
]
Seed = Annotated[int, typer.Option(help="Random seed of the sampled queries.")]


@app.command(rich_help_panel=ANALYSE, cls=library_command("tonelake.index:layers"))
def layers(
    column: Annotated[str, typer.Argument(help="Label column whose groups should be separated.")],
    lake: LakePath = "lake", space: SpaceName = None,
    spaces: Annotated[
        str | None,
        typer.Option(help="Instead report whether a mixture of spaces, A:0.7,B/3:0.3, beats its better half."),
    ] = None,
    where: Where = None,
    prepare: Annotated[
        str, typer.Option(help="Preparation of the vectors: l2 (cosine), raw, centred or whitened.")
    ] = FROM_LIBRARY,
    across: Across = None, within: Within = None, over: IntervalsOver = None, hubs: Hubs = FROM_LIBRARY,
    compare_all: Annotated[bool, typer.Option("--effects", help="Compare all preparations at every layer instead.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the report to this PNG, SVG or PDF file.")] = None,
    seed: Seed = FROM_LIBRARY,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Measure how well each layer separates the groups of COLUMN.

    Example: tonelake layers artist --picture artist.png
    """
    opened = open_lake(lake)
    asked: dict[str, Any] = {
        "space": space, "where": where, "across": across, "within": within, "over": over, "hubs": hubs, "seed": seed,
    }
    if spaces is not None:
        if space is not None or compare_all or picture is not None or prepare != "l2" or hubs != "kept":
            raise typer.BadParameter(
                "--spaces compares cosines of several spaces. Leave out --space, --prepare, --hubs, --effects and --picture"
            )
        mixed = opened.report_mixture(column, spaces, where=where, across=across, within=within, over=over, seed=seed)
        show(mixed.table, as_json, as_csv)
        say(mixed.summary())
        return
    if compare_all:
        found = opened.effects(column, **asked)
        show(found, as_json, as_csv, "effects")
        say_basis(found, "gain: mAP less that of plain cosines on the same queries")
        return
    report = opened.layers(column, prepare=prepare, **asked)
    show(report.table, as_json, as_csv, "layers")
    say(report.summary())
    if picture is not None:
        from tonelake.charts import draw_layers

        draw_layers(report, picture)
        say(f"{picture}: drawn")


@app.command(rich_help_panel=ANALYSE, cls=library_command("tonelake.index:groups", by="measure"))
def groups(
    column: Column,
    name: Annotated[str | None, typer.Argument(help="Group whose nearest groups are listed; default: all groups.")] = None,
    lake: LakePath = "lake",
    k: Annotated[int | None, typer.Option("-k", min=1, help="Number of groups, or of pairs; default: all.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="List every pair of groups, most similar first.")] = False,
    by: By = FROM_LIBRARY, min_clips: MinClips = FROM_LIBRARY, min_tracks: MinTracks = FROM_LIBRARY, over: Over = None,
    centre: Centre = None, hubs: Hubs = FROM_LIBRARY,
    matrix: Annotated[Path | None, typer.Option(help="Write the similarity of every pair to this CSV file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it as a clustered heat map: a PNG, SVG or PDF file.")] = None,
    layer: Layer = None, space: SpaceName = None, where: Where = None, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Compare artists, pieces or other groups at equal size, with intervals.

    Example: tonelake groups artist "Nina Simone"
    """
    opened = open_lake(lake)
    compared: dict[str, Any] = {
        "layer": layer, "space": space, "where": where, "measure": by, "min_clips": min_clips, "min_tracks": min_tracks,
        "over": over, "centre": centre, "hubs": hubs,
    }
    if pairs:
        if name is not None or matrix is not None or picture is not None:
            raise typer.BadParameter("--pairs lists every pair of groups. Leave out the group's name, --matrix and --picture")
        found = opened.group_pairs(column, k=k, **compared)
        shown = found.head(PAIRS_SHOWN) if k is None and sys.stdout.isatty() and not (as_json or as_csv) else found
        show(shown, as_json, as_csv, "pairs", "no two groups have tracks of their own")
        if len(shown) < len(found):
            say(f"the first {len(shown)} of {len(found):,} pairs; -k shows more, and --csv or --json writes all")
        return
    if matrix is None and picture is None:
        show(opened.groups(column, name, k=k, **compared), as_json, as_csv)
        return
    table = opened.group_matrix(column, **compared)
    if matrix is not None:
        write_file(matrix, table.write_csv())
        say(f"{matrix}: {len(table)} × {len(table)} similarities")
    if picture is not None:
        from tonelake.charts import draw_matrix

        draw_matrix(table, picture, f"{column}, by {by}")
        say(f"{picture}: drawn")


@app.command(rich_help_panel=ANALYSE, cls=library_command("tonelake.index:typical"))
def typical(
    column: Column,
    name: Annotated[str | None, typer.Argument(help="One group; default: every group.")] = None,
    lake: LakePath = "lake",
    k: Annotated[int, typer.Option("-k", min=1, help="Number of typical and of unusual songs.")] = FROM_LIBRARY,
    min_clips: MinClips = FROM_LIBRARY,
    layer: Layer = None, space: SpaceName = None, where: Where = None, clips: EachClip = False, m3u: M3u = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """List the songs nearest to the other tracks of their group, and those farthest from them.

    Example: tonelake typical artist "Nina Simone"
    """
    opened = open_lake(lake)
    found = opened.typical(column, name, k=k, layer=layer, space=space, where=where, min_clips=min_clips, clips=clips)
    show(found, as_json, as_csv, "typical")
    write_playlist(opened, found, m3u)


@app.command("map", rich_help_panel=ANALYSE, cls=library_command("tonelake.index:make_map"))
def make_map(
    lake: LakePath = "lake", layer: Layer = None, space: SpaceName = None,
    method: Annotated[str, typer.Option(help="Method: umap, tsne (for up to 200,000 clips) or pca.")] = FROM_LIBRARY,
    neighbours: Annotated[
        int, typer.Option(min=2, help="Neighbours that each clip is kept near: fewer show finer structure.")
    ] = FROM_LIBRARY,
    min_dist: Annotated[
        float, typer.Option(min=0, max=1, help="Minimum distance of points, for umap: smaller makes denser clusters.")
    ] = FROM_LIBRARY,
    perplexity: Annotated[
        float | None, typer.Option(min=1, max=500, help="Smooth number of neighbours, for tsne; default: that of --neighbours.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = FROM_LIBRARY,
    again: Annotated[bool, typer.Option("--again", help="Lay the map out from scratch.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw it to this PNG, SVG or PDF file.")] = None,
    colour: Annotated[str | None, typer.Option(help="Label column to colour the picture by; default: clusters.")] = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Lay out the clips as a map, and describe its clusters.

    Example: tonelake map --layer 7 --picture map.png
    """
    opened = open_lake(lake)
    if colour is not None:
        opened.clips.check_column(colour)
    found = opened.map(
        layer, space=space, method=method, neighbours=neighbours, min_dist=min_dist, perplexity=perplexity, seed=seed,
        again=again,
    )
    show(found.clusters, as_json, as_csv, "clusters", "no clusters: too few clips, or all alike")
    say(str(found))
    say(found.file)
    if picture is not None:
        from tonelake.charts import draw_map

        labels = opened.clips.take(found.points["clip_id"].to_list(), [colour])[colour] if colour else None
        draw_map(found, picture, labels)
        say(f"{picture}: drawn")


@app.command(rich_help_panel=ANALYSE, cls=library_command("tonelake.index:compare"))
def compare(
    first: Annotated[str, typer.Argument(help="Name of a space.")],
    second: Annotated[str, typer.Argument(help="Name of another space.")],
    column: Annotated[
        str | None, typer.Argument(help="Label column: also compare how well the spaces separate its groups.")
    ] = None,
    lake: LakePath = "lake", where: Where = None, across: Across = None, within: Within = None, over: IntervalsOver = None,
    seed: Seed = FROM_LIBRARY, as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Compare two spaces, layer by layer.

    Example: tonelake compare mert-v1-95m mert-v1-95m-5s artist
    """
    found = open_lake(lake).compare(first, second, column, where=where, across=across, over=over, within=within, seed=seed)
    show(found, as_json, as_csv, "comparison")
    if column is not None:
        say_basis(found, "gain: mAP of the second space less that of the first, on the same queries")


def say_basis(found: pl.DataFrame, gain: str) -> None:
    """Say what a table of paired differences shows, what its intervals are over, and which pairs are left out."""
    row = found.row(0, named=True)
    say(f"{gain}; 95 % intervals {row['over']}; {row['left_out']} are excluded")


@app.command(rich_help_panel=ANALYSE, cls=library_command("tonelake.index:overlap_with", by="measure"))
def overlap(
    column: Column,
    reference: Annotated[Path, typer.Argument(help="CSV file: a group, its neighbour and optionally a rank or score.")],
    lake: LakePath = "lake",
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbours of each group to compare.")] = FROM_LIBRARY,
    by: By = FROM_LIBRARY, min_clips: MinClips = FROM_LIBRARY, min_tracks: MinTracks = FROM_LIBRARY, over: Over = None,
    centre: Centre = None, hubs: Hubs = FROM_LIBRARY,
    layer: Layer = None, space: SpaceName = None, where: Where = None,
    as_json: Json = False, as_csv: Csv = False,
) -> None:
    """Compare nearest groups with a list from another source.

    Example: tonelake overlap artist recommended.csv -k 20
    """
    found = open_lake(lake).overlap(
        column, reference, k=k, space=space, layer=layer, where=where, measure=by, min_clips=min_clips,
        min_tracks=min_tracks, over=over, centre=centre, hubs=hubs,
    )
    show(found.table, as_json, as_csv)
    say(str(found))
