"""Searches of a lake on an object store read lists, candidates and filtered rows, each once, and no whole layer.

Hits are compared with NumPy on all stored vectors: as many as the recall asks for, with exact scores and exact filters.
"""

from __future__ import annotations

from dataclasses import replace

import boto3
import numpy as np
import pytest
from clustered import DIM, add, vectors_of
from fakes import FakeEncoder, clip_rows

from tonelake import index
from tonelake.embed.settings import describe_space
from tonelake.index.search import described_index, exact, lance_index, narrow, row_cache
from tonelake.index.vectors import prepare
from tonelake.store import Lake, Vectors

CLIPS, EMBEDDED, LATER = 1_600, 1_400, 1_500
SOME, FEW = "year >= 2000", "year = 1971"                            # 1,000 clips; 10, which lie together


@pytest.fixture(scope="module")
def away(s3_server):
    """A lake on an object store, its space, and the ids of its clips: 1,400 in an index of layer 0, 100 embedded later."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT": s3_server, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        patch.setattr(lance_index, "LIST_ROWS", 150)
        patch.setattr(lance_index, "QUERIES", 100)
        boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="music-away")
        lake = Lake("s3://music-away/lake")
        rows = clip_rows(CLIPS // 10, 10)
        lake.clips.add(rows)
        space = lake.spaces.make(replace(describe_space(FakeEncoder(), "big", 30.0), dims=(DIM, DIM)))
        ids = rows["clip_id"].to_list()
        add(lake, space, ids[:EMBEDDED], 1)
        index.build_index(lake, space, 0, recall=0.97)
        add(lake, space, ids[EMBEDDED:LATER], 2)
        yield lake, space, ids


@pytest.fixture(autouse=True)
def no_layer_is_read(away, monkeypatch):
    """Requests are cheap, as the layer is small; caches are empty, and reading a whole layer fails."""
    def refuse(*_, **__):
        raise AssertionError("a whole layer was read")

    monkeypatch.setattr(narrow, "REQUEST_BYTES", 32)
    for name in ("similar", "similar_many"):
        monkeypatch.setattr(f"tonelake.index.search.{name}.load_layer", refuse)
    exact._cache.clear()
    row_cache._kept.clear()


@pytest.fixture
def rows_read(monkeypatch):
    """A list of the row numbers of single rows that were read."""
    found, plain = [], Vectors.read_rows

    def read(self, snapshot, rows, layer, **how):
        found.extend(np.unique(rows).tolist())
        return plain(self, snapshot, rows, layer, **how)

    monkeypatch.setattr(Vectors, "read_rows", read)
    return found


@pytest.fixture
def objects_read(away, monkeypatch):
    """A list of the keys of objects that the store was asked for."""
    from moto.s3.responses import S3Response

    found, plain = [], S3Response.get_object

    def get(self):
        found.append(self.key_name if hasattr(self, "key_name") else self.path)
        return plain(self)

    monkeypatch.setattr(S3Response, "get_object", get)
    return found


def by_numpy(lake, space, query, k, where=None, layers=None, metric="cosine", own=()):
    """Return {clip: score} of the true k nearest clips, by all stored vectors."""
    layers = layers or {0: 1.0}
    scores = 0
    for layer, weight in layers.items():
        ids, vectors = lake.vectors(space).layer(layer, where=where)
        near, asked = prepare(vectors, metric), prepare(query[layer][None], metric)[0]
        scores = scores + weight * (-np.linalg.norm(near - asked, axis=1) if metric == "l2" else near @ asked)
    scores = np.where(ids.is_in(list(own)).to_numpy(), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")[:k]
    return dict(zip(ids.gather(order).to_list(), scores[order].tolist(), strict=True))


def shared(hits, true, at_least):
    """Assert that enough of the true hits were found, and that their scores are exact."""
    found = dict(hits.select("clip_id", hits.columns[1] if "query" not in hits.columns else hits.columns[2]).iter_rows())
    assert len(found) == len(true)
    both = found.keys() & true.keys()
    np.testing.assert_allclose([abs(found[clip]) for clip in both], [abs(true[clip]) for clip in both], atol=1e-4)
    assert len(both) >= at_least * len(true)


@pytest.mark.parametrize("where", [None, pytest.param(SOME, marks=pytest.mark.slow)])
def test_a_batch_is_answered_by_the_index_and_reads_each_row_once(away, rows_read, where):
    lake, space, ids = away
    asked = [*ids[:EMBEDDED:100], ids[0]]
    hits = index.similar_many(lake, asked, layer=0, k=10, where=where)
    assert len(rows_read) == len(set(rows_read)) < 600
    assert hits.group_by("query", maintain_order=True).len()["query"].to_list() == asked[:-1]
    own = {clip: lake.vectors(space).take([clip], 0).vectors[0] for clip in asked}
    found = 0.0
    for clip in asked[:-1]:
        mine = hits.filter(query=clip).unique(["rank", "clip_id"]).sort("rank")
        true = by_numpy(lake, space, {0: own[clip]}, 10, where, own=[clip])
        shared(mine, true, 0.5)
        found += len(set(mine["clip_id"]) & true.keys()) / 10
    assert found / len(asked[:-1]) >= 0.93
    assert set(hits["clip_id"]) & set(ids[EMBEDDED:LATER])           # embedded after the index was built


def test_a_batch_whose_candidates_cost_more_than_the_layer_is_left_to_a_scan(away, monkeypatch):
    lake, space, ids = away
    with pytest.raises(AssertionError, match="a whole layer was read"):
        index.similar_many(lake, ids[:LATER], layer=0, k=10)
    monkeypatch.undo()
    exact.load_layer(lake, space, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow, "REQUEST_BYTES", 32)
        patch.setattr("tonelake.index.search.lance_search.nearest_in_view", None)            # the layer is in memory
        assert len(index.similar_many(lake, ids[:3], layer=0, k=10)) == 30


@pytest.mark.parametrize("how", [
    {"clips": True}, {"layer": None, "layers": {0: 0.5, 1: 0.5}, "clips": True},
    pytest.param({"clips": True, "metric": "l2"}, marks=pytest.mark.slow),
    pytest.param({"layer": 1, "clips": True, "metric": "ip"}, marks=pytest.mark.slow),         # without an index
])
def test_a_narrow_filter_reads_the_rows_that_pass_it(away, rows_read, how):
    lake, space, ids = away
    how = {"layer": 0} | how
    query = {layer: lake.vectors(space).take([ids[3]], layer).vectors[0] for layer in (0, 1)}
    layers = how.get("layers") or {how["layer"]: 1.0}
    rows_read.clear()
    hits = index.similar(lake, ids[3], k=7, where=FEW, **how)
    shared(hits, by_numpy(lake, space, query, 7, FEW, layers, how.get("metric", "cosine")), 1.0)
    assert len(rows_read) == 10 * len(layers)
    assert index.similar(lake, ids[3], k=7, where=FEW, **how).equals(hits) and len(rows_read) == 10 * len(layers)
    assert index.similar(lake, ids[3], k=7, where="year = 1", **how).is_empty()


def test_a_batch_with_a_narrow_filter_reads_the_rows_that_pass_it(away, rows_read):
    lake, space, ids = away
    queries = vectors_of(3, 5)
    hits = index.similar_many(lake, queries, layer=0, k=7, where=FEW)
    assert sorted(rows_read) == list(range(110, 120))
    for number, query in enumerate(queries):
        shared(hits.filter(query=number), by_numpy(lake, space, {0: query}, 7, FEW), 1.0)
    assert index.similar_many(lake, ids[:2], layer=0, where="year = 1").is_empty()


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"hubs": "corrected"}, {"per": ("artist", 1)}, {"layers": {0: 0.5, 1: 0.5}}])
def test_songs_of_a_narrow_filter_equal_those_of_a_scan(away, monkeypatch, how):
    lake, _, ids = away
    where = "year IN (1970, 1972, 1980, 2001) OR artist = 'Artist 9'"
    how = how if "layers" in how else {"layer": 0} | how
    hits = index.similar(lake, ids[3], k=5, where=where, **how)
    monkeypatch.undo()
    exact.load_layer(lake, lake.spaces.get("big"), 0)
    exact.load_layer(lake, lake.spaces.get("big"), 1)
    assert index.similar(lake, ids[3], k=5, where=where, **how).drop("score").equals(hits.drop("score"))


@pytest.mark.slow
def test_a_filter_whose_rows_cost_more_than_the_layer_is_answered_by_the_index(away, monkeypatch):
    lake, space, ids = away
    where = "start_s = 5.0 AND year % 2 = 0"                         # 75 clips of 1,500, all apart
    monkeypatch.setattr(narrow, "rows_are_cheaper", lambda *_: False)
    found = 0.0
    for clip in ids[:LATER:300]:
        hits = index.similar(lake, clip, layer=0, k=8, where=where, clips=True)
        query = {0: lake.vectors(space).take([clip], 0).vectors[0]}
        true = by_numpy(lake, space, query, 8, where, own=[clip])
        shared(hits, true, 0.5)
        found += len(set(hits["clip_id"]) & true.keys()) / 8
    assert found / 5 >= 0.9
    many = index.similar_many(lake, ids[:1], layer=0, k=8, where=where)
    assert many["clip_id"].to_list() == index.similar(lake, ids[0], layer=0, k=8, where=where, clips=True)["clip_id"].to_list()


def test_lists_are_read_once_whatever_is_appended(away, objects_read):
    lake, space, ids = away
    query = vectors_of(1, 9)[0]
    stored, snapshot = described_index.find_index(lake, space, 0, metric="cosine"), lake.vectors(space).table.snapshot()
    view = lance_index.view_of(lake, space, stored, snapshot)
    lance_index.candidates(view, stored, space.column(0, "mean"), query[None], EMBEDDED, stored.width)    # visits every list
    objects_read.clear()
    add(lake, space, ids[LATER:], 3)
    hits = index.similar(lake, query, layer=0, clips=True)
    assert objects_read and not [key for key in objects_read if "_indices" in key]
    shared(hits, by_numpy(lake, space, {0: query}, 10), 0.9)


def test_single_rows_are_read_where_they_cost_less(away, monkeypatch):
    _, space, _ = away                                               # 48 bytes a row; 32 for a request, or less for a gap
    layer = 100 * narrow.row_size(space, 0)
    for rows, cheaper in ((range(99), True), (range(100), False), (range(0, 1_180, 20), True), (range(0, 1_200, 20), False)):
        assert narrow.rows_are_cheaper(space, 0, np.array(rows), layer) == cheaper
    monkeypatch.setattr(narrow, "CACHED_BYTES", 480)
    assert [narrow.rows_are_cheaper(space, 0, np.arange(count), layer) for count in (10, 11)] == [True, False]
    assert narrow.requests_are_cheaper(space, 0, 59, 100) and not narrow.requests_are_cheaper(space, 0, 60, 100)
