"""Search by songs beside search by clips: `lake.similar` with and without `clips=True`, from a clip id to the finished frame.

Vectors are those of `bench.search` in lakes of ten clips a song.  The nearest songs and their counts are compared with brute
force over all scores before anything is timed; the two ways alternate, by a scan and by an index.

    python -m bench.songs --rows 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from bench.reading import made_up_clips
from bench.report import RESULTS, circumstances, table, write_results
from bench.search import DIM, make_vectors, timed

K, QUERIES, ROUNDS = 10, 12, 5
RESULTS_FILE = RESULTS / "songs.json"


def make_lake(folder: Path, rows: int):
    """Return a lake of `rows` clips, its space, and the vectors in the order of the clips."""
    import tonelake
    from tonelake.store import Space

    lake = tonelake.open(folder / "lake", progress=False)
    lake.clips.add(made_up_clips(rows))
    space = lake.spaces.make(Space(
        name="bench", revision="1", sample_rate=24_000, layers=("0",), dims=(DIM,), window_s=30.0, hop_s=30.0,
        precision="float32",
    ))
    vectors, _ = make_vectors(rows)
    ids, store = lake.clips.ids().to_list(), lake.vectors(space)
    for start in range(0, rows, 20_000):
        part = vectors[start : start + 20_000].astype(np.float32)
        store.add(ids[start : start + 20_000], [part], [part], [1] * len(part))
    store.table.compact()
    return lake, space


def check(lake, clip: str) -> None:
    """Compare the songs nearest to a clip, and their counts, with brute force over the scores of all clips."""
    from tonelake.index.search.exact import load_layer
    from tonelake.store import read_songs

    layer = load_layer(lake, lake.spaces.get(), 0)
    ids, songs = layer.ids, read_songs(lake.clips).of(layer.ids)
    own = int(ids.index_of(clip))
    products = layer.vectors @ layer.vectors[own]
    scores = pl.DataFrame({"song": songs, "score": products, "clip_id": ids}).filter(pl.col("song") != songs[own])
    best = scores.sort("score", descending=True, maintain_order=True).unique("song", keep="first", maintain_order=True).head(K)
    near = scores.filter(pl.col("score") >= best["score"][-1])["song"]
    hits = lake.similar(clip, k=K)
    assert hits["clip_id"].to_list() == best["clip_id"].to_list(), "the nearest songs differ from brute force"
    assert hits["clips"].to_list() == [int((near == song).sum()) for song in best["song"]], "the counts differ from brute force"


def compare(lake, clips: list[str]) -> tuple[float, float]:
    """Return the median milliseconds of a query by clips and by songs, in alternation."""
    taken: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for by_clips in (True, False):
            _, seconds = timed(lambda by_clips=by_clips: [lake.similar(clip, k=K, clips=by_clips) for clip in clips])
            taken[by_clips].append(1000 * seconds / len(clips))
    return statistics.median(taken[True]), statistics.median(taken[False])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--most-indexed", type=int, default=100_000, help="Largest lake that is also searched by an index.")
    arguments = parser.parse_args()
    lines, ratios = [], {}
    for rows in arguments.rows:
        size = f"{rows // 1000}k" if rows < 1_000_000 else f"{rows // 1_000_000}m"
        with tempfile.TemporaryDirectory() as folder:
            lake, _ = make_lake(Path(folder), rows)
            clips = [lake.clips.ids()[int(row)] for row in np.random.default_rng(1).integers(rows, size=QUERIES)]
            check(lake, clips[0])
            by_clips, by_songs = compare(lake, clips)
            lines.append([f"{rows:,}", "scan", f"{by_clips:.1f}", f"{by_songs:.1f}", f"{by_songs / by_clips:.2f}"])
            ratios[f"songs_vs_clips_{size}"] = by_songs / by_clips
            if rows <= arguments.most_indexed:
                lake.build_indexes()
                by_clips, by_songs = compare(lake, clips)
                lines.append([f"{rows:,}", "index", f"{by_clips:.1f}", f"{by_songs:.1f}", f"{by_songs / by_clips:.2f}"])
                ratios[f"songs_vs_clips_{size}_index"] = by_songs / by_clips
        print(f"{rows:,}: {lines[-2:]}", flush=True)
        about = circumstances("all vectors (seeded clusters), ten clips a song")
        header = ["clips", "search", "ms by clips", "ms by songs", "ratio"]
        before = json.loads(RESULTS_FILE.read_text()) if RESULTS_FILE.exists() else {}       # of other benchmarks about songs
        more = {key: value for key, value in before.items() if key not in ("about", "ratios")}
        merged = before.get("ratios", {}) | ratios
        write_results("songs", "Search by songs beside search by clips", table(header, lines), about, merged, **more)


if __name__ == "__main__":
    main()
