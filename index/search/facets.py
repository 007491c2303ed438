"""Facets: directions of a layer that a search uses or ignores, learned from a label column on stored vectors.

`like meter` searches in the directions along which meters differ: linear discriminant analysis, that is, vectors whitened
by their covariance within groups and projected on the directions that separate the groups' means (Fisher 1936; Rao 1948).
`unlike artist` removes the directions along which artists differ: the smallest change after which no linear classifier can
separate them (LEACE: Belrose et al., arXiv 2306.03819).  Both act on centred vectors of unit length.  Not scikit-learn's
LDA: it takes one class a clip, where a column of lists has several, and does not weight its directions.

The value of a facet is measured on held-out tracks (`like` with many groups: on held-out groups), as the probability that a
pair of clips with the same value is nearer than a pair with different values (AUC), before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.evaluate import Labelled, read_labelled, sample_pairs
from tonelake.index.search.exact import ExactLayer, cache_version, cached_layer
from tonelake.index.vectors import SMALLEST, power, unit
from tonelake.store import InputError, Lake, Space, rows_of

LEARN_ROWS = 50_000                      # sampled from larger sets: 65 rows for each of 768 dimensions
MANY_GROUPS = 8                          # from this number on, a `like` facet is evaluated on held-out groups
MIN_TRACKS = 4                           # two to learn from, two to evaluate on


@dataclass(frozen=True, kw_only=True)
class Facet:
    """A linear map of centred unit vectors, with its held-out AUC."""

    kind: str                            # like or unlike
    column: str
    centre: np.ndarray                   # (dim,)
    matrix: np.ndarray                   # (dim, direction)
    auc_before: float                    # on held-out tracks or groups; NaN if they were too few
    auc_after: float

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Map (row, dim) vectors to (row, direction) float32."""
        return ((vectors - self.centre) @ self.matrix).astype(np.float32)


@dataclass(frozen=True)
class Facets:
    """Facets applied in sequence, `unlike` before `like`."""

    steps: tuple[Facet, ...]

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Map (row, dim) vectors of any length to (row, direction) float32."""
        vectors = unit(vectors)
        for step in self.steps:
            vectors = step.apply(vectors)
        return vectors


@dataclass(frozen=True)
class FacetedLayer(ExactLayer):
    """A layer whose vectors, and every query, are mapped by facets."""

    facets: Facets

    def prepare_query(self, query: np.ndarray) -> np.ndarray:
        return unit(self.facets.apply(query[None]))[0]


def load_faceted(
    lake: Lake, space: Space, layer: int, *, like: str | None = None, unlike: str | None = None
) -> FacetedLayer:
    """Return one layer of every embedded clip mapped by facets, cached as plain layers are.  Raises as `learn_facets`."""
    def make() -> FacetedLayer:
        facets = learn_facets(lake, space, layer, like=like, unlike=unlike)
        ids, vectors = lake.vectors(space).layer(layer)
        return FacetedLayer("cosine", ids, unit(facets.apply(vectors)), facets)

    found = cached_layer((*cache_version(lake, space), layer, "cosine", like, unlike), make)
    assert isinstance(found, FacetedLayer)
    return found


def learn_facets(
    lake: Lake, space: Space, layer: int, *, like: str | None = None, unlike: str | None = None, seed: int = 0
) -> Facets:
    """Learn facets from the labelled clips of a lake.

    Raises InputError if both columns are the same, or if one has too few groups or tracks to learn from and evaluate on.
    """
    if like is not None and like == unlike:
        raise InputError(f"--like {like} and --unlike {like} cancel each other: name two columns")
    steps: list[Facet] = []
    for kind, column in (("unlike", unlike), ("like", like)):
        if column is not None:
            steps.append(learn_facet(lake, space, layer, kind, column, Facets(tuple(steps)), seed))
    return Facets(tuple(steps))


def learn_facet(lake: Lake, space: Space, layer: int, kind: str, column: str, before: Facets, seed: int) -> Facet:
    """Learn one facet on vectors that the facets `before` have mapped already."""
    rng = np.random.default_rng(seed)
    labelled = read_labelled(lake, space, column)
    usable = np.flatnonzero(labelled.tracks_of_groups() >= 2)
    if len(usable) < 2 or len(np.unique(labelled.track)) < MIN_TRACKS:
        raise InputError(
            f"column {column!r}: a facet needs two groups with clips of two tracks or more, and there are {len(usable)}. "
            "Choose another column"
        )
    ids, stored = lake.vectors(space).layer(layer, dtype="float16")
    chosen = labelled if len(labelled.ids) <= LEARN_ROWS else labelled.subset(
        np.sort(rng.choice(len(labelled.ids), LEARN_ROWS, replace=False))
    )
    vectors = before.apply(stored[rows_of(ids, chosen.ids)].astype(np.float32))
    centre, matrix = FITS[kind](vectors, chosen.member)
    auc_before, auc_after = evaluate_facet(kind, vectors, chosen, rng)
    return Facet(kind=kind, column=column, centre=centre, matrix=matrix, auc_before=auc_before, auc_after=auc_after)


def evaluate_facet(kind: str, vectors: np.ndarray, labelled: Labelled, rng: np.random.Generator) -> tuple[float, float]:
    """Learn a facet from half of the clips; return its AUC on the others, before and after.

    `like` is evaluated on held-out groups if there are MANY_GROUPS, else, as `unlike` always, on held-out tracks.  NaN if
    the held-out clips have no two tracks of one group.
    """
    usable = np.flatnonzero(labelled.tracks_of_groups() >= 2)
    if kind == "like" and len(usable) >= MANY_GROUPS:
        mixed = rng.permutation(usable)
        learn, held = (np.flatnonzero(np.asarray(labelled.member[:, half].sum(axis=1)).ravel() > 0) for half in (
            mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
        ))
        held = np.setdiff1d(held, learn)                 # a clip with several groups may be in both halves
    else:
        learn, held = split_tracks(labelled, rng)
    others = labelled.subset(held)
    pairs = np.flatnonzero(others.tracks_of_groups() >= 2)
    if not len(pairs) or len(learn) < 2:
        return float("nan"), float("nan")
    centre, matrix = FITS[kind](vectors[learn], labelled.subset(learn).member)
    first, second, same = sample_pairs(others, pairs, rng)
    plain = vectors[held]
    return pair_auc(plain, first, second, same), pair_auc((plain - centre) @ matrix, first, second, same)


def split_tracks(labelled: Labelled, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of half of the tracks and rows of the other half; groups of two or more tracks are in both."""
    group_of_track = np.full(labelled.track.max() + 1, -1)
    clip, group = labelled.member.nonzero()
    group_of_track[labelled.track[clip]] = group
    side = np.zeros(len(group_of_track), bool)
    for start, one in enumerate(np.unique(group_of_track[group_of_track >= 0])):
        tracks = rng.permutation(np.flatnonzero(group_of_track == one))
        side[tracks[(start + np.arange(len(tracks))) % 2 == 1]] = True       # alternating, with the odd track to either
    held_out = side[labelled.track]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def pair_auc(vectors: np.ndarray, first: np.ndarray, second: np.ndarray, same: np.ndarray) -> float:
    """Return the ROC AUC of telling pairs of one group from others by cosine; NaN if all pairs are of one kind."""
    from sklearn.metrics import roc_auc_score

    if same.all() or not same.any():
        return float("nan")
    directions = unit(vectors)
    return float(roc_auc_score(same, (directions[first] * directions[second]).sum(axis=1)))


