"""Approximate indexes: requested recall, exact scores and filters, never stale, and recoverable when damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest
from clustered import DIM, add, vectors_of
from fakes import FakeEncoder, clip_rows
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.embed.settings import describe_space
from tonelake.index.search import approximate, faiss_files, stored_index
from tonelake.index.search import faiss as faiss_search
from tonelake.index.vectors import prepare, prepare_one, unit
from tonelake.store import InputError, Lake, LakeError, SpaceMismatch

CLIPS, EMBEDDED = 1_500, 1_200


@pytest.fixture(scope="module")
def big_lake(tmp_path_factory):
    """1,500 clips of 24 dimensions; the last 300 are not embedded.  Do not change it."""
    from dataclasses import replace

    lake = Lake(tmp_path_factory.mktemp("big") / "lake")
    rows = clip_rows(CLIPS // 10, 10)
    lake.clips.add(rows)
    space = lake.spaces.make(replace(describe_space(FakeEncoder(), "big", 30.0), dims=(DIM, DIM)))
    ids = rows["clip_id"].to_list()
    add(lake, space, ids[:EMBEDDED], seed=1)
    return lake, ids


def with_index(original, folder, layer, recall):
    lake = Lake(shutil.copytree(original.uri, folder / "lake"))
    assert index.build_index(lake, lake.spaces.get("big"), layer, recall=recall)[1] == "built"
    return lake


@pytest.fixture(scope="module")
def indexed_lake(big_lake, tmp_path_factory):
    """`big_lake` with an index of layer 0.  Do not change it."""
    return with_index(big_lake[0], tmp_path_factory.mktemp("indexed"), 0, 0.95)


@pytest.fixture(scope="module")
def precise_lake(big_lake, tmp_path_factory):
    """`big_lake` with an index of layer 1 that finds nearly all neighbours.  Do not change it."""
    return with_index(big_lake[0], tmp_path_factory.mktemp("precise"), 1, 0.99)


@pytest.fixture
def big(big_lake, tmp_path):
    """A copy of `big_lake` that a test may change, with its space and the ids of its clips."""
    original, ids = big_lake
    lake = Lake(shutil.copytree(original.uri, tmp_path / "lake"))
    return lake, lake.spaces.get("big"), ids


@pytest.fixture
def indexed(big_lake, indexed_lake, tmp_path):
    """A copy of `indexed_lake` that a test may change, with its space and the ids of its clips."""
    lake = Lake(shutil.copytree(indexed_lake.uri, tmp_path / "lake"))
    return lake, lake.spaces.get("big"), big_lake[1]


def by_scan(lake, clip, **how):
    """Run `similar` without an index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tonelake.index.search.similar.find_index", lambda *_, **__: None)
        return index.similar(lake, clip, **how, clips=True)


def by_clip(lake, query, **how):
    """Run `similar` for clips."""
    return index.similar(lake, query, **how, clips=True)


def agreement(lake, queries, layer, metric="cosine"):
    """Return the index's recall@10 over some clips, against NumPy; scores must be exact."""
    ids, vectors = lake.vectors().layer(layer)
    ids, vectors = ids.to_list(), prepare(vectors, metric).astype(np.float64)
    found = []
    for clip in queries:
        near, own = index.similar(lake, clip, k=10, layer=layer, metric=metric, clips=True), vectors[ids.index(clip)]
        nearness = -np.linalg.norm(vectors - own, axis=1) if metric == "l2" else vectors @ own
        true = [ids[row] for row in np.argsort(-nearness, kind="stable")[:11] if ids[row] != clip][:10]
        found.append(len(set(near["clip_id"]) & set(true)) / 10)
        scores = nearness[[ids.index(hit) for hit in near["clip_id"]]] * (-1 if metric == "l2" else 1)
        np.testing.assert_allclose(near[near.columns[1]], scores, rtol=5e-4, atol=5e-4)
    return float(np.mean(found))


