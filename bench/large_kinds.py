"""Kinds of index for millions of vectors: RaBitQ beside product quantisation, both refined by float16; part of `bench.search`.

    python -m bench.large_kinds --rows 300000            # prints the table without writing results
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from bench.report import table

K, SINGLE, ROUNDS, RECALL = 10, 64, 5, 0.95
LARGE_KINDS = ("ivf-rabitq", "ivf-pq")


def large_kinds(vectors: np.ndarray, queries: np.ndarray, true: np.ndarray) -> tuple[str, dict[str, float]]:
    """Return a table, and how RaBitQ compares with product quantisation: both are tuned to a recall@10 of 0.95.

    `vectors`: (row, dim) float16; `queries`: (query, dim) float32; `true`: (query, K) rows of their nearest.
    """
    import faiss

    from tonelake.index.search.approximate import build

    lines: list[list[str]] = []
    built: dict[str, float] = {}
    latency: dict[str, float] = {}
    recall: dict[str, float] = {}
    for kind in LARGE_KINDS:                 # one after the other, since both together would take 5 GB for a million
        wall, cpu = time.perf_counter(), time.process_time()
        index, place = build(vectors, "cosine", kind=kind, recall=RECALL)
        wall, built[kind] = time.perf_counter() - wall, time.process_time() - cpu
        single, batch = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for query in queries[:SINGLE]:
                index.search_one(query, K)
            single.append(1000 * (time.perf_counter() - started) / SINGLE)
            started = time.perf_counter()
            found = index.search(queries, K)[0]
            batch.append(len(queries) / (time.perf_counter() - started))
        latency[kind] = statistics.median(single)
        recall[kind] = float(np.mean([len(np.intersect1d(place[a], b)) / K for a, b in zip(found, true, strict=True)]))
        size = faiss.serialize_index(index.faiss_index).nbytes / 1e6
        lines.append([
            f"`{kind}`", f"nprobe {index.width}", f"{recall[kind]:.3f}", f"{latency[kind]:.2f}",
            f"{statistics.median(batch):,.0f}", f"{built[kind]:.0f}", f"{wall:.0f}", f"{size:,.0f}",
        ])
        print(f"{len(vectors):,}: {kind} built", flush=True)
        del index, place
    header = ["kind", "setting", "recall@10", "ms a query", "queries/s, batch", "build, CPU s", "build, s", "index, MB"]
    rabitq, pq = LARGE_KINDS
    return table(header, lines), {
        "rabitq_vs_pq_build": built[pq] / built[rabitq], "rabitq_vs_pq_latency": latency[pq] / latency[rabitq],
        "rabitq_recall": recall[rabitq], "pq_recall": recall[pq],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    from bench.search import make_vectors
    from tonelake.index.search.approximate import true_neighbours

    vectors, queries = make_vectors(arguments.rows)
    text, ratios = large_kinds(vectors, queries, true_neighbours(queries, vectors, K, "ip"))
    print(text, ratios, sep="\n")


if __name__ == "__main__":
    main()
