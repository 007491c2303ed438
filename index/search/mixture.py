"""Mixtures of layers: the similarity of two clips at several depths at once.

The score of two clips is the weighted sum of their cosines in each layer; the weights' absolute values sum to one.  Weights
are given, or learned from a label column: the logistic regression with non-negative weights that best separates pairs of
clips of one group from pairs of different groups by their cosines at every layer (scikit-learn's has no bound on signs).
Pairs of one track never count, and the weights are evaluated on held-out groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, rows_of

Weights = dict[int, float]               # by layer number


@dataclass(frozen=True, kw_only=True)
class LearnedWeights:
    """Weights learned from a column, with their AUC on held-out groups."""

    weights: Weights
    column: str
    auc: float                           # of the mixture
    best_layer: int
    best_auc: float                      # of the best single layer, chosen on the training groups

    def __str__(self) -> str:
        return (
            f"weights learned from {self.column}: AUC {self.auc:.3f} on pairs of held-out groups, {self.best_auc:.3f} with the "
            f"best single layer"
        )


def parse_weights(text: str, space: Space) -> Weights:
    """Parse `3:0.5,11:0.5`, `3,7,11` (equal weights) or `all` to weights whose absolute values sum to one.

    `all` means every layer, unless the space has a layer of that name.
    Raises InputError if the text is not such a list, names a layer twice, or has no weight above zero.
    """
    if text.strip() == "all" and "all" not in space.layers:
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
            raise InputError(f"--layers {text}: layer {name.strip()} is named twice. Name each layer once")
        if not np.isfinite(weight):
            raise InputError(f"--layers {text}: {number.strip()!r} is not a number. Write for example 3:0.5,11:0.5")
        weights[layer] = weight
    return normalized(weights, text)


def normalized(weights: Weights, text: str) -> Weights:
    """Scale weights so that their absolute values sum to one, and drop those that are zero."""
    if not np.isfinite(list(weights.values())).all():
        raise InputError(f"--layers {text}: a weight is NaN or infinite. Write for example 3:0.5,11:0.5")
    total = sum(abs(weight) for weight in weights.values())
    if not any(weight > 0 for weight in weights.values()):
        raise InputError(f"--layers {text}: at least one layer needs a weight above zero")
    return {layer: weight / total for layer, weight in weights.items() if weight}


def learn_weights(lake: Lake, column: str, *, space: str | None = None, seed: int = 0) -> LearnedWeights:
    """Learn layer weights under which clips that share a value of `column` are nearer than others.

    Raises InputError if the column has too few groups of two tracks or more.
    """
    from scipy.optimize import minimize
    from sklearn.metrics import roc_auc_score

    from tonelake.evaluate import halve_groups, read_labelled, sample_pairs  # imports scipy

    chosen = lake.spaces.get(space)
    labelled = read_labelled(lake, chosen, column)
    rng = np.random.default_rng(seed)
    halves = halve_groups(labelled, rng)
    pairs = [sample_pairs(labelled, half, rng) for half in halves]
    # Read layer by layer, to hold one layer of all clips in memory at a time.
    cosines: list[list[np.ndarray]] = [[], []]
    for layer in range(len(chosen.layers)):
        ids, vectors = lake.vectors(chosen).layer(layer, dtype="float16")
        rows = rows_of(ids, labelled.ids)
        for half, (first, second, _) in enumerate(pairs):
            a, b = (unit(vectors[rows[side]].astype(np.float32)) for side in (first, second))
            cosines[half].append((a * b).sum(axis=1))
    train, test = (np.stack(half, axis=1).astype(np.float64) for half in cosines)        # (pair, layer)
    same, test_same = pairs[0][2], pairs[1][2]

    centre, spread = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-9)
    inputs, sign = (train - centre) / spread, np.where(same, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = parameters[:-1], parameters[-1]
        margin = sign * (inputs @ weight + bias)
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        ridge = 1e-3 * weight @ weight   # adjacent layers are similar: prefer the most even of equally good weights
        gradient = np.append(inputs.T @ slope / len(sign) + 2e-3 * weight, slope.mean())
        return float(np.logaddexp(0, -margin).mean() + ridge), gradient

    layers = len(chosen.layers)
    start = np.append(np.full(layers, 1 / layers), 0.0)
    bounds = [(0.0, None)] * layers + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1] / spread
    single_auc = [roc_auc_score(same, train[:, layer]) for layer in range(layers)]
    best = int(np.argmax(single_auc))
    if not found.any():                  # no layer separates the groups
        found[best] = 1.0
    share = found / found.sum()
    weights = {layer: float(w) for layer, w in enumerate(share) if w > 1e-4}
    weights = normalized(weights, f"auto:{column}")
    mixed = test[:, list(weights)] @ np.array(list(weights.values()))
    return LearnedWeights(
        weights=weights, column=column, auc=float(roc_auc_score(test_same, mixed)), best_layer=best,
        best_auc=float(roc_auc_score(test_same, test[:, best])),
    )

