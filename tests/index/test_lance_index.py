"""Indexes inside the lake, as on an object store: requested recall, exact scores and filters, never stale, recoverable."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from clustered import DIM, add, vectors_of
from fakes import FakeEncoder, clip_rows

from tonelake import index
from tonelake.embed.settings import describe_space
from tonelake.index.search import described_index, lance_index, stored_index
from tonelake.index.vectors import prepare
from tonelake.store import InputError, Lake, LakeError, optimize

CLIPS, EMBEDDED = 1_800, 1_500


def fill(lake):
    """1,800 clips of 24 dimensions; the last 300 are not embedded."""
    rows = clip_rows(CLIPS // 10, 10)
    lake.clips.add(rows)
    space = lake.spaces.make(replace(describe_space(FakeEncoder(), "big", 30.0), dims=(DIM, DIM)))
    ids = rows["clip_id"].to_list()
    values = vectors_of(EMBEDDED, 1)
    values[7] = 0                        # silence
    add(lake, space, ids[:EMBEDDED], 1, values)
    return space, ids


@pytest.fixture(scope="module", autouse=True)
def small_lists():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lance_index, "LIST_ROWS", 150)
        patch.setattr(lance_index, "QUERIES", 200)
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A local lake with an index inside, its space and the ids of its clips.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("kept") / "lake")
    space, ids = fill(lake)
    made, done = index.build_index(lake, space, 0, kind="lance", recall=0.97)
    assert (made.kind, made.rows, done) == ("lance", EMBEDDED, "built")
    return lake, space, ids


@pytest.fixture
def indexed(kept, tmp_path):
    """A copy of `kept` that a test may change."""
    return Lake(shutil.copytree(kept[0].uri, tmp_path / "lake")), *kept[1:]


def by_clip(lake, query, **how):
    return index.similar(lake, query, layer=0, clips=True, **how)


def by_scan(lake, query, **how):
    """Run `similar` without an index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tonelake.index.search.similar.find_index", lambda *_, **__: None)
        return by_clip(lake, query, **how)


def agreement(lake, queries, **how):
    """Return the share of the hits of a scan that the index finds; the scores of those must be equal."""
    found = []
    for clip in queries:
        near, true = by_clip(lake, clip, **how), by_scan(lake, clip, **how)
        assert len(near) == len(true)
        both = near.join(true, on="clip_id")
        np.testing.assert_allclose(both[:, 1], both[f"{near.columns[1]}_right"], rtol=1e-4, atol=1e-4)
        found.append(len(both) / max(len(true), 1))
    return float(np.mean(found))


def test_a_lake_on_an_object_store_is_searched_by_its_index(s3, used):
    """Built, filtered, extended, optimized and dropped there; the details are tested on a disk, by the same code."""
    lake = Lake(f"{s3}/lake")
    space, ids = fill(lake)
    before = lake.vectors(space).table.snapshot()
    with pytest.raises(InputError, match="need a lake on a local disk"):
        index.build_index(lake, space, 1, kind="hnsw")
    with lake.files("indexes").locked("held"), pytest.raises(InputError, match="an index is being built by another process"):
        index.build_index(Lake(lake.uri), space, 0)
    made, done = index.build_index(Lake(lake.uri), space, 0, recall=0.97)
    assert (made.kind, made.rows, done) == ("lance", EMBEDDED, "built") and made.recall >= 0.97
    query = lake.vectors(space).take([ids[0]], 0).vectors[0]
    assert stored_index.search_stored(lake, space, made, query, 5, None, before) is None         # a version without it
    described_index.forget_descriptions(lake, space)
    assert agreement(lake, ids[:EMBEDDED:300]) >= 0.9
    chosen = set(lake.clips.read(["clip_id"], where="year > 2000")["clip_id"])
    assert set(by_clip(lake, ids[1], k=25, where="year > 2000")["clip_id"]) <= chosen
    assert agreement(lake, ids[:EMBEDDED:500], k=25, where="year > 2000") >= 0.9
    assert index.build_index(lake, space, 0, recall=0.97)[1] == "nothing to do"

    add(lake, space, ids[EMBEDDED:], seed=2)
    newer = ids[EMBEDDED + 100]
    assert set(by_clip(lake, newer, k=40)["clip_id"]) & set(ids[EMBEDDED:])
    assert index.list_indexes(lake).select("behind", "gone", "state").row(0) == (300, 0, "behind")
    assert index.build_index(lake, space, 0, recall=0.97)[1] == "extended by 300 clips"
    optimize(lake, keep_minutes=0)
    assert index.list_indexes(lake).select("behind", "gone", "state").row(0) == (0, 0, "up to date")
    assert agreement(lake, ids[EMBEDDED::100]) >= 0.9
    near = by_clip(lake, newer, k=40)["clip_id"]
    lake.vectors(space).table.delete(f"clip_id = '{near[0]}'")
    assert by_clip(lake, newer, k=39)["clip_id"].to_list() == near[1:].to_list()
    assert all(used)
    assert index.drop_indexes(lake) == 1 and index.list_indexes(lake).is_empty()
    assert not lake.vectors(space).table.dataset().describe_indices()


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_each_metric_reaches_the_requested_recall_with_exact_scores(indexed, used, metric):
    lake, space, ids = indexed
    made, done = index.build_index(lake, space, 0, metric=metric, kind="lance", recall=0.97)
    assert (made.rows, done) == (EMBEDDED, "built") and made.recall >= 0.97
    assert made.width < 10 == round(EMBEDDED / lance_index.LIST_ROWS)            # not every list is visited
    assert agreement(lake, ids[:EMBEDDED:50], metric=metric) >= 0.9
    assert all(used)


