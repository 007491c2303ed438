"""Maps: processor time and faithfulness of ours compared with plain `umap.UMAP().fit_transform` on the same vectors.

Neighbour recall: the share of a clip's 15 nearest in 768 dimensions that are among its 15 nearest on the map.
Trustworthiness (Venna and Kaski 2001): penalises neighbours on the map that are not neighbours in the data; on a sample.
Both methods compile their code before they are timed.

    python -m bench.maps --rows 100000
    python -m bench.maps --rows 100000 --alone 1000000      # also ours alone, where plain UMAP would take an hour
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable

import numpy as np

from bench.memory import PeakMemory
from bench.report import circumstances, table, write_results
from bench.search import make_vectors

K, QUERIES, TRUSTED = 15, 2_000, 5_000
HEADER = ["map", "clips", "CPU s", "s", "neighbour recall", "trustworthiness", "peak memory, MB"]


def measured(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Call a function; return (result, processor seconds, seconds)."""
    before, started = os.times(), time.perf_counter()
    found = work()
    after = os.times()
    return found, after.user + after.system - before.user - before.system, time.perf_counter() - started


def recall(vectors: np.ndarray, points: np.ndarray, rows: np.ndarray) -> float:
    import faiss

    true = faiss.knn(vectors[rows], vectors, K + 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 1:]
    flat = np.ascontiguousarray(points, np.float32)
    found = faiss.knn(flat[rows], flat, K + 1)[1][:, 1:]
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, true, strict=True)]))


def trust(vectors: np.ndarray, points: np.ndarray, rows: np.ndarray) -> float:
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(vectors[rows], points[rows], n_neighbors=K))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--alone", type=int, help="Also measure ours alone with this number of clips.")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import umap

    from tonelake.index.maps.layout import align_points, lay_out
    from tonelake.index.maps.umap import EPOCHS, FEW_EPOCHS

    about = circumstances("all vectors (seeded clusters)")
    memory = PeakMemory()
    vectors = make_vectors(arguments.rows)[0].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    asked = np.sort(rng.choice(len(vectors), QUERIES, replace=False))
    trusted = np.sort(rng.choice(len(vectors), min(TRUSTED, len(vectors)), replace=False))
    for warm in (lambda: lay_out(vectors[:2_000]), lambda: umap.UMAP().fit_transform(vectors[:5_000])):
        warm()

    def judge(name: str, points: np.ndarray, cpu_s: float, taken_s: float) -> list[str]:
        found[name] = (cpu_s, recall(vectors, points, asked), trust(vectors, points, trusted))
        return [
            name, f"{len(points):,}", f"{cpu_s:.0f}", f"{taken_s:.0f}", f"{found[name][1]:.3f}", f"{found[name][2]:.3f}",
            f"{memory.mb:,.0f}",
        ]

    found: dict[str, tuple[float, float, float]] = {}
    ours = measured(lambda: lay_out(vectors).points)
    lines = [judge("tonelake", *ours)]
    print(lines[-1], flush=True)
    # The next layer, simulated by slightly changed vectors, starting from this layer's points and from its own start.
    other = vectors + 0.5 * np.linalg.norm(vectors, axis=1, keepdims=True) * rng.standard_normal(vectors.shape) / 768**0.5
    other = (other / np.linalg.norm(other, axis=1, keepdims=True)).astype(np.float32)
    radius = np.linalg.norm(ours[0] - ours[0].mean(axis=0), axis=1).mean()
    moves = {}
    for name, start in (("chained", ours[0]), ("alone", None)):
        points = align_points(lay_out(other, start=start).points, ours[0])
        moves[name] = float(np.median(np.linalg.norm(points - ours[0], axis=1)) / radius)
    print(moves, flush=True)
    del other
    plain = measured(lambda: umap.UMAP().fit_transform(vectors))
    lines.append(judge("umap.UMAP()", *plain))
    print(lines[-1], flush=True)
    ratios = {
        f"umap_vs_plain_{arguments.rows // 1000}k": found["umap.UMAP()"][0] / found["tonelake"][0],
        "trustworthiness_loss": found["umap.UMAP()"][2] - found["tonelake"][2],
        "neighbour_recall_loss": found["umap.UMAP()"][1] - found["tonelake"][1],
        "moved_chained": moves["chained"], "moved_alone": moves["alone"],
    }
    if arguments.alone:
        vectors = make_vectors(arguments.alone)[0].astype(np.float32)
        asked = np.sort(rng.choice(len(vectors), QUERIES, replace=False))
        trusted = np.sort(rng.choice(len(vectors), TRUSTED, replace=False))
        alone = measured(lambda: lay_out(vectors).points)
        lines.append(judge("tonelake", *alone))
        print(lines[-1], flush=True)
        ratios[f"cpu_minutes_{arguments.alone // 1000}k"] = alone[1] / 60
    text = (
        f"{table(HEADER, lines)}\nOurs: 200 dimensions, a graph of 15 neighbours by FAISS, {EPOCHS} epochs ({FEW_EPOCHS} above "
        "300,000 clips) from two principal components, on one thread and seeded.  Plain: umap-learn with its defaults, all "
        f"threads and no seed.\n\nA layer that differs slightly from the previous one: its points move by "
        f"{moves['chained']:.2f} of the map's radius (median) if they start from the previous map, and by "
        f"{moves['alone']:.2f} otherwise.\n"
    )
    write_results("map", "Maps against plain UMAP", text, about, ratios)
    print("bench/results/map.md and .json are written")


if __name__ == "__main__":
    main()
