"""Embed on a Ray cluster: Ray Data reads the clips, actors encode them and write Lance fragments, the driver commits these.

    clips that are due, in units  ->  read (any node)  ->  encode and write (one actor per GPU)  ->  append (the driver)

Without GPUs an actor has a few processors, and reads its clips itself.  Ray repeats a unit whose worker died; fragments of the
dead worker belong to no version of any table.  The driver appends every half minute, so its own death costs no
more than that, and `append_fragments` stores each clip once.
Every node needs tonelake installed, and must reach the lake and the clips' sources by the same names.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import polars as pl

from tonelake.embed.errors import EncoderError
from tonelake.embed.pipeline import EmbedReport
from tonelake.embed.ray_actors import Attempts, EncodeUnit, ReadAndEncodeUnit, SharedAttempts, open_space_json, read_unit
from tonelake.embed.settings import EmbedSettings
from tonelake.embed.work import ReadClips, find_work, import_path, qualified_name
from tonelake.embed.writer import COMMIT_CLIPS, OutcomeLog
from tonelake.store import (
    Fragment,
    InputError,
    Lake,
    Space,
    TonelakeError,
    append_fragments,
    import_extra,
    trim_quietly,
)

CPUS_AN_ACTOR = 4                        # without GPUs: more scale worse, fewer hold more copies of the weights
UNIT_CLIPS, UNIT_SECONDS = 32, 1200.0    # read and encoded as one: at most 115 MB of samples, except for longer single clips
GPU_UNITS = 2                            # times that for a GPU, whose batches have up to 64 windows and are padded to that
COMPACT_FRAGMENTS = 1000
REACH_SECONDS = 10.0
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
SETTINGS = {                             # read when Ray is imported: no telemetry, and errors are raised only
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # For a cluster started here.  Ray's default niceness, 15, leaves its workers a twentieth of a busy core.
    "RAY_worker_niceness": "0",
}


def embed_on_ray(
    lake: Lake, settings: EmbedSettings, read: ReadClips, *, address: str | None = None, frames: Sequence[str | int] = (),
    workers: int | None = None,
) -> EmbedReport:
    """Do the work of `embed_clips` on a Ray cluster: the one at `address`, that of this machine, or a temporary one.

    A worker of the cluster opens the space, since `auto` depends on the workers' processors.  Workers import `read` by its
    module and name.  `workers`: with GPUs, the number of units read at once, by default as many as the cluster has
    processors to spare; without, the number of processes that decode for each actor, by default one.  Raises EncoderError
    if Ray cannot be reached or gives up, MissingExtra if it is not installed.
    """
    started = time.monotonic()
    with Cluster(address) as cluster:
        device = cluster.choose_device(settings.device)
        space = cluster.open_space(lake, replace(settings, device=device), frames)
        layers = sorted({space.layer_index(layer) for layer in frames})
        work = find_work(lake, space, layers)
        appender = Appender(lake, space)
        if len(work):
            due = work.due()
            appender.expect(due)
            written = cluster.run(lake, space, device, read, due, layers, workers)
            try:
                for clip_id in lake.progress(appender.collect(written), len(work), f"embedding into {space.name} on Ray"):
                    del clip_id
            finally:
                appender.flush()         # also when interrupted: encoded clips are stored
    return EmbedReport(
        space=space.name, new=appender.stored, known=work.known + appender.stored_elsewhere, failed=appender.failed,
        framed=appender.framed, seconds_of_audio=appender.seconds_of_audio, seconds_taken=time.monotonic() - started,
        precision=space.precision_reason,
    )


class Cluster:
    """A connection to Ray; closed on exit if it was opened here."""

    def __init__(self, address: str | None) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        ray = import_extra("ray", "ray", "--engine ray, on every node")
        import_extra("ray.data", "ray", "--engine ray, on every node")
        self._opened_here = not ray.is_initialized()
        self._cleanup = ExitStack()
        if self._opened_here:
            address = address or os.environ.get("RAY_ADDRESS") or None
            check_address(address)
            try:
                connect(address or started_here(), self._cleanup)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise EncoderError(
                    f"Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}. "
                    "Start one with `ray start --head`"
                ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened_here:
            import ray

            ray.shutdown()
        self._cleanup.close()

    def choose_device(self, asked: str) -> str:
        """Resolve `auto` to `cuda` if the cluster has GPUs, else `cpu`.  Raises InputError if the cluster lacks the device."""
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0))
        if asked == "auto":
            return "cuda" if gpus else "cpu"
        if asked not in ("cpu", "cuda") or (asked == "cuda" and not gpus):
            kind = "cuda" if gpus else "cpu"
            raise InputError(f"device {asked!r}: not on this cluster of {gpus} GPUs. Choose auto or {kind}")
        return asked

    def open_space(self, lake: Lake, settings: EmbedSettings, frames: Sequence[str | int] = ()) -> Space:
        """Open the space of the settings on a worker.  Raises as `embed.settings.open_space` does, and if it has no frames."""
        import ray

        # As many processors as an actor that encodes has: Ray limits threads to them, and `auto` measures.
        gpus, cpus = (1, 1) if settings.device == "cuda" else (0, self.shares()[1])
        try:
            open_remotely = ray.remote(open_space_json).options(num_gpus=gpus, num_cpus=cpus)
            text = ray.get(open_remotely.remote(lake.uri, settings, tuple(frames)))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, TonelakeError):
                raise error.cause from None
            raise EncoderError(
                f"opening the space on the cluster failed: {innermost_cause(error)}. Check that every node reaches the lake"
            ) from error
        return Space.from_json(text, "the cluster's answer")

    def run(
        self, lake: Lake, space: Space, device: str, read: ReadClips, due: pl.DataFrame, frames: Sequence[int],
        workers: int | None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the record of each unit that the actors wrote, in the order of completion."""
        import ray
        import ray.data

        size = GPU_UNITS if device == "cuda" else 1
        parts = split_units(due, size * UNIT_CLIPS, size * UNIT_SECONDS)
        units = ray.data.from_arrow([unit.to_arrow() for unit in parts])
        reads = {"rate": space.sample_rate, "read": qualified_name(read)}
        whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}          # whole blocks, which are units
        made_with = {
            "lake": lake.uri, "space": space.name, "device": device, "frames": tuple(frames),
            "attempts": SharedAttempts(ray.remote(Attempts).options(num_cpus=0).remote()),
        }
        if device == "cuda":
            samples = units.map_batches(read_unit, num_cpus=1, concurrency=workers, fn_kwargs=reads, **whole)
            pool = ray.data.ActorPoolStrategy(size=int(ray.cluster_resources()["GPU"]))
            one_row = whole | {"batch_size": 1}          # a row is a unit; with GPUs Ray requires a number
            # num_cpus=0, or each actor would take a processor, and with as many GPUs as processors none would be left to read.
            writing = samples.map_batches(
                EncodeUnit, compute=pool, num_gpus=1, num_cpus=0, fn_constructor_kwargs=made_with, **one_row
            )
        else:
            actors, cpus = self.shares()
            pool = ray.data.ActorPoolStrategy(size=actors)
            writing = units.map_batches(
                ReadAndEncodeUnit, compute=pool, num_cpus=cpus,
                fn_constructor_kwargs=made_with | reads | {"workers": workers}, **whole,
            )
        try:
            for batch in writing.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from batch.to_pylist()
        except ray.exceptions.RayError as error:
            raise EncoderError(
                f"Ray gave up: {innermost_cause(error)}. Finished clips are stored. Run it again to resume"
            ) from error

    def shares(self) -> tuple[int, int]:
        """(number of actors or tasks that run at once, processors of each), without GPUs."""
        import ray

        return share_processors([int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]])

    def run_calls(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], cpus: int) -> Iterator[Any]:
        """Yield the result of `function(*call)` for each call, in the order of completion; each runs on `cpus` processors.

        A call whose worker died is repeated.  Raises the function's error if it is one of tonelake's, else EncoderError.
        """
        import ray

        remote = ray.remote(function).options(num_cpus=cpus)
        pending = [remote.remote(*call) for call in calls]
        try:
            while pending:
                done, pending = ray.wait(pending)
                yield ray.get(done[0])
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, TonelakeError):
                raise error.cause from None
            raise EncoderError(f"Ray cluster: {innermost_cause(error)}. Nothing was changed; run it again") from error
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)