@pytest.mark.parametrize("kind", list(approximate.KINDS))
@pytest.mark.parametrize("metric", index.METRICS)
def test_an_index_reaches_the_requested_recall_with_exact_scores(big, used, kind, metric):
    lake, space, ids = big
    made, done = index.build_index(lake, space, 0, metric=metric, kind=kind, recall=0.9)
    assert (made.rows, made.kind, done) == (EMBEDDED, kind, "built")
    assert made.recall >= 0.9
    assert agreement(lake, ids[:EMBEDDED:40], layer=0, metric=metric) >= 0.88
    assert used == [True] * 30


@pytest.mark.parametrize("metric", index.METRICS)
def test_an_index_combines_several_parts_as_a_scan_does(big, used, metric):
    lake, space, ids = big
    index.build_index(lake, space, 0, metric=metric, kind="hnsw", recall=0.99)
    shared = 0
    for first in range(0, 500, 100):
        how = {"minus": [ids[first + 600]], "layer": 0, "k": 10, "metric": metric}
        near, true = (search(lake, ids[first : first + 60 : 30], **how) for search in (by_clip, by_scan))
        shared += len(set(near["clip_id"]) & set(true["clip_id"]))
        both = near.join(true, on="clip_id")
        np.testing.assert_allclose(both[:, 1], both[f"{near.columns[1]}_right"], rtol=2e-3, atol=2e-3)
    assert shared >= 45 and used == [True] * 5


def test_recall_is_counted_by_score():
    """Each vector has forty copies, ten of which a scan returns: any other ten are as right."""
    values = np.repeat(vectors_of(100, 1), 40, axis=0)
    made, _ = approximate.build(values, "cosine", kind="hnsw", recall=0.95)
    assert made.recall > 0.95 and made.width == approximate.WIDTHS[0]
    rng = np.random.default_rng(0)
    for metric in index.METRICS:
        queries = prepare(vectors_of(5, 2), metric)
        true = approximate.true_neighbours(queries, values, 10, metric)
        copies = true // 40 * 40 + rng.integers(40, size=true.shape)
        copies[0, 3] = -1
        copies[1, :5] = (copies[1, :5] + 2_000) % 4_000                  # of another sound
        assert approximate.recall_of(copies, true, queries, values, metric) == pytest.approx(1 - 6 / 50)


@pytest.mark.parametrize("kind", ["ivf-rabitq", "ivf-pq"])
def test_more_candidates_are_re_ranked_where_codes_of_short_vectors_hide_neighbours(kind, monkeypatch):
    """20 candidates for a hit find too little however wide the search is."""
    rng = np.random.default_rng(0)
    values, queries = (rng.standard_normal((count, 16)).astype(np.float32) for count in (20_000, 300))
    with monkeypatch.context() as patched:
        patched.setattr(approximate, "REFINES", approximate.REFINES[:1])
        few, _ = approximate.build(values, "cosine", kind=kind, recall=0.98)
    assert few.recall < 0.93
    more, order = approximate.build(values, "cosine", kind=kind, recall=0.98)
    assert more.recall >= 0.98
    prepared = prepare(queries, "cosine")
    true = approximate.true_neighbours(prepared, values, 10, "cosine")
    found = order[more.search(prepared, 10)[0]]
    assert approximate.recall_of(found, true, prepared, values, "cosine") == pytest.approx(more.recall, abs=0.015)


def test_a_search_that_cannot_reach_the_recall_is_no_wider_than_helps(monkeypatch):
    """Widths are tried on scores that rise, then fall."""
    shares = {2: [0.3, 0.5, 0.6, 0.7, 0.7, 0.69], 8: [0.4, 0.6, 0.8, 0.85, 0.9, 0.9]}
    tried: list[tuple[int, int]] = []

    class Recorded:
        kind, width, recall, refine = "recorded", 0, 0.0, 0

        def rerank(self, candidates):
            self.refine = candidates

        def search(self, queries, k, width):
            tried.append((self.refine, width))
            return np.zeros((1, 1), int), None

    def measure(found):
        refine, width = tried[-1]
        return shares[refine][int(np.log2(width))]

    def tuned(recall):
        tried.clear()
        made = Recorded()
        approximate.tune(made, np.zeros((1, 1)), measure, np.arange(1), recall, (2, 8))
        return made.refine, made.width, made.recall

    monkeypatch.setitem(approximate.KINDS, "recorded", approximate.Kind(lambda rows, dim: "", "", (1, 2, 4, 8, 16, 32)))
    assert tuned(0.6) == (2, 4, 0.6) and len(tried) == 3
    assert tuned(0.8) == (8, 4, 0.8)
    assert tried == [(2, 1), (2, 2), (2, 4), (2, 8), (2, 16), (8, 1), (8, 2), (8, 4)]
    assert tuned(1.0) == (8, 16, 0.9)


