"""Confusions of a run in order."""

from __future__ import annotations

import polars as pl

from tonelake.probes import rank_confusions


def test_confusions_are_ranked_by_clips_then_by_share_without_correct_predictions():
    table = pl.DataFrame({"true": ["a", "b", "c"], "a": [9.0, 2.0, 0.5], "b": [2.0, 0.0, 0.0], "c": [0.0, 2.0, 3.5]})
    found = rank_confusions(table)
    assert found.select("label", "predicted", "clips").rows() == [
        ("b", "a", 2.0), ("b", "c", 2.0), ("a", "b", 2.0), ("c", "a", 0.5)
    ]
    assert found["share"].to_list() == [0.5, 0.5, 2 / 11, 0.125] and found["support"].to_list() == [4, 4, 11, 4]


def test_a_run_without_mistakes_and_a_class_without_clips_have_no_confusions():
    assert rank_confusions(pl.DataFrame({"true": ["a", "b"], "a": [3.0, 0.0], "b": [0.0, 0.0]})).is_empty()
