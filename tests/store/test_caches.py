"""Lance's caches: bounded in a process that commits for days."""

from __future__ import annotations

import lancedb
import pyarrow as pa

from tonelake.store import Table
from tonelake.store import connection as connection_module
from tonelake.store.connection import Connection

LIMIT = 20_000                           # bytes; a commit adds some thousand


def test_commits_do_not_grow_the_caches_of_a_writer(tmp_path, monkeypatch):
    sessions = []

    def session(*limits, make=lancedb.Session):
        sessions.append(make(*limits))
        return sessions[-1]

    monkeypatch.setattr(connection_module, "LOCAL_CACHE_BYTES", LIMIT)
    monkeypatch.setattr(lancedb, "Session", session)
    table = Table(Connection(str(tmp_path)), "notes", pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string())]))
    for number in range(8):
        assert table.insert_new(pa.table({"id": [str(number)], "text": ["heard"]})) == 1
        assert table.count() == number + 1
    assert len(sessions) == 1
    assert sessions[0].size_bytes <= 2 * LIMIT                       # of metadata, and of indexes
    assert table.latest().session().size_bytes() <= LIMIT + 5_000
