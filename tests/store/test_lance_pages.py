"""Vectors read from the pages of Lance's files equal those that Lance reads, or are left to Lance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from fakes import FakeEncoder, clip_rows, fill

from tonelake.embed.settings import describe_space
from tonelake.store import Lake, lance_pages
from tonelake.store.vectors import to_matrix

DIMS = (200, 300)                        # Lance packs narrower vectors differently


def wide(lake, dtype="float16", starts=(0, 50, 170)):
    """A lake of 300 clips, most of them embedded in fragments of 120."""
    rows = clip_rows(30, 10)
    lake.clips.add(rows)
    space = replace(describe_space(FakeEncoder(), "wide", 30.0), dtype=dtype, dims=DIMS)
    vectors = lake.vectors(lake.spaces.make(space))
    rng = np.random.default_rng(0)
    for start in starts:
        ids = rows["clip_id"].to_list()[start : start + 120]
        layers = [rng.standard_normal((len(ids), dim)).astype(np.float32) for dim in DIMS]
        vectors.add(ids, layers, [2 * layer for layer in layers], [1] * len(ids))
    return vectors


def by_lance(vectors, column, dtype="float32"):
    return to_matrix(vectors.table.dataset().to_table(columns=[column]).column(column), dtype)


@pytest.mark.parametrize("stored", ["float16", "float32"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_pages_equal_a_scan(lake, stored, dtype, monkeypatch):
    monkeypatch.setattr(lance_pages, "PIECE_BYTES", 7_000)                 # many reads, none of which ends with a page
    monkeypatch.setattr(lance_pages, "CONVERTED_BYTES", 3_000)
    vectors = wide(lake, stored)
    dataset = vectors.table.dataset()
    for column in ("mean_00", "max_01"):
        found = lance_pages.read_column(dataset, column, dtype)
        assert found is not None and found.dtype == dtype
        np.testing.assert_array_equal(found, by_lance(vectors, column, dtype))
        mapped = lance_pages.map_column(dataset, column)
        assert mapped is not None and mapped.shape == found.shape == (len(mapped), found.shape[1])
        rows = np.random.default_rng(0).integers(len(found), size=500)
        for some in (rows, np.sort(rows), rows[:0], slice(100, 250), slice(None)):
            np.testing.assert_array_equal(mapped[some].astype(dtype), found[some])
    ids, values = vectors.layer("high", dtype=dtype)
    np.testing.assert_array_equal(values, by_lance(vectors, "mean_01", dtype))
    many = np.random.default_rng(1).integers(len(ids), size=1_200)         # by mapped files; fewer by Lance
    for rows in (many, many[:50]):
        np.testing.assert_array_equal(vectors.read_rows(vectors.table.snapshot(), rows, 1), by_lance(vectors, "mean_01")[rows])
    maxima = vectors.read(vectors.table.snapshot(), 1, stat="max", dtype=dtype)
    np.testing.assert_array_equal(maxima, by_lance(vectors, "max_01", dtype))
    assert ids.to_list() == vectors.ids().to_list()


def test_a_table_with_deleted_rows_is_left_to_lance(lake):
    vectors = wide(lake)
    before = vectors.layer(1).vectors
    assert lance_pages.read_column(vectors.table.dataset(), "mean_01", "float32") is not None
    deleted = vectors.ids()[3]
    vectors.table.delete(f"clip_id = '{deleted}'")
    assert lance_pages.read_column(vectors.table.dataset(), "mean_01", "float32") is None
    ids, after = vectors.layer(1)
    assert deleted not in ids
    np.testing.assert_array_equal(after, np.delete(before, 3, axis=0))


def test_a_column_with_nulls_is_left_to_lance(tmp_path):
    import lance

    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(800, dtype=np.float16)), 200)
    column = pa.array([[0] * 200, None, [1] * 200], pa.list_(pa.float16(), 200))
    for name, array in (("plain", values), ("nulls", column)):
        dataset = lance.write_dataset(pa.table({"v": array}), tmp_path / name)
        found = lance_pages.read_column(dataset, "v", "float16")
        assert (found is None) == (name == "nulls")


def test_a_file_whose_pages_differ_from_its_description_is_left_to_lance(lake, monkeypatch):
    """As if a later version of Lance laid out the same sizes in another order."""
    dataset = wide(lake).table.dataset()
    plain = lance_pages.Page

    class Shifted(plain):
        def __new__(cls, path, offset, rows):
            return plain.__new__(cls, path, offset + 2, rows)

    monkeypatch.setattr(lance_pages, "_layouts", {})
    monkeypatch.setattr(lance_pages, "Page", Shifted)
    assert lance_pages.read_column(dataset, "mean_01", "float32") is None


def test_an_object_store_is_read_by_lance(s3):
    vectors = wide(Lake(f"{s3}/lake"), starts=(0,))
    assert lance_pages.read_column(vectors.table.dataset(), "mean_01", "float32") is None
    assert vectors.layer(1).vectors.shape == (120, 300)


def test_a_layer_reflects_the_commits_of_other_writers(lake):
    """Ids are cached between reads; they must never be those of an older version."""
    fill(lake, tracks=4, clips_a_track=5, seed=0)
    mine, other = lake.vectors("fake"), Lake(lake.uri)
    first = mine.layer(0)
    victim = first.ids[0]
    other.vectors("fake").table.delete(f"clip_id = '{victim}'")
    assert victim not in mine.layer(0).ids
    layers = [np.full((1, dim), 9, np.float32) for dim in mine.space.dims]
    other.vectors("fake").add([victim], layers, layers, [1])
    again = dict(zip(*mine.layer(0), strict=True))
    assert again[victim][0] == 9
    assert len(again) == 20
    other.clips.table.delete(f"clip_id = '{victim}'")
    assert victim not in mine.layer(0).ids
