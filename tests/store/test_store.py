"""The lake: data are read back as written, by tonelake and by plain LanceDB; nothing is duplicated, lost or mixed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill

from tonelake.embed.settings import describe_space
from tonelake.store import (
    Added,
    ClipNotFound,
    Failure,
    FilterError,
    InputError,
    Lake,
    LakeError,
    SpaceMismatch,
    SpaceNotFound,
    failure_id,
)

HOME = Path(__file__).resolve().parents[2]


# -- clips


def test_adding_clips_again_changes_nothing(lake):
    rows = clip_rows(2, 3)
    assert lake.clips.add(rows) == Added(new=6)
    before, version = lake.clips.read(), lake.clips.table.version
    assert lake.clips.add(rows) == Added(known=6)
    assert lake.clips.read().equals(before)
    assert lake.clips.table.version == version


def test_clips_are_read_in_the_order_they_were_added_whatever_was_updated(lake):
    rows = clip_rows(8, 5)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    for part in rows.iter_slices(10):
        lake.clips.add(part)
    ids = rows["clip_id"].to_list()
    lake.clips.update(pl.DataFrame({"clip_id": ids[20:2:-3], "year": [1990] * 6}))
    lake.clips.set_labels(pl.DataFrame({"clip_id": ids[7::4], "mood": ["calm"] * 9}))
    lake.clips.remove([ids[4], ids[35]])
    lake.clips.table.compact()
    lake.clips.set_flag([ids[11]], "silent")
    lake.clips.update(pl.DataFrame({"clip_id": [ids[6]], "state": ["superseded"]}))
    lake.clips.add(rows[4:5])                            # one that was removed comes back as the newest
    expected = [clip for clip in ids if clip not in (ids[4], ids[35], ids[6])] + [ids[4]]
    for clips in (lake.clips, Lake(lake.uri).clips):
        assert clips.read()["clip_id"].to_list() == clips.ids().to_list() == expected
        assert clips.read(["track"])["track"].to_list() == clips.take(expected, ["track"])["track"].to_list()
        assert "_rowid" not in clips.read(superseded=True).columns
        calm = [clip for clip in expected if clip in ids[7::4]]
        assert clips.ids("mood = 'calm'").to_list() == calm == clips.read(where="mood = 'calm'")["clip_id"].to_list()
    assert lake.clips.ids(superseded=True).to_list() == [clip for clip in ids if clip not in (ids[4], ids[35])] + [ids[4]]


def test_many_clips_are_stored_in_one_commit(lake):
    """If killed between two commits, part of a file's clips would be stored and mistaken for all of them."""
    lake.clips.add(clip_rows(1, 1))
    before = lake.clips.table.version
    assert lake.clips.add(clip_rows(60, 100)) == Added(new=5_999, known=1)
    assert lake.clips.table.version == before + 1


def test_labels_can_come_later_and_do_not_wipe_others(lake):
    rows = clip_rows(2, 2)
    lake.clips.add(rows.drop("year", "tags"))
    assert lake.clips.add(rows.select(*REQUIRED, "year")) == Added(changed=4)
    assert lake.clips.add(rows.select(*REQUIRED, mood=pl.lit("calm"))) == Added(changed=4)
    read = lake.clips.read()
    assert read["year"].to_list() == [1960, 1960, 1961, 1961]
    assert read["mood"].to_list() == ["calm"] * 4
    assert read["artist"].to_list() == ["Artist 0"] * 4


REQUIRED = ("clip_id", "track", "source", "digest", "start_s", "duration_s")


def test_a_label_that_does_not_fit_its_column_is_refused_before_anything_is_written(lake):
    rows = clip_rows(2, 1)
    lake.clips.add(rows)
    for wrong in ("long ago", 1960.5):
        with pytest.raises(InputError, match="'year': stored as Int64"):
            lake.clips.add(clip_rows(3, 1).with_columns(year=pl.lit(wrong)))
    assert lake.clips.count() == 2


@pytest.mark.parametrize("name", ["a.b", "Year", "x y", "", "drop table"])
def test_a_column_name_that_sql_would_misread_is_refused(lake, name):
    with pytest.raises(InputError, match="not a valid name"):
        lake.clips.add(clip_rows(1, 1).with_columns(pl.lit(1).alias(name)))


