"""Fixtures of tests of indexes."""

from __future__ import annotations

import pytest

from tonelake.index.search import stored_index


@pytest.fixture
def used(monkeypatch):
    """A list with one entry per index search: whether the index answered."""
    calls = []
    plain = stored_index.search_stored

    def counted(*arguments):
        found = plain(*arguments)
        calls.append(found is not None)
        return found

    monkeypatch.setattr("tonelake.index.search.similar.search_stored", counted)
    return calls