def test_a_graph_of_many_chunks_equals_faisss_own(monkeypatch):
    """More rows than a chunk of the scan, yet added in one call; on one thread FAISS's own graph is reproducible."""
    monkeypatch.setattr(approximate, "CHUNK", 1_000)
    monkeypatch.setattr(approximate, "QUERIES", 300)
    vectors = np.random.default_rng(0).standard_normal((3_000, 8)).astype(np.float32)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        made, order = approximate.build(vectors, "ip", kind="hnsw")
        raw = faiss.index_factory(8, "HNSW32,SQfp16", faiss.METRIC_INNER_PRODUCT)
        raw.hnsw.efConstruction = approximate.BUILD_WIDTH
        raw.train(vectors)
        raw.add(vectors[order[: -approximate.QUERIES]])
        raw.add(vectors[order[-approximate.QUERIES :]])
        raw.hnsw.efSearch = max(made.width, 10)
        np.testing.assert_array_equal(made.search(vectors[:300], 10)[0], raw.search(vectors[:300], 10)[1])
    finally:
        faiss.omp_set_num_threads(threads)


def test_the_recorded_recall_holds_for_new_queries():
    """Check by NumPy, on new queries from the same distribution."""
    rng = np.random.default_rng(0)
    values, queries = (unit(rng.standard_normal((count, 32)).astype(np.float32)) for count in (5_000, 500))
    made, order = approximate.build(values, "ip", kind="hnsw", recall=0.9)
    assert sorted(order) == list(range(5_000)) and made.faiss_index.ntotal == 5_000
    true = np.argsort(-(queries @ values.T), axis=1)[:, :10]
    near = order[made.search(queries, 10)[0]]
    measured = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near, true, strict=True)])
    assert 0.9 <= made.recall < 0.97 and made.recall == pytest.approx(measured, abs=0.02)


def test_the_scan_in_parts_equals_numpy(monkeypatch):
    monkeypatch.setattr(approximate, "CHUNK", 130)
    values, queries = vectors_of(1_000, 1), vectors_of(7, 2)
    for metric in index.METRICS:
        a, b = prepare(values, metric), prepare(queries, metric)
        scores = -np.linalg.norm(b[:, None] - a[None], axis=2) if metric == "l2" else b @ a.T
        assert (approximate.true_neighbours(b, values, 12, metric) == np.argsort(-scores, axis=1)[:, :12]).all()


@pytest.mark.parametrize("where", ["year > 2000", "artist = 'Artist 3'", "start_s = 0", "artist != 'Artist 1'"])
def test_filters_stay_exact(precise_lake, big_lake, where):
    lake, ids = precise_lake, big_lake[1]
    kept = set(lake.clips.read(["clip_id"], where=where)["clip_id"])
    for clip in ids[:EMBEDDED:150]:
        hits = index.similar(lake, clip, layer=1, k=25, where=where, clips=True)
        true = by_scan(lake, clip, layer=1, k=25, where=where)
        assert len(hits) == len(true)
        assert set(hits["clip_id"]) <= kept
        assert len(set(hits["clip_id"]) & set(true["clip_id"])) >= 0.9 * len(true)