def test_column_names_can_be_in_any_language(lake):
    lake.clips.add(clip_rows(2, 1).with_columns(künstler=pl.Series(["Ä", "Ö"]), 作曲家=pl.Series(["武満", None])))
    assert lake.clips.read(["track"], where="künstler = 'Ö'")["track"].to_list() == ["track001"]
    assert lake.clips.read(["track"], where="作曲家 = '武満'")["track"].to_list() == ["track000"]


def test_lists_and_numbers_are_stored_unchanged(lake):
    rows = clip_rows(3, 1)
    lake.clips.add(rows)
    assert lake.clips.read(["tags"])["tags"].to_list() == rows["tags"].to_list()
    assert lake.clips.read(where="array_has(tags, 'odd')")["track"].to_list() == ["track001"]
    assert lake.clips.read(where="year >= 1961")["year"].to_list() == [1961, 1962]


def test_nan_in_a_label_is_an_empty_value(lake):
    """Stored as it is, it would be above every number in a filter."""
    lake.clips.add(clip_rows(3, 1).with_columns(tempo=pl.Series([float("nan"), 99.5, 120.0])))
    assert lake.clips.read(["track"], where="tempo > 100")["track"].to_list() == ["track002"]
    assert lake.clips.count("tempo IS NULL") == 1
    ids = lake.clips.ids().to_list()
    lake.clips.set_labels(pl.DataFrame({"clip_id": ids, "tempo": [90.0, float("nan"), None]}))
    assert lake.clips.read(["tempo"])["tempo"].to_list() == [90.0, 99.5, 120.0]
    values = {"clip_id": ids, "tempo": [float("nan"), 1.0, 2.0], "onsets": [[1.0, float("nan")], [], None]}
    lake.clips.update(pl.DataFrame(values))
    assert lake.clips.read(["tempo", "onsets"]).rows() == [(None, [1.0]), (1.0, []), (2.0, None)]
    for wrong in (float("nan"), float("inf"), None, 0.0):
        with pytest.raises(InputError, match="no positive duration_s"):
            lake.clips.add(clip_rows(4, 1).with_columns(duration_s=pl.lit(wrong, pl.Float64)))


def test_the_same_audio_under_another_path_is_a_copy_and_a_moved_file_is_followed(lake, tmp_path):
    (tmp_path / "old.wav").write_bytes(b"")
    rows = clip_rows(1, 1).with_columns(source=pl.lit(str(tmp_path / "old.wav")))
    moved = rows.with_columns(source=pl.lit(str(tmp_path / "new.wav")))
    lake.clips.add(rows)
    assert lake.clips.add(moved) == Added(copies=1)
    assert lake.clips.read()["source"].item() == str(tmp_path / "old.wav")
    (tmp_path / "old.wav").unlink()
    assert lake.clips.add(moved) == Added(changed=1)
    assert lake.clips.read()["source"].item() == str(tmp_path / "new.wav")


@pytest.mark.parametrize(
    "where", ["nonsense ==", "no_column = 3", "1; DROP TABLE clips", "artist", "year = 'x'", "", "true; false"]
)
def test_an_invalid_filter_is_named_and_changes_nothing(lake, where):
    lake.clips.add(clip_rows(1, 2))
    with pytest.raises(FilterError) as info:
        lake.clips.read(where=where)
    assert repr(where) in str(info.value)
    assert "/rust/" not in str(info.value)
    assert lake.clips.count() == 2


def test_a_filter_is_checked_in_an_empty_lake_too(lake):
    assert len(lake.clips.read(where="artist = 'X'")) == lake.clips.count("\"artist\" = 'X'") == 0
    for wrong in ('"nope" = 1', 'artist = "X"', "1; x", ""):
        with pytest.raises(FilterError):
            lake.clips.read(where=wrong)


def test_the_error_for_an_invalid_filter_names_the_remedy(lake):
    lake.clips.add(clip_rows(1, 2).with_columns(tags=pl.Series([["low", "odd"]] * 2)))
    assert len(lake.clips.read(where="array_has(tags, 'low')")) == 2
    with pytest.raises(FilterError, match=r"cannot be used \(a column of lists has no single value; write array_has\(COLUMN"):
        lake.clips.read(where="tags = 'low'")
    with pytest.raises(FilterError, match=r"No field named no_column\)\. Columns are clip_id, "):
        lake.clips.read(where="no_column = 3")


