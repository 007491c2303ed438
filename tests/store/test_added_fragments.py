"""The keys and row ids of a snapshot equal those of a full read, whatever was written since the snapshot before it."""

from __future__ import annotations

import lance
import pyarrow as pa

from tonelake.store.added_fragments import added_fragments
from tonelake.store.connection import Connection
from tonelake.store.table import Table
from tonelake.store.table_reading import ROW_ID

SCHEMA = pa.schema([pa.field("key", pa.string()), pa.field("value", pa.int64())])


def rows(*numbers):
    return pa.table({"key": [f"k{number}" for number in numbers], "value": list(numbers)})


def test_snapshots_equal_a_full_read(tmp_path):
    table, before = Table(Connection(str(tmp_path)), "made", SCHEMA), None
    for write, added in (
        (lambda: table.insert_new(rows(*range(20))), None), (lambda: table.insert_new(rows(30, 31)), 1),
        (lambda: [table.insert_new(rows(number)) for number in (40, 41)], 2), (lambda: table.upsert(rows(3, 50)), None),
        (lambda: table.insert_new(rows(60)), 1), (lambda: table.delete("key = 'k5'"), None), (lambda: None, 0),
        (table.compact, None), (lambda: table.insert_new(rows(5)), 1),
    ):
        write()
        found, whole = table.snapshot(), table.dataset().to_table(columns=["key"], with_row_id=True)
        assert found.keys.to_pylist() == whole.column("key").to_pylist()
        assert found.row_ids.tolist() == whole.column(ROW_ID).to_pylist()
        if before is not None:
            new = added_fragments(before, found.dataset)
            assert (None if new is None else len(new)) == added
        before = found.dataset


def test_only_added_rows_are_read_again(tmp_path, monkeypatch):
    table, read, plain = Table(Connection(str(tmp_path)), "made", SCHEMA), [], lance.LanceDataset.scanner
    table.insert_new(rows(*range(20)))
    table.snapshot()
    monkeypatch.setattr(lance.LanceDataset, "scanner", lambda self, *a, **how: read.append(how) or plain(self, *a, **how))
    table.insert_new(rows(30, 31))
    assert table.snapshot().keys.to_pylist()[-2:] == ["k30", "k31"]
    assert [len(how["fragments"]) for how in read if how.get("fragments") is not None] == [1]
    table.delete("true")
    assert table.snapshot().keys.to_pylist() == [] and not len(table.snapshot().row_ids)
