"""Lakes and a run that the tests of probes share."""

from __future__ import annotations

import shutil

import pytest
from fakes import fill
from quick_probes import quick

from tonelake.probes import probe
from tonelake.store import Lake


@pytest.fixture
def own(filled, tmp_path):
    """A copy of the filled lake that a test may write to."""
    shutil.copytree(filled.uri, tmp_path / "own", ignore=shutil.ignore_patterns("probes"))
    return Lake(tmp_path / "own")


@pytest.fixture(scope="session")
def artists(tmp_path_factory):
    """A lake and a run of two rates on it.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("probed") / "lake")
    fill(lake, tracks=24, clips_a_track=10, seed=1)
    return lake, probe(lake, quick(rates=(1e-4, 1e-2)))
