"""Search: latency, recall, build time, memory and disk usage of our index, raw FAISS and other libraries.

Vectors are synthetic: clusters of clusters whose spectrum decays like that of music embeddings (a tenth of the dimensions
carries most of the variance), so that neighbours are neither obvious nor arbitrary.  Every index is tuned by its own parameter
to a recall@10 of at least 0.95 on the same queries, and then timed on them; indexes alternate.

    python -m bench.search --rows 10000 100000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.large_kinds import large_kinds
from bench.object_store import object_store
from bench.reading import lake_of
from bench.report import circumstances, table, write_results
from bench.start_up import start_up

DIM, K, QUERIES, RECALL = 768, 10, 256, 0.95
EF = (10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)          # equal steps for all
ROUNDS = 9
AWAY_ROWS = 100_000                      # also searched in a lake on an object store


@dataclass
class Entry:
    """One index, ready for queries: a (query, dim) batch, or a single query, gives (query, k) of its own rows."""

    name: str
    batch: Callable[[np.ndarray], np.ndarray]
    single: Callable[[np.ndarray], np.ndarray]
    build_s: float
    disk_mb: float
    setting: str
    recall: float = 0.0
    place: np.ndarray | None = None      # positions of its rows among the vectors; None if they are equal

    def recall_of(self, queries: np.ndarray, true: np.ndarray) -> float:
        found = self.batch(queries)
        found = found if self.place is None else self.place[found]
        return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true, strict=True)]))    # no ties here


def make_vectors(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, dim) float16 unit vectors, and (query, dim) float32 queries drawn and rounded likewise."""
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(DIM)) ** -0.6
    coarse = rng.standard_normal((60, DIM)) * spectrum
    fine = coarse[rng.integers(60, size=2_000)] + 0.7 * rng.standard_normal((2_000, DIM)) * spectrum

    def draw(count: int) -> np.ndarray:
        found = np.empty((count, DIM), np.float16)
        for start in range(0, count, 20_000):
            part = min(20_000, count - start)
            values = fine[rng.integers(2_000, size=part)] + 0.6 * rng.standard_normal((part, DIM)) * spectrum
            found[start : start + part] = values / np.linalg.norm(values, axis=1, keepdims=True)
        return found

    return draw(rows), draw(QUERIES).astype(np.float32)


def tuned(
    make: Callable[[int], Entry], steps: tuple[int, ...], queries: np.ndarray, true: np.ndarray, recall: float = RECALL
) -> Entry:
    """Return the entry at the first parameter value that reaches the recall, or at the last."""
    for step in steps:
        entry = make(step)
        entry.recall = entry.recall_of(queries, true)
        if entry.recall >= recall:
            break
    return entry


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    done = work()
    return done, time.perf_counter() - started


def ours(vectors: np.ndarray, home: Path, queries: np.ndarray, true: np.ndarray) -> list[Entry]:
    """Return entries for a lake, with its index and with its exact scan, from a query vector to the rows of a frame."""
    from tonelake.index import build_index
    from tonelake.index.search.exact import load_layer
    from tonelake.index.search.faiss import nearest_batch
    from tonelake.index.search.stored_index import search_stored, search_stored_batch

    lake, space, ids = lake_of(home / "lake", vectors)
    store = lake.vectors(space)
    store.table.compact()
    (made, _), build_s = timed(lambda: build_index(lake, space, 0, recall=RECALL))
    snapshot = store.table.snapshot()
    row_of = dict(zip(ids, range(len(ids)), strict=True))            # a table may keep its rows in another order
    place = np.array([row_of[clip] for clip in snapshot.keys.to_pylist()])

    def single(query: np.ndarray) -> np.ndarray:
        found = search_stored(lake, space, made, query[0], K, None, snapshot)
        assert found is not None
        return found[0][None]

    def each(batch: np.ndarray) -> np.ndarray:
        found = search_stored_batch(lake, space, made, batch, K, None, snapshot)
        assert found is not None
        return found[0]

    flat, load_s = timed(lambda: load_layer(lake, space, 0))

    def scan(batch: np.ndarray) -> np.ndarray:
        return flat.search(batch[0], K)[0][None] if len(batch) == 1 else nearest_batch(batch, flat.vectors, K, "cosine")[0]

    indexed = Entry("tonelake, index", each, single, build_s, made.bytes / 1e6, f"{made.kind}, width {made.width}", place=place)
    exact = Entry("tonelake, exact", scan, scan, load_s, vectors.nbytes / 1e6, "scan", place=place)
    for entry in (indexed, exact):
        entry.recall = entry.recall_of(queries, true)
    return [indexed, exact]


