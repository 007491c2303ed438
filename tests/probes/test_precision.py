"""How precise a run's figure is, in words, and what a narrower interval takes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from tonelake.evaluate import units_for_share
from tonelake.probes import describe_precision


def metrics(over, low=0.4, high=0.7, chance=0.1):
    return {
        "main": "accuracy", "over": over, "figures": {"accuracy": {"value": 0.55, "low": low, "high": high}},
        "baselines": {"chance": {"accuracy": {"value": chance}}},
    }


@pytest.mark.parametrize("count", [2, 5, 12, 60])
def test_half_the_width_takes_the_smallest_number_of_units_that_the_t_interval_gives(count):
    def width(n):
        return t.ppf(0.975, n - 1) / np.sqrt(n)

    needed = units_for_share(count)
    if needed <= 100:                    # above it, intervals are over 100 folds
        assert width(needed) <= width(count) / 2 < width(needed - 1)
    assert needed <= 4 * count and units_for_share(count, 0.9) <= needed


def test_a_width_that_cannot_be_halved_is_refused():
    for count, share in ((1, 0.5), (3, 0.0), (3, 1.0)):
        with pytest.raises(ValueError, match="must be at least 2"):
            units_for_share(count, share)


def test_the_sentence_names_units_width_and_what_half_of_it_takes():
    text = describe_precision(metrics("over 12 artists"), "by:artist")
    assert text.startswith("The interval is 0.30 wide, over 12 artists of the test set.")
    assert "One half as wide takes about 41 artists, 29 more" in text
    assert "3.4 times as large; cross-validation in five folds that keep every artist whole tests every clip" in text
    assert "Chance (0.10) is below the interval." in text and "uncertain" not in text
    for split in (None, "folds:5"):
        assert "folds" not in describe_precision(metrics("over 12 artists"), split)
    assert "may have learned nothing" in describe_precision(metrics("over 12 artists", chance=0.5))
    assert "1,000 tracks of the test set. One half as wide takes about 4,000" in describe_precision(
        metrics("over 1,000 tracks in 100 folds")
    )


def test_few_units_seeds_and_runs_without_an_interval_are_said():
    assert "With 4 tracks the width itself is uncertain" in describe_precision(metrics("over 4 tracks"))
    for over in ("over 20 tracks and 2 seeds", "over 20 tracks and seeds"):
        assert "It covers the seeds as well" in describe_precision(metrics(over))
    alone = describe_precision(metrics("over 1 artists", low=None, high=None), "by:artist")
    assert alone.startswith("The test set has 1 artist, which is too few for an interval.") and "five folds" in alone
    assert describe_precision(metrics("")) == describe_precision({"main": "accuracy", "figures": {}}) == ""
