"""Parts of a manifest: each changes with what decides the result, and with nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tonelake.evaluate import LEAK_COLUMNS, Split, Targets, digest_text, task_parts
from tonelake.evaluate.manifest import digest, partition

CLIPS = pl.DataFrame({
    "clip_id": list("abcdef"), "start_s": [0.0] * 6, "duration_s": [5.0] * 6, "album": ["x", "x", "y", None, "z", "z"],
    "same_as": [None, None, None, "d", "d", None], "mood": [["up"], ["up", "low"], [], None, ["low"], ["low"]],
    "title": list("uvwxyz"),
})
TASK = Targets(
    kind="multiclass", columns=("genre",), names=("jaz", "rock"), clips=CLIPS, targets=np.array([0, 1, 0, 1, 0, 1]),
    track=np.array([0, 0, 1, 2, 3, 4]),
)
SPLITS = [Split(np.arange(3), np.array([3]), np.array([4, 5]))]


def changed(task=TASK, splits=SPLITS, groups=LEAK_COLUMNS) -> set[str]:
    before, after = task_parts(TASK, SPLITS), task_parts(task, splits, groups)
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def with_column(name: str, values: list) -> Targets:
    return replace(TASK, clips=CLIPS.with_columns(pl.Series(name, values, dtype=CLIPS.schema.get(name))))


@pytest.mark.parametrize(("task", "parts"), [
    (with_column("album", ["x", "x", "y", None, "z", "y"]), {"column album"}),
    (with_column("album", ["A", "A", "B", None, "C", "C"]), set()),          # the albums are renamed, the groups stay
    (with_column("album", [None] * 6), {"column album"}),
    (with_column("artist", list("aabbcc")), {"column artist"}),
    (with_column("same_as", [None, None, None, "e", "e", None]), set()),
    (with_column("same_as", [None, "b", "b", "d", "d", None]), {"duplicates"}),
    (with_column("title", list("tttttt")), set()),
    (with_column("start_s", [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), {"times"}),
    (replace(TASK, names=("jazz", "rock")), {"names"}),
    (replace(TASK, targets=np.array([0, 1, 0, 1, 1, 1])), {"targets"}),
    (replace(TASK, track=np.array([0, 0, 1, 2, 2, 4])), {"songs"}),
    (replace(TASK, track=np.array([7, 7, 3, 4, 2, 0])), set()),              # other numbers of the same songs
])
def test_a_part_changes_with_its_own_data(task, parts):
    assert changed(task) == parts


def test_sides_change_if_a_clip_moves_to_another_set_or_fold():
    for splits in (
        [Split(np.arange(2), np.array([2, 3]), np.array([4, 5]))], [Split(np.arange(4), np.array([], int), np.array([4, 5]))],
        [*SPLITS, *SPLITS],
    ):
        assert changed(splits=splits) == {"sides"}


def test_further_group_columns_are_covered_lists_included():
    assert changed(groups=[*LEAK_COLUMNS, "mood", "absent"]) == {"column mood"}


def test_other_clips_or_their_order_change_the_digest_of_clips():
    assert "clips" in changed(TASK.subset(np.array([1, 0, 2, 3, 4, 5]))) and "clips" in changed(TASK.subset(np.arange(5)))


def test_targets_of_tags_and_numbers_differ_from_those_of_classes():
    tags = replace(TASK, kind="multilabel", targets=np.eye(2, dtype=np.float32)[TASK.targets])
    other = replace(tags, targets=np.ones((6, 2), np.float32))
    numbers = replace(TASK, kind="regression", targets=TASK.targets[:, None].astype(np.float32))
    assert len({task_parts(task, SPLITS)["targets"] for task in (TASK, tags, other, numbers)}) == 4


def test_digests_do_not_depend_on_how_text_is_stored():
    values = pl.Series(["a", "bc", "", "a title that is longer than a view holds inline"] * 3)
    stored = [values, pl.concat([values[:5], values[5:]], rechunk=False), pl.concat([values, values])[12:], values.slice(0)]
    assert len({digest_text(one) for one in stored}) == 1
    assert len({digest_text(pl.Series(one, dtype=pl.String)) for one in (["ab", "c"], ["a", "bc"], ["abc"], [])}) == 4
    assert digest("a", np.arange(3)) != digest("a", np.arange(3.0))
    assert partition(np.array([5, 2, 5])).tolist() == partition(pl.Series(["x", None, "x"]).fill_null("y")).tolist()