def test_a_narrow_filter_is_answered_by_a_scan(precise_lake, big_lake, used):
    lake, ids = precise_lake, big_lake[1]
    hits = index.similar(lake, ids[0], layer=1, k=30, where="year = 2005", clips=True)
    assert hits.equals(by_scan(lake, ids[0], layer=1, k=30, where="year = 2005"))
    assert used == [False]


def test_new_clips_are_found_before_and_after_the_index_is_extended(indexed, used):
    lake, space, ids = indexed
    add(lake, space, ids[EMBEDDED:], seed=2)
    query = ids[EMBEDDED + 200]
    before = index.similar(lake, query, layer=0, k=40, clips=True)
    assert set(before["clip_id"]) & set(ids[EMBEDDED:])
    assert agreement(lake, ids[EMBEDDED::30], layer=0) >= 0.95
    assert index.list_indexes(lake)["behind"].to_list() == [300]
    made, done = index.build_index(lake, space, 0)
    assert (made.rows, done) == (CLIPS, "extended by 300 clips")
    assert index.list_indexes(lake)["state"].to_list() == ["up to date"]
    assert index.build_index(lake, space, 0)[1] == "nothing to do"
    assert agreement(lake, ids[EMBEDDED::30], layer=0) >= 0.9
    assert all(used)


@pytest.mark.parametrize("kind", ["ivf-rabitq", "ivf-pq"])
def test_inverted_lists_are_extended_after_they_were_loaded(big, kind):
    lake, space, ids = big
    index.build_index(lake, space, 0, kind=kind, recall=0.95)
    assert agreement(lake, ids[:EMBEDDED:300], layer=0) >= 0.9
    add(lake, space, ids[EMBEDDED:], seed=2)
    made, done = index.build_index(lake, space, 0, recall=0.95)
    assert (made.kind, made.rows, done) == (kind, CLIPS, "extended by 300 clips")
    assert agreement(lake, ids[EMBEDDED::60], layer=0) >= 0.9


def test_deleted_and_rewritten_vectors_are_never_returned(indexed):
    lake, space, ids = indexed
    query = ids[0]
    near = index.similar(lake, query, layer=0, k=5, clips=True)["clip_id"].to_list()
    table = lake.vectors(space).table
    table.delete(f"clip_id = '{near[0]}'")
    assert near[0] not in set(index.similar(lake, query, layer=0, k=50, clips=True)["clip_id"])
    # A clip with a new vector has a new row id, so the index's old entry must not be returned.
    opposite = -lake.vectors(space).take([query], 0).vectors
    lake.vectors(space).add([near[0]], [opposite, opposite], [opposite, opposite], [1])
    hits = index.similar(lake, query, layer=0, k=50, clips=True)
    assert near[0] not in set(hits["clip_id"])
    assert index.similar(lake, near[0], layer=0, k=3, clips=True)["score"][0] < 0.9999
    # A clip that was deleted while its vector is still stored.
    lake.clips.table.delete(f"clip_id = '{near[1]}'")
    assert near[1] not in set(index.similar(lake, query, layer=0, k=50, clips=True)["clip_id"])
    assert index.build_index(lake, space, 0)[1] == "built"                  # rebuilt, because a vector was deleted


def test_positions_are_seen_by_other_threads_when_they_are_complete():
    class Watched(np.ndarray):
        def __ge__(self, other):
            assert view._positions is None           # another thread would take what is there already
            return np.asarray(self) >= other

    row_of = np.array([2, -1, 0]).view(Watched)
    view = faiss_files.IndexView(snapshot=None, row_of=row_of, removed=1, new_rows=np.array([1]), up_to_date=False)
    assert view.positions(3).tolist() == [2, -1, 0] and view.positions(3) is view.positions(3)


def test_compaction_does_not_invalidate_an_index(indexed, used):
    lake, space, ids = indexed
    before = index.similar(lake, ids[5], layer=0, k=10, clips=True)
    add(lake, space, ids[EMBEDDED:], seed=2)
    lake.vectors(space).table.compact()
    lake.vectors(space).table.delete(f"clip_id IN ({', '.join(repr(i) for i in ids[EMBEDDED:])})")
    assert index.similar(lake, ids[5], layer=0, k=10, clips=True)["clip_id"].to_list() == before["clip_id"].to_list()
    assert index.list_indexes(lake).select("behind", "gone").row(0) == (0, 0)
    assert all(used)


