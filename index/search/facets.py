"""Facets: what of a sound a search looks at, learned from a label column on stored vectors.

`like meter` searches in the directions by which meters differ: linear discriminant analysis, that is vectors whitened by
their covariance within groups, kept along the directions in which the groups' means lie apart (Fisher 1936; Rao 1948).
`unlike artist` removes the directions by which artists differ: the least change after which no linear classifier can
tell them apart (LEACE: Belrose et al., arXiv 2306.03819).  Both act on centred vectors of unit length.

What a facet is worth is measured on tracks that it was not learned from (`like`, where groups are many: on groups): how
often a pair of clips that share a value is nearer than one that does not (AUC), before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.evaluate import Labelled, read_labelled, sample_pairs
from tonelake.index.search.exact import FlatLayer, keep_layer, version_of
from tonelake.index.vectors import SMALLEST, power, unit
from tonelake.store import InputError, Lake, Space, rows_of

LEARN_ROWS = 50_000                      # drawn where clips are more: 65 for each of 768 dimensions
MANY_GROUPS = 8                          # from here on a facet is judged on groups it was not learned from
MIN_TRACKS = 4                           # two to learn from, two to judge by


@dataclass(frozen=True)
class Facet:
    """A linear map of centred unit vectors, and what it is worth."""

    kind: str                            # like or unlike
    column: str
    centre: np.ndarray                   # (dim,)
    matrix: np.ndarray                   # (dim, directions kept)
    auc_before: float                    # on what was held out; NaN where that was too little
    auc_after: float

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """(row, dim) -> (row, directions kept) float32."""
        return ((vectors - self.centre) @ self.matrix).astype(np.float32)


@dataclass(frozen=True)
class Facets:
    """Several, one after the other: what is left out goes first."""

    steps: tuple[Facet, ...]

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """(row, dim) -> (row, directions kept) float32; vectors of any length."""
        vectors = unit(vectors)
        for step in self.steps:
            vectors = step.apply(vectors)
        return vectors


def load_faceted(
    lake: Lake, space: Space, layer: int, *, like: str | None = None, unlike: str | None = None, stat: str = "mean"
) -> FlatLayer:
    """One layer of every embedded clip as the facets show it, kept like a plain one.  Raises as `learn_facets`."""
    key = (*version_of(lake, space), layer, "cosine", stat, like, unlike)

    def make() -> FlatLayer:
        facets = learn_facets(lake, space, layer, like=like, unlike=unlike, stat=stat)
        ids, vectors = lake.vectors(space).layer(layer, stat=stat)
        return FlatLayer("cosine", ids, unit(facets.apply(vectors)), facets)

    return keep_layer(key, make)


def learn_facets(
    lake: Lake, space: Space, layer: int, *, like: str | None = None, unlike: str | None = None, stat: str = "mean",
    seed: int = 0,
) -> Facets:
    """Learn from the labelled clips of a lake.

    Raises InputError where a column is the same for both, or has too few groups or tracks to learn from and judge by.
    """
    if like is not None and like == unlike:
        raise InputError(f"--like {like} and --unlike {like} cancel each other: name two columns")
    steps: list[Facet] = []
    for kind, column in (("unlike", unlike), ("like", like)):
        if column is not None:
            steps.append(learn_facet(lake, space, layer, kind, column, Facets(tuple(steps)), stat, seed))
    return Facets(tuple(steps))


def learn_facet(
    lake: Lake, space: Space, layer: int, kind: str, column: str, before: Facets, stat: str, seed: int
) -> Facet:
    rng = np.random.default_rng(seed)
    labelled = read_labelled(lake, space, column)
    usable = np.flatnonzero(labelled.tracks_of_groups() >= 2)
    if len(usable) < 2 or len(np.unique(labelled.track)) < MIN_TRACKS:
        raise InputError(
            f"no facet can be learned from {column!r}: it needs two groups with clips of two tracks or more, and has "
            f"{len(usable)}"
        )
    ids, stored = lake.vectors(space).layer(layer, stat=stat, dtype="float16")
    chosen = labelled if len(labelled.ids) <= LEARN_ROWS else labelled.subset(
        np.sort(rng.choice(len(labelled.ids), LEARN_ROWS, replace=False))
    )
    vectors = before.apply(stored[rows_of(ids, chosen.ids)].astype(np.float32))
    centre, matrix = MAPS[kind](vectors, chosen.member)
    return Facet(kind, column, centre, matrix, *score_facet(kind, vectors, chosen, rng))


def score_facet(kind: str, vectors: np.ndarray, labelled: Labelled, rng: np.random.Generator) -> tuple[float, float]:
    """(AUC before, AUC after) of a facet learned from a part of the clips, among the others.

    `like` is judged on other groups where there are many, else, as `unlike` always, on other tracks.  NaN where they allow
    no judgement.
    """
    usable = np.flatnonzero(labelled.tracks_of_groups() >= 2)
    if kind == "like" and len(usable) >= MANY_GROUPS:
        mixed = rng.permutation(usable)
        learn, held = (np.flatnonzero(np.asarray(labelled.member[:, half].sum(axis=1)).ravel() > 0) for half in (
            mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
        ))
        held = np.setdiff1d(held, learn)                 # a clip of several groups may be in both
    else:
        learn, held = split_tracks(labelled, rng)
    others = labelled.subset(held)
    pairs = np.flatnonzero(others.tracks_of_groups() >= 2)
    if not len(pairs) or len(learn) < 2:
        return float("nan"), float("nan")
    centre, matrix = MAPS[kind](vectors[learn], labelled.subset(learn).member)
    first, second, same = sample_pairs(others, pairs, rng)
    seen = vectors[held]
    return auc_of(seen, first, second, same), auc_of((seen - centre) @ matrix, first, second, same)


def split_tracks(labelled: Labelled, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of half of the tracks, and of the other half, so that each group has tracks on both sides where it can."""
    group_of_track = np.full(labelled.track.max() + 1, -1)
    clip, group = labelled.member.nonzero()
    group_of_track[labelled.track[clip]] = group
    side = np.zeros(len(group_of_track), bool)
    for start, one in enumerate(np.unique(group_of_track[group_of_track >= 0])):
        tracks = rng.permutation(np.flatnonzero(group_of_track == one))
        side[tracks[(start + np.arange(len(tracks))) % 2 == 1]] = True       # in turns, and odd ones to either side
    held_out = side[labelled.track]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def auc_of(vectors: np.ndarray, first: np.ndarray, second: np.ndarray, same: np.ndarray) -> float:
    """How often a pair that belongs together has the higher cosine; NaN where all pairs are of one kind."""
    from sklearn.metrics import roc_auc_score

    if same.all() or not same.any():
        return float("nan")
    directions = unit(vectors)
    return float(roc_auc_score(same, (directions[first] * directions[second]).sum(axis=1)))


