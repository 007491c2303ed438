"""Fragments: rows written by workers in parallel, which one commit makes part of a table.

A worker writes a fragment, a file that belongs to no version of the table yet, and passes its description to the process that
appends the fragments.  A worker that dies leaves at most an unreferenced file.

Appending bypasses the table's key.  So the keys are compared with those in the table before the commit and, if another writer
committed in between, again after it; of duplicate rows the first is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tonelake.store.table import Table


class Fragment(NamedTuple):
    """A written fragment: the keys of its rows, and its description as JSON."""

    keys: tuple[str, ...]
    description: str

    def to_json(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> Fragment:
        keys, description = json.loads(text)
        return cls(tuple(keys), description)


def write_fragment(table: Table, rows: pa.Table) -> Fragment:
    """Write rows to a file of the table's folder without making them part of the table."""
    from lance.fragment import write_fragments

    dataset = table.dataset()
    rows = table.conform(rows)
    written = write_fragments(rows, dataset, schema=dataset.schema, max_rows_per_file=max(rows.num_rows, 1))
    return Fragment(tuple(rows.column(table.key).to_pylist()), json.dumps([one.to_json() for one in written]))


def append_fragments(table: Table, fragments: Sequence[Fragment]) -> int:
    """Append fragments in one commit, without rows whose key is stored already; return the number of rows added."""
    import lance
    from lance.fragment import FragmentMetadata

    before = table.version
    offered = pa.array([key for fragment in fragments for key in fragment.keys], pa.string())
    keys = table.read([table.key]).column(table.key)                 # of a large table: in Python they take a gigabyte
    known = set(keys.filter(pc.is_in(keys, value_set=offered)).to_pylist())
    whole, stored = [], 0
    for fragment in fragments:
        fresh = set(fragment.keys) - known
        if len(fresh) == len(fragment.keys):
            whole.append(fragment)
        elif fresh:                      # a concurrent run has stored some of the rows
            rows = read_back(table, fragment)
            stored += table.insert_new(rows.filter(pc.is_in(rows.column(table.key), value_set=pa.array(list(fresh)))))
        known |= fresh
    if not whole:
        return stored
    parts = [FragmentMetadata.from_json(json.dumps(one)) for fragment in whole for one in json.loads(fragment.description)]

    def append() -> int:
        return lance.LanceDataset.commit(table.dataset(), lance.LanceOperation.Append(parts), read_version=before).version

    after = table.commit(append)
    added = [key for fragment in whole for key in fragment.keys]
    return stored + len(added) - (table.drop_duplicates(added) if after != before + 1 else 0)


def read_back(table: Table, fragment: Fragment) -> pa.Table:
    """Read the rows of a fragment that is not part of its table yet."""
    from lance.file import LanceFileReader

    files = [file["path"] for one in json.loads(fragment.description) for file in one["files"]]
    home = table.dataset().uri.rstrip("/")
    return pa.concat_tables([LanceFileReader(f"{home}/data/{file}").read_all().to_table() for file in files])
