"""Forgotten clips are gone with everything that depends on them; a forget that was killed can be repeated."""

from __future__ import annotations

import shutil
from copy import deepcopy

import pytest
from library import ROOTS, InProcess, Library, contents, embed_missing
from typer.testing import CliRunner

import tonelake
from tonelake import ingest
from tonelake.cli import app
from tonelake.ingest import ingest_folder
from tonelake.store import InputError
from tonelake.store.table import Table


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A library of six songs in step with its lake, and a copy to restore it from in place: a lake holds absolute paths."""
    home = tmp_path_factory.mktemp("forget")
    library = Library(home / "library")
    library.fill(6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.recordings, "DecoderPool", InProcess)
        library.sync(tonelake.open(library.home / "lake"))
    shutil.copytree(library.home, home / "copy")
    return library, home / "copy"


@pytest.fixture
def library(made, monkeypatch):
    monkeypatch.setattr(ingest.recordings, "DecoderPool", InProcess)
    found, copy = made
    shutil.rmtree(found.home)
    shutil.copytree(copy, found.home)
    return deepcopy(found)


@pytest.fixture
def lake(library):
    return tonelake.open(library.home / "lake")


def test_missing_recordings_are_forgotten_with_their_vectors(library, lake):
    (library.home / "one" / "00.wav").unlink()
    del library.files["one/00.wav"]
    library.sync(lake)
    asked = []
    assert lake.forget(missing=True, confirm=lambda found: bool(asked.append(found))) is None
    assert lake.clips.count() == 6 and (asked[0].songs, asked[0].clips, asked[0].files) == (1, 1, 1)
    done = lake.forget(missing=True)
    assert str(done) == "1 songs with 1 clips, and 1 paths of files"
    assert (lake.clips.count(superseded=True), lake.vectors("fake").count(), lake.paths.count()) == (5, 5, 5)
    with pytest.raises(InputError, match="nothing is missing"):
        lake.forget(missing=True)
    library.sync(lake)
    assert len(contents(lake)) == 5


def test_superseded_recordings_are_forgotten_and_their_paths_stay(library, lake):
    library.put("one/00.wav", library.new_song(), 0)
    library.sync(lake)
    assert lake.forget(superseded=True).clips == 1
    assert (lake.clips.count(superseded=True), lake.vectors("fake").count(), lake.paths.count()) == (6, 6, 6)


def test_a_folder_is_forgotten_but_not_recordings_that_another_folder_has(library, lake):
    library.put("two/copy.wav", *library.files["one/00.wav"])
    library.sync(lake)
    assert lake.forget(library.home / "one").clips == 2
    assert lake.clips.count() == 4 and all("/two/" in source for source in lake.clips.read()["source"])
    assert lake.paths.count() == 4


def test_clips_that_a_filter_selects_come_back_with_the_next_ingest(library, lake):
    lake.forget(where="track = '00.wav'")
    assert lake.clips.count() == 5
    report = ingest_folder(lake, library.home / ROOTS[0], seconds=None)
    assert report.added.new == 1 and len(embed_missing(lake)) == 1


def test_a_forget_needs_exactly_one_choice_that_matches(lake):
    for choice in ({}, {"missing": True, "superseded": True}):
        with pytest.raises(InputError, match="exactly one of"):
            lake.forget(**choice)
    with pytest.raises(InputError, match="no clip or file of /nowhere"):
        lake.forget("/nowhere")
    with pytest.raises(InputError, match="no clip where"):
        lake.forget(where="track = 'x'")


@pytest.mark.parametrize("stop_after", range(4))
def test_a_forget_that_is_killed_can_be_repeated(library, lake, monkeypatch, stop_after):
    (library.home / "one" / "00.wav").unlink()
    ingest_folder(lake, library.home / "one", seconds=None)
    commit, writes = Table.commit, []

    def limited(self, write):
        if len(writes) >= stop_after:
            raise KeyboardInterrupt
        writes.append(self.name)
        return commit(self, write)

    monkeypatch.setattr(Table, "commit", limited)
    with pytest.raises(KeyboardInterrupt):
        lake.forget(missing=True)
        raise KeyboardInterrupt          # fewer writes than were allowed
    monkeypatch.setattr(Table, "commit", commit)
    if lake.paths.count() == 6:
        lake.forget(missing=True)
    assert (lake.clips.count(), lake.vectors("fake").count(), lake.paths.count()) == (5, 5, 5)


def test_the_command_asks_before_it_deletes(library, lake):
    arguments = ["forget", "--where", "track = '00.wav'", "--lake", lake.uri]
    refused = CliRunner().invoke(app, arguments, input="n\n")
    assert refused.exit_code == 1 and lake.clips.count() == 6
    assert "Delete 1 songs with 1 clips, and 1 paths of files from the lake?" in refused.output
    assert CliRunner().invoke(app, [*arguments, "--yes"]).exit_code == 0 and lake.clips.count() == 5