def discriminant(vectors: np.ndarray, member: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """(centre, matrix) of the directions by which groups differ, each with a variance of one within groups, and weighed
    by how much of its variance is between them.

    Shape: (clip, dim) vectors and (clip, group) membership; the matrix is (dim, directions).
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    vectors = vectors.astype(np.float64)
    centre = vectors.mean(axis=0)
    centred = vectors - centre
    # Shrunk towards a sphere: with fewer clips than dimensions the smallest variances are nothing but chance.
    shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
    covariance = centred.T @ centred / len(centred)
    dim = len(centre)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / dim * np.eye(dim)
    whiten = power(covariance, -0.5)
    share, directions = np.linalg.eigh(between(centred @ whiten, member))
    most = min(member.shape[1] - 1 if member.shape[1] > 1 else 1, dim)
    keep = np.argsort(-share)[:most]
    share, directions = np.clip(share[keep], 0, 0.999), directions[:, keep]
    return centre.astype(np.float32), (whiten @ directions * np.sqrt(share / (1 - share))).astype(np.float32)


def eraser(vectors: np.ndarray, member: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """(centre, matrix) of the least change after which all groups have one mean.

    Where there are more groups than half the dimensions, only the strongest half of the directions are removed.
    """
    vectors = vectors.astype(np.float64)
    centre = vectors.mean(axis=0)
    centred = vectors - centre
    covariance = centred.T @ centred / len(centred)
    whiten, colour = power(covariance, -0.5), power(covariance, 0.5)
    share, directions = np.linalg.eigh(between(centred @ whiten, member))
    strongest = np.argsort(-share)[: max(1, len(centre) // 2)]
    removed = directions[:, strongest[share[strongest] > SMALLEST]]
    return centre.astype(np.float32), (np.eye(len(centre)) - whiten @ removed @ removed.T @ colour).astype(np.float32)


MAPS = {"like": discriminant, "unlike": eraser}


def between(whitened: np.ndarray, member: sparse.csr_array) -> np.ndarray:
    """(dim, dim) scatter of the groups' means: along a direction, the share of its variance that lies between groups."""
    counts = np.maximum(np.asarray(member.sum(axis=0)).ravel(), 1)
    means = (member.T @ whitened) / np.sqrt(counts)[:, None]         # √n × mean
    return means.T @ means / len(whitened)


def facet_report(
    lake: Lake, *, like: str | None = None, unlike: str | None = None, space: str | None = None,
    layers: Sequence[int | str | None] = (), stat: str = "mean",
) -> pl.DataFrame:
    """What facets are worth at some layers, by default at all: layer, facet, column, auc_before, auc_after."""
    if like is None and unlike is None:
        raise InputError("name a label column by --like, --unlike or both")
    chosen = lake.spaces.get(space)
    numbers = [chosen.layer_index(layer) for layer in layers] or list(range(len(chosen.layers)))
    rows = []
    for layer in numbers:
        facets = load_faceted(lake, chosen, layer, like=like, unlike=unlike, stat=stat).facets
        assert facets is not None
        rows += [(chosen.layers[layer], s.kind, s.column, s.auc_before, s.auc_after) for s in facets.steps]
    schema = {
        "layer": pl.String, "facet": pl.String, "column": pl.String, "auc_before": pl.Float64, "auc_after": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("auc_before", "auc_after").fill_nan(None))
