"""Cluster a map's points, and find the labels and the name that characterise each cluster.

Clusters by HDBSCAN (Campello et al. 2013) on the points; clips between clusters belong to none (-1).  A label characterises
a cluster if it is more frequent there than elsewhere beyond chance: by the z-score of its log odds ratio, with all clips
as the prior (Monroe et al. 2008, section 3.5.1).  Songs are counted rather than clips, which share their song's labels.

A name tells what a cluster sounds like or who made it: values of columns that name few songs each are ids and left out, numbers
without words too.  A value that holds for less than NAMED_SHARE of the cluster, or would name two, is completed by a second.  A
small cluster without such a value is named by a song in its middle.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tonelake.index.log_odds import log_odds
from tonelake.store import descriptive_columns, element_kind, is_list, value_rows

SAMPLE = 20_000                          # points that are clustered; every other point joins its nearest sampled point
CORE = 10                                # HDBSCAN's min_samples
MOST_VALUES = 2_000                      # a column with more values names clips rather than kinds of clips
PRIOR_CLIPS = 100                        # pseudo-count of clips drawn from all clips, at most the cluster's size
LEAST_Z = 2.0                            # 95 % confidence
SHOWN_LABELS = 3
IDENTIFIER_SHARE = 0.5                   # a column with more distinct values than this share of its songs' values names songs
NAMED_SHARE = 0.6                        # of a cluster's songs: a value of fewer does not name it alone
LEAST_LIFT = 1.5                         # times as frequent as overall: a value that nearly every song has tells little
ALONE_SHARE = 0.5                        # of a cluster's clips: with more from one song, the song's title names it
FEW_SONGS = 20                           # a cluster of more songs is not named by one of them
# Beginnings of names of columns that describe music to a listener.
DESCRIBING = ("genre", "style", "tags", "mood", "instrument", "artist", "album_artist", "key", "meter")
OTHER_WEIGHT = 0.7                       # of the scores of other columns
JOINT = " · "
UNNAMED = ("split", "dataset", "track_number", "fold")               # columns about the data rather than the music
READABLE = re.compile(r"[^\W\d_]|\d/\d|\d{4}s")              # a word, a meter or a decade
YEARS = (1000, 2100)                     # integers that are all within these are years, and named by decades


class Characteristic(NamedTuple):
    """A value that is more frequent in a cluster than elsewhere beyond chance."""

    cluster: int
    score: float                         # z-score
    column: str
    value: str
    share: float                         # of the cluster's songs that have it
    overall: float                       # share of all songs that have it

    def __str__(self) -> str:
        return f"{self.column} {self.value} ({self.share:.0%})"


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


def describe_clusters(
    points: np.ndarray, cluster: np.ndarray, clips: pl.DataFrame, songs: np.ndarray | None = None
) -> pl.DataFrame:
    """Return one row per cluster: cluster, clips, x, y (the median point), labels (those of the name first, then the most
    characteristic, as text) and name.

    `clips`: one row per point, with its label columns and perhaps titles; `songs`: (point,) the song of each, by default one a
    point.
    """
    number = int(cluster.max()) + 1 if len(cluster) else 0
    songs = np.arange(len(cluster)) if songs is None else songs
    characteristic: list[list[Characteristic]] = [[] for _ in range(number)]
    for column in descriptive_columns(clips.columns):
        if not is_identifier(clips[column], songs):
            for found in characteristic_values(clips[column], cluster, songs):
                characteristic[found.cluster].append(found)
    naming = [naming_values(known) for known in characteristic]
    first = [values[0].value if values else None for values in naming]
    rows = []
    for which in range(number):
        inside = np.flatnonzero(cluster == which)
        x, y = np.median(points[inside], axis=0)
        enough = naming[which] and naming[which][0].share >= NAMED_SHARE and first.count(first[which]) == 1
        used = naming[which][:1] if enough else naming[which]
        name = JOINT.join(one.value for one in used) or None
        nearest = inside[np.linalg.norm(points[inside] - (x, y), axis=1).argmin()]
        title = clips["title"][int(nearest)] if "title" in clips.columns else None
        if title and np.unique(songs[inside], return_counts=True)[1].max() > ALONE_SHARE * len(inside):
            name = title
        elif title and name is None and len(np.unique(songs[inside])) <= FEW_SONGS:
            name = f"near {title}"
        others = sorted(characteristic[which], key=lambda one: (-one.score, one.value))
        labels = list(dict.fromkeys(map(str, [*used, *others])))[:SHOWN_LABELS]
        rows.append((which, len(inside), float(x), float(y), labels, name))
    schema: dict[str, Any] = {
        "cluster": pl.Int64, "clips": pl.Int64, "x": pl.Float64, "y": pl.Float64, "labels": pl.List(pl.String),
        "name": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def naming_values(characteristic: list[Characteristic]) -> list[Characteristic]:
    """Return the values that can name a cluster, at most two, the better one first."""
    readable = [
        one for one in characteristic
        if one.column not in UNNAMED and one.share >= LEAST_LIFT * one.overall and READABLE.search(one.value)
    ]
    best = sorted(readable, key=lambda one: (
        -one.score * one.share * (1.0 if one.column.startswith(DESCRIBING) else OTHER_WEIGHT), one.column, one.value
    ))
    other = next((one for one in best[1:] if one.value.lower() not in best[0].value.lower()), None)
    return best[:1] if other is None else [best[0], other]


def is_identifier(values: pl.Series, songs: np.ndarray) -> bool:
    """Whether a column names songs rather than kinds of songs: its values have less than two songs each, on average.

    >>> songs = np.arange(4)
    >>> is_identifier(pl.Series(["a", "b", "c", "c"]), songs), is_identifier(pl.Series(["a", "b", "b", "b"]), songs)
    (True, False)
    """
    if element_kind(values.dtype) == "integer" and are_years(values):
        return False
    frame = value_rows(values)
    pairs = frame.select("value", song=pl.Series(songs[frame["row"].to_numpy()])).unique()
    return pairs["value"].n_unique() > max(IDENTIFIER_SHARE * len(pairs), 1)


def are_years(values: pl.Series) -> bool:
    """Whether a column of whole numbers holds years."""
    known = values.explode().drop_nulls() if is_list(values.dtype) else values.drop_nulls()
    return bool(len(known)) and bool(known.is_between(*YEARS).all())


def characteristic_values(values: pl.Series, cluster: np.ndarray, songs: np.ndarray | None = None) -> list[Characteristic]:
    """Return the values that characterise a cluster; years are counted by decades."""
    if element_kind(values.dtype) in ("decimal", "time") or values.null_count() == len(values):
        return []
    rows = np.arange(len(values))
    pairs = pl.DataFrame({"row": rows, "cluster": cluster, "song": rows if songs is None else songs})
    # A song counts once within a cluster, and a value by the share of the song's clips there that have it.
    units = pairs.group_by("cluster", "song").len("clips")
    frame = value_rows(values)
    if element_kind(values.dtype) == "integer" and are_years(values):
        frame = frame.with_columns(value=pl.format("{}s", pl.col("value") // 10 * 10))
    having = frame.unique().join(pairs, on="row").group_by("value", "cluster", "song").len("having")
    shares = having.join(units, on=["cluster", "song"]).with_columns(share=pl.col("having") / pl.col("clips"))
    counts = shares.group_by("value", "cluster").agg(inside=pl.col("share").sum())
    whole = counts.group_by("value").agg(all=pl.col("inside").sum())
    if not 2 <= len(whole) <= MOST_VALUES:
        return []
    sizes = units.group_by("cluster").len("size")
    table = counts.filter(pl.col("cluster") >= 0).join(whole, on="value").join(sizes, on="cluster")
    inside, everywhere, size = (table[name].to_numpy().astype(float) for name in ("inside", "all", "size"))
    total = float(len(units))
    mass = np.minimum(size, PRIOR_CLIPS)
    prior = everywhere / total * mass
    score = log_odds(inside, size, everywhere - inside, total - size, prior, mass)
    table = table.with_columns(score=pl.Series(score), share=pl.Series(inside / size), overall=pl.Series(everywhere / total))
    return [
        Characteristic(
            cluster=row["cluster"], score=row["score"], column=values.name, value=str(row["value"]), share=row["share"],
            overall=row["overall"],
        )
        for row in table.filter(pl.col("score") > LEAST_Z).to_dicts()
    ]
