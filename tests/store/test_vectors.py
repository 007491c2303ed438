"""Vectors of clips: read back as stored, for the requested clips; wrong widths and values beyond float16 are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill

from tonelake.embed.settings import describe_space
from tonelake.store import InputError, SpaceMismatch, fits


def vectors_for(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((count, dim)).astype(np.float32) for dim in FakeEncoder.dims]


def test_a_layer_is_the_float32_view_of_the_stored_float16(lake):
    rows = clip_rows(2, 2)
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    ids, mean = rows["clip_id"].to_list(), vectors_for(4)
    assert lake.vectors(space).add(ids, mean, [m + 1 for m in mean], [9] * 4) == 4
    for number, name in enumerate(space.layers):
        found = lake.vectors("fake").layer(name)
        assert found.ids.to_list() == ids
        assert found.vectors.dtype == np.float32
        np.testing.assert_array_equal(found.vectors, mean[number].astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(
            lake.vectors().take(ids, number, stat="max").vectors, (mean[number] + 1).astype(np.float16).astype(np.float32)
        )


def test_clips_without_vectors_are_counted(lake):
    rows = clip_rows(2, 3)
    lake.clips.add(rows)
    vectors = lake.vectors(lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0)))
    ids = rows["clip_id"].to_list()
    assert vectors.count_missing() == 6
    for some in (ids[4:], ids[:2], ids[2:4]):
        vectors.add(some, vectors_for(2), vectors_for(2), [9] * 2)
        assert vectors.count_missing() == len(vectors.missing())
    assert vectors.count_missing() == 0
    lake.clips.remove(ids[:1])
    assert vectors.count_missing() == 0
    lake.clips.update(pl.DataFrame({"clip_id": ids[1:2], "state": ["superseded"]}))
    assert vectors.layer(0).ids.to_list() == [clip for clip in vectors.ids() if clip not in ids[:2]]


def test_a_float32_space_keeps_full_precision(lake):
    lake.clips.add(clip_rows(1, 2))
    space = lake.spaces.make(replace(describe_space(FakeEncoder(), "fine", 30.0), dtype="float32"))
    mean = [m * 1e6 for m in vectors_for(2)]
    lake.vectors(space).add(lake.clips.read()["clip_id"].to_list(), mean, mean, [1, 1])
    np.testing.assert_array_equal(lake.vectors(space).layer(1).vectors, mean[1])


def test_lookups_of_many_rows_equal_those_of_few(filled, monkeypatch):
    ids = filled.clips.read()["clip_id"].to_list()[::-2]
    few = filled.vectors().take(ids, "low").vectors
    monkeypatch.setattr("tonelake.store.table_reading.IDS_PER_FILTER", 10)
    np.testing.assert_array_equal(filled.vectors().take(ids, "low").vectors, few)
    assert filled.clips.take(ids, ["year"])["clip_id"].to_list() == ids


def test_filter_and_random_access_give_the_rows_of_those_clips(filled):
    everything = filled.vectors().layer("low")
    row = {clip: i for i, clip in enumerate(everything.ids)}
    some = filled.vectors().layer("low", where="year = 1965 AND start_s < 20")
    assert len(some.ids) == 4
    np.testing.assert_array_equal(some.vectors, everything.vectors[[row[i] for i in some.ids]])
    wanted = [everything.ids[i] for i in (200, 3, 77, 3)]
    taken = filled.vectors().take(wanted, "low")
    assert taken.ids.to_list() == wanted
    np.testing.assert_array_equal(taken.vectors, everything.vectors[[200, 3, 77, 3]])


def test_a_clip_keeps_its_first_vector(lake):
    lake.clips.add(clip_rows(1, 3))
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    ids = lake.clips.read()["clip_id"].to_list()
    first, second = vectors_for(2, 1), vectors_for(3, 2)
    lake.vectors(space).add(ids[:2], first, first, [1, 1])
    assert lake.vectors(space).add(ids, second, second, [1, 1, 1]) == 1
    np.testing.assert_array_equal(lake.vectors(space).layer(0).vectors[:2], first[0].astype(np.float16))


def test_vectors_of_deleted_clips_are_never_returned(lake):
    space = fill(lake, 2, 3, seed=0)
    lake.clips.table.delete("track = 'track001'")
    assert len(lake.vectors(space).layer(0).ids) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 70_000.0])
def test_values_that_float16_cannot_hold_are_refused(lake, bad):
    lake.clips.add(clip_rows(1, 2))
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    mean = vectors_for(2)
    mean[1][1, 2] = bad
    with pytest.raises(InputError, match="layer high of space 'fake': 1 of 2 vectors"):
        lake.vectors(space).add(lake.clips.read()["clip_id"].to_list(), mean, mean, [1, 1])
    assert lake.vectors(space).count() == 0


def test_a_vector_of_the_wrong_width_is_refused(lake):
    lake.clips.add(clip_rows(1, 1))
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    with pytest.raises(SpaceMismatch, match="width 4"):
        lake.vectors(space).add(["a"], [np.zeros((1, 5), np.float32)] * 2, [np.zeros((1, 5), np.float32)] * 2, [1])


def test_the_error_for_clips_that_are_not_embedded_gives_their_number(filled):
    with pytest.raises(InputError, match="space 'fake': 1 of 2 clips are not embedded"):
        filled.vectors().take([filled.clips.read()["clip_id"][0], "ffff"], 0)


def test_values_fit_up_to_the_largest_of_the_type():
    values = np.array([65504.0, -65504.0, 65505.0, np.inf, np.nan, 0.0], np.float32)
    assert fits(values, "float16").tolist() == [True, True, False, False, False, True]
