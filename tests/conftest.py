"""Fixtures: folders of music made on the spot, and lakes filled by encoders that run anywhere."""

from __future__ import annotations

import contextlib
import gc
import getpass
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Several test processes, and those that they start, share the cores: threads that wait for one another, spinning, cost more
# than they bring.  Before anything brings torch in.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kernels are not chosen by timing where several test processes share the cores, and measurements of small models made for tests
# stay out of the user's own cache.
os.environ.setdefault("TONELAKE_KERNELS", "safe")
os.environ.setdefault("TONELAKE_CACHE", str(Path(tempfile.gettempdir()) / f"tonelake-tests-{getpass.getuser()}"))
# Streamlit collects garbage after each run of a page: half a second in a process that has imported everything.
os.environ.setdefault("STREAMLIT_RUNNER_POST_SCRIPT_GC", "false")

# A process that a test started prints its stack when it is aborted; see `hanging`.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")

# A shell's background job (`make test &`) ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hanging import pytest_runtest_makereport, pytest_runtest_protocol  # noqa: F401  hooks
from kept_decoders import kept_decoders
from rendering import blank_plots, rendered_plots  # noqa: F401  a fixture
from sounds import encode, melody, write


def share_weights(cache: Path) -> None:
    """Make the weights that `make` has put into the user's cache folder visible in that of the tests."""
    from platformdirs import user_cache_path

    users = user_cache_path("tonelake", appauthor=False) / "weights"
    if users.is_dir() and not (cache / "weights").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):               # another test process was faster, or no links here
            (cache / "weights").symlink_to(users)


share_weights(Path(os.environ["TONELAKE_CACHE"]))
DATA = Path(__file__).parent / "data"
# Files that take longest are run first, so that no process is left alone with one at the end.
LONGEST = (
    "stems_page", "ray", "distributed_index", "axe", "listen_browser", "map_browser", "player", "served", "chorales",
    "situations",
    "finetune_whole", "beat_meter", "finetune", "sync", "small", "tour", "umap", "two_processes", "devices", "interrupted",
    "decode", "pages", "gpu_flow", "decoder_pool", "maps", "cli",
    "stored_index", "songs", "layer_report", "metric_learning", "probes", "frame_runs", "compaction", "adapters", "house",
    "names_table", "groups", "names", "facets", "mpeg_frames", "ingest", "pretrain", "verify", "security", "similar",
    "attention", "kernel_choice", "words", "spaces", "tokens", "finetune_conformers", "compare_spaces", "invariance",
    "properties", "mixture", "app_data", "deferred_import", "language", "duplicates", "probe_runs", "cli_probe",
    "dataset_registry", "demo_music", "registry", "python_docs", "wikimeter", "precision", "embed", "tables", "machine",
    "librosa_import",
)
ARTISTS = ("Ada", "Béla", "Cleo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection(session: pytest.Session) -> None:
    gc.disable()                         # modules are imported, and stay


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the millions of objects of imported modules out of each later collection of garbage."""
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _kept_decoders() -> Iterator[None]:
    with kept_decoders():
        yield


@pytest.fixture(autouse=True)
def _threads_as_set() -> Iterator[None]:
    """Reset torch's number of threads where a test, or a library that it loaded, left another one.

    With as many threads as processors the tests of small models took several times their processor time.
    """
    yield
    torch = sys.modules.get("torch")
    if torch is not None and os.environ["OMP_NUM_THREADS"].isdigit() and hasattr(torch, "get_num_threads"):
        threads = int(os.environ["OMP_NUM_THREADS"])
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _commands_made_once() -> Iterator[None]:
    from commands import get_command

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", get_command)
        patch.setattr("typer.testing._get_command", get_command)
        yield


@pytest.fixture(scope="session", autouse=True)
def _blank_plots(request) -> Iterator[None]:
    """Only where runs are trained: importing what draws takes half a second."""
    rooms = {item.path.parent.name for item in request.session.items}
    with blank_plots() if rooms & {"docs", "embed", "finetune", "probes", "tonelake", "ui"} else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """Two small random MERT checkpoints in the hub's form, with the hidden states of the original code."""
    return DATA / "mert"


@pytest.fixture(scope="session")
def music(tmp_path_factory) -> Path:
    """Six tracks by three artists, tagged, in several formats and folders.  Do not change it."""
    folder = tmp_path_factory.mktemp("music")
    for number, suffix in enumerate((".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")):
        artist = ARTISTS[number % 3]
        tags = {"title": f"Song {number}", "artist": artist, "album": f"Album of {artist}"}
        make = encode if suffix in (".mp3", ".opus", ".m4a") else write
        make(folder / artist / f"song{number}{suffix}", melody(9, seed=number, channels=2), tags=tags)
    return folder


@pytest.fixture
def lake(tmp_path):
    """An empty lake."""
    from tonelake.store import Lake

    return Lake(tmp_path / "lake")


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """A lake of 240 made-up clips of 24 tracks by 6 artists, in space `fake`.  Do not change it."""
    from fakes import fill

    from tonelake.store import Lake

    lake = Lake(tmp_path_factory.mktemp("filled") / "lake")
    fill(lake, tracks=24, clips_a_track=10, seed=1)
    return lake


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server of this process: starting and stopping one takes as long as most tests of it."""
    import logging
    import threading

    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    one_at_a_time, put_object = threading.Lock(), S3Response.put_object

    def put_atomically(self):            # as S3 does; moto checks the condition of a request before it writes, without a lock
        with one_at_a_time:
            return put_object(self)

    S3Response.put_object = put_atomically
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    S3Response.put_object = put_object


@pytest.fixture
def s3(s3_server, monkeypatch) -> str:
    """The URI of a new bucket on an S3 server of this machine, with endpoint and credentials in the environment."""
    import uuid

    import boto3

    for name, value in {
        "AWS_ENDPOINT": s3_server, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"music-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster with one node on this machine; tests add nodes and remove them again."""
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
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sung(tmp_path_factory, checkpoints):
    """Twelve tracks of five seconds, embedded in windows of two by a random checkpoint, frames of layers 0 and 1 stored.
    Do not change it."""
    import polars as pl

    import tonelake
    from tonelake.ingest import ingest_folder

    folder = tmp_path_factory.mktemp("sung")
    for number in range(12):
        sound = melody(5.2, seed=number, rate=24_000) * (0.2 if number % 2 else 1.0)
        write(folder / "music" / f"{number}.wav", sound, rate=24_000)
    lake = tonelake.open(folder / "lake", progress=False)
    ingest_folder(lake, folder / "music", seconds=None)
    lake.embed(str(checkpoints / "95M-tiny"), window=2.0, precision="float32", device="cpu", frames=[0, 1])
    clips = lake.clips.read().sort("source")
    number = clips["source"].str.extract(r"(\d+)\.wav").cast(pl.Int64)
    lake.clips.set_labels(clips.select("clip_id").with_columns(
        kind=pl.Series(["soft" if i % 2 else "loud" for i in number]),
        tags=pl.Series([["low", "odd"] if i % 2 else (["even", "low"] if i % 3 else ["even"]) for i in number]),
        speed=(number * 1.5).cast(pl.Float64), part=pl.Series(["mix" if i < 6 else "bass" for i in number]),
    ))
    return lake


@pytest.fixture
def mine(sung, tmp_path):
    """A copy of `sung` to write to."""
    import shutil

    import tonelake

    shutil.copytree(sung.uri, tmp_path / "lake")
    return tonelake.open(tmp_path / "lake", create=False, progress=False)
