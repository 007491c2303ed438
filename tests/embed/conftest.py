"""Fixtures of the room embed: small lakes to embed in several ways."""

from __future__ import annotations

import shutil

import pytest
from sounds import melody, write

from tonelake.store import Lake


@pytest.fixture(scope="session")
def ingested(tmp_path_factory) -> Lake:
    """A lake with 50 clips of five tracks, not embedded.  Do not change it."""
    from tonelake.ingest import ingest_folder

    folder = tmp_path_factory.mktemp("ingested")
    for number in range(5):
        write(folder / "music" / f"{number}.wav", melody(19 + 3 * number, seed=number, rate=8_000), rate=8_000)
    lake = Lake(folder / "lake")
    ingest_folder(lake, folder / "music", seconds=2.5)
    assert lake.clips.count() == 50
    return lake


@pytest.fixture
def tracks(ingested, tmp_path) -> Lake:
    """A copy of `ingested`."""
    return Lake(shutil.copytree(ingested.uri, tmp_path / "tracks"))


@pytest.fixture(scope="session")
def ingested_music(music, tmp_path_factory) -> Lake:
    """A lake with the six tracks of `music` as whole clips, not embedded.  Do not change it."""
    from tonelake.ingest import ingest_folder

    lake = Lake(tmp_path_factory.mktemp("ingested_music") / "lake")
    ingest_folder(lake, music, seconds=None)
    return lake


@pytest.fixture
def six_tracks(ingested_music, tmp_path) -> Lake:
    """A copy of `ingested_music`."""
    return Lake(shutil.copytree(ingested_music.uri, tmp_path / "six"))


@pytest.fixture(scope="session")
def reference(ingested, tmp_path_factory) -> Lake:
    """The clips of `ingested`, embedded by one process without interruption, with frames of layer 1.  Do not change it."""
    from tonelake.embed import EmbedSettings, embed_lake
    from tonelake.ingest import read_clips

    lake = Lake(shutil.copytree(ingested.uri, tmp_path_factory.mktemp("reference") / "lake"))
    assert embed_lake(lake, EmbedSettings("fakes:FakeEncoder", device="cpu"), read_clips, frames=[1]).failed == 0
    return lake


@pytest.fixture
def two_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
