"""Every engine embeds each clip once, with the vectors that one process alone would give, whatever dies on the way."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from sounds import melody, write

from tonelake import embed
from tonelake.embed import EmbedSettings, EncoderError, embed_lake
from tonelake.embed.batches import MOST_WINDOWS
from tonelake.embed.device_processes import split_by_source
from tonelake.embed.ray_cluster import split_units
from tonelake.embed.settings import open_space
from tonelake.embed.work import find_work
from tonelake.ingest import Cut, ingest_folder, read_clips
from tonelake.store import InputError, Lake

HOME = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")        # Ray's own, of its own internals
BOUND = 2e-3                             # float16 storage, and sums in another order where threads are fewer


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """A lake with 50 clips of five tracks, to be copied."""
    folder = tmp_path_factory.mktemp("ingested")
    for number in range(5):
        write(folder / "music" / f"{number}.wav", melody(19 + 3 * number, seed=number, rate=24_000), rate=24_000)
    lake = Lake(folder / "lake")
    ingest_folder(lake, folder / "music", Cut(2.5))
    assert lake.clips.count() == 50
    return lake


@pytest.fixture
def tracks(ingested, tmp_path):
    """Its copy."""
    shutil.copytree(ingested.uri, tmp_path / "lake", dirs_exist_ok=True)
    return Lake(tmp_path / "lake")


@pytest.fixture(scope="module")
def reference(ingested, checkpoints, tmp_path_factory):
    """The same clips, embedded by one process, with frames of layer 1."""
    home = tmp_path_factory.mktemp("reference") / "lake"
    shutil.copytree(ingested.uri, home)
    lake = Lake(home)
    assert embed_lake(lake, settings(checkpoints), read_clips, frames=[1]).failed == 0
    return lake


def settings(checkpoints, device="cpu"):
    return EmbedSettings(str(checkpoints / "95M-tiny"), precision="float32", device=device)


def assert_same(lake, reference, *, frames=False):
    mine, theirs = lake.vectors(), reference.vectors()
    assert mine.space.fingerprint == theirs.space.fingerprint
    ids = reference.clips.read(["clip_id"])["clip_id"].to_list()
    assert mine.count() == mine.ids().n_unique() == len(ids)
    for layer in range(len(mine.space.layers)):
        for stat in ("mean", "max"):
            a, b = mine.take(ids, layer, stat=stat).vectors, theirs.take(ids, layer, stat=stat).vectors
            assert np.abs(a - b).max() <= BOUND * np.abs(b).max()
            assert np.abs(a - b[::-1]).max() > 0.05 * np.abs(b).max()          # the bound would notice swapped rows
    if frames:
        assert lake.frames().table.count() == len(ids)
        for clip in ids[::7]:
            a, b = lake.frames().read(clip, 1), reference.frames().read(clip, 1)
            np.testing.assert_array_equal(a.frame_s, b.frame_s)
            assert np.abs(a.states.astype(float) - b.states).max() <= BOUND * np.abs(b.states).max()


# -- one process for each device


def test_shares_are_even_and_keep_a_source_together():
    rng = random.Random(0)
    due = pl.DataFrame(
        [{"clip_id": f"{s}-{c}", "source": f"s{s}", "duration_s": rng.uniform(5, 60)} for s in range(40) for c in range(3)]
    )
    shares = split_by_source(due, 4)
    assert sorted(clip for share in shares for clip in share) == sorted(due["clip_id"])
    owners = [{clip.split("-")[0] for clip in share} for share in shares]
    assert sum(map(len, owners)) == 40
    length = dict(due.select("clip_id", "duration_s").iter_rows())
    loads = [sum(length[clip] for clip in share) for share in shares]
    assert max(loads) < 1.1 * min(loads)


def test_two_devices_embed_each_clip_once(tracks, reference, checkpoints):
    report = embed_lake(tracks, settings(checkpoints, "cpu,cpu"), read_clips, frames=["1"])
    total = tracks.clips.count()
    assert (report.new, report.known, report.failed, report.framed) == (total, 0, 0, total)
    assert_same(tracks, reference, frames=True)
    again = embed_lake(tracks, settings(checkpoints, "cpu,cpu"), read_clips, frames=["1"])
    assert (again.new, again.known) == (0, total)


def test_a_device_that_dies_is_named_and_the_rest_goes_on_later(tracks, reference, checkpoints):
    killed = []

    def kill_one(events, total, label):
        for event in events:
            yield event
            if not killed:
                killed.append(processes("tonelake.embed.device_process")[0])
                os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(EncoderError, match=r"cpu: its process ended with -9.*run it again to go on"):
        embed_lake(tracks, settings(checkpoints, "cpu,cpu"), read_clips, progress=kill_one)
    stored = tracks.vectors().count()
    assert 0 < stored < tracks.clips.count()       # the other one finished its share
    assert not processes("tonelake.embed.device_process")
    report = embed_lake(tracks, settings(checkpoints, "cpu,cpu"), read_clips)
    assert (report.new, report.known) == (tracks.clips.count() - stored, stored)
    assert_same(tracks, reference)


def test_interrupted_devices_store_what_they_have(tracks, checkpoints):
    def interrupt(events, total, label):
        for number, event in enumerate(events):
            if number == 10:
                raise KeyboardInterrupt
            yield event

    with pytest.raises(KeyboardInterrupt):
        embed_lake(tracks, settings(checkpoints, "cpu,cpu"), read_clips, progress=interrupt)
    assert tracks.vectors().count() >= 10
    assert not processes("tonelake.embed.device_process")


def test_devices_engines_and_addresses_that_cannot_be_are_refused(tracks, checkpoints):
    with pytest.raises(InputError, match="no engine 'spark': choose local or ray"):
        embed_lake(tracks, settings(checkpoints), read_clips, engine="spark")
    with pytest.raises(InputError, match="add --engine ray"):
        embed_lake(tracks, settings(checkpoints), read_clips, address="10.0.0.1:6379")
    with pytest.raises(InputError, match=r"device cuda:97 is not on this machine"):
        embed_lake(tracks, settings(checkpoints, "cpu,cuda:97"), read_clips)
    with pytest.raises(InputError, match="has no layer '9'"):
        embed_lake(tracks, settings(checkpoints), read_clips, frames=["9"])
    assert tracks.spaces.all() == []               # nothing was made before all was checked


# -- Ray


def test_units_keep_the_order_and_their_limits():
    due = pl.DataFrame({"clip_id": [str(i) for i in range(100)], "duration_s": [30.0] * 70 + [900.0] * 29 + [9_000.0]})
    units = split_units(due, 32, 1200)
    assert pl.concat(units)["clip_id"].to_list() == due["clip_id"].to_list()
    assert all(len(u) <= 32 and (len(u) == 1 or u["duration_s"].sum() <= 1200) for u in units)
    assert [len(u) for u in units[:3]] == [32, 32, 7]
    assert len(split_units(due[:1], 32, 1200)) == 1


def test_a_units_clips_fill_the_largest_batch_of_a_gpu():
    """Of 30 s clips in windows of 30 s; what is missing would be computed for nothing."""
    clips, seconds = (embed.ray_cluster.GPU_UNITS * most for most in (embed.ray_cluster.UNIT_CLIPS, embed.ray_cluster.UNIT_SECONDS))
    due = pl.DataFrame({"clip_id": [str(i) for i in range(200)], "duration_s": [30.0] * 200})
    assert len(split_units(due, clips, seconds)[0]) % MOST_WINDOWS == 0


@pytest.fixture
def two_nodes(monkeypatch):
    """A Ray cluster of two nodes on this machine, with small units so that there is a middle to be killed in."""
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(embed.ray_cluster, "UNIT_CLIPS", 4)
    monkeypatch.setattr(embed.writer, "COMMIT_SECONDS", 0.0)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")       # beside other tests they would get a twentieth of a core
    node = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 200 << 20}      # GPUs in Ray's books alone
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    second = cluster.add_node(**node)
    yield cluster, second
    cluster.shutdown()


def test_a_worker_killed_in_the_middle_leaves_each_clip_embedded_once(two_nodes, tracks, reference, checkpoints):
    import ray

    cluster, _ = two_nodes
    seen, killed, idle = [], [], []

    def kill_an_actor(clips, total, label):
        for clip in clips:
            yield clip
            seen.append(clip)
            idle.append(ray.available_resources().get("CPU", 0))
            if len(seen) == 8:
                killed.append(random.choice(processes("EncodeUnit")))
                os.kill(killed[0], signal.SIGKILL)

    report = embed_lake(
        tracks, settings(checkpoints), read_clips, engine="ray", address=cluster.address, frames=[1], progress=kill_an_actor
    )
    total = tracks.clips.count()
    assert killed and killed[0] not in processes("EncodeUnit")
    assert min(idle) == 0                # of the processors: actors have all of them between them, and read for themselves
    assert (report.new, report.known, report.failed, report.framed) == (total, 0, 0, total)
    assert_same(tracks, reference, frames=True)


def test_a_node_that_is_lost_in_the_middle_is_done_without(two_nodes, ingested, tracks, tmp_path):
    """With the flow that GPUs have, readers here and an actor a GPU there; the encoder needs none.

    Nodes have as many GPUs as processors: actors that took one each would leave none to read with.
    """
    cluster, second = two_nodes
    plain = Lake(shutil.copytree(ingested.uri, tmp_path / "plain"))
    for lake in (plain, tracks):
        space, _ = open_space(lake, EmbedSettings("spectral"))
    assert embed_lake(plain, EmbedSettings("spectral"), read_clips).failed == 0
    due, seen = find_work(tracks, space).due(), []
    appender = embed.ray_cluster.Appender(tracks, space)
    appender.expect(due)
    with embed.ray_cluster.Cluster(cluster.address) as ours:
        assert ours.choose_device("auto") == "cuda"
        for clip in appender.take(ours.run(tracks, space, "cuda", read_clips, due, [], None)):
            seen.append(clip)
            if len(seen) == 8:
                cluster.remove_node(second, allow_graceful=False)
    appender.flush()
    assert sorted(seen) == sorted(due["clip_id"])
    assert (appender.stored, appender.failed) == (len(due), 0)
    assert_same(tracks, plain)


DRIVER = """
import sys
import tonelake.embed.ray_cluster
from tonelake import embed
import tonelake.embed.writer
from tonelake import embed
embed.ray_cluster.UNIT_CLIPS, embed.writer.COMMIT_SECONDS = 4, 0.0
import tonelake
print(tonelake.open(sys.argv[1]).embed(sys.argv[2], precision="float32", device="cpu", engine="ray"))
"""


def test_a_driver_that_is_killed_goes_on_where_it_stood(tracks, reference, checkpoints, tmp_path):
    command = [sys.executable, "-c", DRIVER, tracks.uri, str(checkpoints / "95M-tiny")]
    driver = subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 480              # two minutes are not always enough beside other tests
    while time.monotonic() < deadline and driver.poll() is None and not stored(tracks):
        time.sleep(0.05)
    driver.kill()
    driver.communicate()
    before = stored(tracks)
    assert 0 < before < tracks.clips.count()
    report = embed_lake(tracks, settings(checkpoints), read_clips, engine="ray")
    assert (report.new, report.known, report.failed) == (tracks.clips.count() - before, before, 0)
    assert_same(tracks, reference)


def test_a_cluster_without_a_gpu_says_so_and_errors_of_its_workers_are_ours(tracks, checkpoints, tmp_path):
    ray = pytest.importorskip("ray")
    with embed.ray_cluster.Cluster(None) as cluster:
        assert cluster.choose_device("auto") == cluster.choose_device("cpu") == "cpu"
        with pytest.raises(InputError, match="no device 'cuda' on this cluster of 0 GPUs"):
            cluster.choose_device("cuda")
        with pytest.raises(InputError, match="is neither a checkpoint folder nor an encoder"):
            cluster.open_space(tracks, EmbedSettings(str(tmp_path / "nothing"), device="cpu"))
        assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)      # as in the local engine
        ours = offspring(os.getpid())
        listening = {line.split()[3] for line in listeners() if any(f"pid={pid}," in line for pid in ours)}
        assert all(address.startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")) for address in listening), listening
    assert not ray.is_initialized()


def offspring(pid):
    """A process and all that it started, and they."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [deeper for child in task.read_text().split() for deeper in offspring(int(child))]
    return found


