"""Files of a lake beside its tables: whole or not at all, on a disk and on an object store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import clip_rows

from tonelake.store import InputError, Lake, LakeError
from tonelake.store.blobs import Blobs

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["disk", "object store"])
def files(request, tmp_path):
    home = str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3") + "/lake"
    return Blobs(f"{home}/runs")


def test_a_file_is_written_read_listed_fetched_and_removed(files):
    assert files.read("a.json") is None and files.names() == [] and files.folders() == [] and files.stamp("a.json") is None
    with files.fetched("a.json") as path:
        assert path is None
    files.put_text("a.json", "eins Ω")
    files.put("b.bin", lambda path: path.write_bytes(b"\0\1"))
    Blobs(f"{files.uri}/deep").put_text("c.json", "3")
    assert files.read("a.json") == "eins Ω" and files.names() == ["a.json"] and files.names(".bin") == ["b.bin"]
    assert files.folders() == ["deep"] and files.stamp("a.json")
    with files.fetched("b.bin") as path:
        assert path is not None and path.read_bytes() == b"\0\1"
    files.put_text("a.json", "zwei")
    assert files.read("a.json") == "zwei"
    for _ in range(2):
        files.remove("a.json")
    assert files.read("a.json") is None and files.names() == []


@pytest.mark.parametrize("store", ["disk", "object store"])
def test_a_folder_may_have_any_name(store, tmp_path, request):
    lake = Lake(tmp_path / "lake" if store == "disk" else request.getfixturevalue("s3") + "/lake")
    names = ["%20", "a b", "a#b", "a?b", "a?c", "bpm > 90", "é'\"", "folds:0"]
    for name in names:
        lake.files(f"probes/{name}").put_text("name.json", name)
    assert lake.files("probes").folders() == sorted(names)
    assert [lake.files(f"probes/{name}").read("name.json") for name in names] == names


@pytest.mark.parametrize("name", ["a%20b", "a#b", "a b", "é'\"", "a:b", "s3:x", "[a]", "{x}", "~", "a*", "a?b"])
def test_a_lake_may_have_any_name_that_lance_can_read(tmp_path, name):
    beside = Lake(tmp_path / "a")
    if "?" in name:
        with pytest.raises(LakeError, match=r"lake .*: the path contains '\?'\. Choose another with --lake"):
            Lake(tmp_path / name)
        with pytest.raises(LakeError, match="the path contains '#'"):
            Lake(f"s3://bucket/{name}#1".replace("?", ""))
    else:
        Lake(tmp_path / name).clips.add(clip_rows(1, 3))
        assert Lake(tmp_path / name, create=False).clips.count() == 3
    assert beside.clips.count() == 0 and {path.name for path in tmp_path.iterdir()} == {"a", name} - {"a?b"}


def test_a_file_written_once_stays_as_the_first_wrote_it(files):
    assert files.write_once("x.json", "first") is True
    assert files.write_once("x.json", "second") is False
    assert files.read("x.json") == "first"


def test_a_stamp_changes_with_the_file(tmp_path):
    files = Blobs(str(tmp_path))
    files.put_text("a", "1")
    before = files.stamp("a")
    assert files.stamp("a") == before
    files.put_text("a", "2")             # of equal length, and perhaps within one tick of the clock
    assert files.stamp("a") != before


def test_the_stamp_of_a_file_on_an_object_store_changes_with_its_content(s3):
    files = Blobs(f"{s3}/lake")
    files.put_text("a", "1")
    first = files.stamp("a")
    assert first is not None and files.stamp("a") == first
    files.put_text("a", "2")
    assert files.stamp("a") not in (None, first)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one(tmp_path):
    files = Blobs(str(tmp_path))
    files.put_text("a.json", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(LakeError, match=r"a\.json: cannot be written \(No space left on device\)\. Free some space"):
        files.put("a.json", fail)
    assert files.read("a.json") == "old" and os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208


def test_the_error_for_a_file_that_cannot_be_made_names_the_remedy(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tonelake.store.blobs.os.fsync", full)
    with pytest.raises(LakeError, match=r"x\.json: cannot be written \(No space left on device\)\. Free some space"):
        Blobs(str(tmp_path)).write_once("x.json", "text")
    assert not os.listdir(tmp_path)  # noqa: PTH208
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match="cannot be written"):
        Blobs(str(tmp_path / "file" / "below")).write_once("x.json", "text")


def test_a_folder_is_locked_by_one_run_and_released_when_that_dies(tmp_path):
    files = Blobs(f"{tmp_path}/runs/one")
    with files.locked("busy"), pytest.raises(InputError, match="busy"), Blobs(files.uri).locked("busy"):
        pass
    with files.locked("busy"), Blobs(f"{tmp_path}/runs/two").locked("busy"):
        pass
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import time; from tonelake.store import Blobs\nwith Blobs({files.uri!r}).locked(''):\n"
         "    print('in', flush=True); time.sleep(60)"], stdout=subprocess.PIPE, text=True, cwd=HOME,
    )
    try:
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="busy"), files.locked("busy"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with files.locked("busy"):
        assert files.names() == [] and files.folders() == []
