"""The demo: forty chorales, from notes to neighbours, and the commands to try next."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path

import polars as pl

import tonelake
from tonelake import views
from tonelake.charts import draw_layers
from tonelake.ingest import IngestReport, write_demo_music
from tonelake.render import show_table
from tonelake.store import MissingExtra, require_extra

PIECES = 40
COLUMN = "key"
MADE_UP_CLIP_S = 10.0
WIDTH = 110                              # of a line of text
HOP, LARGE_HOP = 2, 8                    # bars: a third of the clips for MERT, which encodes 7 s of audio a second on two cores


def run_demo(path: str) -> None:
    """Ingest, embed, analyse and query; everything is stored in the lake at `path`.  A second run takes seconds.

    The encoder is the default one of this machine, else `small`.  Without music21 (extra `chorales`) the pieces are made up;
    without umap-learn (extra `maps`) the maps are principal components.  The output names what is missing, with the command
    that fetches it.
    """
    from tonelake import embed

    encoder, remark = choose_encoder()
    lake = tonelake.open(path)
    print(f"   {ingest_pieces(lake, path, LARGE_HOP if encoder == embed.DEFAULT_ENCODER else HOP)}\n")

    print(f"2. Embed every clip at every layer of {encoder}{remark}")
    embedded = lake.embed(encoder)
    print("   " + str(embedded).replace("\n", "\n   ") + "\n")

    print(f"3. Which layer separates pieces by {COLUMN} best?  (pairs of one piece are excluded)")
    layers = lake.layers(COLUMN, space=embedded.space)
    show_table(views.layers(layers.table).drop("span", "matrix", "anisotropy"))
    picture = Path(path) / "pictures" / f"layers-{COLUMN}.png"
    draw_layers(layers, picture)
    print(textwrap.fill(layers.summary(), WIDTH, initial_indent="   ", subsequent_indent="   "))
    print(f"   AUC, recall@1 and mAP: how well clips of one {COLUMN} are found by similarity; 1 is perfect.")
    print(f"   Picture: {picture}\n")

    query = lake.clips.read(where="start_s = 0").row(0, named=True)
    print(f"4. Which other pieces sound like {query['piece']} ({query['key']}), at layer {layers.recommended}?")
    hits = lake.similar(query["clip_id"], space=embedded.space, layer=layers.recommended, k=5, not_same="piece")
    labels = lake.clips.read().select("clip_id", "piece", "key", "meter")
    hits = hits.join(labels, on="clip_id", how="left", maintain_order="left")
    show_table(hits.select("rank", "score", "clip_id", "title", "piece", "key", "meter", at=views.clock(pl.col("start_s"))))

    space = lake.spaces.get(embedded.space)
    mapped = list(dict.fromkeys([layers.recommended, space.layers[space.default_layer]]))
    print(f"\n5. The clips as a map, layer {' and '.join(mapped)}")
    method = "umap" if is_installed("umap", "maps", "   maps by UMAP") else "pca"
    for layer in mapped:
        print(f"   {lake.map(layer, space=space.name, method=method)}")

    command = command_name()
    print(f"""
Next:
  {command} ui --lake {path}                        open the app: see and hear the lake
  {command} layers meter --lake {path}              another label column, on the same vectors
  {command} groups key "d minor" --lake {path}      which keys are similar
  {command} ingest folder ~/Music                   your own music, into ./lake,
  {command} embed                                   and its vectors""")


def command_name() -> str:
    """Return how the command is called here: its name, or its path where the shell would not find it."""
    called = Path(sys.argv[0])
    if called.name != "tonelake" or shutil.which("tonelake"):
        return "tonelake"
    return os.path.relpath(called)


def choose_encoder() -> tuple[str, str]:
    """The default encoder of this machine, else `small`, and a remark about weights that are absent."""
    from tonelake import embed

    large, second, small = embed.DEFAULT_ENCODER, embed.SECOND_ENCODER, embed.SMALL_ENCODER
    absent = f"   The weights of {large} are not on this machine, so the results below do not describe MERT."
    try:
        encoder, _ = embed.default_encoder()
    except embed.EncoderError:
        return small, (
            f", the small model that comes with tonelake.\n{absent}\n"
            f"   {second} is better on recorded music: `tonelake weights {second}` fetches its weights, 6 MB."
        )
    return encoder, "" if encoder == large else f".\n{absent}"


def ingest_pieces(lake: tonelake.Lake, path: str, hop: int) -> IngestReport:
    """Ingest chorales if music21 is installed, else made-up pieces that are written beside the lake."""
    if is_installed("music21", "chorales", "Bach's chorales"):
        print(f"1. Cut {PIECES} of Bach's chorales every four bars, play them on a built-in organ, ingest them into {path!r}")
        return lake.ingest_chorales(limit=PIECES, hop=hop)
    folder = Path("demo-music" if "://" in path else f"{path.rstrip('/')}-music")
    print(f"1. Write {PIECES} made-up pieces, played on a built-in organ, to {folder}/, and ingest them into {path!r}")
    labels = write_demo_music(folder, PIECES)
    return lake.ingest_folder(folder, seconds=MADE_UP_CLIP_S, hop=MADE_UP_CLIP_S / 2, labels=labels)


def is_installed(module: str, extra: str, purpose: str) -> bool:
    """Whether an optional dependency is installed; says how to install it if not."""
    try:
        require_extra(module, extra, purpose)
        return True
    except MissingExtra as error:
        print(error)
        return False