def test_a_damaged_index_is_named_and_can_be_dropped(indexed):
    lake, space, ids = indexed
    made, _ = index.build_index(lake, space, 0)
    file = faiss_files.index_folder(lake, space) / made.files[0]
    file.write_bytes(file.read_bytes()[:-100])
    faiss_files.loaded_indexes.clear()
    with pytest.raises(LakeError, match=r"mean_00-cosine-hnsw.json is damaged .*tonelake index drop"):
        index.similar(lake, ids[0], layer=0, clips=True)
    assert index.list_indexes(lake)["state"].to_list() == ["damaged"]
    assert index.drop_indexes(lake, space=space.name) == 1
    assert not list(faiss_files.index_folder(lake, space).iterdir())
    assert len(index.similar(lake, ids[0], layer=0, clips=True)) == 10


def test_an_index_of_another_space_of_the_same_name_is_not_used(indexed, used):
    lake, space, ids = indexed
    made, _ = index.build_index(lake, space, 0)
    path = faiss_files.index_folder(lake, space) / "mean_00-cosine-hnsw.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 32}))
    index.similar(lake, ids[0], layer=0, clips=True)
    for text in ("{", "[]", json.dumps(json.loads(path.read_text()) | {"fingerprint": space.fingerprint, "rows": None})):
        path.write_text(text)
        index.similar(lake, ids[0], layer=0, clips=True)
        assert index.list_indexes(lake).is_empty()
    assert used == []
    assert made.fingerprint == space.fingerprint
    assert index.build_index(lake, space, 0)[1] == "built"


def test_a_write_that_fails_keeps_the_old_index(indexed, monkeypatch):
    lake, space, ids = indexed
    add(lake, space, ids[EMBEDDED:], seed=2)
    monkeypatch.setattr(faiss, "write_index", lambda *_: (_ for _ in ()).throw(RuntimeError("No space left on device")))
    with pytest.raises(LakeError, match=r"No space left.*Free some space"):
        index.build_index(lake, space, 0)
    monkeypatch.undo()
    faiss_files.loaded_indexes.clear()
    assert index.list_indexes(lake)["rows"].to_list() == [EMBEDDED]
    assert agreement(lake, ids[:EMBEDDED:150], layer=0) >= 0.9


def test_layers_that_cannot_be_indexed_are_refused(filled, big, monkeypatch):
    lake, space, _ = big
    with pytest.raises(InputError, match="240 vectors are too few"):
        index.build_index(filled, filled.spaces.get(), 0)
    with pytest.raises(InputError, match=r"no kind of index 'tree': choose auto, hnsw, .*lance"):
        index.build_index(lake, space, 0, kind="tree")
    with pytest.raises(InputError, match=r"recall 95"):
        index.build_index(lake, space, 0, recall=95)
    monkeypatch.setattr(faiss_search, "faiss_module", lambda: None)
    with pytest.raises(InputError, match=r"-m pip install \"faiss-cpu\""):
        index.build_index(lake, space, 0)


def test_settings_follow_the_size():
    assert approximate.choose_kind(200_000) == "hnsw"
    assert approximate.choose_kind(5_000_000) == "ivf-rabitq"
    assert approximate.ivf_pq(1_000_000, 768) == "IVF4096,PQ192x4fs,Refine(SQfp16)"
    assert approximate.ivf_rabitq(1_000_000, 768) == "RR,IVF4096,RaBitQ,Refine(SQfp16)"
    for rows, dim in ((1_000, 24), (100_000, 1024), (5_000, 6), (2_000, 50)):
        for factory in (approximate.ivf_pq, approximate.ivf_rabitq):
            assert faiss.index_factory(dim, factory(rows, dim)).d == dim


