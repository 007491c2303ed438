"""Past one machine: Ray Data reads the clips, actors encode them and write Lance fragments, the driver commits these.

    clips that are due, in units  ->  read (any node)  ->  encode and write (an actor a GPU)  ->  append (the driver)

Without GPUs an actor has a few processors, and reads its clips itself.  Ray does a unit again where its worker dies; what
the dead one wrote belongs to no version of any table.  The driver appends every half minute, so its own death costs no
more than that, and `append_fragments` stores each clip once.
Every node needs tonelake installed, and reaches the lake and the clips' sources by the same names.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import polars as pl

from tonelake.embed.errors import EncoderError
from tonelake.embed.pipeline import EmbedReport
from tonelake.embed.ray_actors import Attempts, EncodeUnit, ReadAndEncodeUnit, SharedAttempts, open_space_json, read_unit
from tonelake.embed.settings import EmbedSettings, check_settings
from tonelake.embed.work import ReadClips, find_work, qualified_name
from tonelake.embed.writer import COMMIT_CLIPS, CommitLog
from tonelake.store import (
    Fragment,
    InputError,
    Lake,
    Progress,
    Space,
    TonelakeError,
    append_fragments,
    silent_progress,
    trim_quietly,
)

CPUS_AN_ACTOR = 4                        # without GPUs: more scale worse, fewer hold the weights more often
UNIT_CLIPS, UNIT_SECONDS = 32, 1200.0    # read and encoded as one: at most 115 MB of samples, but for longer single clips
GPU_UNITS = 2                            # times that for a GPU, whose batches have up to 64 windows and are filled up to it
COMPACT_FRAGMENTS = 1000
REACH_SECONDS = 10.0
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
SETTINGS = {                             # read when Ray is imported: no telemetry, and errors come as exceptions alone
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Of a cluster made here.  By default its workers yield to whatever else runs (15), and get a twentieth of a busy core.
    "RAY_worker_niceness": "0",
}


def embed_on_ray(
    lake: Lake, settings: EmbedSettings, read: ReadClips, *, address: str | None = None, frames: Sequence[str | int] = (),
    workers: int | None = None, progress: Progress = silent_progress,
) -> EmbedReport:
    """The same as `embed_clips`, on a Ray cluster: the one at `address`, the one that is running here, or one of this
    machine alone, made for the occasion.

    The space is opened by one of the cluster's workers, since it is their processors that `auto` is about.  `read` is
    found again by its module and name.  `workers`: with GPUs, how many units are read at once, by default as many as the
    cluster has processors to spare; without, how many processes decode for each actor, by default one.  Raises EncoderError
    where Ray is not installed, cannot be reached, or gives up.
    """
    check_settings(settings)
    started = time.monotonic()
    with Cluster(address) as cluster:
        device = cluster.choose_device(settings.device)
        space = cluster.open_space(lake, replace(settings, device=device))
        layers = sorted({space.layer_index(layer) for layer in frames})
        work = find_work(lake, space, layers)
        appender = Appender(lake, space)
        if len(work):
            due = work.due()
            appender.expect(due)
            written = cluster.run(lake, space, device, read, due, layers, workers)
            try:
                for clip_id in progress(appender.take(written), len(work), f"embedding into {space.name} on Ray"):
                    del clip_id
            finally:
                appender.flush()         # also when interrupted: what is encoded is stored
    return EmbedReport(
        space.name, appender.stored, work.known + appender.beaten, appender.failed, appender.framed, appender.seconds_of_audio,
        time.monotonic() - started, space.precision_reason,
    )


class Cluster:
    """A connection to Ray, closed at the end where it was made here."""

    def __init__(self, address: str | None) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise EncoderError("--engine ray needs Ray: pip install 'tonelake[ray]', on every node") from error
        self._mine = not ray.is_initialized()
        self._end = ExitStack()
        if self._mine:
            check_address(address)
            try:
                connect(address, self._end)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise EncoderError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            import ray

            ray.shutdown()
        self._end.close()

    def choose_device(self, asked: str) -> str:
        """`cuda` where the cluster has GPUs, else `cpu`; or as asked.  Raises InputError for what a cluster has not."""
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0))
        if asked == "auto":
            return "cuda" if gpus else "cpu"
        if asked not in ("cpu", "cuda") or (asked == "cuda" and not gpus):
            raise InputError(f"no device {asked!r} on this cluster of {gpus} GPUs: choose auto or {'cuda' if gpus else 'cpu'}")
        return asked

    def open_space(self, lake: Lake, settings: EmbedSettings) -> Space:
        """The space that settings name.  Raises as `embed.settings.open_space`."""
        import ray

        gpus = 1 if settings.device == "cuda" else 0
        try:
            text = ray.get(ray.remote(open_space_json).options(num_gpus=gpus, num_cpus=1).remote(lake.uri, settings))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, TonelakeError):
                raise error.cause from None
            raise EncoderError(f"the space could not be opened on the cluster: {explain(error)}") from error
        return Space.from_json(text, "the cluster's answer")

    def run(
        self, lake: Lake, space: Space, device: str, read: ReadClips, due: pl.DataFrame, frames: Sequence[int],
        workers: int | None,
    ) -> Iterator[dict[str, Any]]:
        """What the actors wrote, a unit at a time, in the order that they are done."""
        import ray
        import ray.data

        size = GPU_UNITS if device == "cuda" else 1
        parts = split_units(due, size * UNIT_CLIPS, size * UNIT_SECONDS)
        units = ray.data.from_arrow([unit.to_arrow() for unit in parts])
        reads = {"rate": space.sample_rate, "read": qualified_name(read)}
        whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}          # blocks as they come: units
        made_with = {
            "lake": lake.uri, "space": space.name, "device": device, "frames": tuple(frames),
            "attempts": SharedAttempts(ray.remote(Attempts).options(num_cpus=0).remote()),
        }
        if device == "cuda":
            samples = units.map_batches(read_unit, num_cpus=1, concurrency=workers, fn_kwargs=reads, **whole)
            pool = ray.data.ActorPoolStrategy(size=int(ray.cluster_resources()["GPU"]))
            a_row = whole | {"batch_size": 1}            # which is a unit, too: with GPUs Ray insists on a number
            # No processor of its own, which Ray Data would give it: readers would wait for ever where GPUs are as many.
            writing = samples.map_batches(
                EncodeUnit, compute=pool, num_gpus=1, num_cpus=0, fn_constructor_kwargs=made_with, **a_row
            )
        else:
            actors, cpus = share_processors([int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]])
            pool = ray.data.ActorPoolStrategy(size=actors)
            writing = units.map_batches(
                ReadAndEncodeUnit, compute=pool, num_cpus=cpus,
                fn_constructor_kwargs=made_with | reads | {"workers": workers}, **whole,
            )
        try:
            for batch in writing.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from batch.to_pylist()
        except ray.exceptions.RayError as error:
            raise EncoderError(f"Ray gave up: {explain(error)}.  What was done is stored: run it again to go on") from error


def connect(address: str | None, end: ExitStack) -> None:
    """Join the cluster at an address or on this machine; where there is none, make one that only this machine reaches,
    which `end` ends."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings():      # of Lance, against forks: what Ray forks becomes another program at once
        warnings.simplefilter("ignore")
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address:
                raise
            end.enter_context(loopback())
            ray.init(address="local", include_dashboard=False, **quiet)


