"""The runs of `bench.ten_million`: each makes or queries one lake of made-up clips in a process of its own.

Vectors are clusters of clusters as in `bench.search`.  Ids are random and texts are made of syllables, so that columns compress
about as those of real lakes do: ten clips a song, ten songs an artist, years from 1950.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.memory import peak_mb, resident_mb

PART = 250_000                           # clips added at once
NEW_CLIPS, NEW_VECTORS = 2_000, 500      # of a commit of `ingest`, and about that of `embed`
QUERIES, SOME, K = 100, 5, 10
WIDE, NARROW = "year >= 1985", "year = 1990"             # keep about half of the clips, and 1.3 %
SYLLABLES = [a + b for a in ("ka", "lo", "mi", "ne", "ru", "so", "ti", "ve", "zu", "an") for b in ("lan", "mor", "sen", "tir")]
WORDS = np.array([a + b for a in SYLLABLES for b in ("vel", "dro", "pha", "qui", "ster")])


class Timer:
    """Seconds and processor seconds since it was made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def taken(self, name: str) -> dict[str, float]:
        return {f"{name}_s": time.perf_counter() - self._began, f"{name}_cpu_s": time.process_time() - self._cpu}


def vectors(rows: int, dim: int, seed: int = 1) -> Iterator[np.ndarray]:
    """Yield (row, dim) float32 vectors in parts of at most PART rows."""
    spectrum = (1 + np.arange(dim, dtype=np.float32)) ** -0.6
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((60, dim), np.float32) * spectrum
    fine = coarse[rng.integers(60, size=2_000)] + 0.7 * rng.standard_normal((2_000, dim), np.float32) * spectrum
    rng = np.random.default_rng(seed)
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        yield fine[rng.integers(2_000, size=count)] + 0.6 * rng.standard_normal((count, dim), np.float32) * spectrum


