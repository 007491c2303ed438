"""An index that a Ray cluster builds answers as that of one process; a build that fails leaves the former one, and no files."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeEncoder, clip_rows

from tonelake import index
from tonelake.embed import EncoderError
from tonelake.embed.settings import describe_space
from tonelake.embed.work import import_path
from tonelake.index.search import described_index, distributed_index, lance_index, stored_index
from tonelake.store import InputError, Lake

DIM, PARTS, EMBEDDED, CLIPS = 24, 4, 1_200, 1_240
pytestmark = pytest.mark.filterwarnings("ignore")        # raised inside Ray


@pytest.fixture(scope="module", autouse=True)
def small_lists():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lance_index, "LIST_ROWS", 150)
        patch.setattr(lance_index, "QUERIES", 100)
        yield


@pytest.fixture
def connected(ray_cluster, request):
    """A connection to the cluster of the test session, whose workers have this test's environment of the object store."""
    import ray
    from ray.job_config import JobConfig

    store = {name: value for name, value in os.environ.items() if name.startswith("AWS_") and "s3" in request.fixturenames}
    ray.init(
        address=ray_cluster.address, log_to_driver=False, runtime_env={"env_vars": store},
        job_config=JobConfig(_py_driver_sys_path=import_path()),
    )
    yield
    ray.shutdown()