def test_the_commands_build_list_and_drop(big):
    lake, _, ids = big
    run = CliRunner().invoke(app, ["index", "build", "--layers", "low,high", "--lake", lake.uri])
    assert run.exit_code == 0, run.output
    assert run.stderr.count("hnsw of 1,200 clips, recall@10") == 2
    run = CliRunner().invoke(app, ["index", "list", "--lake", lake.uri])
    assert [json.loads(line)["layer"] for line in run.stdout.splitlines()] == ["low", "high"]
    assert CliRunner().invoke(app, ["similar", ids[0], "--lake", lake.uri]).exit_code == 0
    run = CliRunner().invoke(app, ["index", "drop", "--layer", "low", "--lake", lake.uri])
    assert "1 indexes dropped" in run.stderr
    assert len(list((Path(lake.uri) / "indexes" / "big").glob("*.json"))) == 1


# -- many queries at once


def test_many_queries_equal_one_after_the_other(filled):
    clips = filled.vectors().ids().to_list()[::7]
    for how in ({}, {"where": "year > 1975"}, {"metric": "l2"}, {"layer": "low", "k": 300}):
        many = index.similar_many(filled, clips, **how)
        score = "distance" if how.get("metric") == "l2" else "score"
        for clip in clips[:6]:
            one = index.similar(filled, clip, **how, clips=True)
            mine = many.filter(query=clip)
            assert mine["rank"].to_list() == one["rank"].to_list()
            np.testing.assert_allclose(mine[score], one[score], atol=1e-5)
            assert set(mine["clip_id"]) == set(one["clip_id"])
    vectors = filled.vectors().layer("high").vectors[:5]
    by_vector = index.similar_many(filled, vectors, k=1)
    assert by_vector["clip_id"].to_list() == filled.vectors().ids().to_list()[:5]
    assert by_vector["query"].to_list() == [0, 1, 2, 3, 4]
    assert len(index.similar_many(filled, [], k=3)) == len(index.similar_many(filled, clips, where="year = 1")) == 0
    with pytest.raises(SpaceMismatch, match=r"shape \(5, 3\)"):
        index.similar_many(filled, np.zeros((5, 3), np.float32))


def test_many_queries_without_faiss(filled, monkeypatch):
    clips = filled.vectors().ids().to_list()[:20]
    for metric in ("cosine", "l2", "ip"):
        expected = index.similar_many(filled, clips, metric=metric)
        with monkeypatch.context() as patch:
            patch.setattr("tonelake.index.search.faiss.faiss_module", lambda: None)
            found = index.similar_many(filled, clips, metric=metric)
        assert found["clip_id"].to_list() == expected["clip_id"].to_list()
        np.testing.assert_allclose(found[:, 2], expected[:, 2], atol=1e-4)


@pytest.mark.parametrize("with_faiss", [True, False])
def test_the_row_of_no_neighbour_is_never_returned(with_faiss, monkeypatch):
    """FAISS returns the row -1, the last one in NumPy, for a place that it cannot fill."""
    if not with_faiss:
        monkeypatch.setattr(faiss_search, "faiss_module", lambda: None)
    values, queries = vectors_of(5, 1), vectors_of(3, 2)
    for metric in index.METRICS:
        rows, scores = faiss_search.nearest_batch(queries, values, 9, metric)
        assert rows.shape == scores.shape == (3, 5) and (np.sort(rows, axis=1) == np.arange(5)).all()
        assert faiss_search.nearest(queries[0], values, 9, metric)[0].tolist() == rows[0].tolist()
        for broken in (np.nan, 1e30):
            if broken == 1e30 and metric != "l2":
                continue                 # these products are finite
            with pytest.raises(InputError, match="cannot be compared"):
                faiss_search.nearest_batch(queries, np.vstack([values[:4], np.full((1, DIM), broken, np.float32)]), 5, metric)


