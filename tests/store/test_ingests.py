"""The record of ingests: it survives odd paths, keeps the newest options, and names what is damaged."""

from __future__ import annotations

import os

import pytest
from sounds import melody, write

from tonelake.ingest import ingest_folder, ingest_manifest
from tonelake.store import Ingest, InputError, Lake, LakeError, forget


def test_the_newest_ingest_of_a_root_is_kept(lake):
    lake.ingests.record("folder", "/music", {"seconds": 30.0})
    lake.ingests.record("folder", "/music", {"seconds": None, "multi": {"tags": ","}})
    lake.ingests.record("subsonic", "https://music.example", {"user": "ada"})
    again = Lake(lake.uri, create=False)
    assert again.ingests.all() == [
        Ingest(kind="folder", root="/music", options={"seconds": None, "multi": {"tags": ","}}),
        Ingest(kind="subsonic", root="https://music.example", options={"user": "ada"}),
    ]
    assert again.ingests.find("folder", "/music") == again.ingests.all()[0] and again.ingests.find("beets", "/music") is None


def test_an_unchanged_record_is_not_written_again(lake):
    lake.ingests.record("folder", "/music", {"seconds": 30.0})
    name, = lake.files("ingests").names()
    before = lake.files("ingests").stamp(name)
    lake.ingests.record("folder", "/music", {"seconds": 30.0})
    assert lake.files("ingests").stamp(name) == before


def test_a_path_that_is_not_utf8_is_kept(lake):
    root = os.fsdecode(b"/music/caf\xe9")
    lake.ingests.record("folder", root, {})
    assert os.fsencode(lake.ingests.all()[0].root) == b"/music/caf\xe9"


def test_a_record_can_be_removed(lake):
    lake.ingests.record("folder", "/music", {})
    lake.ingests.remove("folder", "/music")
    lake.ingests.remove("folder", "/music")
    assert lake.ingests.all() == []


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "folder", "root": 3, "options": {}}', '{"kind": "folder"}'])
def test_a_damaged_record_is_named(lake, text):
    lake.files("ingests").put_text("folder-1.json", text)
    with pytest.raises(LakeError, match=r"folder-1\.json: is not a record of an ingest .*Delete it"):
        lake.ingests.all()


def test_folders_and_manifests_are_recorded_with_the_options_that_decide_their_clips(lake, tmp_path, monkeypatch):
    write(tmp_path / "music" / "a.wav", melody(2.0, seed=1, rate=8_000), 8_000)
    (tmp_path / "labels.csv").write_text("path,tags\na.wav,low; odd\n")
    (tmp_path / "clips.csv").write_text("path,start,seconds\nmusic/a.wav,0,1\n")
    monkeypatch.chdir(tmp_path)
    ingest_folder(lake, "music", seconds=1.0, labels="labels.csv", multi=["tags"], track_by="name", dataset="mine", workers=1)
    ingest_manifest(lake, "clips.csv", workers=1)
    assert lake.ingests.all() == [
        Ingest(kind="folder", root=str(tmp_path / "music"), options={
            "seconds": 1.0, "hop": None, "per_track": None, "labels": str(tmp_path / "labels.csv"), "multi": {"tags": None},
            "track_by": "name", "dataset": "mine",
        }),
        Ingest(kind="manifest", root=str(tmp_path / "clips.csv"), options={"multi": {}, "dataset": None}),
    ]
    before = lake.clips.read().sort("clip_id")
    for ingest in lake.ingests.all():
        {"folder": ingest_folder, "manifest": ingest_manifest}[ingest.kind](lake, ingest.root, **ingest.options, workers=1)
    assert lake.clips.read().sort("clip_id").equals(before) and len(lake.ingests.all()) == 2


def test_forgetting_a_folder_forgets_its_ingest(lake, tmp_path):
    for name in ("jazz/a", "jazzy/b"):
        write(tmp_path / f"{name}.wav", melody(1.2, seed=len(name), rate=8_000), 8_000)
        ingest_folder(lake, (tmp_path / name).parent, workers=1)
    forget(lake, str(tmp_path / "jazz"), confirm=lambda report: False)
    assert len(lake.ingests.all()) == 2
    forget(lake, str(tmp_path / "jazz"))
    assert [ingest.root for ingest in lake.ingests.all()] == [str(tmp_path / "jazzy")]


def test_a_refused_ingest_is_not_recorded(lake, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        ingest_folder(lake, tmp_path / "empty")
    assert lake.ingests.all() == []