def add(lake, space, start, end):
    """Add clustered vectors of clips; those of layer `high` are of no use here."""
    rng = np.random.default_rng(start)
    centres = np.random.default_rng(0).standard_normal((40, DIM))
    values = (centres[rng.integers(40, size=end - start)] + 0.5 * rng.standard_normal((end - start, DIM))).astype(np.float32)
    ids = clip_rows(CLIPS // 10, 10)["clip_id"].to_list()[start:end]
    lake.vectors(space).add(ids, [values] * 2, [values] * 2, [1] * len(ids))


def fill(lake):
    """Fill a lake with clips, all but the last 40 embedded, in four fragments; return its space and the ids of the clips."""
    rows = clip_rows(CLIPS // 10, 10)
    lake.clips.add(rows)
    space = lake.spaces.make(replace(describe_space(FakeEncoder(), "big", 30.0), dims=(DIM, DIM)))
    for start in range(0, EMBEDDED, EMBEDDED // PARTS):
        add(lake, space, start, start + EMBEDDED // PARTS)
    assert len(lake.vectors(space).table.dataset().get_fragments()) == PARTS
    return space, rows["clip_id"].to_list()


def search_all_lists(lake, space, clips):
    """Search the index of layer 0 with its widest settings; return the ids of ten clips for each of `clips`."""
    stored = described_index.find_index(lake, space, 0, metric="cosine")
    widest = replace(stored, width=EMBEDDED // 150, refine=8)
    snapshot, vectors = lake.vectors(space).table.snapshot(), lake.vectors(space).take(clips, 0).vectors
    found = [stored_index.search_stored(lake, space, widest, vector, 10, None, snapshot)[0] for vector in vectors]
    return [snapshot.keys.take(rows).to_pylist() for rows in found]


@pytest.mark.slow
def test_an_index_built_by_a_cluster_on_an_object_store_answers_as_that_of_one_process(
    s3, connected, used, tmp_path
):
    lake = Lake(f"{s3}/lake")
    space, ids = fill(lake)
    table = lake.vectors(space).table
    before = table.version
    line, = lake_lines(lake)
    assert ": built; lance of 1,200 clips" in line and table.version == before + 1
    made, = index.read_indexes(lake, space)
    assert made.recall >= 0.97
    segments, = (one.segments for one in table.dataset().describe_indices())
    assert len(segments) == 1 and {name.split("/")[0] for name in stored_segments(lake, space)} == {segments[0].uuid}
    near = search_all_lists(lake, space, ids[:EMBEDDED:100])

    query = ids[5]
    chosen = set(lake.clips.read(["clip_id"], where="year > 2000")["clip_id"])
    hits = index.similar(lake, query, layer=0, clips=True, k=20, where="year > 2000")
    assert set(hits["clip_id"]) <= chosen
    add(lake, space, EMBEDDED, CLIPS)
    assert index.similar(lake, ids[-1], layer=0, clips=True, k=5)["clip_id"][0] in ids
    everything = index.similar(lake, ids[-1], layer=0, clips=True, k=200)["clip_id"]
    assert set(everything) & set(ids[EMBEDDED:])
    line, = lake_lines(lake)
    assert ": extended by 40 clips; lance of 1,240 clips" in line
    assert set(index.similar(lake, ids[-1], layer=0, clips=True, k=200)["clip_id"]) & set(ids[EMBEDDED:])
    assert index.list_indexes(lake).select("behind", "gone", "state").row(0) == (0, 0, "up to date")
    assert all(used)

    alone = Lake(tmp_path / "alone")
    fill(alone)
    index.build_index(alone, space, 0, kind="lance", recall=0.97)
    assert search_all_lists(alone, space, ids[:EMBEDDED:100]) == near


def lake_lines(lake):
    return index.build_indexes(lake, [0], recall=0.97, engine="ray")


def stored_segments(lake, space):
    return lake.files(f"{space.table_name}.lance/_indices").folders()


@pytest.fixture
def local(tmp_path):
    """A lake on a disk, with an index inside that one process built."""
    lake = Lake(tmp_path / "lake")
    space, _ = fill(lake)
    index.build_index(lake, space, 0, kind="lance", recall=0.9)
    return lake, space


@pytest.mark.slow
def test_a_worker_that_dies_and_a_compaction_meanwhile_have_their_work_done_again(local, connected, tmp_path, monkeypatch):
    lake, space = local
    table, marker = lake.vectors(space).table, str(tmp_path / "died")

    def die_once(*arguments):
        import signal
        from pathlib import Path

        from tonelake.index.search.distributed_index import build_segment

        try:
            Path(marker).touch(exist_ok=False)
        except FileExistsError:
            return build_segment(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    merge, compacted = distributed_index.merge_segments, str(tmp_path / "compacted")

    def compact_once(lake, space, *arguments):
        from pathlib import Path

        from tonelake.store import Lake

        if not Path(compacted).exists():
            opened = Lake(lake)
            opened.vectors(opened.spaces.get(space)).table.compact()
            Path(compacted).touch()
        return merge(lake, space, *arguments)

    monkeypatch.setattr(distributed_index, "build_segment", die_once)
    monkeypatch.setattr(distributed_index, "merge_segments", compact_once)
    line, = lake_lines(lake)
    assert ": built; lance of 1,200 clips" in line and (tmp_path / "died").exists() and (tmp_path / "compacted").exists()
    assert index.list_indexes(lake).select("behind", "gone", "state").row(0) == (0, 0, "up to date")
    described, = table.dataset().describe_indices()
    assert [name for name in stored_segments(lake, space) if name == described.segments[0].uuid]


@pytest.mark.slow
def test_a_build_that_fails_leaves_the_former_index_and_no_segments(local, connected, monkeypatch):
    lake, space = local
    table = lake.vectors(space).table
    version, before, segments = table.version, index.read_indexes(lake, space), stored_segments(lake, space)

    def fail(*arguments):
        raise OSError("the disk is on fire")

    monkeypatch.setattr(distributed_index, "merge_segments", fail)
    with pytest.raises(EncoderError, match=r"Ray cluster: .*the disk is on fire.*Nothing was changed"):
        lake_lines(lake)
    assert (table.version, index.read_indexes(lake, space), stored_segments(lake, space)) == (version, before, segments)


def test_an_index_in_files_is_not_built_by_a_cluster(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.clips.add(clip_rows(1, 2))
    lake.spaces.make(describe_space(FakeEncoder(), "big", 30.0))
    for kind in ("auto", "hnsw"):
        with pytest.raises(InputError, match=r"engine 'ray': builds only indexes inside the lake.*--kind lance"):
            index.build_indexes(lake, engine="ray", kind=kind)
    with pytest.raises(InputError, match="engine 'slurm': unknown"):
        index.build_indexes(lake, engine="slurm")
    with pytest.raises(InputError, match="only the Ray engine takes one"):
        index.build_indexes(lake, address="10.0.0.1:6379")