def test_many_queries_use_the_index_while_it_is_up_to_date(big, monkeypatch):
    lake, space, ids = big
    before = index.similar_many(lake, ids[:200])
    stored_index.build_index(lake, space, space.default_layer)
    with monkeypatch.context() as patch:
        patch.setattr("tonelake.index.search.similar_many.load_layer", lambda *_, **__: pytest.fail("a scan was used"))
        found = index.similar_many(lake, ids[:200])
    both = found.join(before, on=["query", "clip_id"], how="inner")
    assert len(both) / len(before) > 0.95
    np.testing.assert_allclose(both["score"], both["score_right"], atol=2e-3)
    assert not (found["query"] == found["clip_id"]).any()
    add(lake, space, ids[EMBEDDED:], seed=2)                # not in the index, but found by a scan
    after = index.similar_many(lake, ids[EMBEDDED : EMBEDDED + 100], k=3)
    assert after.equals(index.similar_many(lake, ids[EMBEDDED : EMBEDDED + 100], k=3)) and len(after) == 300
    lake.clips.table.delete(f"clip_id = '{after['clip_id'][0]}'")
    assert after["clip_id"][0] not in index.similar_many(lake, ids[EMBEDDED : EMBEDDED + 10], k=3)["clip_id"].to_list()


def test_a_gpu_answers_batches_and_single_queries_stay_on_the_cpu(filled, monkeypatch):
    asked = []

    class Gpu:
        """FAISS that reports a GPU."""

        StandardGpuResources = object

        def __getattr__(self, name):
            return getattr(faiss, name)

        def get_num_gpus(self):
            return 1

        def knn_gpu(self, resources, queries, vectors, k, metric):
            asked.append(len(queries))
            return faiss.knn(queries, vectors, k, metric=metric)

    clips = filled.vectors().ids().to_list()
    expected = index.similar_many(filled, clips)
    with_gpu = Gpu()
    monkeypatch.setattr("tonelake.index.search.faiss.faiss_module", lambda: with_gpu)
    faiss_search.gpu_resources.cache_clear()
    try:
        assert index.similar_many(filled, clips).equals(expected)
        assert asked == [240]
        index.similar(filled, clips[0], clips=True)
        index.similar_many(filled, clips[:10])
        assert asked == [240]
    finally:
        faiss_search.gpu_resources.cache_clear()


def test_ids_match_vectors_in_any_row_order(lake):
    """Lance may store the rows of a write in another order; an index and a scan must still return the right clips."""
    from dataclasses import replace

    rows = clip_rows(200, 10)
    lake.clips.add(rows)
    space = lake.spaces.make(replace(describe_space(FakeEncoder(), "mixed", 30.0), dims=(DIM, DIM)))
    ids, values = rows["clip_id"].to_list(), vectors_of(2_000, seed=3)
    order = np.random.default_rng(0).permutation(2_000)
    lake.vectors(space).add([ids[i] for i in order], [values[order]] * 2, [values[order]] * 2, [1] * 2_000)
    stored_index.build_index(lake, space, 0)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    for row in (0, 777):
        true = np.argsort(-(unit @ unit[row]), kind="stable")[1:4]
        assert index.similar(lake, ids[row], layer=0, k=3, clips=True)["clip_id"].to_list() == [ids[i] for i in true]
        assert index.similar_many(lake, [ids[row]], layer=0, k=3)["clip_id"].to_list() == [ids[i] for i in true]


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_scores_of_one_query_equal_the_metric_at_any_query_length(metric):
    """For cosine the query's length does not matter, for the other metrics it does."""
    vectors, query = vectors_of(1_200, 1), 7.5 * vectors_of(1, 2)[0]
    made, order = approximate.build(vectors, metric, kind="hnsw")
    found, scores = made.search_one(query, 5)
    near = vectors[order][found].astype(np.float64)
    expected = {
        "cosine": near @ query / np.linalg.norm(near, axis=1) / np.linalg.norm(query), "ip": near @ query,
        "l2": np.linalg.norm(near - query, axis=1),
    }[metric]
    np.testing.assert_allclose(scores, expected, rtol=1e-3)              # the index holds float16
    np.testing.assert_allclose(prepare_one(query, metric), prepare(query[None], metric), rtol=1e-6)
    assert not prepare_one(np.zeros(DIM, np.float32), metric).any()