def connect(address: str | None, cleanup: ExitStack) -> None:
    """Join the cluster at an address; without one, start a temporary cluster that only this machine reaches.

    Workers get this process's import path.  `cleanup` restores the environment.
    """
    import ray
    from ray.job_config import JobConfig

    options: dict[str, Any] = {
        "log_to_driver": False, "logging_level": logging.ERROR, "job_config": JobConfig(_py_driver_sys_path=import_path()),
    }
    with warnings.catch_warnings():      # Lance warns of forks, but Ray's forks exec another program at once
        warnings.simplefilter("ignore")
        if address:
            ray.init(address=address, **options)
        else:
            cleanup.enter_context(loopback())
            ray.init(address="local", include_dashboard=False, **options)


def started_here() -> str | None:
    """The address of the cluster that `ray start` started on this machine; None if there is none, or if it does not answer.

    Ray's own `auto` also finds the temporary clusters of other programs, which end with these: it would lose its workers, or
    wait for one that is ending for ever.
    """
    from ray._private import services

    address = services.find_bootstrap_address(None)
    if address is None:
        return None
    try:
        check_address(address)
    except EncoderError:                 # its address is left in a file when it is killed
        return None
    return address


@contextmanager
def loopback() -> Iterator[None]:
    """Make Ray listen on the loopback address only.

    Ray does so by default on macOS and Windows, elsewhere if this variable is set.  It reads the variable at import, so the
    constant that holds its value is set too.
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
    """Raise EncoderError unless a server listens at `host:port`; Ray itself would try for minutes."""
    if address is None or address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise EncoderError(f"address {address!r}: not a Ray cluster. Pass host:port, as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EncoderError(f"Ray cluster at {address}: {error}. Start one there with `ray start --head`") from error


def innermost_cause(error: BaseException) -> str:
    """The innermost cause of an error of Ray's, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip()


