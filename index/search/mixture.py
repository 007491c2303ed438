"""Mixtures of layers: how alike two clips are at several depths at once.

The score of two clips is the weighted sum of their cosines in each layer, of weights that sum to one in size.  Weights
are given, or learned from a label column: the logistic regression, without negative weights, that best tells pairs of
clips of one group from pairs of different groups by their cosines at every layer.  Pairs of one track never count, and
what the weights are worth is measured on groups that they were not learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tonelake.evaluate import read_labelled, sample_pairs, split_groups
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, rows_of

Weights = dict[int, float]               # by number of the layer

@dataclass(frozen=True)
class LearnedWeights:
    """Weights learned from a column, and what they are worth on other groups than they were learned from."""

    weights: Weights
    column: str
    auc: float                           # of the mixture
    best_layer: int
    best_auc: float                      # of the best single layer, chosen on the groups that were learned from

    def __str__(self) -> str:
        return (
            f"weights learned from {self.column}: on groups held out, pairs are told apart with AUC {self.auc:.3f}; "
            f"the best single layer gives {self.best_auc:.3f}"
        )


def parse_weights(text: str, space: Space) -> Weights:
    """`3:0.5,11:0.5`, `3,7,11` (evenly) or `all`, as weights whose sizes sum to one.

    Raises InputError for what is not such a list, names a layer twice or weighs nothing.
    """
    if text.strip() == "all":
        text = ",".join(space.layers)
    weights: Weights = {}
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        layer = space.layer_index(name.strip())
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = np.nan
        if layer in weights:
            raise InputError(f"--layers {text}: layer {name.strip()} stands twice")
        if not np.isfinite(weight):
            raise InputError(f"--layers {text}: {number.strip()!r} is no weight; write for example 3:0.5,11:0.5")
        weights[layer] = weight
    return normalized(weights, text)


def normalized(weights: Weights, text: str) -> Weights:
    """Weights whose sizes sum to one, without those that are zero."""
    total = sum(abs(weight) for weight in weights.values())
    if not any(weight > 0 for weight in weights.values()):
        raise InputError(f"--layers {text}: at least one layer needs a weight above zero")
    return {layer: weight / total for layer, weight in weights.items() if weight}


def learn_weights(lake: Lake, space: Space, column: str, *, stat: str = "mean", seed: int = 0) -> LearnedWeights:
    """Weights of all layers by which clips that share a value of `column` are nearer than others.

    Raises InputError where the column has too few groups of two tracks or more.
    """
    from scipy.optimize import minimize
    from sklearn.metrics import roc_auc_score

    labelled = read_labelled(lake, space, column)
    rng = np.random.default_rng(seed)
    halves = split_groups(labelled, rng)
    pairs = [sample_pairs(labelled, half, rng) for half in halves]
    # Read layer by layer: one layer of all clips is in memory at a time.
    cosines: list[list[np.ndarray]] = [[], []]
    for layer in range(len(space.layers)):
        ids, vectors = lake.vectors(space).layer(layer, stat=stat, dtype="float16")
        rows = rows_of(ids, labelled.ids)
        for half, (first, second, _) in enumerate(pairs):
            a, b = (unit(vectors[rows[side]].astype(np.float32)) for side in (first, second))
            cosines[half].append((a * b).sum(axis=1))
    learn, judge = (np.stack(half, axis=1).astype(np.float64) for half in cosines)       # (pair, layer)
    same, judged = pairs[0][2], pairs[1][2]

    centre, spread = learn.mean(axis=0), np.maximum(learn.std(axis=0), 1e-9)
    inputs, sign = (learn - centre) / spread, np.where(same, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = parameters[:-1], parameters[-1]
        margin = sign * (inputs @ weight + bias)
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        ridge = 1e-3 * weight @ weight   # layers next to each other are alike: among equal answers the most even one
        gradient = np.append(inputs.T @ slope / len(sign) + 2e-3 * weight, slope.mean())
        return float(np.logaddexp(0, -margin).mean() + ridge), gradient

    layers = len(space.layers)
    start = np.append(np.full(layers, 1 / layers), 0.0)
    bounds = [(0.0, None)] * layers + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1] / spread
    singles = [roc_auc_score(same, learn[:, layer]) for layer in range(layers)]
    best = int(np.argmax(singles))
    if not found.any():                  # no layer tells the groups apart
        found[best] = 1.0
    share = found / found.sum()
    weights = {layer: float(w) for layer, w in enumerate(share) if w > 1e-4}
    weights = normalized(weights, f"auto:{column}")
    return LearnedWeights(
        weights, column, float(roc_auc_score(judged, judge[:, list(weights)] @ np.array(list(weights.values())))),
        best, float(roc_auc_score(judged, judge[:, best])),
    )

