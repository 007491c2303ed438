"""Splits: no group is in two sets, labels are balanced, and leaks are reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tonelake.evaluate.splits import leaks, make_splits
from tonelake.evaluate.targets import Targets, read_targets
from tonelake.store import InputError


def task(clips: int = 600, tracks: int = 120, classes: int = 6, kind: str = "multiclass", seed: int = 0, **columns) -> Targets:
    rng = np.random.default_rng(seed)
    track = np.sort(rng.integers(0, tracks, clips))
    label = rng.permutation(np.arange(tracks) % classes)[track]
    frame = pl.DataFrame({
        "clip_id": [f"{i:020x}" for i in range(clips)], "track": [f"t{t}" for t in track],
        "start_s": np.arange(clips) * 20.0, "duration_s": np.full(clips, 10.0), "piece": [f"p{t // 2}" for t in track],
    } | columns)
    if kind == "multilabel":
        targets = (rng.random((tracks, classes)) < 0.3).astype(np.float32)[track]
        names = tuple(f"c{i}" for i in range(classes))
        return Targets(kind=kind, columns=("tags",), names=names, clips=frame, targets=targets, track=track)
    if kind == "regression":
        years = rng.random((clips, 1)).astype(np.float32)
        return Targets(kind=kind, columns=("year",), names=("year",), clips=frame, targets=years, track=track)
    names = tuple(f"c{i}" for i in range(classes))
    return Targets(kind=kind, columns=("label",), names=names, clips=frame, targets=label, track=track)


def sides(split):
    return split.train, split.valid, split.test


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("how", ["random", "by:track", "by:piece", "folds:5", "folds:4:piece"])
def test_every_clip_is_in_one_set_and_no_group_in_two(how, kind):
    given = task(kind=kind)
    splits, _ = make_splits(given, how)
    column = how.rpartition(":")[2]
    for split in splits:
        assert sorted(np.concatenate(sides(split))) == list(range(600))
        if column in ("track", "piece"):
            groups = [set(given.clips[column].gather(rows)) for rows in sides(split)]
            assert not (groups[0] & groups[2] or groups[0] & groups[1] or groups[1] & groups[2])
    if how.startswith("folds"):
        assert sorted(np.concatenate([s.test for s in splits])) == list(range(600))      # each tested once
    else:
        assert [len(rows) / 600 for rows in sides(splits[0])] == pytest.approx([0.7, 0.1, 0.2], abs=0.08)


@pytest.mark.parametrize("how", ["random", "by:track"])
def test_labels_are_balanced_over_the_sets(how):
    given = task(classes=12)
    (split,), _ = make_splits(given, how)
    counts = np.stack([np.bincount(given.targets[rows], minlength=12) / len(rows) for rows in sides(split)])
    whole = np.bincount(given.targets, minlength=12) / 600
    assert np.abs(counts[[0, 2]] - whole).max() < (0.01 if how == "random" else 0.08)
    rare = task(kind="multilabel", classes=20, seed=3)
    (even,), _ = make_splits(rare, "random")
    for rows, share in zip(sides(even), (0.7, 0.1, 0.2), strict=True):
        np.testing.assert_allclose(rare.targets[rows].sum(0), share * rare.targets.sum(0), atol=4)


def test_groups_that_share_a_track_or_a_duplicate_stay_together():
    given = task(same_as=[None] * 600)
    mixed = given.clips.with_columns(
        piece=pl.when(pl.int_range(pl.len()).over("track") == 0).then(pl.lit("p0")).otherwise("piece")     # in all
    )
    broken = replace(given, clips=mixed)
    with pytest.raises(InputError, match="without a common track or duplicate"):
        make_splits(broken, "by:piece")


def test_a_duplicate_is_never_in_both_training_and_test_set(lake):
    from fakes import fill

    fill(lake, tracks=24, clips_a_track=10, seed=1)
    ids = lake.clips.ids()
    twins = pl.DataFrame({"clip_id": [ids[5], ids[195]], "same_as": [ids[5], ids[5]]})      # of tracks 0 and 19
    lake.clips.set_labels(twins)
    given = read_targets(lake, lake.spaces.get(), ["artist"])
    for seed in range(8):
        (split,), _ = make_splits(given, "by:track", seed=seed)
        where = [set(given.ids.gather(rows)) for rows in sides(split)]
        assert any({ids[5], ids[195]} <= side for side in where)
    (split,), _ = make_splits(given, "random", seed=3)
    table = leaks(given, [split])
    assert "duplicate" in table["column"].to_list()


def test_seeds_decide_the_split():
    given = task()
    one, same, other = (make_splits(given, "by:track", seed=seed)[0][0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.test, same.test)
    assert set(one.test) != set(other.test)


def test_a_column_can_define_the_split():
    names = ["train"] * 400 + ["Validation"] * 50 + ["test"] * 100 + [None] * 50
    given = task(part=names)
    (split,), notes = make_splits(given, "column:part")
    assert [len(rows) for rows in sides(split)] == [400, 50, 100]
    assert notes[0].startswith("50 clips without a value in 'part' are left out")
    (split,), notes = make_splits(task(part=["train"] * 400 + ["test"] * 200), "column:part")
    assert len(split.valid) > 20
    assert not set(given.track[split.valid]) & set(given.track[split.train])
    assert "has no valid" in notes[0]
    with pytest.raises(InputError, match="holds maybe, rather"):
        make_splits(task(part=["maybe", "rather"] * 300), "column:part")
    with pytest.raises(InputError, match="the test set is empty"):
        make_splits(task(part=["train"] * 600), "column:part")


@pytest.mark.parametrize("share", [0.05, 0.125, 0.4])
def test_the_validation_share_is_that_of_the_added_clips_or_of_train(share):
    """Clips of the given sides keep them; added clips are divided by whole tracks."""
    track = task().track
    part = pl.Series(np.array(["train", "valid", "test", None, None, None], dtype=object)[track % 6], dtype=pl.String)
    given = task(part=part)
    (split,), notes = make_splits(given, "column:part+track", val_share=share)
    added = part.is_null().to_numpy()
    counts = [int(added[rows].sum()) for rows in sides(split)]
    assert counts[1] / added.sum() == pytest.approx(share, abs=0.02) and counts[2] == 0 and sum(counts) == added.sum()
    assert f"{added.sum()} clips are added to train and valid, whole tracks, {counts[1]} of them to valid" in notes[0]
    assert not set(given.track[split.train]) & set(given.track[split.valid])
    for side, rows in zip(("train", "valid", "test"), sides(split), strict=True):
        assert set(part.gather(rows).drop_nulls()) == {side}
    (split,), _ = make_splits(task(part=["train"] * 400 + ["test"] * 200), "column:part", val_share=share)
    assert len(split.valid) / 400 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("how", "share", "why"), [
    ("column:part", 1.0, "above 0 and below 1"), ("column:part", 0.0, "above 0 and below 1"),
    ("by:track", 0.2, "Use --shares"), ("random", 0.2, "Use --shares"),
])
def test_a_validation_share_is_checked(how, share, why):
    with pytest.raises(InputError, match=why):
        make_splits(task(part=["train"] * 400 + ["test"] * 200), how, val_share=share)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("nonsense", "Choose random, by:COLUMN"), ("by:", "Choose random"), ("random:3", "Choose random"),
        ("folds:2", "K must be 3"), ("folds:x", "K must be 3"), ("by:nowhere", "no column 'nowhere'"),
        ("folds:200:track", "cannot make 200 folds"),
    ],
)
def test_invalid_splits_are_refused(how, why):
    with pytest.raises(InputError, match=why):
        make_splits(task(), how)


def test_too_few_groups_are_reported_with_their_number():
    with pytest.raises(InputError, match=r"by:half: 2 groups without a common track or duplicate cannot fill 3 sets"):
        make_splits(task(half=["a" if row < 300 else "b" for row in np.sort(task().track * 5)]), "by:half")


def test_a_label_with_one_group_cannot_be_split_by_that_group():
    given = task(classes=120)
    with pytest.raises(InputError, match="use --split random"):
        make_splits(given, "by:track")


def test_few_groups_still_leave_a_validation_set():
    """With four tracks a class, no single class can spare a track, but all classes together can."""
    given = task(clips=240, tracks=24, classes=6)
    (split,), _ = make_splits(given, "by:track")
    assert len(split.valid) > 0
    for rows in (split.train, split.test):
        assert set(given.targets[rows]) == set(range(6))


def test_labels_without_training_clips_are_reported():
    labels = np.where(np.arange(600) < 590, np.arange(600) % 3, 3)
    given = task(part=["train"] * 400 + ["valid"] * 50 + ["test"] * 150)
    strange = Targets(
        kind="multiclass", columns=("label",), names=("a", "b", "c", "rare"), clips=given.clips, targets=labels,
        track=given.track,
    )
    _, notes = make_splits(strange, "column:part")
    assert "10 test clips are of 1 label without training clips (rare): these count as wrong" in notes[0]


def test_leaks_count_test_clips_that_share_a_group_with_training():
    given = task(clips=6, tracks=6, classes=2)
    clips = pl.DataFrame({
        "clip_id": list("abcdef"), "track": ["x", "x", "x", "y", "y", "z"], "start_s": [0.0, 5, 30, 0, 10, 0],
        "duration_s": [10.0] * 6, "tune": ["u", "u", None, "v", "w", "v"],
    })
    labelled = replace(given, clips=clips, targets=given.targets[:6], track=np.array([0, 0, 0, 1, 1, 2]))
    from tonelake.evaluate.splits import Split

    split = Split(np.array([0, 3]), np.array([], int), np.array([1, 2, 4, 5]))
    found = {row["column"]: row for row in leaks(labelled, [split]).to_dicts()}
    assert (found["track"]["groups"], found["track"]["clips"]) == (2, 3)
    assert (found["tune"]["groups"], found["tune"]["clips"]) == (2, 2)
    assert found["audio"]["clips"] == 1                      # b overlaps a; e begins where d ends
    assert found["track"]["share"] == 0.75