def raw_faiss(vectors: np.ndarray, home: Path, queries: np.ndarray, true: np.ndarray) -> list[Entry]:
    """Return entries for raw FAISS with an index of our kind: at the smallest width for the recall, and at our width."""
    import faiss

    made = faiss.index_factory(DIM, "HNSW32,SQfp16", faiss.METRIC_INNER_PRODUCT)
    made.hnsw.efConstruction = 100       # as for ours, hnswlib, Voyager and USearch here
    full = vectors.astype(np.float32)

    def fill() -> None:
        made.train(full)
        made.add(full)

    _, build_s = timed(fill)
    faiss.write_index(made, str(home / "raw.faiss"))
    disk = (home / "raw.faiss").stat().st_size / 1e6

    def at(ef: int) -> Entry:
        def search(batch: np.ndarray) -> np.ndarray:
            made.hnsw.efSearch = ef
            return made.search(batch, K)[1]

        return Entry("FAISS HNSW32,SQfp16", search, search, build_s, disk, f"efSearch {ef}")

    return [tuned(at, EF, queries, true), *(tuned(at, (width,), queries, true) for width in EF)]


def hnswlib_index(vectors: np.ndarray, home: Path, queries: np.ndarray, true: np.ndarray) -> list[Entry]:
    import hnswlib

    made = hnswlib.Index("ip", DIM)
    made.init_index(len(vectors), M=16, ef_construction=100)
    _, build_s = timed(lambda: made.add_items(vectors.astype(np.float32)))
    made.save_index(str(home / "hnswlib.bin"))
    disk = (home / "hnswlib.bin").stat().st_size / 1e6

    def at(ef: int) -> Entry:
        def search(batch: np.ndarray) -> np.ndarray:
            made.set_ef(max(ef, K))
            return made.knn_query(batch, K)[0]

        return Entry("hnswlib, M 16", search, search, build_s, disk, f"ef {ef}")

    return [tuned(at, EF, queries, true)]


def voyager_index(vectors: np.ndarray, home: Path, queries: np.ndarray, true: np.ndarray) -> list[Entry]:
    import voyager

    made = voyager.Index(voyager.Space.InnerProduct, DIM, M=16, ef_construction=100)
    _, build_s = timed(lambda: made.add_items(vectors.astype(np.float32)))
    made.save(str(home / "voyager.bin"))
    disk = (home / "voyager.bin").stat().st_size / 1e6

    def at(ef: int) -> Entry:
        def search(batch: np.ndarray) -> np.ndarray:
            return made.query(batch, k=K, query_ef=max(ef, K))[0].astype(np.int64)

        return Entry("Voyager, M 16", search, search, build_s, disk, f"ef {ef}")

    return [tuned(at, EF, queries, true)]


def usearch_index(vectors: np.ndarray, home: Path, queries: np.ndarray, true: np.ndarray) -> list[Entry]:
    from usearch.index import Index

    made = Index(ndim=DIM, metric="ip", dtype="f16", connectivity=16, expansion_add=100)
    _, build_s = timed(lambda: made.add(np.arange(len(vectors)), vectors.astype(np.float32)))
    made.save(str(home / "usearch.bin"))
    disk = (home / "usearch.bin").stat().st_size / 1e6

    def at(ef: int) -> Entry:
        def search(batch: np.ndarray) -> np.ndarray:
            made.expansion_search = ef
            return np.asarray(made.search(batch, K).keys).reshape(len(batch), K).astype(np.int64)

        return Entry("USearch, float16, M 16", search, search, build_s, disk, f"expansion {ef}")

    return [tuned(at, EF, queries, true)]


