"""Write the report on Bach's chorales, docs/chorales.md: 430 pieces in 3,008 clips, embedded by hand-crafted descriptors.

    python -m bench.chorales --lake chorales-lake
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

import tonelake
from bench.report import circumstances, table
from tonelake import views
from tonelake.charts import draw_layers, draw_map, draw_matrix
from tonelake.render import cell

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = "chorales"
SPACE, NEAREST, TUNES_SHOWN = "spectral", 8, 25


INTRODUCTION = """\
{clips:,} clips of four bars, every two bars, of {tracks} pieces ({hours:.1f} hours), rendered from music21's corpus by the
built-in organ, and embedded by `spectral`: hand-crafted descriptors, each family a layer. It shows the results of the
commands and how to read them. It says nothing about MERT or about recordings: one organ, one tempo a piece, no reverberation.
Compare its figures only with those of another encoder on this lake.
"""
PIECES = """\
How to read it. Top left: with each clip as a query, how often its nearest clip is from the same piece (recall@1), and how
much of the piece is ranked first (mAP, R-precision); the bands are 95 % intervals, the dotted line ({chance:.3f}) is the
value of a random order. Pairs of clips that overlap in time are excluded, since they share audio. Top right: the cosines. The
two distributions overlap: a pair within a piece is nearer than a pair from two pieces in {auc:.0%} of cases. Bottom left: in
layers with high anisotropy all cosines are close to 1, so their differences are small but still informative. Bottom right:
where hubness is high, some clips are neighbours of many others.
"""
TUNES = """\
A tune is the melody of a hymn, named here by its first notes in semitones from the first. Bach set many tunes several times,
in different keys, meters and harmonies. Pairs within a piece are excluded here, so the figures measure the tune and not the
rendering. The best layer is `{best}`, and its figures are low: none of these descriptors recognises a melody in another key.
"""
GROUPS = """\
## Which pieces are similar?

`tonelake groups piece --by chamfer --layer {layer}`

{several} pieces have a tune with another setting; for {same} of them ({share:.0%}) the nearest piece is one of these. A piece
drawn at random would have the same tune in {chance:.1%} of cases. The closest:

{closest}
![Similarity of tunes]({pictures}/tunes.png)

Rows and columns are ordered so that similar tunes are adjacent; light squares on the diagonal are families. A tune is compared
with itself only across its settings. The clips least similar to the rest of their tune (`tonelake typical tune`):

{unusual}"""
MAP = """\
## The map

`tonelake map --layer {layer} --colour key --picture map.png`: {made}.

![The clips of layer {layer}, coloured by key]({pictures}/map.png)

{clusters}"""


def markdown(frame: pl.DataFrame) -> str:
    """Return a frame as a Markdown table with short numbers."""
    return table(frame.columns, [[cell(n, v) for n, v in zip(frame.columns, row, strict=True)] for row in frame.iter_rows()])


def layer_section(lake: tonelake.Lake, column: str, reading: str) -> str:
    report = lake.layers(column, space=SPACE)
    picture = f"{PICTURES}/layers-{column}.png"
    draw_layers(report, DOCS / picture)
    best = report.table.filter("best").row(0, named=True)
    return (
        f"## Which layer separates {column}s?\n\n`tonelake layers {column} --picture {column}.png`\n\n{report.summary()}\n\n"
        f"{markdown(views.layers(report.table))}\n![Retrieval, cosines and geometry by layer, for {column}]({picture})\n\n"
        + reading.format(chance=report.chance, auc=best["auc"], best=best["name"])
    )


def group_section(lake: tonelake.Lake, layer: str) -> str:
    """Return the section on similar pieces, and whether the nearest has the same tune."""
    found = lake.groups("piece", space=SPACE, layer=layer, measure="chamfer")
    tune_of = dict(lake.clips.read().select("piece", "tune").unique().iter_rows())
    found = found.with_columns(nearest=pl.coalesce("nearest", pl.col("tied").list.first()))
    of = found.select(
        "piece", "nearest", "similarity", tune=pl.col("piece").replace_strict(tune_of),
        nearest_tune=pl.col("nearest").replace_strict(tune_of),
    )
    counts = of["tune"].drop_nulls().value_counts(sort=True)
    several = of.filter(pl.col("tune").is_in(counts.filter(pl.col("count") > 1)["tune"].implode()))
    same = int((several["tune"] == several["nearest_tune"]).sum())
    chance = sum(n * (n - 1) for n in counts["count"]) / (len(several) * (len(of) - 1))
    large = sorted(counts.head(TUNES_SHOWN)["tune"])
    where = "tune IN (" + ", ".join("'" + tune.replace("'", "''") + "'" for tune in large) + ")"
    matrix = lake.group_matrix("tune", space=SPACE, layer=layer, measure="chamfer", where=where)
    draw_matrix(matrix, DOCS / PICTURES / "tunes.png", f"{len(large)} tunes with most settings, layer {layer}, by chamfer")
    unusual = lake.typical("tune", space=SPACE, layer=layer, k=4, where=where).filter(kind="unusual")
    closest = of.sort("similarity", "piece", descending=[True, False]).head(NEAREST)
    return GROUPS.format(
        layer=layer, several=len(several), same=same, share=same / max(len(several), 1), chance=chance, pictures=PICTURES,
        closest=markdown(closest.select("piece", "tune", "nearest", "nearest_tune", "similarity")),
        unusual=markdown(unusual.select("tune", "score", "nearest", "track", "start_s")),
    )


def map_section(lake: tonelake.Lake, layer: str) -> str:
    made = lake.map(layer, space=SPACE)
    draw_map(made, DOCS / PICTURES / "map.png", lake.clips.take(made.points["clip_id"].to_list(), ["key"])["key"])
    return MAP.format(layer=layer, made=made, pictures=PICTURES, clusters=markdown(views.clusters(made.clusters.head(8))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lake", default="chorales-lake")
    lake = tonelake.open(parser.parse_args().lake)
    lake.ingest_chorales(seed_rule=True)
    lake.embed(SPACE)
    about = circumstances("only max-t's draws and the map's initial layout (seeded)")
    status = lake.status()
    (DOCS / PICTURES).mkdir(parents=True, exist_ok=True)
    parts = [
        "# A report on Bach's chorales\n",
        "".join(f"- {key}: {value}\n" for key, value in about.items()),
        INTRODUCTION.format(clips=status.clips, tracks=status.tracks, hours=status.hours),
        layer_section(lake, "piece", PIECES),
        layer_section(lake, "tune", TUNES),
        group_section(lake, "chroma"),
        map_section(lake, "chroma"),
    ]
    (DOCS / "chorales.md").write_text("\n".join(parts), encoding="utf-8")
    print("docs/chorales.md and its pictures are written")


if __name__ == "__main__":
    main()