@contextmanager
def loopback() -> Iterator[None]:
    """Ray listens on this machine's loopback address alone.

    It does so by itself on macOS and Windows, and elsewhere where this variable says so, which it reads when it is
    imported: hence the constant that it was read into.
    """
    from ray._private import ray_constants

    before, was_set = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOOPBACK)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[LOOPBACK] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if was_set is None:
            del os.environ[LOOPBACK]
        else:
            os.environ[LOOPBACK] = was_set


def check_address(address: str | None) -> None:
    """Raise EncoderError unless something listens at `host:port`: Ray itself would try for minutes."""
    if address is None or address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise EncoderError(f"{address!r} is no address of a Ray cluster: give host:port, as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EncoderError(f"no Ray cluster at {address}: {error}.  Start one there with `ray start --head`") from error


def explain(error: BaseException) -> str:
    """The innermost cause of one of Ray's errors, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip()


def share_processors(nodes: Sequence[int]) -> tuple[int, int]:
    """(actors, processors of each) for nodes of so many processors: as many each as leave at most a tenth of all idle.

    >>> share_processors([16, 16, 0]), share_processors([2, 3]), share_processors([64, 7]), share_processors([])
    ((8, 4), (5, 1), (17, 4), (1, 1))
    """
    nodes = [cpus for cpus in nodes if cpus > 0] or [1]
    sizes = range(min(CPUS_AN_ACTOR, *nodes), 0, -1)
    cpus = next(cpus for cpus in sizes if sum(node // cpus for node in nodes) * cpus >= 0.9 * sum(nodes))
    return sum(node // cpus for node in nodes), cpus


def split_units(due: pl.DataFrame, most_clips: int, most_seconds: float) -> list[pl.DataFrame]:
    """The clips in their order, cut into units."""
    units, start, seconds = [], 0, 0.0
    for row, duration_s in enumerate(due["duration_s"]):
        if row > start and (row - start >= most_clips or seconds + duration_s > most_seconds):
            units.append(due[start:row])
            start, seconds = row, 0.0
        seconds += duration_s
    return [*units, due[start:]]


class Appender(CommitLog):
    """The driver's side: gathers what the actors wrote, and appends it every so often."""

    def __init__(self, lake: Lake, space: Space) -> None:
        super().__init__(lake, space)
        self._clips: list[str] = []
        self._vectors: list[Fragment] = []
        self._frames: list[Fragment] = []
        self._appended = 0

    def take(self, written: Iterator[dict[str, Any]]) -> Iterator[str]:
        """The id of each clip that is done or failed."""
        for unit in written:
            for clip_id, problem in json.loads(unit["failed"]).items():
                self.fail(clip_id, problem)
                yield clip_id
            if unit["vectors"]:
                self._vectors.append(Fragment.from_json(unit["vectors"]))
            if unit["frames"]:
                self._frames.append(Fragment.from_json(unit["frames"]))
            self._clips += unit["clips"]
            for clip_id in unit["clips"]:
                self.encoded(clip_id)
            if len(self._clips) >= COMMIT_CLIPS or self.is_late():
                self.flush()
            yield from unit["clips"]

    def flush(self) -> None:
        """Append what has come: frames first, so that a clip with its vector has its frames."""
        clips, self._clips = self._clips, []
        vectors, self._vectors = self._vectors, []
        frames, self._frames = self._frames, []
        self.record_failures()
        if not clips:
            return
        if frames:
            append_fragments(self._lake.frames(self._space).table, frames)
        table = self._lake.vectors(self._space).table
        self.count(clips, append_fragments(table, vectors), len(clips) if frames else 0)
        self._appended += len(vectors)
        if self._appended > COMPACT_FRAGMENTS:
            trim_quietly(table)
            self._appended = 0