def lancedb_index(vectors: np.ndarray, home: Path, queries: np.ndarray, true: np.ndarray) -> list[Entry]:
    """LanceDB's own IVF_HNSW_SQ, refined."""
    import lancedb
    import pyarrow as pa

    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).ravel()), DIM)
    store = lancedb.connect(str(home / "lancedb")).create_table("t", pa.table({"row": np.arange(len(vectors)), "v": values}))

    def build() -> None:
        store.create_index(
            metric="dot", vector_column_name="v", index_type="IVF_HNSW_SQ", num_partitions=max(1, len(vectors) // 25_000)
        )

    _, build_s = timed(build)
    disk = sum(f.stat().st_size for f in (home / "lancedb").rglob("_indices/**/*") if f.is_file()) / 1e6

    def at(ef: int) -> Entry:
        def search(batch: np.ndarray) -> np.ndarray:
            found = []
            for query in batch:
                ask = store.search(query, vector_column_name="v").metric("dot").nprobes(8).ef(ef).refine_factor(4)
                hits = ask.limit(K).select(["row", "_distance"]).to_arrow()["row"].to_numpy()
                found.append(np.pad(hits, (0, K - len(hits)), constant_values=-1))
            return np.stack(found)

        return Entry("LanceDB IVF_HNSW_SQ", search, search, build_s, disk, f"nprobes 8, ef {ef}, refine 4")

    return [tuned(at, EF[6:], queries, true)]    # refined, ef has to be at least four times k


WHY = {                                  # notes, if another library is faster
    "hnswlib": ("hnswlib", "it keeps float32 vectors, whose products need no conversion, in 1.8 times the memory"),
    "usearch": ("USearch", "both keep float16; it computes with half-precision instructions where the processor has them"),
    "voyager": ("Voyager", "it keeps float32 vectors, in 1.8 times the memory"),
}
MANY, AT_MANY = 1_000_000, ("ours", "faiss", "usearch")      # all of them together would not fit 24 GB


WAYS = {
    "ours": ours, "faiss": raw_faiss, "hnswlib": hnswlib_index, "voyager": voyager_index, "usearch": usearch_index,
    "lancedb": lancedb_index,
}


def measure(rows: int) -> tuple[str, dict[str, float]]:
    """Return a Markdown table for one size, and the ratios of latency."""
    from tonelake.index.search.approximate import true_neighbours

    vectors, queries = make_vectors(rows)
    true = true_neighbours(queries, vectors, K, "ip")
    entries: dict[str, Entry] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {key: WAYS[key] for key in (WAYS if rows < MANY else AT_MANY)}
        for key, way in ways.items():
            before = current_mb()
            for number, entry in enumerate(way(vectors, Path(folder), queries, true)):
                entries[key if not number else f"{key}_{number}"] = entry
            memory[key] = current_mb() - before
            print(f"{rows:,}: {key} built", flush=True)
        single: dict[str, list[float]] = {key: [] for key in entries}
        batch: dict[str, list[float]] = {key: [] for key in entries}
        rng = np.random.default_rng(0)
        for _ in range(ROUNDS):
            for key in rng.permutation(list(entries)):       # shuffled: an entry is affected by the previous one
                entry, some = entries[key], queries[:64]
                for query in some:                                                   # fills the processor's cache
                    entry.single(query[None])
                _, taken = timed(lambda: [entry.single(query[None]) for query in some])      # noqa: B023 - used at once
                single[key].append(1000 * taken / len(some))
                _, taken = timed(lambda: entry.batch(queries))                               # noqa: B023
                batch[key].append(QUERIES / taken)
    latency = {key: statistics.median(times) for key, times in single.items()}
    shown = [key for key in entries if not key.startswith("faiss_") or key == same_width(entries)]
    lines = [
        [
            entry.name, entry.setting, f"{entry.recall:.3f}", f"{latency[key]:.3f}", f"{statistics.median(batch[key]):,.0f}",
            f"{entry.build_s:.1f}", f"{memory[key]:,.0f}" if key in memory else "", f"{entry.disk_mb:,.0f}",
        ]
        for key, entry in entries.items() if key in shown
    ]
    header = ["index", "setting", "recall@10", "ms a query", "queries/s, batch", "build, s", "memory grown, MB", "disk, MB"]
    size = f"{rows // 1000}k" if rows < 1_000_000 else f"{rows // 1_000_000}m"
    ratios = {f"latency_vs_raw_faiss_{size}": latency["ours"] / latency[same_width(entries)]}        # so at one recall
    ratios |= {f"vs_{key}_{size}": latency[key] / latency["ours"] for key in ways if key not in ("ours", "faiss")}
    left_out = [key for key in WAYS if key not in ways]
    note = f"\nLeft out because of memory: {', '.join(left_out)}.\n" if left_out else ""
    if rows >= MANY:
        entries.clear()
        del entry                        # frees the indexes
        text, compared = large_kinds(vectors, queries, true)
        note += f"\nThe kinds for more than a million vectors, on these:\n\n{text}"
        ratios |= {f"{key}_{size}": value for key, value in compared.items()}
    for key, (name, why) in WHY.items():
        if latency.get(key, float("inf")) < latency["ours"]:
            note += f"\n{name} is {latency['ours'] / latency[key]:.2f} times as fast here: {why}.\n"
    return f"## {rows:,} vectors of {DIM}\n\n{table(header, lines)}{note}", ratios


def same_width(entries: dict[str, Entry]) -> str:
    """Return the entry of raw FAISS with our search width."""
    width = entries["ours"].setting.rpartition(" ")[2]
    return next(key for key, entry in entries.items() if key.startswith("faiss") and entry.setting.endswith(f" {width}"))


def current_mb() -> float:
    """Return the current resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    arguments = parser.parse_args()
    about = circumstances("all vectors (seeded clusters); recall refers to these, other vectors may be harder")
    text, seconds = start_up()
    texts, ratios = [f"## Start-up\n\n{text}"], {"start_up_s": seconds}
    if AWAY_ROWS in arguments.rows:
        text, milliseconds = object_store(*make_vectors(AWAY_ROWS))
        texts.append(f"## A lake on an object store, {AWAY_ROWS:,} vectors of {DIM}\n\n{text}")
        ratios["object_store_100k_ms"] = milliseconds
    for rows in arguments.rows:
        text, found = measure(rows)
        texts.append(text)
        ratios |= found
        write_results("search", "Search: our index among others", "\n".join(texts), about, ratios)
        print(f"bench/results/search.md and .json are written, up to {rows:,}", flush=True)


if __name__ == "__main__":
    main()