def clips(start: int, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return rows of clips without audio."""
    number = pl.int_range(start, start + count, eager=True)
    song, artist = number // 10, number // 100

    def word(of: pl.Series, step: int) -> pl.Series:
        return pl.Series(WORDS[of.to_numpy() * step % len(WORDS)])

    name = word(artist, 37) + " " + word(artist // 200, 13) + " " + artist.cast(pl.String)
    title = word(song, 7) + " " + word(song // 7, 31) + " " + word(song // 200, 17)
    file = name + "/" + title + " " + song.cast(pl.String) + ".flac"
    return pl.DataFrame({
        "clip_id": np.frombuffer(rng.bytes(10 * count).hex().encode(), "S20").astype("U20"), "track": file,
        "source": "/music/" + file, "digest": song.cast(pl.String).str.zfill(32),
        "recording": song.cast(pl.String).str.zfill(32), "start_s": (number % 10) * 30.0,
        "duration_s": 30.0, "cut": "30s", "title": title, "artist": name,
        "album": word(song // 10, 3), "year": 1950 + song % 75,
    }, strict=False)


def open_lake(uri: str, dim: int) -> tuple[Any, Any]:
    """Return a lake, made if necessary, and its space of one layer."""
    import tonelake
    from tonelake.store import Space

    lake = tonelake.open(uri)
    if not lake.spaces.all():
        lake.spaces.make(Space(
            name="bench", revision="1", sample_rate=24_000, layers=("0",), dims=(dim,), window_s=30.0, hop_s=30.0,
            precision="float32",
        ))
    return lake, lake.spaces.get("bench")


def write(uri: str, rows: int, dim: int) -> dict[str, float]:
    """Write clips and vectors in large parts, and then one part as small as those of `ingest` and `embed`."""
    lake, space = open_lake(uri, dim)
    stored, rng = lake.vectors(space), np.random.default_rng(0)
    taken = {"clips_s": 0.0, "clips_cpu_s": 0.0, "vectors_s": 0.0, "vectors_cpu_s": 0.0}
    for number, part in enumerate(vectors(rows, dim)):
        rows_of_clips = clips(number * PART, len(part), rng)
        timer = Timer()
        lake.clips.add(rows_of_clips)
        took = timer.taken("clips")
        ids, timer = rows_of_clips["clip_id"].to_list(), Timer()
        stored.add(ids, [part], [part], [1] * len(part))
        took |= timer.taken("vectors")
        taken = {name: seconds + took[name] for name, seconds in taken.items()}
    taken["peak_write_mb"] = peak_mb(os.getpid())
    few, timer = clips(rows, NEW_CLIPS, rng), Timer()
    lake.clips.add(few)
    taken |= timer.taken("commit_clips")
    ids, part, timer = few["clip_id"].to_list(), next(vectors(NEW_CLIPS, dim)), Timer()
    for start in range(0, NEW_CLIPS, NEW_VECTORS):
        some = slice(start, start + NEW_VECTORS)
        stored.add(ids[some], [part[some]], [part[some]], [1] * NEW_VECTORS)
    taken |= {name: value * NEW_VECTORS / NEW_CLIPS for name, value in timer.taken("commit_vectors").items()}
    stored.table.compact()
    for name, kept in (("clips_mb", lake.clips.table), ("vectors_mb", stored.table)):
        files = [file for fragment in kept.dataset().get_fragments() for file in fragment.data_files()]
        taken[name] = sum(file.file_size_bytes for file in files) / 1e6
    return taken


def build(uri: str, kind: str) -> dict[str, float]:
    """Build an index of the layer."""
    from tonelake.index import build_index

    lake, space = open_lake(uri, 0)
    lake.drop_indexes()
    timer = Timer()
    made, _ = build_index(lake, space, 0, kind=kind)
    return timer.taken("build") | {
        "peak_build_mb": peak_mb(os.getpid()), "index_mb": made.bytes / 1e6, "recall": made.recall, "width": made.width
    }


def times_ms(work: Callable[[int], Any], count: int) -> list[float]:
    """Return the milliseconds of each of `count` calls."""
    taken = []
    for number in range(count):
        started = time.perf_counter()
        work(number)
        taken.append(1000 * (time.perf_counter() - started))
    return taken


def ask(uri: str, *, names: bool) -> dict[str, float]:
    """Open a lake with an index in a new process, search it in several ways, and look at its status.

    `names`: also search by the names of songs, which makes their table first.
    """
    timer = Timer()
    lake, space = open_lake(uri, 0)
    found = timer.taken("open")
    timer = Timer()
    lake.similar(next(vectors(1, space.dims[0], seed=2))[0])
    found |= timer.taken("first_search")
    ids = lake.vectors(space).ids()
    some = ids.gather(np.random.default_rng(0).integers(len(ids), size=QUERIES + 1)).to_list()
    lake.similar(some[-1])
    taken = times_ms(lambda number: lake.similar(some[number], k=K), QUERIES)
    found |= {"search_ms": statistics.median(taken), "search_p99_ms": float(np.quantile(taken, 0.99))}
    found["resident_mb"] = resident_mb(os.getpid())
    for name, where in (("wide", WIDE), ("narrow", NARROW)):
        first, *later = times_ms(lambda number, where=where: lake.similar(some[number], where=where), SOME)
        found |= {f"{name}_first_ms": first, f"{name}_ms": statistics.median(later)}
    found["other_artist_ms"] = statistics.median(times_ms(lambda number: lake.similar(some[number], not_same="artist"), SOME))
    timer = Timer()
    lake.status()
    found |= timer.taken("status")
    timer = Timer()
    lake.clips.group_columns()
    found |= timer.taken("group_columns")
    if names:
        titles = lake.clips.take(some[:SOME], ["title", "artist"])
        timer = Timer()
        lake.find("a name that no song has")
        found |= timer.taken("names")
        found["find_ms"] = statistics.median(times_ms(lambda number: lake.find(" ".join(titles.row(number)[1:])), SOME))
        found["names_mb"] = sum(file.stat().st_size for file in Path(uri, "names.lance").rglob("*") if file.is_file()) / 1e6
    found["peak_mb"] = peak_mb(os.getpid())
    return found


def scan(uri: str) -> dict[str, float]:
    """Search a lake without an index: time and memory of reading its layer, and of a query."""
    from tonelake.index.search.exact import load_layer

    lake, space = open_lake(uri, 0)
    before = resident_mb(os.getpid())
    timer = Timer()
    layer = load_layer(lake, space, 0)
    found = timer.taken("load")
    queries = next(vectors(QUERIES, space.dims[0], seed=2))
    taken = times_ms(lambda number: layer.search(queries[number], K), 20)
    return found | {
        "scan_ms": statistics.median(taken), "layer_mb": layer.vectors.nbytes / 1e6,
        "peak_scan_mb": peak_mb(os.getpid()) - before,
    }


def away(rows: int, dim: int) -> dict[str, float]:
    """Write, index and search a lake on moto, and count the requests."""
    from bench.object_store import store, take_requests
    from bench.ten_million import apart
    from tonelake.index import build_index

    with store() as bucket:
        uri = f"{bucket}/lake"
        take_requests()
        lake, space = open_lake(uri, dim)
        stored, rng = lake.vectors(space), np.random.default_rng(0)
        for number, part in enumerate(vectors(rows, dim)):
            some = clips(number * PART, len(part), rng)
            lake.clips.add(some)
            stored.add(some["clip_id"].to_list(), [part], [part], [1] * len(part))
        found = counted("write", take_requests())
        timer = Timer()
        made, _ = build_index(lake, space, 0)
        found |= timer.taken("build") | counted("build", take_requests())
        found |= {"recall": made.recall, "index_mb": made.bytes / 1e6, "refine": made.refine, "width": made.width}
        return found | apart("ask_away", uri)


def ask_away(uri: str) -> dict[str, float]:
    """Search a lake on moto in a new process: the requests of its first query, and of later ones."""
    from bench.object_store import take_requests

    lake, space = open_lake(uri, 0)
    queries, half = next(vectors(QUERIES, space.dims[0], seed=2)), QUERIES // 2
    take_requests()
    lake.similar(queries[0])
    found = counted("first", take_requests())
    for query in queries[1:half]:
        lake.similar(query)
    take_requests()
    for query in queries[half:]:
        lake.similar(query)
    return found | {name: count / half for name, count in counted("later", take_requests()).items()}


def counted(name: str, counts: Any) -> dict[str, float]:
    return {
        f"{name}_gets": counts.gets, f"{name}_puts": counts.puts, f"{name}_read_mb": counts.sent / 1e6,
        f"{name}_written_mb": counts.received / 1e6,
    }
