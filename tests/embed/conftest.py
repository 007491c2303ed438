"""Fixtures of the room embed: a small lake to embed in several ways, and one Ray cluster for the test session."""

from __future__ import annotations

import shutil

import pytest
from sounds import melody, write

from tonelake.store import Lake


@pytest.fixture(scope="session")
def ingested(tmp_path_factory) -> Lake:
    """A lake with 50 clips of five tracks, not embedded.  Do not change it."""
    from tonelake.ingest import ingest_folder

    folder = tmp_path_factory.mktemp("ingested")
    for number in range(5):
        write(folder / "music" / f"{number}.wav", melody(19 + 3 * number, seed=number, rate=8_000), rate=8_000)
    lake = Lake(folder / "lake")
    ingest_folder(lake, folder / "music", seconds=2.5)
    assert lake.clips.count() == 50
    return lake


@pytest.fixture
def tracks(ingested, tmp_path) -> Lake:
    """A copy of `ingested`."""
    return Lake(shutil.copytree(ingested.uri, tmp_path / "tracks"))


@pytest.fixture(scope="session")
def ingested_music(music, tmp_path_factory) -> Lake:
    """A lake with the six tracks of `music` as whole clips, not embedded.  Do not change it."""
    from tonelake.ingest import ingest_folder

    lake = Lake(tmp_path_factory.mktemp("ingested_music") / "lake")
    ingest_folder(lake, music, seconds=None)
    return lake


@pytest.fixture
def six_tracks(ingested_music, tmp_path) -> Lake:
    """A copy of `ingested_music`."""
    return Lake(shutil.copytree(ingested_music.uri, tmp_path / "six"))


@pytest.fixture(scope="session")
def reference(ingested, tmp_path_factory) -> Lake:
    """The clips of `ingested`, embedded by one process without interruption, with frames of layer 1.  Do not change it."""
    from tonelake.embed import EmbedSettings, embed_lake
    from tonelake.ingest import read_clips

    lake = Lake(shutil.copytree(ingested.uri, tmp_path_factory.mktemp("reference") / "lake"))
    assert embed_lake(lake, EmbedSettings("fakes:FakeEncoder", device="cpu"), read_clips, frames=[1]).failed == 0
    return lake


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster with one node on this machine; tests add nodes and remove them again."""
    import os

    from ray.cluster_utils import Cluster

    # Ray reads these when its processes start; without niceness 0 they would get a twentieth of a core next to other tests.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    cluster = Cluster(initialize_head=True, head_node_args=RAY_NODE | {"include_dashboard": False})
    yield cluster
    cluster.shutdown()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


RAY_NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 << 20}      # the GPU exists in Ray's books alone


@pytest.fixture
def second_node(ray_cluster):
    """A second node of the cluster, removed at the end unless the test did so."""
    node = ray_cluster.add_node(**RAY_NODE)
    yield node
    if node in ray_cluster.list_all_nodes():
        ray_cluster.remove_node(node)


@pytest.fixture
def two_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
