"""The demo: forty chorales, from notes to neighbours, with what comes next."""

from __future__ import annotations

from pathlib import Path

import polars as pl

import tonelake
from tonelake import views
from tonelake.charts import draw_layers
from tonelake.render import show_table

PIECES = 40
COLUMN = "key"
LARGE_HOP = 8                            # bars: a third of the clips, since two cores hear MERT at 7 s of audio a second


def run_demo(path: str) -> None:
    """Render, embed, report and query; everything goes into the lake at `path`.  Running it again takes seconds."""
    from tonelake import embed

    large = embed.have_weights()
    lake = tonelake.open(path)
    print(f"1. {PIECES} of Bach's chorales, cut by four bars and played by a built-in organ, into the lake {path!r}")
    report = lake.ingest_chorales(limit=PIECES, hop=LARGE_HOP if large else 2)
    print(f"   {report}\n")

    encoder = embed.DEFAULT_ENCODER if large else "small"
    if large:
        print(f"2. Every clip at every layer of {encoder}")
    else:
        print("2. Every clip at every layer of `small`, the little model that comes with tonelake.  The weights of\n"
              f"   {embed.DEFAULT_ENCODER} are not on this machine, so nothing below says anything about MERT.")
    embedded = lake.embed(encoder)
    print("   " + str(embedded).replace("\n", "\n   ") + "\n")

    print(f"3. Which layer tells the {COLUMN} of a chorale?  (pairs of one piece do not count)")
    layers = lake.layers(COLUMN, space=embedded.space)
    show_table(views.layers(layers.table))
    picture = Path(path) / "pictures" / f"layers-{COLUMN}.png"
    draw_layers(layers, picture)
    print(f"   {layers.summary()}\n   Picture: {picture}\n")

    query = lake.clips.read(where="start_s = 0").row(0, named=True)
    print(f"4. What sounds like {query['piece']} ({query['key']}), at layer {layers.recommended}, in other pieces?")
    hits = lake.similar(query["clip_id"], space=embedded.space, layer=layers.recommended, k=5, not_same="piece")
    labels = lake.clips.read().select("clip_id", "piece", "key", "meter")
    hits = hits.join(labels, on="clip_id", how="left", maintain_order="left")
    show_table(hits.select("rank", "score", "clip_id", "title", "piece", "key", "meter", at=views.clock(pl.col("start_s"))))

    space = lake.spaces.get(embedded.space)
    mapped = list(dict.fromkeys([layers.recommended, space.layers[space.default_layer]]))
    print(f"\n5. The clips as a map, layer {' and '.join(mapped)}")
    for layer in mapped:
        print(f"   {lake.map(layer, space=space.name)}")

    print(f"""
Next:
  tonelake ui --lake {path}                                 see and hear it, the map first
  tonelake layers meter --lake {path}                       another question to the same vectors
  tonelake groups key "d minor" --lake {path}               which keys are near
  tonelake ingest folder ~/Music && tonelake embed          your own music, in ./lake""")
