"""Maps: processor time and faithfulness of ours compared with plain `umap.UMAP().fit_transform` on the same vectors.

Neighbour recall: the share of a clip's 15 nearest in 768 dimensions that are among its 15 nearest on the map.
Trustworthiness (Venna and Kaski 2001): penalises neighbours on the map that are not neighbours in the data; on a sample.
Both methods compile their code before they are timed.

Stored neighbours: the share of the 15 nearest in 768 dimensions that are in the neighbour graph, which is stored with a map.
The two are compared on clusters (`bench.search.make_vectors`) and on the kinds of vectors of `bench.map_kinds`.

    python -m bench.maps --rows 100000
    python -m bench.maps --rows 100000 --yardstick 200000 --alone 1000000      # also ours alone, where plain takes an hour
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.map_kinds import KINDS, clusters
from bench.memory import PeakMemory
from bench.report import circumstances, table, write_results
from tonelake.index.maps.layout import Layout

K, QUERIES, TRUSTED = 15, 2_000, 5_000
HEADER = ["map", "vectors", "clips", "CPU s", "s", "neighbour recall", "trustworthiness", "stored neighbours", "peak MB"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Figures of one map."""

    cpu_s: float
    taken_s: float
    recall: float
    trust: float
    stored: float | None                 # None for plain UMAP
    memory_mb: float

    def line(self, name: str, kind: str, clips: int) -> list[str]:
        """Cells of the report's table."""
        return [
            name, kind, f"{clips:,}", f"{self.cpu_s:.0f}", f"{self.taken_s:.0f}", f"{self.recall:.3f}", f"{self.trust:.3f}",
            "" if self.stored is None else f"{self.stored:.3f}", f"{self.memory_mb:,.0f}",
        ]


class Judge:
    """Measures maps of one set of vectors."""

    def __init__(self, vectors: np.ndarray, memory: PeakMemory) -> None:
        import faiss

        rng = np.random.default_rng(0)
        self.vectors, self.memory = vectors, memory
        self.asked = np.sort(rng.choice(len(vectors), min(QUERIES, len(vectors)), replace=False))
        self.trusted = np.sort(rng.choice(len(vectors), min(TRUSTED, len(vectors)), replace=False))
        found = faiss.knn(vectors[self.asked], vectors, K + 1, metric=faiss.METRIC_INNER_PRODUCT)[1]
        self.true = others(self.asked, found)

    def map(self, work: Callable[[], np.ndarray | Layout]) -> tuple[np.ndarray, Judged]:
        """Make a map; return its points and figures."""
        import faiss

        made, cpu_s, taken_s = measured(work)
        points = np.ascontiguousarray(made if isinstance(made, np.ndarray) else made.points, np.float32)
        nearest = others(self.asked, faiss.knn(points[self.asked], points, K + 1)[1])
        return points, Judged(
            cpu_s=cpu_s, taken_s=taken_s, recall=self.share(nearest), trust=trust(self.vectors, points, self.trusted),
            stored=None if isinstance(made, np.ndarray) else self.share(made.nearest[self.asked]), memory_mb=self.memory.mb,
        )

    def share(self, found: np.ndarray) -> float:
        """Return the mean share of the true neighbours that are found."""
        return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, self.true, strict=True)]))


