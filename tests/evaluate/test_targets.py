"""Known classes: labels outside are dropped from lists, clips outside are left out of single columns, and order is kept."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tonelake.evaluate.targets import READERS_BY_KIND, keep_classes, order_outputs
from tonelake.store import InputError

LISTS = pl.DataFrame({"meters": [["3", "4"], ["5"], [], ["7", "3"], ["7", "x"]]})
NUMBERS = pl.DataFrame({"meter": [3, 5, 7, 3, 11]})


def targets_of(clips, kind, classes):
    column = clips.columns[0]
    kept, notes = keep_classes(clips, column, kind, classes)
    return order_outputs(READERS_BY_KIND[kind](kept, (column,)), classes), notes


def test_labels_outside_the_known_classes_are_dropped_and_their_clips_kept():
    task, notes = targets_of(LISTS, "multilabel", ("7", "3"))
    assert task.names == ("7", "3")
    assert task.targets.tolist() == [[0, 1], [0, 0], [0, 0], [1, 1], [1, 0]]
    assert task.clips["meters"].to_list() == [["3"], [], [], ["7", "3"], ["7"]]          # order within a clip is kept
    assert notes == [
        "3 labels other than 7, 3 are dropped from 3 clips; 1 of these keep no label and count as negatives of every class"
    ]
    assert targets_of(LISTS, "multilabel", ("x", "7", "5", "4", "3"))[1] == []


def test_whole_numbers_in_lists_are_known_by_their_digits():
    numbers = pl.DataFrame({"meters": pl.Series([[3, 4], [11], [5, 3]], dtype=pl.List(pl.Int64))})
    task, notes = targets_of(numbers, "multilabel", ("11", "3"))
    assert task.targets.tolist() == [[0, 1], [1, 0], [0, 1]] and notes[0].startswith("2 labels other than 11, 3")


def test_clips_of_other_classes_are_left_out_of_a_column_of_one_value():
    task, notes = targets_of(NUMBERS, "multiclass", ("7", "3"))
    assert task.names == ("7", "3") and task.targets.tolist() == [1, 0, 1] and task.targets.dtype == np.int64
    assert notes == ["2 clips of classes other than 7, 3 are left out"]


@pytest.mark.parametrize(("kind", "classes", "said"), [
    ("multiclass", ("3", "9"), "class '9': no clip has it in column 'meter'. Leave it out of --classes; the column holds 11"),
    ("multiclass", ("3", "3"), "Name each class once"), ("regression", ("3", "5"), "Give --task multiclass"),
])
def test_classes_that_do_not_fit_are_refused(kind, classes, said):
    with pytest.raises(InputError, match=said):
        targets_of(NUMBERS, kind, classes)
