"""Two spaces side by side, layer by layer: whether they see the same, and which tells a column's groups apart better.

- agreement: of a clip's ten nearest in the one space, the share that are among its ten nearest in the other;
- cka: linear centred kernel alignment, 1 where one space is a turned copy of the other (Kornblith et al., arXiv
  1905.00414);
- with a column: each space's mAP and their difference, with a paired bootstrap interval over tracks.

Only clips that both spaces hold are compared.  Where the numbers of layers differ, layers of the same relative depth are
set side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tonelake.evaluate import bootstrap_means, read_labelled
from tonelake.index.search.faiss import nearest_batch
from tonelake.index.separation.layer_report import Question, ask
from tonelake.index.separation.pairs import PREPARATIONS, retrieval_of, separate
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Progress, Space, rows_of, silent_progress

K = 10
QUERIES = 2_000
CKA_CLIPS = 5_000


def compare(
    lake: Lake, first: str, second: str, column: str | None = None, *, where: str | None = None, stat: str = "mean",
    seed: int = 0, progress: Progress = silent_progress,
) -> pl.DataFrame:
    """One row a pair of layers: layer_a, layer_b, agreement, cka; with a column also map_a, map_b, gain (b less a),
    gain_low and gain_high.

    Raises InputError where the two share fewer than three clips, or are the same.
    """
    a, b = lake.spaces.get(first), lake.spaces.get(second)
    if a.name == b.name:
        raise InputError(f"{first} is compared with itself: name two spaces, `tonelake spaces` lists them")
    kept = lake.clips.ids(where)
    ids = lake.vectors(a).ids().filter(lake.vectors(a).ids().is_in(kept.implode()))
    ids = ids.filter(ids.is_in(lake.vectors(b).ids().implode()))
    if len(ids) < 3:
        raise InputError(f"spaces {a.name!r} and {b.name!r} share {len(ids)} clips: embed the lake into both")
    question = None
    if column is not None:
        labelled = read_labelled(lake, a, column, where)
        shared = np.flatnonzero(labelled.ids.is_in(ids.implode()).to_numpy())
        question = ask(labelled.subset(shared), seed)
    rng = np.random.default_rng(seed)
    asked = np.sort(rng.choice(len(ids), min(QUERIES, len(ids)), replace=False))
    sampled = np.sort(rng.choice(len(ids), min(CKA_CLIPS, len(ids)), replace=False))
    rows = []
    pairs = paired_layers(len(a.layers), len(b.layers))
    for one, other in progress(pairs, len(pairs), f"comparing {a.name} and {b.name}"):
        x, y = (read(lake, space, layer, ids, stat) for space, layer in ((a, one), (b, other)))
        row: dict[str, Any] = {
            "layer_a": a.layers[one], "layer_b": b.layers[other], "agreement": agreement(x, y, asked),
            "cka": cka(x[sampled], y[sampled]),
        }
        if question is not None:
            row |= gain(question, ids, x, y)
        rows.append(row)
    return pl.DataFrame(rows)


def paired_layers(first: int, second: int) -> list[tuple[int, int]]:
    """Layers of the same relative depth, each of the deeper space once.

    >>> paired_layers(3, 3), paired_layers(3, 5)
    ([(0, 0), (1, 1), (2, 2)], [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)])
    """
    most = max(first, second)
    return [
        (round(i * (first - 1) / max(most - 1, 1)), round(i * (second - 1) / max(most - 1, 1))) for i in range(most)
    ]


def read(lake: Lake, space: Space, layer: int, ids: pl.Series, stat: str) -> np.ndarray:
    """(clip, dim) unit vectors of these clips, in their order."""
    all_ids, vectors = lake.vectors(space).layer(layer, stat=stat)
    return unit(vectors[rows_of(all_ids, ids)])


def agreement(first: np.ndarray, second: np.ndarray, asked: np.ndarray) -> float:
    """Mean share of common clips among the K nearest of each that is asked for."""
    k = min(K, len(first) - 1)
    lists = []
    for vectors in (first, second):
        near, _ = nearest_batch(vectors[asked], vectors, k + 1)
        lists.append([row[row != own][:k] for row, own in zip(near, asked, strict=True)])
    return float(np.mean([len(np.intersect1d(x, y)) / k for x, y in zip(*lists, strict=True)]))


def cka(first: np.ndarray, second: np.ndarray) -> float:
    """Linear CKA of (clip, dim) and (clip, other dim) vectors; NaN where one of them is all the same."""
    x, y = (vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64) for vectors in (first, second))
    across = np.linalg.norm(x.T @ y) ** 2
    within = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(across / within) if within > 0 else float("nan")


def gain(question: Question, ids: pl.Series, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Both spaces' mAP on the same queries, and the difference with its interval."""
    rows = rows_of(ids, question.labelled.ids)
    precision = [
        retrieval_of(separate(
            PREPARATIONS["l2"](vectors[rows]), question.labelled, question.queries, question.unit_of, question.excluded
        ))[-1]
        for vectors in (first, second)
    ]
    difference = precision[1] - precision[0]
    low, high = np.percentile(bootstrap_means(difference, question.unit_of, question.weights), [2.5, 97.5])
    return {
        "map_a": float(precision[0].mean()), "map_b": float(precision[1].mean()), "gain": float(difference.mean()),
        "gain_low": float(low), "gain_high": float(high),
    }
