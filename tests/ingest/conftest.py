"""Fixtures of tests of ingest."""

from __future__ import annotations

import pytest

from tonelake import ingest
from tonelake.store import Lake


@pytest.fixture
def organ(lake, monkeypatch) -> Lake:
    """An empty lake, into which `ingest_chorales` brings one piece."""
    monkeypatch.setattr(ingest.datasets.chorales, "chorale_names", lambda: ["bwv66.6.mxl"])
    return lake
