"""Cluster a map's points, and find the labels that characterise each cluster.

Clusters by HDBSCAN (Campello et al. 2013) on the points; clips between clusters belong to none (-1).  A label characterises
a cluster if it is more frequent there than elsewhere beyond chance: by the z-score of its log odds ratio, with all clips
as the prior (Monroe et al. 2008, section 3.5.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tonelake.index.log_odds import log_odds
from tonelake.store import descriptive_columns, element_kind, value_rows

SAMPLE = 20_000                          # points that are clustered; every other point joins its nearest sampled point
CORE = 10                                # HDBSCAN's min_samples
MOST_VALUES = 2_000                      # a column with more values names clips rather than kinds of clips
PRIOR_CLIPS = 100                        # pseudo-count of clips drawn from all clips, at most the cluster's size
LEAST_Z = 2.0                            # 95 % confidence
SHOWN_LABELS = 3


def find_clusters(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return (point,) int32 cluster numbers, the largest cluster first; -1 for none."""
    from sklearn.cluster import HDBSCAN

    rows = len(points)
    smallest = max(CORE, min(rows, SAMPLE) // 150)
    if rows < 2 * smallest:
        return np.full(rows, -1, np.int32)
    chosen = np.sort(np.random.default_rng(seed).choice(rows, min(SAMPLE, rows), replace=False))
    found = HDBSCAN(min_cluster_size=smallest, min_samples=CORE, copy=True).fit_predict(points[chosen].astype(np.float64))
    if len(chosen) < rows:
        from scipy.spatial import cKDTree

        found = found[cKDTree(points[chosen]).query(points)[1]]
    sizes = np.bincount(found[found >= 0])
    rank = np.empty(len(sizes) + 1, np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    rank[-1] = -1
    return rank[found]


def describe_clusters(points: np.ndarray, cluster: np.ndarray, clips: pl.DataFrame) -> pl.DataFrame:
    """Return one row per cluster: cluster, clips, x, y (the median point), labels (the most characteristic, as text).

    `clips`: one row per point, with its label columns.
    """
    number = int(cluster.max()) + 1 if len(cluster) else 0
    characteristic: list[list[tuple[float, str]]] = [[] for _ in range(number)]
    for column in descriptive_columns(clips.columns):
        for which, score, text in characteristic_values(clips[column], cluster):
            characteristic[which].append((score, text))
    rows = []
    for which in range(number):
        inside = points[cluster == which]
        x, y = np.median(inside, axis=0)
        best = [text for _, text in sorted(characteristic[which], key=lambda one: (-one[0], one[1]))[:SHOWN_LABELS]]
        rows.append((which, len(inside), float(x), float(y), best))
    schema: dict[str, Any] = {
        "cluster": pl.Int64, "clips": pl.Int64, "x": pl.Float64, "y": pl.Float64, "labels": pl.List(pl.String),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def characteristic_values(values: pl.Series, cluster: np.ndarray) -> list[tuple[int, float, str]]:
    """Return (cluster, z-score, text such as "meter 3/4 (80%)") of the values that characterise a cluster."""
    if element_kind(values.dtype) in ("decimal", "time") or values.null_count() == len(values):
        return []
    clusters = pl.DataFrame({"row": np.arange(len(values)), "cluster": cluster})
    frame = value_rows(values).unique().join(clusters, on="row")
    counts = frame.group_by("value", "cluster").len("inside")
    whole = frame.group_by("value").len("all")
    if not 2 <= len(whole) <= MOST_VALUES:
        return []
    sizes = pl.DataFrame({"cluster": cluster}).group_by("cluster").len("size")
    table = counts.filter(pl.col("cluster") >= 0).join(whole, on="value").join(sizes, on="cluster")
    inside, everywhere, size = (table[name].to_numpy().astype(float) for name in ("inside", "all", "size"))
    total = float(len(values))
    mass = np.minimum(size, PRIOR_CLIPS)
    prior = everywhere / total * mass
    score = log_odds(inside, size, everywhere - inside, total - size, prior, mass)
    table = table.with_columns(score=pl.Series(score), share=pl.Series(inside / size))
    return [
        (row["cluster"], row["score"], f"{values.name} {row['value']} ({row['share']:.0%})")
        for row in table.filter(pl.col("score") > LEAST_Z).to_dicts()
    ]