def listeners():
    """TCP sockets that listen, a line each, with the program that owns them."""
    if shutil.which("ss") is None:
        return []
    return subprocess.run(["ss", "-tlnpH"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_no_cluster_at_an_address_is_said(tracks, checkpoints):
    with pytest.raises(EncoderError, match=r"no Ray cluster at 127\.0\.0\.1:1: .*refused"):
        embed_lake(tracks, settings(checkpoints), read_clips, engine="ray", address="127.0.0.1:1")
    with pytest.raises(EncoderError, match="'nowhere' is no address of a Ray cluster: give host:port"):
        embed_lake(tracks, settings(checkpoints), read_clips, engine="ray", address="nowhere")


def stored(lake):
    spaces = lake.spaces.all()
    return lake.vectors(spaces[0]).count() if spaces else 0


def processes(name):
    """Ids of running processes with this in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if name in (folder / "cmdline").read_bytes().decode(errors="replace") and int(folder.name) != os.getpid():
                    found.append(int(folder.name))
            except OSError:
                pass
    return found


def test_a_clip_that_kills_its_process_twice_is_a_failure_and_holds_up_no_other(lake, monkeypatch):
    """The actor, without Ray: what it is given again after each death is what Ray would give it."""
    from fakes import FakeEncoder, clip_rows

    from tonelake.embed.ray_actors import READ, Attempts, EncodeUnit
    from tonelake.embed.ray_cluster import Appender
    from tonelake.embed.settings import describe_space

    class Deadly(FakeEncoder):
        def encode(self, windows, keep=None, frames=()):
            if windows[0, 0] == 13:
                raise SystemExit("died")
            return super().encode(windows, keep, frames)

    monkeypatch.setattr(embed.ray_actors, "encoder_of", lambda space, device, home: Deadly())
    rows = clip_rows(1, 5)
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    ids = rows["clip_id"].to_list()
    waves = [np.full(8_000, 13 if clip == 3 else clip, np.float32).tobytes() for clip in range(5)]
    unit = pa.table([[ids], [waves], [[None] * 5]], schema=READ)
    attempts = Attempts()

    def begin():
        return EncodeUnit(lake.uri, "fake", "cpu", (), attempts)

    for _ in range(2):                   # the first time in the middle of the unit, then alone
        with pytest.raises(SystemExit):
            begin()(unit)
    written = begin()(unit).to_pylist()
    appender = Appender(lake, space)
    appender.expect(lake.clips.read())
    assert set(appender.take(iter(written))) == set(ids)
    appender.flush()
    assert (appender.stored, appender.failed) == (4, 1)
    assert lake.failures.read()["error"].to_list() == [f"clip {ids[3]}: the process that encoded it died, twice"]
    assert set(lake.vectors(space).ids()) == set(ids) - {ids[3]}
    assert attempts.begin([f"unit {clip}" for clip in ids]) == [0] * 5           # done, and forgotten
