"""Say in words how precise a run's main figure is, and what a more precise one would take.

An interval is over the units of the test set (tracks, artists), so more clips of the same artists do not narrow an interval
over artists.  Figures come from metrics.json, of probes on vectors or frames and of fine-tunings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tonelake.evaluate import FEW_UNITS, counted, units_for_share

OVER = re.compile(r"over ([\d,]+) (.+?)(?: in \d+ folds)?(?: and (?:(\d+) )?seeds)?")


def describe_precision(metrics: Mapping[str, Any], split: str | None = None) -> str:
    """Return what the interval of the main figure is over, how wide it is, and how many units would halve it.

    `split`: that of a probe on vectors, as `by:track`, for advice on folds; None for other runs, which have none.
    Empty for runs of earlier releases, which do not say what intervals are over.
    """
    figure = (metrics.get("figures") or {}).get(metrics.get("main")) or {}
    found = OVER.fullmatch(metrics.get("over") or "")
    if not found or figure.get("value") is None:
        return ""
    count, word, seeds = int(found[1].replace(",", "")), found[2], found[0].endswith("seeds")
    low, high = figure.get("low"), figure.get("high")
    if count < 2 or low is None or high is None:
        return (
            f"The test set has {counted(count, word)}, which is too few for an interval. Nothing is known about how far the "
            f"figure would differ on others. {wider_test(split)}"
        )
    needed = units_for_share(count)
    text = (
        f"The interval is {high - low:.2f} wide, over {counted(count, word)} of the test set. One half as wide takes about "
        f"{needed:,} {word}, {needed - count:,} more: {grown(count, needed, split)}."
    )
    if seeds:
        text += " It covers the seeds as well: their part narrows with more seeds only."
    if count < FEW_UNITS:
        text += f" With {counted(count, word)} the width itself is uncertain: test on {FEW_UNITS} or more."
    chance = (metrics.get("baselines") or {}).get("chance", {}).get(metrics["main"], {}).get("value")
    if chance is not None:
        text += (
            f" Chance ({chance:.2f}) is below the interval." if chance < low else
            f" Chance ({chance:.2f}) is within the interval: the run may have learned nothing." if chance <= high else
            f" Chance ({chance:.2f}) is above the interval."
        )
    return text


def grown(count: int, needed: int, split: str | None) -> str:
    """Return how a test set grows from `count` to `needed` units."""
    library = f"with the same split, a library {needed / count:.1f} times as large"
    if split is None or split.startswith("folds:"):
        return library
    return f"{library}; {in_folds(split)} tests every clip of this one"


def wider_test(split: str | None) -> str:
    """Return the advice for a test set that is too small."""
    if split is None or split.startswith("folds:"):
        return "Add labelled songs, and train it again"
    return f"Train it by {in_folds(split)}, which tests every clip, or add labelled songs"


def in_folds(split: str) -> str:
    """Return in words how `wider_split` divides clips.

    >>> in_folds("by:artist"), in_folds("random")
    ('cross-validation in five folds that keep every artist whole', 'cross-validation in five folds')
    """
    column = column_of(split)[1:]
    return "cross-validation in five folds" + (f" that keep every {column} whole" if column else "")


def wider_split(split: str | None) -> str | None:
    """Return the command whose split tests every clip; None if this one does, or for runs that have no folds."""
    if split is None or split.startswith("folds:"):
        return None
    return f"`tonelake probe COLUMN --split folds:5{column_of(split)}`"


def column_of(split: str) -> str:
    """Return the column by which a split keeps groups together, as `folds` takes it.

    >>> column_of("by:artist"), column_of("random"), column_of("column:split+track")
    (':artist', '', ':track')
    """
    kind, _, rest = split.partition(":")
    column = rest if kind == "by" else rest.partition("+")[2] if kind == "column" else ""
    return f":{column}" if column else ""
