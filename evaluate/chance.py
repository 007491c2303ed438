"""Expected metrics of guessing, computed exactly: no draws, so no noise.

A guesser names each of C classes with probability 1 / C, or each tag with the share of training clips that have it, and orders
clips at random.  Expectations are over its guesses, for the test clips as they are.
"""

from __future__ import annotations

import numpy as np

from tonelake.evaluate.metrics import safe_divide


def expected_average_precision(relevant: np.ndarray | int, total: int) -> np.ndarray:
    """Return the expected average precision of a random order of `total` clips with `relevant` positives among them.

    ((R - 1) / (N - 1) · (N - H) + H) / N with the harmonic number H of N (Bestgen 2015).  It exceeds R / N, since the
    positive itself counts at its own rank.
    """
    relevant, harmonic = np.asarray(relevant, np.float64), float((1 / np.arange(1, total + 1)).sum())
    return ((relevant - 1) / max(total - 1, 1) * (total - harmonic) + harmonic) / total


def expected_f1(support: np.ndarray, total: int, probability: np.ndarray | float) -> np.ndarray:
    """Return the expected F1 of classes guessed with a probability, independently of the clip; (class,).

    The number of guesses is binomial, and their hits are hypergeometric, so F1 is 2 · guesses · support / total over
    (guesses + support), in expectation over the guesses.
    """
    from scipy import stats  # a third of a second, which short commands do not wait for

    support, probability = np.broadcast_arrays(np.asarray(support, np.float64), np.asarray(probability, np.float64))
    guesses = np.arange(total + 1)[:, None]                                          # (guesses, class)
    chances = stats.binom.pmf(guesses, total, probability[None, :])
    return (chances * safe_divide(2 * guesses * support / total, guesses + support, 0.0)).sum(axis=0)


def chance_metrics(
    kind: str, targets: np.ndarray, outputs: int, *, frequencies: np.ndarray | None = None, credit: np.ndarray | None = None
) -> dict[str, float]:
    """Return the expected metrics of guessing, by the names of `evaluate.metrics`; empty for a regression.

    `frequencies`: (tag,) probability of each tag's guess, for macro-F1 of a multilabel task; `credit`: (true class, predicted
    class) of a task metric, such as MIREX's key scores.
    """
    total = len(targets)
    if kind == "multiclass":
        support = np.bincount(targets, minlength=outputs)
        occurs = (support > 0) & (support < total)
        found = {
            "accuracy": 1 / outputs, "top_5": min(5, outputs) / outputs, "balanced_accuracy": 1 / outputs,
            "map": mean_average_precision(support, total),
        }
        if support.all():                # macro-F1 also covers absent classes, but only if they happen to be guessed
            found["macro_f1"] = float(expected_f1(support, total, 1 / outputs).mean())
        if occurs.any():
            found["roc_auc"] = 0.5
        return found if credit is None else found | {"key_score": float(credit[targets].mean())}
    if kind == "multilabel":
        support = (targets > 0).sum(axis=0)
        found = {"map": mean_average_precision(support, total), "roc_auc": 0.5}
        if frequencies is not None:
            found["macro_f1"] = float(expected_f1(support, total, frequencies).mean())
        return found
    return {}


def mean_average_precision(support: np.ndarray, total: int) -> float:
    """Return the mean of the expected average precision over classes that occur."""
    occurring = support[support > 0]
    return float(expected_average_precision(occurring, total).mean()) if len(occurring) else float("nan")
