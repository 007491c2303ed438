"""A Ray cluster embeds each clip once, with the vectors of a single process, even if a worker, a node or the driver dies."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from comparing import assert_equal_vectors
from fakes import FakeEncoder, clip_rows
from processes import descendants, running

from tonelake.embed import EmbedSettings, EncoderError, embed_lake, ray_actors, writer
from tonelake.embed import ray_cluster as engine
from tonelake.embed.batches import MOST_WINDOWS
from tonelake.embed.ray_cluster import Appender, Cluster, split_units
from tonelake.embed.settings import describe_space, open_space
from tonelake.embed.work import find_work
from tonelake.ingest import read_clips
from tonelake.store import InputError, Lake

HOME = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")        # raised inside Ray
FAKE = EmbedSettings("fakes:FakeEncoder", device="cpu")
SLOW = EmbedSettings("fakes:SlowFakeEncoder", device="cpu")


@pytest.fixture
def small_units(monkeypatch):
    """Small units and commits, so that a run can be stopped in the middle."""
    monkeypatch.setattr(engine, "UNIT_CLIPS", 4)
    monkeypatch.setattr(writer, "COMMIT_SECONDS", 0.0)


def test_units_keep_the_order_and_their_limits():
    due = pl.DataFrame({"clip_id": [str(i) for i in range(100)], "duration_s": [30.0] * 70 + [900.0] * 29 + [9_000.0]})
    units = split_units(due, 32, 1200)
    assert pl.concat(units)["clip_id"].to_list() == due["clip_id"].to_list()
    assert all(len(u) <= 32 and (len(u) == 1 or u["duration_s"].sum() <= 1200) for u in units)
    assert [len(u) for u in units[:3]] == [32, 32, 7]
    assert len(split_units(due[:1], 32, 1200)) == 1


def test_a_units_clips_fill_the_largest_batch_of_a_gpu():
    """With 30 s clips in windows of 30 s; an incomplete batch is padded, so its missing windows would be computed in vain."""
    clips, seconds = (engine.GPU_UNITS * most for most in (engine.UNIT_CLIPS, engine.UNIT_SECONDS))
    due = pl.DataFrame({"clip_id": [str(i) for i in range(200)], "duration_s": [30.0] * 200})
    assert len(split_units(due, clips, seconds)[0]) % MOST_WINDOWS == 0


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_leaves_each_clip_embedded_once(
    ray_cluster, second_node, small_units, tracks, reference
):
    import ray

    seen, killed, idle = [], [], []

    def kill_an_actor(clips, total, label):
        for clip in clips:
            yield clip
            seen.append(clip)
            idle.append(ray.available_resources().get("CPU", 0))
            if len(seen) == 8:
                killed.append(random.choice(running("EncodeUnit")))
                os.kill(killed[0], signal.SIGKILL)

    tracks.progress = kill_an_actor
    report = embed_lake(tracks, SLOW, read_clips, engine="ray", address=ray_cluster.address, frames=[1])
    total = tracks.clips.count()
    assert killed and killed[0] not in running("EncodeUnit")
    assert min(idle) == 0                # actors use all processors, and read for themselves
    assert (report.new, report.known, report.failed, report.framed) == (total, 0, 0, total)
    assert_equal_vectors(tracks, reference, frames=True)


@pytest.mark.slow
def test_a_node_lost_in_the_middle_leaves_each_clip_embedded_once(ray_cluster, second_node, small_units, tracks, reference):
    """With the data flow for GPUs, separate readers and one actor per GPU; the encoder needs none.

    Nodes have as many GPUs as processors: actors that took a processor each would leave none to read with.
    """
    space, _ = open_space(tracks, SLOW)
    due, seen = find_work(tracks, space).due(), []
    appender = Appender(tracks, space)
    appender.expect(due)
    with Cluster(ray_cluster.address) as ours:
        assert ours.choose_device("auto") == "cuda"
        for clip in appender.collect(ours.run(tracks, space, "cuda", read_clips, due, [], None)):
            seen.append(clip)
            if len(seen) == 8:
                ray_cluster.remove_node(second_node, allow_graceful=False)
    appender.flush()
    assert sorted(seen) == sorted(due["clip_id"])
    assert (appender.stored, appender.failed) == (len(due), 0)
    assert_equal_vectors(tracks, reference)


DRIVER = """
import sys
from tonelake.embed import EmbedSettings, embed_lake, ray_cluster, writer
from tonelake.ingest import read_clips
from tonelake.store import Lake
ray_cluster.UNIT_CLIPS, writer.COMMIT_SECONDS = 4, 0.0
settings = EmbedSettings("fakes:SlowFakeEncoder", device="cpu")
embed_lake(Lake(sys.argv[1]), settings, read_clips, engine="ray", address=sys.argv[2])
"""


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_is_resumed(ray_cluster, tracks, reference):
    support = str(Path(sys.modules["fakes"].__file__).parent)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tracks.uri, ray_cluster.address], cwd=HOME, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": support},
    )
    deadline = time.monotonic() + 480              # two minutes are not always enough next to other tests
    while time.monotonic() < deadline and driver.poll() is None and not stored(tracks):
        time.sleep(0.05)
    driver.kill()
    _, errors = driver.communicate()
    before = stored(tracks)
    assert 0 < before < tracks.clips.count(), errors.decode()
    report = embed_lake(tracks, SLOW, read_clips, engine="ray", address=ray_cluster.address)
    assert (report.new, report.known, report.failed) == (tracks.clips.count() - before, before, 0)
    assert_equal_vectors(tracks, reference)


def stored(lake):
    spaces = lake.spaces.all()
    return lake.vectors(spaces[0]).count() if spaces else 0


@pytest.mark.slow
def test_a_temporary_cluster_listens_on_loopback_only_and_passes_on_errors_of_its_workers(
    tracks, ingested, reference, checkpoints, tmp_path, monkeypatch
):
    """The cluster that `--engine ray` starts if none is running; it also embeds with a transformer as one process does."""
    ray = pytest.importorskip("ray")
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: None)     # of the user's own cluster
    before = listening()
    with Cluster(None) as cluster:
        assert cluster.choose_device("auto") == cluster.choose_device("cpu") == "cpu"
        with pytest.raises(InputError, match="device 'cuda': not on this cluster of 0 GPUs"):
            cluster.choose_device("cuda")
        with pytest.raises(InputError, match="neither a checkpoint folder nor a known name"):
            cluster.open_space(tracks, EmbedSettings(str(tmp_path / "nothing"), device="cpu"))
        assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)      # as in the local engine
        new = listening() - before
        assert all(address.startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")) for address in new), new
        assert embed_lake(tracks, FAKE, read_clips, engine="ray", frames=[1]).new == tracks.clips.count()
        assert_equal_vectors(tracks, reference, frames=True)
        model = EmbedSettings(str(checkpoints / "95M-tiny"), precision="float32", device="cpu")
        local, remote = (Lake(shutil.copytree(ingested.uri, tmp_path / name)) for name in ("local", "remote"))
        embed_lake(local, model, read_clips)
        embed_lake(remote, model, read_clips, engine="ray")
        assert_equal_vectors(remote, local, tolerance=2e-3)          # float16, and sums in another order on fewer threads
    assert not ray.is_initialized()


def listening():
    """Addresses at which this process and its descendants listen by TCP."""
    if shutil.which("ss") is None:
        return set()
    lines = subprocess.run(["ss", "-tlnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = descendants()
    return {line.split()[3] for line in lines if any(f"pid={pid}," in line for pid in ours)}


def test_an_unreachable_or_malformed_address_is_an_error(tracks):
    with pytest.raises(EncoderError, match=r"Ray cluster at 127\.0\.0\.1:1: .*refused"):
        embed_lake(tracks, FAKE, read_clips, engine="ray", address="127.0.0.1:1")
    with pytest.raises(EncoderError, match="address 'nowhere': not a Ray cluster"):
        embed_lake(tracks, FAKE, read_clips, engine="ray", address="nowhere")


def test_a_cluster_of_this_machine_is_joined_only_if_it_answers(tracks, monkeypatch):
    """`ray start` notes its address in a file, which stays if the cluster is killed."""
    services = pytest.importorskip("ray._private.services")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: address)
        assert engine.started_here() == address
    assert engine.started_here() is None
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(EncoderError, match=f"Ray cluster at {address}: .*refused"):
        Cluster(None)


def one_unit(ids, values):
    """A unit of clips of a second, each of one value, as `read_unit` returns it."""
    waves = [np.full(8_000, value, np.float32).tobytes() for value in values]
    return pa.table([[ids], [waves], [[None] * len(ids)]], schema=ray_actors.READ)


def test_an_actor_encodes_several_clips_at_once_where_the_encoder_allows_it(lake, monkeypatch):
    """The actor, without Ray."""
    both = threading.Barrier(2)

    class Parallel(FakeEncoder):
        clips_in_parallel = 2

        def encode(self, windows, keep=None, frames=()):
            both.wait(timeout=20)
            return super().encode(windows, keep, frames)

    monkeypatch.setattr(ray_actors, "encoder_of", lambda space, device, home: Parallel())
    monkeypatch.setattr(ray_actors, "model_threads", lambda encoder: ThreadPoolExecutor(encoder.clips_in_parallel))
    rows = clip_rows(1, 4)
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    ids = rows["clip_id"].to_list()
    actor = ray_actors.EncodeUnit(lake.uri, "fake", "cpu", (), ray_actors.Attempts())
    written, = actor(one_unit(ids, range(4))).to_pylist()
    assert written["clips"] == ids
    appender = Appender(lake, space)
    appender.expect(lake.clips.read())
    assert list(appender.collect(iter([written]))) == ids
    appender.flush()
    low = [FakeEncoder().encode(np.full((1, 8_000), value, np.float32)).mean[0][0] for value in range(4)]
    np.testing.assert_allclose(lake.vectors(space).take(ids, 0).vectors, low, rtol=2e-3)


def test_a_clip_that_kills_its_process_twice_is_a_failure_and_holds_up_no_other(lake, monkeypatch):
    """The actor, without Ray: after each death it gets the unit that Ray would give it."""
    class Deadly(FakeEncoder):
        def encode(self, windows, keep=None, frames=()):
            if windows[0, 0] == 13:
                raise SystemExit("died")
            return super().encode(windows, keep, frames)

    monkeypatch.setattr(ray_actors, "encoder_of", lambda space, device, home: Deadly())
    rows = clip_rows(1, 5)
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    ids = rows["clip_id"].to_list()
    unit = one_unit(ids, [0, 1, 2, 13, 4])
    attempts = ray_actors.Attempts()

    def begin():
        return ray_actors.EncodeUnit(lake.uri, "fake", "cpu", (), attempts)

    for _ in range(2):                   # the first time in the middle of the unit, then alone
        with pytest.raises(SystemExit):
            begin()(unit)
    written = begin()(unit).to_pylist()
    appender = Appender(lake, space)
    appender.expect(lake.clips.read())
    assert set(appender.collect(iter(written))) == set(ids)
    appender.flush()
    assert (appender.stored, appender.failed) == (4, 1)
    assert lake.failures.read()["error"].to_list() == [f"clip {ids[3]}: the process that encoded it died twice"]
    assert set(lake.vectors(space).ids()) == set(ids) - {ids[3]}
    assert attempts.begin([f"unit {clip}" for clip in ids]) == [0] * 5           # done, and forgotten