def share_processors(nodes: Sequence[int]) -> tuple[int, int]:
    """(number of actors, processors per actor) for nodes with these numbers of processors; at most a tenth stays idle.

    >>> share_processors([16, 16, 0]), share_processors([2, 3]), share_processors([64, 7]), share_processors([])
    ((8, 4), (5, 1), (17, 4), (1, 1))
    """
    nodes = [cpus for cpus in nodes if cpus > 0] or [1]
    sizes = range(min(CPUS_AN_ACTOR, *nodes), 0, -1)
    cpus = next(cpus for cpus in sizes if sum(node // cpus for node in nodes) * cpus >= 0.9 * sum(nodes))
    return sum(node // cpus for node in nodes), cpus


def split_units(due: pl.DataFrame, most_clips: int, most_seconds: float) -> list[pl.DataFrame]:
    """Divide clips, in their order, into units."""
    units, start, seconds = [], 0, 0.0
    for row, duration_s in enumerate(due["duration_s"]):
        if row > start and (row - start >= most_clips or seconds + duration_s > most_seconds):
            units.append(due[start:row])
            start, seconds = row, 0.0
        seconds += duration_s
    return [*units, due[start:]]


class Appender(OutcomeLog):
    """Collects the fragments that the actors wrote, and appends them to the tables at intervals; runs in the driver."""

    def __init__(self, lake: Lake, space: Space) -> None:
        super().__init__(lake, space)
        self._clips: list[str] = []
        self._vectors: list[Fragment] = []
        self._frames: list[Fragment] = []
        self._appended = 0

    def collect(self, written: Iterator[dict[str, Any]]) -> Iterator[str]:
        """Yield the id of each clip that is done or failed."""
        for unit in written:
            for clip_id, problem in json.loads(unit["failed"]).items():
                self.add_failure(clip_id, problem)
                yield clip_id
            if unit["vectors"]:
                self._vectors.append(Fragment.from_json(unit["vectors"]))
            if unit["frames"]:
                self._frames.append(Fragment.from_json(unit["frames"]))
            self._clips += unit["clips"]
            for clip_id in unit["clips"]:
                self.add_encoded(clip_id)
            if len(self._clips) >= COMMIT_CLIPS or self.commit_is_due():
                self.flush()
            yield from unit["clips"]

    def flush(self) -> None:
        """Append the collected fragments: frames first, so that a clip with its vector has its frames."""
        clips, self._clips = self._clips, []
        vectors, self._vectors = self._vectors, []
        frames, self._frames = self._frames, []
        self.write_failures()
        if not clips:
            return
        if frames:
            append_fragments(self._lake.frames(self._space).table, frames)
        table = self._lake.vectors(self._space).table
        self.add_stored(clips, append_fragments(table, vectors), len(clips) if frames else 0)
        self._appended += len(vectors)
        if self._appended > COMPACT_FRAGMENTS:
            trim_quietly(table)
            self._appended = 0
