"""Row numbers of text keys: those of few and of many keys, in any order, equal a dictionary's."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tonelake.store import KeyRows

KEYS = pl.Series([f"{n * 7919 % 100_003:06x}" for n in range(15_000)])
ROW_OF = {key: row for row, key in enumerate(KEYS)}


@pytest.mark.parametrize("count", [3, 500, 14_000])          # one by one, by hash, and in the order of their hashes
def test_rows_of_known_and_unknown_keys(count):
    wanted = [*KEYS.gather(np.random.default_rng(0).permutation(len(KEYS))[:count]), "unknown"]
    assert KeyRows(KEYS).of(wanted).tolist() == [ROW_OF.get(key, -1) for key in wanted]


def test_the_keys_themselves_are_found_in_their_order():
    assert KeyRows(KEYS).of(KEYS.clone()).tolist() == list(range(len(KEYS)))
