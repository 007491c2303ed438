"""A lake of format 1 can be searched as it is, and is upgraded without embedding anything again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lance
import polars as pl
import pytest
from library import InProcess, embed_missing

import tonelake
from tonelake import ingest
from tonelake.ingest import ingest_folder
from tonelake.ingest.identify import identify_files
from tonelake.store import Added, Lake, LakeError, upgrade_lake
from tonelake.verify import verify

DATA = Path(__file__).parents[1] / "data" / "lake-format-1"               # a lake and its music, made by the code of format 1
THEN = "/srv/music"                      # where the music was

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def in_process(monkeypatch):
    for module in (ingest.recordings, ingest.identify):
        monkeypatch.setattr(module, "DecoderPool", InProcess)


@pytest.fixture
def old(tmp_path):
    """A copy of the lake, whose music is where the lake says."""
    shutil.copytree(DATA, tmp_path / "home")
    home = tmp_path / "home"
    lance.dataset(str(home / "lake" / "clips.lance")).update({"source": f"replace(source, '{THEN}', '{home / 'music'}')"})
    return home


def songs(lake: Lake) -> list[tuple]:
    return sorted(lake.clips.read(["clip_id", "track", "title", "artist", "genre"]).rows())


def test_a_lake_of_format_1_is_searched_without_an_upgrade_and_not_changed(old):
    lake = tonelake.open(old / "lake", create=False)
    assert lake.clips.count() == 5 and "superseded" not in lake.clips.read()["flag"].to_list()
    assert lake.clips.read(["recording", "labelled"]).null_count().row(0) == (5, 5)
    hits = lake.similar(lake.clips.ids()[0], layer="high", k=9)
    assert len(hits) == 4 and lake.map(layer="high", method="pca").points.height == 5
    version = lake.clips.table.version
    with pytest.raises(LakeError, match=r"has format 1, older than 2: it can be read.*`tonelake verify --repair`"):
        ingest_folder(lake, old / "music", seconds=None)
    assert lake.clips.table.version == version and lake.paths.count() == 0


def test_an_upgrade_identifies_recordings_and_keeps_clips_vectors_and_labels(old):
    before = Lake(old / "lake")
    expected, vectors = songs(before), before.vectors("fake").layer("high")
    lake = tonelake.open(old / "lake", older=True)
    assert verify(lake, repair=True)["what"].to_list() == ["format"]
    lake = tonelake.open(old / "lake")
    assert json.loads((old / "lake" / "lake.json").read_text())["format"] == 2 and songs(lake) == expected
    after = lake.vectors("fake").layer("high")
    assert after.ids.equals(vectors.ids) and (after.vectors == vectors.vectors).all()
    clips = lake.clips.read(superseded=True)
    assert clips["state"].to_list().count("superseded") == 1 and clips["flag"].is_null().all()
    assert clips.filter(pl.col("state").is_null())["recording"].str.len_chars().to_list() == [40] * 5
    assert set(clips["state_label"].drop_nulls()) == {"calm", "wild"}          # a label that had the name of a new column
    report = ingest_folder(lake, old / "music", seconds=None)
    assert (report.added, report.superseded, report.missing) == (Added(known=5), 0, 0)
    assert embed_missing(lake) == []
    assert [(row[0], *row[2:]) for row in songs(lake)] == [(row[0], *row[2:]) for row in expected]
    assert verify(lake).is_empty()


def test_clips_whose_files_are_away_are_identified_when_they_are_back(tmp_path):
    shutil.copytree(DATA / "lake", tmp_path / "lake")
    lake = Lake(tmp_path / "lake", older=True)
    assert upgrade_lake(lake, identify_files) == [2]
    lake = Lake(tmp_path / "lake")
    assert set(lake.clips.read()["state"]) == {"missing"} and lake.clips.read()["recording"].str.starts_with("b:").all()
    ids = sorted(lake.clips.ids())
    report = ingest_folder(lake, DATA / "music", seconds=None)
    assert report.added == Added(changed=5)
    clips = lake.clips.read()
    assert sorted(clips["clip_id"]) == ids and clips["state"].is_null().all()
    assert not clips["recording"].str.starts_with("b:").any() and embed_missing(lake) == []
    assert clips.sort("track")["artist"].to_list() == ["Label", "Ada", "Ada", "Ada", "Béla"]
    labelled = dict(clips.select("track", "labelled").iter_rows())
    assert labelled["album/01.flac"] == ["artist", "genre"] and labelled["album/03.flac"] is None


@pytest.mark.parametrize("stop_after", range(8))
def test_an_upgrade_that_is_killed_at_any_write_is_completed_by_the_next(old, monkeypatch, stop_after):
    from tonelake.store import upgrade
    from tonelake.store.table import Table

    monkeypatch.setattr(upgrade, "ROWS_PER_WRITE", 2)
    commit, writes = Table.commit, []

    def limited(self, write):
        if len(writes) >= stop_after:
            raise KeyboardInterrupt
        writes.append(self.name)
        return commit(self, write)

    lake = Lake(old / "lake", older=True)
    monkeypatch.setattr(Table, "commit", limited)
    try:
        upgrade_lake(lake, identify_files)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    monkeypatch.setattr(Table, "commit", commit)
    if interrupted:
        assert json.loads((old / "lake" / "lake.json").read_text())["format"] == 1
        assert Lake(old / "lake").clips.count() == 5                 # it can still be searched
    upgrade_lake(Lake(old / "lake", older=True), identify_files)
    lake = Lake(old / "lake")
    assert lake.clips.count() == 5 and lake.clips.count(superseded=True) == 6 and lake.paths.count() == 5
    assert set(lake.clips.read()["state_label"].drop_nulls()) == {"calm", "wild"}
    assert lake.clips.read()["recording"].str.len_chars().to_list() == [40] * 5


def test_a_lake_made_again_at_a_path_has_another_identity(tmp_path):
    first = Lake(tmp_path / "lake").identity
    assert Lake(tmp_path / "lake").identity == first
    shutil.rmtree(tmp_path / "lake")
    assert Lake(tmp_path / "lake").identity != first
