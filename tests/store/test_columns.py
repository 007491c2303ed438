"""One rule for the kinds of columns: which columns group clips, and which modules may check a column's type."""

import re
from pathlib import Path

import polars as pl
import pytest
from fakes import clip_rows, fill

from tonelake.evaluate import read_labelled
from tonelake.store import FIXED_COLUMNS, FIXED_GROUP_COLUMNS, SETTABLE_COLUMNS, InputError
from tonelake.store.columns import DTYPES, joined_lists, kind_of, value_rows

ROOT = Path(__file__).parents[2]
ROOMS = ("store", "ingest", "embed", "evaluate", "index", "probes", "finetune", "ui", "tonelake/cli")
TYPE_CHECKS = re.compile(r"\.is_(float|numeric|integer|temporal|nested)\(\)|isinstance\([^)]*pl\.List\)|== pl\.List")


def test_only_the_module_of_columns_looks_at_types_of_columns():
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")] + list((ROOT / "tonelake").glob("*.py"))
    found = [str(file.relative_to(ROOT)) for file in files if TYPE_CHECKS.search(file.read_text(encoding="utf-8"))]
    assert sorted(found) == ["store/columns.py", "store/settings.py"]                # the latter of a Python float


def test_columns_that_labels_may_fill_and_that_group_clips_are_fixed_columns():
    assert set(SETTABLE_COLUMNS) | set(FIXED_GROUP_COLUMNS) <= set(FIXED_COLUMNS)


def test_each_stored_type_has_the_kind_it_is_stored_for():
    assert all(kind_of(dtype if isinstance(dtype, pl.List) else dtype()) == kind for kind, dtype in DTYPES.items())


def test_group_columns_are_those_with_values_that_are_not_decimal_numbers(lake):
    lake.clips.add(clip_rows(2, 2).with_columns(
        tempo=pl.lit(92.5), mood=pl.Series([["calm"]] * 4), scores=pl.Series([[0.5]] * 4), empty=pl.lit(None, pl.String),
    ))
    assert lake.clips.group_columns() == ["artist", "track", "year", "tags", "mood"]
    assert lake.clips.label_columns() == ["year", "tags", "tempo", "mood", "scores", "empty"]


@pytest.mark.parametrize("column", ["tempo", "scores"])
def test_decimal_numbers_are_refused_as_groups_also_in_lists(lake, column):
    space = fill(lake, 2, 2, seed=0)
    values = {"tempo": pl.lit(92.5), "scores": pl.Series([[0.5]] * 4)}
    lake.clips.set_labels(lake.clips.read(["clip_id"]).with_columns(**{column: values[column]}))
    with pytest.raises(InputError, match="holds decimal numbers"):
        read_labelled(lake, space, column)


def test_values_of_lists_keep_their_row():
    found = value_rows(pl.Series([["b", None], [], None, ["a", "b"]]))
    assert found.rows() == [(0, "b"), (3, "a"), (3, "b")]
    assert joined_lists(pl.Series([["b", "a"], []])).to_list() == ["b, a", ""]
