"""Compare two spaces layer by layer: how similar they are, and which one separates a column's groups better.

- agreement: the share of a clip's ten nearest clips in one space that are among its ten nearest in the other;
- cka: linear centred kernel alignment, 1 if one space is a rotated copy of the other (Kornblith et al., arXiv 1905.00414);
- with a column: each space's mAP and their difference with a paired jackknife interval, span and matrix span
  (`index.separation.pairs`).

Only clips that are embedded in both spaces are compared.  If the numbers of layers differ, layers of the same relative
depth are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tonelake.evaluate import read_labelled
from tonelake.index.search.faiss import nearest_batch
from tonelake.index.separation.layer_report import gain_of, measure_vectors
from tonelake.index.separation.pair_set import PairSet, choose_pairs
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, rows_of

K = 10
QUERIES = 2_000                          # sampled for the agreement
CKA_CLIPS = 5_000                        # sampled for the CKA


def compare(
    lake: Lake, first: str, second: str, column: str | None = None, *, where: str | None = None, across: str | None = None,
    over: str | None = None, within: str | None = None, seed: int = 0,
) -> pl.DataFrame:
    """Return one row per pair of layers: layer_a, layer_b, agreement, cka; with a column also map_a, map_b, gain (b minus a)
    with gain_low and gain_high, span_a, span_b, matrix_span_a, matrix_span_b, over and left_out (what the interval is over, and
    which pairs are left out).

    `across`, `over` and `within`: as in `layers`.  Raises InputError if the two spaces are the same, or share fewer than three
    clips.
    """
    a, b = lake.spaces.get(first), lake.spaces.get(second)
    if a.name == b.name:
        raise InputError(f"{first} is compared with itself. Name two spaces, `tonelake spaces` lists them")
    kept = lake.clips.ids(where)
    ids = lake.vectors(a).ids().filter(lake.vectors(a).ids().is_in(kept.implode()))
    ids = ids.filter(ids.is_in(lake.vectors(b).ids().implode()))
    if len(ids) < 3:
        raise InputError(f"spaces {a.name!r} and {b.name!r} share {len(ids)} clips. Embed the lake into both")
    compared = None
    if column is not None:
        labelled = read_labelled(lake, a, column, where)
        shared = np.flatnonzero(labelled.ids.is_in(ids.implode()).to_numpy())
        compared = choose_pairs(lake, labelled.subset(shared), across=across, over=over, within=within, seed=seed)
    rng = np.random.default_rng(seed)
    queries = np.sort(rng.choice(len(ids), min(QUERIES, len(ids)), replace=False))
    sampled = np.sort(rng.choice(len(ids), min(CKA_CLIPS, len(ids)), replace=False))
    rows = []
    pairs = paired_layers(len(a.layers), len(b.layers))
    for one, other in lake.progress(pairs, len(pairs), f"comparing {a.name} and {b.name}"):
        x, y = (read_unit_vectors(lake, space, layer, ids) for space, layer in ((a, one), (b, other)))
        row: dict[str, Any] = {
            "layer_a": a.layers[one], "layer_b": b.layers[other], "agreement": agreement(x, y, queries),
            "cka": cka(x[sampled], y[sampled]),
        }
        if compared is not None:
            row |= separation_gain(compared, ids, x, y)
        rows.append(row)
    return pl.DataFrame(rows)


def paired_layers(first: int, second: int) -> list[tuple[int, int]]:
    """Pair layers of the same relative depth; each layer of the deeper space occurs once.

    >>> paired_layers(3, 3), paired_layers(3, 5)
    ([(0, 0), (1, 1), (2, 2)], [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)])
    """
    most = max(first, second)
    return [
        (round(i * (first - 1) / max(most - 1, 1)), round(i * (second - 1) / max(most - 1, 1))) for i in range(most)
    ]


def read_unit_vectors(lake: Lake, space: Space, layer: int, ids: pl.Series) -> np.ndarray:
    """Read the (clip, dim) unit vectors of these clips, in their order."""
    all_ids, vectors = lake.vectors(space).layer(layer)
    return unit(vectors[rows_of(all_ids, ids)])


def agreement(first: np.ndarray, second: np.ndarray, queries: np.ndarray) -> float:
    """Return the mean share of common clips among the K nearest of each query row in both spaces."""
    k = min(K, len(first) - 1)
    lists = []
    for vectors in (first, second):
        nearest, _ = nearest_batch(vectors[queries], vectors, k + 1)
        lists.append([row[row != own][:k] for row, own in zip(nearest, queries, strict=True)])
    return float(np.mean([len(np.intersect1d(x, y)) / k for x, y in zip(*lists, strict=True)]))


def cka(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear CKA of (clip, dim) and (clip, other dim) vectors; NaN if all vectors of one space are equal."""
    x, y = (vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64) for vectors in (first, second))
    across = np.linalg.norm(x.T @ y) ** 2
    within = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(across / within) if within > 0 else float("nan")


def separation_gain(pairs: PairSet, ids: pl.Series, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Return both spaces' mAP on the same queries, the difference with its interval, and their spans."""
    rows = rows_of(ids, pairs.labelled.ids)
    a, b = (measure_vectors(vectors[rows], pairs) for vectors in (first, second))
    row: dict[str, Any] = {"map_a": a.estimate("map").value, "map_b": b.estimate("map").value}
    row |= dict(zip(("gain", "gain_low", "gain_high"), gain_of(b, a, "map"), strict=True))
    row |= {"span_a": a.estimate("span").value, "span_b": b.estimate("span").value}
    row |= {f"matrix_span_{n}": one.matrix_span if np.isfinite(one.matrix_span) else None for n, one in (("a", a), ("b", b))}
    return row | {"over": str(pairs.units), "left_out": pairs.left_out}