def discriminant(vectors: np.ndarray, member: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return (centre, matrix) of the directions along which groups differ, scaled to unit variance within groups and
    weighted by the share of their variance between groups.

    Shapes: (clip, dim) vectors and (clip, group) membership; the matrix is (dim, direction).
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    vectors = vectors.astype(np.float64)
    centre = vectors.mean(axis=0)
    centred = vectors - centre
    # Shrink towards a sphere: with fewer clips than dimensions, the smallest variances are noise.
    shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
    covariance = centred.T @ centred / len(centred)
    dim = len(centre)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / dim * np.eye(dim)
    whiten = power(covariance, -0.5)
    share, directions = np.linalg.eigh(group_scatter(centred @ whiten, member))
    most = min(member.shape[1] - 1 if member.shape[1] > 1 else 1, dim)
    keep = np.argsort(-share)[:most]
    share, directions = np.clip(share[keep], 0, 0.999), directions[:, keep]
    return centre.astype(np.float32), (whiten @ directions * np.sqrt(share / (1 - share))).astype(np.float32)


def eraser(vectors: np.ndarray, member: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return (centre, matrix) of the smallest change after which all groups have the same mean.

    With more groups than half the dimensions, only the strongest half of the directions is removed.
    """
    vectors = vectors.astype(np.float64)
    centre = vectors.mean(axis=0)
    centred = vectors - centre
    covariance = centred.T @ centred / len(centred)
    whiten, colour = power(covariance, -0.5), power(covariance, 0.5)
    share, directions = np.linalg.eigh(group_scatter(centred @ whiten, member))
    strongest = np.argsort(-share)[: max(1, len(centre) // 2)]
    removed = directions[:, strongest[share[strongest] > SMALLEST]]
    return centre.astype(np.float32), (np.eye(len(centre)) - whiten @ removed @ removed.T @ colour).astype(np.float32)


FITS = {"like": discriminant, "unlike": eraser}


def group_scatter(whitened: np.ndarray, member: sparse.csr_array) -> np.ndarray:
    """Return the (dim, dim) scatter of the groups' means: per direction, the share of its variance between groups."""
    counts = np.maximum(np.asarray(member.sum(axis=0)).ravel(), 1)
    means = (member.T @ whitened) / np.sqrt(counts)[:, None]         # √n × mean
    return means.T @ means / len(whitened)


def facet_report(
    lake: Lake, *, like: str | None = None, unlike: str | None = None, space: str | None = None,
    layers: Sequence[int | str | None] = (),
) -> pl.DataFrame:
    """Evaluate facets at the given layers, by default at all: layer, facet, column, auc_before, auc_after.

    Raises InputError if neither `like` nor `unlike` is given.
    """
    if like is None and unlike is None:
        raise InputError("facets: no label column given. Name one by --like, --unlike or both")
    chosen = lake.spaces.get(space)
    numbers = [chosen.layer_index(layer) for layer in layers] or list(range(len(chosen.layers)))
    rows = []
    for layer in numbers:
        facets = load_faceted(lake, chosen, layer, like=like, unlike=unlike).facets
        rows += [(chosen.layers[layer], s.kind, s.column, s.auc_before, s.auc_after) for s in facets.steps]
    schema = {
        "layer": pl.String, "facet": pl.String, "column": pl.String, "auc_before": pl.Float64, "auc_after": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("auc_before", "auc_after").fill_nan(None))