def test_a_quote_in_a_value_is_text(lake):
    lake.clips.add(clip_rows(1, 1).with_columns(artist=pl.lit("Guns N' Roses; x")))
    assert len(lake.clips.read(where="artist = 'Guns N'' Roses; x'")) == 1


def test_a_clip_is_found_by_the_first_digits_of_its_id_if_they_are_unique(lake):
    lake.clips.add(clip_rows(2, 1))
    assert lake.clips.find(f"{1000:020x}")["track"] == "track001"
    with pytest.raises(ClipNotFound, match="2 ids begin with it"):
        lake.clips.find("0000")
    for wrong in ("ffff", "x' OR '1'='1", "ab%"):
        with pytest.raises(ClipNotFound):
            lake.clips.find(wrong)


def test_take_keeps_the_order_of_the_ids(lake):
    lake.clips.add(clip_rows(3, 2))
    ids = lake.clips.read()["clip_id"].to_list()[::-1]
    assert lake.clips.take([*ids, "unknown"], ["track"])["clip_id"].to_list() == ids


@pytest.mark.parametrize("known", [30, 1_500])
def test_of_many_ids_those_in_the_lake_are_taken(lake, known):
    """`Table.take` compares more than 10,000 ids with the whole column; few rows are then taken one by one, many read."""
    assert not len(lake.clips.table.take([f"{n:020x}" for n in range(10_001)]))
    lake.clips.add(clip_rows(200, 10))
    ids = lake.clips.ids().to_list()[-known:][::-1]
    found = lake.clips.take([*ids, *(f"f{n:019x}" for n in range(10_001))], ["start_s"])
    stored = lake.clips.read(["clip_id", "start_s"])
    assert found.equals(stored.filter(pl.col("clip_id").is_in(ids)).reverse())


# -- all tables


def test_plain_lancedb_reads_every_table(filled):
    filled.failures.record([Failure("ingest", "x.mp3", "broken")])
    database = lancedb.connect(filled.uri)
    tables = set(database.list_tables().tables) - {"names"}          # made if a test has searched this lake by name
    assert tables == {"clips", "emb_fake", "failures"}
    assert database.open_table("clips").count_rows("artist = 'Artist 2'") == 40
    row = database.open_table("emb_fake").search().limit(1).to_list()[0]
    assert len(row["mean_00"]) == 4
    assert len(row["max_01"]) == 6
    nearest = database.open_table("emb_fake").search(
        filled.vectors().layer(1).vectors[0], vector_column_name="mean_01").limit(1).to_list()[0]
    assert nearest["clip_id"] == filled.vectors().layer(1).ids[0]
    assert database.open_table("failures").count_rows() == 1


