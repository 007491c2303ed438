"""Tables that are absent, damaged or removed while they are open."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakes import clip_rows

from tonelake.store import Lake, LakeError


@pytest.fixture
def stored(lake):
    lake.clips.add(clip_rows(3, 1))
    return Path(lake.uri) / "clips.lance"


def test_a_reader_sees_a_table_that_another_connection_creates(lake):
    reader = Lake(lake.uri)
    assert reader.clips.count() == 0 and reader.clips.table.version == 0
    lake.clips.add(clip_rows(3, 1))
    assert reader.clips.count() == 3 and reader.clips.table.version == lake.clips.table.version
    lake.clips.add(clip_rows(5, 1))
    assert reader.clips.count() == 5 and "title" in reader.clips.table.schema.names


def test_a_damaged_table_is_named(lake, stored):
    for file in (stored / "_versions").iterdir():
        file.write_bytes(b"xx")
    with pytest.raises(LakeError, match=r"^table 'clips': cannot be opened \(.*\)\. Restore it from a copy$"):
        Lake(lake.uri).clips.count()


def test_a_table_that_is_removed_while_open_is_not_taken_for_an_empty_one(lake, stored):
    assert lake.clips.table.version and lake.clips.count() == 3
    shutil.rmtree(stored)
    for read in (lake.clips.count, lambda: lake.clips.table.version):
        with pytest.raises(LakeError, match="table 'clips': "):
            read()
