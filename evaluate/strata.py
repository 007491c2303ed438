"""Jackknife of figures of two independent sets of units: the tracks of one group and those of another.

Leaving units out one at a time gives the share of the variance that comes from their own set, so the variances of the sets add
up, each from the deviations within its set.  The degrees of freedom follow from both (Satterthwaite 1946): a group of four
tracks beside one of four hundred leaves three of them, and not four hundred.
"""

from __future__ import annotations

import numpy as np

from tonelake.evaluate.jackknife import LEVEL, Replicates
from tonelake.evaluate.multiple import NO_ERROR, MaxT, covariance_factor, draw_bartlett

LEAST_UNITS = 4                          # of a stratum
DRAWS = 1_000                            # of the null distribution: a p-value of .05 to ± .014
MANY_DEGREES = 100                       # from here on a covariance counts as known: t quantile 1.98, at infinity 1.96


def variances_of_strata(left_out: np.ndarray, stratum: np.ndarray, strata: int) -> np.ndarray:
    """Return the (stratum,) variances of one figure for each set, from (unit,) leave-one-out values.

    NaN as `jackknife_variance`.

    `stratum`: (unit,) the number of its set.
    """
    counts = np.bincount(stratum, minlength=strata)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.bincount(stratum, left_out, strata) / counts
        sums = np.bincount(stratum, np.square(left_out - means[stratum]), strata)
        return np.where(counts > 1, (counts - 1) / counts * sums, np.nan)


def stratified(figure: Replicates, strata: np.ndarray | None, *, within: bool = False) -> Replicates:
    """Return a figure whose jackknife error counts only deviations of units from their own stratum; unchanged without strata.

    For tracks of artists that are not drawn again: that some artists' tracks raise the figure and others' lower it is no
    uncertainty, and counting it made intervals of mAP a fifth too wide.  Leaving a track out also takes weight from its artist,
    which the strata keep: deviations grow by the share that is left of all units over that of the stratum, of pairs in figures
    over the pairs `within` a stratum.  Strata of fewer than LEAST_UNITS units form one together.  `strata`: (unit,) int.
    """
    units = len(figure.left_out)
    if strata is None or units < 2:
        return figure
    _, number, counts = np.unique(strata, return_inverse=True, return_counts=True)
    small = counts[number] < LEAST_UNITS
    number = np.where(small, len(counts), number)
    if small.sum() in range(1, LEAST_UNITS):             # too few even together: they join the largest stratum
        number[small] = int(counts.argmax())
    _, number, counts = np.unique(number, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return figure
    left_out = np.asarray(figure.left_out, np.float64)
    sums = np.zeros((len(counts), *left_out.shape[1:]))
    np.add.at(sums, number, left_out)
    shape = (-1, *[1] * (left_out.ndim - 1))
    scale = np.sqrt((counts - 1) / counts * units / (units - 1)) * (1 - 1 / units) / (1 - 1 / counts)
    if within:
        scale *= (1 - 1 / (units - 1)) / (1 - 1 / (counts - 1))
    deviations = left_out - (sums / counts.reshape(shape))[number]
    return Replicates(figure.value, left_out.mean(axis=0) + scale[number].reshape(shape) * deviations)


def interval_of_strata(value: np.ndarray, variances: np.ndarray, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) of 95 % intervals of figures (…) from the (set, …) variances and degrees of freedom of each set."""
    from scipy.special import stdtrit

    total = variances.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = np.square(total) / (np.square(variances) / degrees).sum(axis=0)
        half = np.where(total > 0, stdtrit(joint, (1 + LEVEL) / 2) * np.sqrt(total), np.where(total == 0, 0.0, np.nan))
    return value - half, value + half


def max_t_of_strata(
    values: np.ndarray, shared: np.ndarray, own: np.ndarray, degrees: np.ndarray, *, contenders: int = 100, seed: int = 0
) -> MaxT:
    """Compare (candidate,) figures with the highest, where each candidate has units of its own beside those that all share.

    `shared`: (unit, candidate) leave-one-out values over the shared units; `own`: (candidate,) variances from each candidate's
    own units, with (candidate,) `degrees` of freedom.  As `max_t`, each draw repeats the whole procedure: figures, their
    variances set by set, and the choice of the best.  Only the `contenders` highest candidates are drawn: the lead over lower
    ones is compared with the same draws.  All values must be finite.
    """
    units = len(shared)
    best = int(np.argmax(values))
    lead = values[best] - values
    deviations = (shared - shared.mean(axis=0)) * np.sqrt((units - 1) / units)
    error = np.sqrt(np.square(deviations[:, [best]] - deviations).sum(axis=0) + own[best] + own)
    floor = NO_ERROR * max(float(np.abs(values).max()), np.finfo(float).tiny)
    top = np.argsort(-values, kind="stable")[:contenders]
    drawn = largest_leads(deviations[:, top], own[top], degrees[top], np.random.default_rng(seed))
    studentised = lead / np.maximum(error, floor)
    p_values = (1 + (drawn[None, :] >= studentised[:, None]).sum(axis=1)) / (1 + len(drawn))
    low = lead - np.quantile(drawn, LEVEL) * error
    p_values[best], low[best] = 1.0, 0.0
    return MaxT(best=best, lead=lead, lead_low=low, p_values=p_values, distinguishable=p_values <= 1 - LEVEL)


def largest_leads(
    deviations: np.ndarray, own: np.ndarray, degrees: np.ndarray, rng: np.random.Generator, draws: int = DRAWS
) -> np.ndarray:
    """Return (draw,) largest studentised leads of the best if all candidates are equal; arguments as `max_t_of_strata`."""
    units, number = deviations.shape
    factor = covariance_factor(deviations)
    rank = factor.shape[1]
    # Few shared units leave their covariance uncertain: without this draw, 5 units distinguish equal ones in 11 %.
    heavy = np.sqrt((units - 1) / rng.chisquare(units - 1, (draws, 1)))
    drawn = heavy * (rng.standard_normal((draws, rank)) @ factor.T) + rng.standard_normal((draws, number)) * np.sqrt(own)
    best = drawn.argmax(axis=1)
    guessed = own * rng.chisquare(degrees, (draws, number)) / degrees                # each candidate's variance, as estimated
    apart = factor[best][:, None] - factor                                           # (draw, candidate, rank)
    if rank and units - 1 < MANY_DEGREES:
        apart = apart @ draw_bartlett(rng, draws, rank, units - 1) / np.sqrt(units - 1)
    errors = np.sqrt(np.square(apart).sum(axis=2) + np.take_along_axis(guessed, best[:, None], 1) + guessed)
    lead = drawn.max(axis=1, keepdims=True) - drawn
    return np.divide(lead, errors, out=np.zeros_like(lead), where=errors > 0).max(axis=1)