@pytest.mark.slow
def test_two_writers_at_once_store_each_clip_once(tmp_path):
    """Two processes add the same clips and vectors in small commits at the same time."""
    code = f"""
import sys; sys.path[:0] = [{str(HOME)!r}, {str(HOME / 'tests/support')!r}]
import numpy as np
from tonelake.store import Lake
from fakes import FakeEncoder, clip_rows
from tonelake.embed.settings import describe_space
lake = Lake(sys.argv[1])
rows = clip_rows(6, 10)
print('ready', flush=True); sys.stdin.readline()
space = lake.spaces.make(describe_space(FakeEncoder(), 'fake', 30.0))
ids = rows['clip_id'].to_list()
new = stored = 0
for i in range(0, 60, 10):
    new += lake.clips.add(rows[i:i + 10]).new
    layers = [np.full((10, d), i, np.float32) for d in space.dims]
    stored += lake.vectors(space).add(ids[i:i + 10], layers, layers, [1] * 10)
print(new, stored)
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "lake")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    counts = [tuple(map(int, writer.communicate(timeout=120)[0].split())) for writer in writers]
    assert tuple(map(sum, zip(*counts, strict=True))) == (60, 60)
    lake = Lake(tmp_path / "lake")
    assert sorted(lake.clips.read()["clip_id"]) == sorted(clip_rows(6, 10)["clip_id"])
    assert lake.vectors("fake").ids().n_unique() == lake.vectors("fake").count() == 60


def test_a_commit_is_repeated_after_a_conflict(lake, monkeypatch):
    lake.clips.add(clip_rows(1, 1))
    waits: list[float] = []
    monkeypatch.setattr("tonelake.store.table.time.sleep", waits.append)
    tried = 0

    def write(conflicts: int) -> str:
        nonlocal tried
        tried += 1
        if tried <= conflicts:
            raise RuntimeError("lance error: Retryable commit conflict for version 7, /rust/src/x.rs:1:2")
        return "stored"

    assert lake.clips.table.commit(lambda: write(7)) == "stored"
    assert tried == len(waits) + 1 == 8 and sum(waits) < 15
    tried = 0
    with pytest.raises(LakeError, match=r"cannot be written \(Retryable commit conflict for version 7\)\. Nothing of this"):
        lake.clips.table.commit(lambda: write(8))
    assert tried == 8


def test_a_full_disk_is_reported_and_the_commit_not_repeated(lake):
    tried = []

    def write() -> None:
        tried.append(1)
        raise OSError("lance error: LanceError(IO): No space left on device (os error 28), /rust/src/x.rs:1:2")

    with pytest.raises(LakeError, match=r"\(LanceError\(IO\): No space left on device \(os error 28\)\)\. Free some space"):
        lake.clips.table.commit(write)
    assert tried == [1]


# -- spaces


def test_a_space_is_its_content_not_its_name(lake):
    space = describe_space(FakeEncoder(), "one", 30.0)
    assert space.fingerprint == describe_space(FakeEncoder(), "one", 30.0).fingerprint
    assert space.fingerprint != describe_space(FakeEncoder(), "one", 5.0).fingerprint
    lake.spaces.make(space)
    with pytest.raises(SpaceMismatch, match=r"window_s 30\.0 \(wanted 5\.0\)"):
        lake.spaces.make(describe_space(FakeEncoder(), "one", 5.0))
    assert lake.spaces.get("one") == space


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_space_whose_default_layer_does_not_exist_is_never_stored(lake, layer):
    """Its file could not be read again, nor could any other space of the lake be listed."""
    with pytest.raises(InputError, match=rf"space 'one': default_layer is {layer}\. Choose 0 to 1"):
        lake.spaces.make(replace(describe_space(FakeEncoder(), "one", 30.0), default_layer=layer))
    assert lake.spaces.all() == []


def test_a_space_is_the_same_by_any_name_of_its_encoder(lake):
    """A checkpoint copied to another folder makes the same space."""
    space = describe_space(FakeEncoder(), "one", 30.0)
    lake.spaces.make(space)
    moved = replace(space, name="two", encoder="copy of fake", location="/elsewhere")
    assert lake.spaces.with_free_name(moved) == space
    other = replace(space, window_s=5.0)
    assert lake.spaces.with_free_name(other).name == f"one-{other.fingerprint[:6]}"


def test_an_edited_space_file_is_detected(lake):
    lake.spaces.make(describe_space(FakeEncoder(), "one", 30.0))
    path = Path(lake.uri) / "spaces" / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"precision": "bfloat16"}))
    with pytest.raises(SpaceMismatch, match="edited after vectors were stored"):
        lake.spaces.get("one")


@pytest.mark.parametrize(("key", "value"), [
    ("created_at", -1), ("default_layer", []), ("default_layer", 2), ("fingerprint", 7), ("layers", [0, 1]), ("dims", ["4", 6]),
    ("location", None), ("window_s", "30"), ("name", "other"), ("unknown", 1),
])
def test_a_space_file_with_an_invalid_value_is_named(filled, tmp_path, key, value):
    lake = Lake(shutil.copytree(filled.uri, tmp_path / "lake"))
    path = Path(lake.uri) / "spaces" / "fake.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(LakeError, match=r"spaces/fake\.json"):
        lake.spaces.all()


def test_a_lake_file_that_is_not_text_is_named(lake):
    (Path(lake.uri) / "lake.json").write_bytes(b"\xff\xfe")
    with pytest.raises(LakeError, match=r"lake\.json: is damaged \(not UTF-8 text from byte 0 on\)"):
        Lake(lake.uri)


@pytest.mark.parametrize("name", ["a/b", "../up", "", "Upper", "a" * 65, "x.y", "emb x", "-x", "a\n"])
def test_a_name_that_would_leave_the_lake_is_refused(lake, name):
    with pytest.raises(InputError, match="not a valid name"):
        lake.spaces.get(name)


def test_the_error_for_a_missing_space_names_the_existing_ones(lake):
    with pytest.raises(SpaceNotFound, match="tonelake embed"):
        lake.spaces.get()
    for name in ("one", "two"):
        lake.spaces.make(describe_space(FakeEncoder(), name, 30.0))
    assert lake.spaces.get().name == "two"       # the newest; of one second, the last by name
    with pytest.raises(SpaceNotFound, match=r"no space 'three' in this lake\. Choose one of one, two"):
        lake.spaces.get("three")


def test_a_layer_is_given_by_number_or_name(filled):
    space = filled.spaces.get()
    assert [space.layer_index(x) for x in (0, "1", "low", "high", None)] == [0, 1, 0, 1, 1]
    assert [space.layer_index(x) for x in (-1, "-1", -2, "-2", "-0")] == [1, 1, 0, 0, 0]         # from the end
    for wrong in ("2", -3, "-3", "middle", "1.0"):
        with pytest.raises(InputError, match=r"Choose one of 0 \(low\), 1 \(high\); -1 is the last"):
            space.layer_index(wrong)


# -- failures and the lake itself


def test_a_failure_is_stored_once_and_deleted_after_success(lake):
    lake.failures.record([Failure("ingest", "a.mp3", "first"), Failure("ingest", "b.mp3", "other")])
    lake.failures.record([Failure("ingest", "a.mp3", "second")])
    assert sorted(lake.failures.read()["error"]) == ["other", "second"]
    lake.failures.clear([failure_id("ingest", "a.mp3"), failure_id("embed:x", "b.mp3")])
    assert lake.failures.read()["source"].to_list() == ["b.mp3"]


def test_the_id_of_a_failure_never_changes(lake):
    """Lakes store it: a program with other ids would neither find nor clear failures in older lakes."""
    assert failure_id("ingest", "a.mp3") == "0b2a0fc7e615485064a884ef"
    assert failure_id("embed:x", "a.mp3", "0123") != failure_id("embed:x", "a.mp3", "0124")


def test_a_lake_path_that_is_a_file_or_another_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LakeError, match="is a file"):
        Lake(tmp_path / "file")
    with pytest.raises(LakeError, match="holds other files and no lake"):
        Lake(tmp_path)
    with pytest.raises(LakeError, match="is not a lake"):
        Lake(tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(LakeError, match="cannot hold a lake"):
        Lake(tmp_path / "file" / "below")


def test_a_lake_can_be_made_where_making_one_was_interrupted(tmp_path):
    (tmp_path / ".lake.json.123-ab.tmp").write_text('{"form')
    assert Lake(tmp_path).clips.count() == 0
    assert (tmp_path / "lake.json").exists()


def test_several_threads_can_make_one_lake_at_once(tmp_path):
    """A thread that finds a half-made lake continues as the first one does."""
    for attempt in range(30):
        start = threading.Barrier(4)

        def make(path=tmp_path / f"lake{attempt}", start=start) -> Lake:
            start.wait()
            return Lake(path)

        with ThreadPoolExecutor(4) as pool:
            lakes = [job.result() for job in [pool.submit(make) for _ in range(4)]]
        assert {lake.clips.count() for lake in lakes} == {0}


@pytest.fixture
def bucket(s3):
    return f"{s3}/lake"


def test_a_lake_on_an_object_store_works_like_a_local_one(bucket):
    lake = Lake(bucket)
    space = fill(lake, 2, 3, seed=0)
    assert lake.clips.add(clip_rows(2, 3)) == Added(known=6)
    again = Lake(bucket, create=False)
    assert again.spaces.get() == space
    assert again.spaces.make(space) == space
    assert again.clips.count("artist = 'Artist 0'") == 6
    assert again.vectors().layer("low", where="year = 1961").vectors.shape == (3, 4)
    with pytest.raises(SpaceMismatch):
        again.spaces.make(describe_space(FakeEncoder(), "fake", 5.0))
