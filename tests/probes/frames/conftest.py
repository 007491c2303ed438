"""A lake of notes with frames that show them, which tests of frame probes share."""

from __future__ import annotations

import shutil

import pytest
from framed_notes import fill_with_notes

from tonelake import Lake


@pytest.fixture(scope="session")
def noted(tmp_path_factory):
    """A lake of 30 clips with notes and frames.  Do not change it."""
    return fill_with_notes(tmp_path_factory.mktemp("noted") / "lake")


@pytest.fixture
def own_notes(noted, tmp_path):
    """A copy of the lake of notes that a test may write to."""
    shutil.copytree(noted.uri, tmp_path / "own", ignore=shutil.ignore_patterns("probes"))
    return Lake(tmp_path / "own")