def others(rows: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return (row, K) neighbours without the rows themselves; `found`: (row, K + 1)."""
    return np.stack([near[near != row][:K] for row, near in zip(rows, found, strict=True)])


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Call a function; return (result, processor seconds, seconds)."""
    before, started = os.times(), time.perf_counter()
    found = work()
    after = os.times()
    return found, after.user + after.system - before.user - before.system, time.perf_counter() - started


def trust(vectors: np.ndarray, points: np.ndarray, rows: np.ndarray) -> float:
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(vectors[rows], points[rows], n_neighbors=K))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind-rows", type=int, default=25_000, help="Largest number of clips of the other kinds of vectors.")
    parser.add_argument("--yardstick", type=int, help="Also compare both with this number of clips.")
    parser.add_argument("--alone", type=int, help="Also measure ours alone with this number of clips.")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import umap

    from tonelake.index.maps.layout import lay_out
    from tonelake.index.maps.umap import EPOCHS, LARGE_ROWS, load_large

    about = circumstances("all vectors but those of chorales")
    memory = PeakMemory()
    warm = clusters(5_000)
    lay_out(warm[:2_000])
    load_large()
    umap.UMAP().fit_transform(warm)
    lines: list[list[str]] = []
    ratios: dict[str, float] = {}

    def judge(name: str, kind: str, judging: Judge, work: Callable[[], np.ndarray | Layout]) -> tuple[np.ndarray, Judged]:
        points, found = judging.map(work)
        lines.append(found.line(name, kind, len(points)))
        print(lines[-1], flush=True)
        return points, found

    def compare(kind: str, vectors: np.ndarray) -> tuple[np.ndarray, Judged, Judged]:
        judging = Judge(vectors, memory)
        points, ours = judge("tonelake", kind, judging, lambda: lay_out(vectors))
        _, plain = judge("umap.UMAP()", kind, judging, lambda: umap.UMAP().fit_transform(vectors))
        return points, ours, plain

    vectors = clusters(arguments.rows)
    points, ours, plain = compare("clusters", vectors)
    moves = moved(vectors, points)
    print(moves, flush=True)
    times = {"clusters": plain.cpu_s / ours.cpu_s}
    ratios |= {
        f"umap_vs_plain_{arguments.rows // 1000}k": plain.cpu_s / ours.cpu_s, "trustworthiness_loss": plain.trust - ours.trust,
        "neighbour_recall_loss": plain.recall - ours.recall, "moved_chained": moves["chained"], "moved_alone": moves["alone"],
        "stored_neighbours": ours.stored or 0.0,
    }
    for kind, (_, make) in KINDS.items():
        _, ours, plain = compare(kind, make(arguments.kind_rows))
        times[kind] = plain.cpu_s / ours.cpu_s
        ratios |= {
            f"umap_vs_plain_{kind}": times[kind], f"neighbour_recall_{kind}": ours.recall,
            f"neighbour_recall_plain_{kind}": plain.recall, f"trustworthiness_{kind}": ours.trust,
            f"trustworthiness_plain_{kind}": plain.trust, f"stored_neighbours_{kind}": ours.stored or 0.0,
        }
    ratios |= {"umap_vs_plain_least": min(times.values()), "umap_vs_plain_most": max(times.values())}
    if arguments.yardstick:
        _, ours, plain = compare("clusters", clusters(arguments.yardstick))
        size = f"{arguments.yardstick // 1000}k"
        ratios |= {f"neighbour_recall_{size}": ours.recall, f"neighbour_recall_plain_{size}": plain.recall}
    if arguments.alone:
        vectors = clusters(arguments.alone)
        _, alone = judge("tonelake", "clusters", Judge(vectors, memory), lambda: lay_out(vectors))
        size = f"{arguments.alone // 1000}k"
        ratios |= {
            f"cpu_minutes_{size}": alone.cpu_s / 60, f"neighbour_recall_{size}": alone.recall,
            f"stored_neighbours_{size}": alone.stored or 0.0,
        }
    kinds = "".join(f"- {name}: {sentence}\n" for name, (sentence, _) in KINDS.items())
    text = (
        f"{table(HEADER, lines)}\nOurs: candidates among 200 dimensions by FAISS, ranked by all dimensions, 15 neighbours; "
        f"{EPOCHS} epochs of umap-learn from two principal components, or our own epochs above {LARGE_ROWS:,} clips; on one "
        "thread and seeded.  Plain: umap-learn with its defaults, all threads and no seed.\n\n"
        "- clusters: clusters of clusters, as in `bench.search`; the more clips, the more of them share a cluster, and the "
        f"fewer of their neighbours a plane can keep\n{kinds}"
        "\nA layer that differs slightly from the previous one: its points move by "
        f"{moves['chained']:.2f} of the map's radius (median) if they start from the previous map, and by "
        f"{moves['alone']:.2f} otherwise.\n"
    )
    write_results("map", "Maps against plain UMAP", text, about, ratios)
    print("bench/results/map.md and .json are written")


def moved(vectors: np.ndarray, points: np.ndarray) -> dict[str, float]:
    """Return how far points move on the next layer, of the map's radius (median), with this layer's map as start and without.

    The next layer is simulated by slightly changed vectors.
    """
    from tonelake.index.maps.layout import align_points, lay_out

    rng = np.random.default_rng(0)
    other = vectors + 0.5 * np.linalg.norm(vectors, axis=1, keepdims=True) * rng.standard_normal(vectors.shape) / 768**0.5
    other = (other / np.linalg.norm(other, axis=1, keepdims=True)).astype(np.float32)
    radius = np.linalg.norm(points - points.mean(axis=0), axis=1).mean()
    found = {}
    for name, start in (("chained", points), ("alone", None)):
        again = align_points(lay_out(other, start=start).points, points)
        found[name] = float(np.median(np.linalg.norm(again - points, axis=1)) / radius)
    return found


if __name__ == "__main__":
    main()