def test_the_recorded_recall_holds_for_new_queries(kept):
    lake, space, _ = kept
    made = described_index.find_index(lake, space, 0, metric="cosine")
    vectors = lake.vectors(space).layer(0).vectors
    near = vectors_of(300, 9)
    true = np.argsort(-(prepare(near, "cosine") @ prepare(vectors, "cosine").T), axis=1)[:, :10]
    snapshot = lake.vectors(space).table.snapshot()
    found = [stored_index.search_stored(lake, space, made, query, 10, None, snapshot)[0] for query in near]
    measured = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true, found, strict=True)])
    assert made.recall >= 0.97 and measured == pytest.approx(made.recall, abs=0.03)


@pytest.mark.parametrize("where", ["year > 2000", "start_s = 0", "artist != 'Artist 1'", "year = 2005"])
def test_filters_are_exact(kept, where):
    lake, _, ids = kept
    chosen = set(lake.clips.read(["clip_id"], where=where)["clip_id"])
    for clip in ids[:EMBEDDED:150]:
        assert set(by_clip(lake, clip, k=25, where=where)["clip_id"]) <= chosen
    assert agreement(lake, ids[:EMBEDDED:150], k=25, where=where) >= 0.9


def test_a_filter_without_the_querys_neighbours_is_answered_from_all_codes(kept):
    lake, space, _ = kept
    vectors = lake.vectors(space).layer(0).vectors
    query = prepare(vectors, "cosine")[0]
    far = np.argsort(prepare(vectors, "cosine") @ query)[: EMBEDDED // 5]
    mask = np.zeros(EMBEDDED, bool)
    mask[far] = True
    stored = described_index.find_index(lake, space, 0, metric="cosine")
    stored = replace(stored, refine=3)
    snapshot = lake.vectors(space).table.snapshot()
    rows, scores = stored_index.search_stored(lake, space, stored, -query, 10, mask, snapshot)
    assert set(rows) <= set(far) and (np.diff(scores) <= 0).all()
    true = far[np.argsort(prepare(vectors, "cosine")[far] @ query)][:10]
    assert len(set(rows) & set(true)) >= 8


def test_silence_and_answers_that_would_need_it_are_left_to_a_scan(indexed, used):
    lake, space, ids = indexed
    hits = by_clip(lake, ids[0], k=EMBEDDED)
    assert ids[7] in set(hits["clip_id"]) and len(hits) == EMBEDDED - 1
    assert used == [False]
    index.build_index(lake, space, 0, metric="l2", kind="lance", recall=0.97)
    assert ids[7] in set(by_clip(lake, np.full(DIM, 1e-3, np.float32), metric="l2", k=3)["clip_id"])


def test_songs_corrected_scores_and_batches_equal_a_scan(kept):
    lake, _, ids = kept
    for how in ({}, {"hubs": "corrected"}, {"per": ("artist", 1), "k": 5}):
        near = index.similar(lake, ids[3], layer=0, **how)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tonelake.index.search.similar.find_index", lambda *_, **__: None)
            true = index.similar(lake, ids[3], layer=0, **how)
        assert len(near) == len(true)
        both = near.join(true, on="clip_id")
        assert len(both) >= len(true) - 2
        np.testing.assert_allclose(both["score"], both["score_right"], atol=1e-4)
    many = index.similar_many(lake, ids[:5], layer=0, k=5)
    assert many.filter(query=ids[0])["clip_id"].to_list() == by_scan(lake, ids[0], k=5)["clip_id"].to_list()


def test_new_clips_are_found_before_and_after_the_index_is_extended(indexed, used):
    lake, space, ids = indexed
    add(lake, space, ids[EMBEDDED:], seed=2)
    query = ids[EMBEDDED + 100]
    assert set(by_clip(lake, query, k=40)["clip_id"]) & set(ids[EMBEDDED:])
    assert agreement(lake, ids[EMBEDDED::60]) >= 0.9
    assert index.list_indexes(lake).select("behind", "gone", "state").row(0) == (300, 0, "behind")
    made, done = index.build_index(lake, space, 0, recall=0.97)
    assert (made.rows, done) == (CLIPS, "extended by 300 clips")
    assert index.list_indexes(lake).select("behind", "gone", "state").row(0) == (0, 0, "up to date")
    assert set(by_clip(lake, query, k=40)["clip_id"]) & set(ids[EMBEDDED:])
    assert agreement(lake, ids[EMBEDDED::60]) >= 0.9
    assert all(used)


def test_many_extensions_are_merged_into_one_segment(indexed, monkeypatch):
    lake, space, ids = indexed
    monkeypatch.setattr(lance_index, "SEGMENTS", 2)
    for start in range(EMBEDDED, CLIPS, 100):
        add(lake, space, ids[start : start + 100], seed=start)
        stored, done = index.build_index(lake, space, 0, recall=0.97)
        assert done == "extended by 100 clips"
    view = lance_index.view_of(lake, space, stored, lake.vectors(space).table.snapshot())
    assert len(view.segments) <= 2 and stored.rows == CLIPS and not len(view.new_rows)
    assert agreement(lake, ids[::200]) >= 0.9


def test_deleted_and_rewritten_vectors_are_never_returned(indexed):
    lake, space, ids = indexed
    query = ids[0]
    near = by_clip(lake, query, k=5)["clip_id"].to_list()
    lake.vectors(space).table.delete(f"clip_id = '{near[0]}'")
    assert near[0] not in set(by_clip(lake, query, k=50)["clip_id"])
    opposite = -lake.vectors(space).take([query], 0).vectors
    add(lake, space, [near[0]], 0, opposite)
    assert near[0] not in set(by_clip(lake, query, k=50)["clip_id"])
    assert by_clip(lake, near[0], k=3)["score"][0] < 0.9999
    lake.clips.table.delete(f"clip_id = '{near[1]}'")
    assert near[1] not in set(by_clip(lake, query, k=50)["clip_id"])
    assert index.list_indexes(lake).select("behind", "gone").row(0) == (1, 1)
    assert index.build_index(lake, space, 0, recall=0.97)[1] == "extended by 1 clips"
    assert index.list_indexes(lake).select("behind", "gone", "state").row(0) == (0, 0, "up to date")


def test_an_index_survives_optimize(indexed, used):
    lake, space, ids = indexed
    for start in range(EMBEDDED, CLIPS, 100):
        add(lake, space, ids[start : start + 100], seed=2)
    before = by_clip(lake, ids[5], k=20)
    optimize(lake, keep_minutes=0)
    assert by_clip(lake, ids[5], k=20)["clip_id"].to_list() == before["clip_id"].to_list()
    assert index.list_indexes(lake)["behind"].to_list() == [300]
    index.build_index(lake, space, 0, recall=0.97)
    optimize(lake, keep_minutes=0)
    assert index.list_indexes(lake).select("behind", "state").row(0) == (0, "up to date")
    assert agreement(lake, ids[::300]) >= 0.9 and all(used)


def test_a_large_addition_or_another_recall_rebuilds_and_leaves_one_index(indexed):
    lake, space, ids = indexed
    first = described_index.find_index(lake, space, 0, metric="cosine")
    made, done = index.build_index(lake, space, 0, recall=0.995)
    assert done == "built" and made.lance_name != first.lance_name and made.width >= first.width
    table = lake.vectors(space).table
    assert [one.name for one in table.dataset().describe_indices()] == [made.lance_name]
    snapshot, query = table.snapshot(), lake.vectors(space).take([ids[0]], 0).vectors[0]
    assert stored_index.search_stored(lake, space, first, query, 5, None, snapshot) is None      # known from before
    assert index.drop_indexes(lake, space="big", layer=0) == 1 and index.list_indexes(lake).is_empty()
    assert not table.dataset().describe_indices() and lake.files("indexes/big").names() == []
    assert index.drop_indexes(lake) == 0
    assert by_clip(lake, ids[0]).equals(by_scan(lake, ids[0]))


def test_a_damaged_index_is_named_and_can_be_dropped(indexed):
    lake, space, ids = indexed
    table, files = lake.vectors(space).table, lake.files("indexes/big")
    stored = described_index.find_index(lake, space, 0, metric="cosine")
    table.dataset().drop_index(stored.lance_name)
    with pytest.raises(LakeError, match=r"mean_00-cosine-lance.json is damaged .*tonelake index drop"):
        by_clip(lake, ids[0])
    assert index.list_indexes(lake)["state"].to_list() == ["damaged"]
    assert index.drop_indexes(lake) == 1 and len(by_clip(lake, ids[0])) == 10
    index.build_index(lake, space, 0, kind="lance", recall=0.97)
    files.put_text("mean_00-cosine-lance.json", "{")
    described_index.forget_descriptions(lake, space)
    assert index.list_indexes(lake).is_empty() and len(by_clip(lake, ids[0])) == 10
    assert index.build_index(lake, space, 0, kind="lance", recall=0.97)[1] == "built"
    assert len(table.dataset().describe_indices()) == 1
    shutil.rmtree(f"{lake.uri}/{space.table_name}.lance/_indices")
    lance_index._views.clear()
    with pytest.raises(LakeError, match=r"mean_00-cosine-lance.json is damaged"):
        by_clip(Lake(lake.uri), ids[0])
    wrong = json.loads(files.read("mean_00-cosine-lance.json")) | {"fingerprint": "0" * 32}
    files.put_text("mean_00-cosine-lance.json", json.dumps(wrong))
    described_index.forget_descriptions(lake, space)
    assert described_index.find_index(lake, space, 0, metric="cosine") is None


def test_what_cannot_be_indexed_in_a_lake_is_refused(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.clips.add(clip_rows(120, 10))
    space = lake.spaces.make(replace(describe_space(FakeEncoder(), "odd", 30.0), dims=(20, DIM)))
    ids = lake.clips.ids().to_list()
    with pytest.raises(InputError, match="0 vectors are too few"):
        index.build_index(lake, space, 1, kind="lance")
    odd, even = np.ones((1_200, 20), np.float32), vectors_of(1_200, 3)
    lake.vectors(space).add(ids, [odd, even], [odd, even], [1] * 1_200)
    silent = lake.spaces.make(replace(describe_space(FakeEncoder(), "silent", 30.0), dims=(DIM, DIM)))
    add(lake, silent, ids, 0, np.zeros((1_200, DIM), np.float32))
    with pytest.raises(InputError, match="layer low: all of its vectors are zero"):
        index.build_index(lake, silent, 0, kind="lance")
    with pytest.raises(InputError, match="20 dimensions, and an index inside a lake needs a multiple of 8"):
        index.build_index(lake, space, 0, kind="lance")


def test_a_local_lake_can_have_its_index_inside(indexed, used):
    lake, space, ids = indexed
    assert index.build_index(lake, space, 0, kind="hnsw", recall=0.97)[0].kind == "hnsw"
    assert not lake.vectors(space).table.dataset().describe_indices()
    assert index.build_index(lake, space, 0, kind="lance", recall=0.97)[0].kind == "lance"
    assert index.list_indexes(lake)["kind"].to_list() == ["lance"]
    assert lake.files("indexes/big").names(".faiss") == []
    assert agreement(lake, ids[:EMBEDDED:300]) >= 0.9 and all(used)
    assert index.build_index(lake, space, 0, recall=0.97)[1] == "nothing to do"   # auto keeps the kind
