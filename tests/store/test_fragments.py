"""Fragments written by workers: appended in one commit, each key once, also beside other writers."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace

import lance
import pytest
from fakes import clip_rows, fill

from tonelake.store import Lake
from tonelake.store.fragments import Fragment, append_fragments, write_fragment


def rows_of(lake, ids, value=1.0):
    """The table of rows that `Vectors.add` would store for these clips."""
    import numpy as np

    vectors = lake.vectors("fake")
    arrays = [np.full((len(ids), dim), value, np.float32) for dim in vectors.space.dims]
    return vectors.rows(ids, arrays, arrays, [750] * len(ids))


@pytest.fixture
def some(lake):
    """A lake with 12 clips, none of them embedded."""
    fill(lake, tracks=3, clips_a_track=4, seed=0)
    table = lake.vectors("fake").table
    table.delete("clip_id IS NOT NULL")
    return lake, table, lake.clips.read(["clip_id"])["clip_id"].to_list()


def values(lake):
    found = lake.vectors("fake").layer(0)
    return dict(zip(found.ids, found.vectors[:, 0].tolist(), strict=True))


def test_a_fragment_is_not_part_of_the_table_until_it_is_appended(some):
    lake, table, ids = some
    first, second = write_fragment(table, rows_of(lake, ids[:5])), write_fragment(table, rows_of(lake, ids[5:7]))
    assert table.count() == 0
    version = table.version
    assert append_fragments(table, [Fragment.from_json(one.to_json()) for one in (first, second)]) == 7
    assert table.version == version + 1
    assert sorted(values(lake)) == sorted(ids[:7])


def test_stored_rows_are_kept_and_the_others_of_a_fragment_are_added(some):
    lake, table, ids = some
    fragments = [write_fragment(table, rows_of(lake, ids[:4], 1.0)), write_fragment(table, rows_of(lake, ids[4:6], 1.0))]
    table.insert_new(rows_of(lake, ids[2:3], 2.0))
    assert append_fragments(table, fragments) == 5
    assert values(lake) == {clip: 2.0 if clip == ids[2] else 1.0 for clip in ids[:6]}


def test_clips_in_two_fragments_are_stored_once(some):
    lake, table, ids = some
    fragments = [write_fragment(table, rows_of(lake, ids[:4], 1.0)), write_fragment(table, rows_of(lake, ids[2:6], 2.0))]
    assert append_fragments(table, fragments) == 6
    assert values(lake) == {clip: 1.0 if clip in ids[:4] else 2.0 for clip in ids[:6]}


def test_an_append_between_a_merge_and_its_commit_duplicates_no_clip(some, monkeypatch):
    """The order that Lance itself does not detect: merge reads, append commits, merge commits."""
    lake, table, ids = some
    fragment = write_fragment(table, rows_of(lake, ids[:4], 1.0))
    other = Lake(lake.uri).vectors("fake").table
    other.count()

    class Late:
        """A merge that commits only after an append has."""

        def when_not_matched_insert_all(self):
            return self

        def execute(self, rows):
            merge = other.dataset().merge_insert("clip_id").when_not_matched_insert_all()
            transaction, _ = merge.execute_uncommitted(rows)
            append_fragments(table, [fragment])
            done = lance.LanceDataset.commit(table.dataset(), transaction, read_version=transaction.read_version)
            return SimpleNamespace(version=done.version, num_inserted_rows=rows.num_rows)

    monkeypatch.setattr(other, "_merge", Late)
    assert other.insert_new(rows_of(lake, ids[2:6], 2.0)) == 2
    assert table.count() == 6
    assert values(lake) == {clip: 1.0 if clip in ids[:4] else 2.0 for clip in ids[:6]}


def test_writers_of_both_kinds_at_once_store_each_clip_once(lake):
    fill(lake, tracks=40, clips_a_track=5, seed=0)
    lake.vectors("fake").table.delete("clip_id IS NOT NULL")
    ids = clip_rows(40, 5)["clip_id"].to_list()
    problems = []

    def work(kind: int) -> None:
        try:
            mine = Lake(lake.uri)
            table = mine.vectors("fake").table
            order = random.Random(kind).sample(ids, len(ids))
            for start in range(0, len(order), 20):
                rows = rows_of(mine, order[start : start + 20], float(kind))
                if kind % 2:
                    append_fragments(table, [write_fragment(table, rows)])
                else:
                    table.insert_new(rows)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    vectors = lake.vectors("fake")
    assert vectors.count() == vectors.ids().n_unique() == len(ids)


def test_fragments_on_s3(s3):
    lake = Lake(f"{s3}/lake")
    fill(lake, tracks=2, clips_a_track=4, seed=0)
    table = lake.vectors("fake").table
    table.delete("clip_id IS NOT NULL")
    ids = lake.clips.read(["clip_id"])["clip_id"].to_list()
    fragment = write_fragment(table, rows_of(lake, ids[:4], 1.0))
    table.insert_new(rows_of(lake, ids[:1], 2.0))
    assert append_fragments(table, [fragment, write_fragment(table, rows_of(lake, ids[4:], 1.0))]) == 7
    assert values(lake) == {clip: 2.0 if clip == ids[0] else 1.0 for clip in ids}


def test_an_append_overtaken_by_another_writer_duplicates_no_clip(some, monkeypatch):
    """The other writer stores some of the clips after the check for stored ones and before the commit."""
    lake, table, ids = some
    fragment = write_fragment(table, rows_of(lake, ids[:4], 1.0))
    other = Lake(lake.uri).vectors("fake").table
    commit = table.commit

    def overtaken(write):
        monkeypatch.setattr(table, "commit", commit)
        assert other.insert_new(rows_of(lake, ids[2:6], 2.0)) == 4
        return commit(write)

    monkeypatch.setattr(table, "commit", overtaken)
    assert append_fragments(table, [fragment]) == 2
    assert values(lake) == {clip: 1.0 if clip in ids[:2] else 2.0 for clip in ids[:6]}
