"""The format of a lake is written with it; older formats are upgraded by a command, newer ones refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fakes import clip_rows

import tonelake
from tonelake.store import Lake, LakeError, newest_format
from tonelake.store.upgrade import UPGRADES, Identify
from tonelake.verify import verify

RELEASE = Path(__file__).parents[1] / "data" / "lake-1"                   # a lake written by the first release


def test_a_new_lake_has_the_newest_format_and_one_without_a_file_the_first(tmp_path):
    lake = Lake(tmp_path / "lake")
    assert json.loads((tmp_path / "lake" / "lake.json").read_text())["format"] == newest_format()
    (tmp_path / "lake" / "lake.json").unlink()
    lake.clips.add(clip_rows(1, 1))
    assert Lake(tmp_path / "lake", create=False).clips.count() == 1


def test_a_lake_of_a_newer_format_is_refused(tmp_path):
    Lake(tmp_path / "lake").clips.add(clip_rows(1, 1))
    (tmp_path / "lake" / "lake.json").write_text('{"format": 99}')
    with pytest.raises(LakeError, match="has format 99, but this tonelake knows formats up to"):
        Lake(tmp_path / "lake")
    for damaged in ("", "{", '{"format": "x"}', "[]", '{"format": 0}'):
        (tmp_path / "lake" / "lake.json").write_text(damaged)
        with pytest.raises(LakeError, match="cannot be read"):
            Lake(tmp_path / "lake", create=False)


def test_an_older_lake_is_upgraded_by_a_command(tmp_path, monkeypatch):
    """Two steps, the second of which is interrupted once; clips cannot be changed before."""
    from typer.testing import CliRunner

    from tonelake.cli import app

    Lake(tmp_path / "lake").clips.add(clip_rows(1, 1))
    steps: list[int] = []

    def third(lake: Lake, identify: Identify) -> None:
        steps.append(3)
        lake.clips.set_flag(lake.clips.ids().to_list(), "upgraded")

    def fourth(lake: Lake, identify: Identify) -> None:
        steps.append(4)
        if steps.count(4) == 1:
            raise LakeError("no space left")

    monkeypatch.setitem(UPGRADES, 3, third)
    monkeypatch.setitem(UPGRADES, 4, fourth)
    monkeypatch.setattr("tonelake.store.format.NEWEST", 4)
    path, run = str(tmp_path / "lake"), CliRunner()
    older = Lake(path)
    assert older.clips.read(["flag"])["flag"].to_list() == [None]
    with pytest.raises(LakeError, match=r"has format 2, older than 4: it can be read.*`tonelake verify --repair`"):
        older.clips.set_flag(older.clips.ids().to_list(), "odd")
    shown = run.invoke(app, ["verify", "--json", "--lake", path])
    assert shown.exit_code == 1 and [json.loads(line)["what"] for line in shown.stdout.splitlines()] == ["format"]
    assert not steps
    assert run.invoke(app, ["verify", "--repair", "--lake", path]).exit_code != 0
    assert json.loads((tmp_path / "lake" / "lake.json").read_text())["format"] == 3
    assert run.invoke(app, ["verify", "--repair", "--lake", path]).exit_code == 0
    assert steps == [3, 4, 4] and Lake(path).clips.read()["flag"].to_list() == ["upgraded"]
    assert run.invoke(app, ["verify", "--lake", path]).exit_code == 0
    Lake(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "lake.json").read_text())["format"] == 4


def test_a_lake_on_an_object_store_has_its_format_written_too(s3):
    lake = Lake(f"{s3}/lake")
    assert json.loads(lake.files("").read("lake.json") or "")["format"] == newest_format()
    lake.clips.add(clip_rows(1, 1))
    lake.files("").put_text("lake.json", '{"format": 99}')
    with pytest.raises(LakeError, match="has format 99"):
        Lake(f"{s3}/lake", create=False)


def test_the_lake_of_the_first_release_opens_and_answers(tmp_path):
    shutil.copytree(RELEASE, tmp_path / "lake")
    lake = tonelake.open(tmp_path / "lake", create=False)
    assert lake.clips.read().height == 24 and lake.list_spaces()["name"].to_list() == ["fake"]
    hits = lake.similar(lake.clips.read()["clip_id"][0], layer="high", k=5)
    assert len(hits) == 5 and hits["artist"][0] == "Artist 0"
    assert lake.map(layer="high", method="pca").done == "unchanged"
    assert verify(lake)["what"].to_list() in ([], ["format"])


def test_each_format_after_the_first_has_an_upgrade():
    assert sorted(UPGRADES) == list(range(2, newest_format() + 1))
