"""The service under load: what HTTP adds to the library's answer, its memory over 100,000 requests, and its start.

The lake has 100,000 synthetic clips of 10,000 songs with vectors of 768 numbers around 2,000 centres, and an index, as the docs
advise for this size.  The service runs in a process of its own, as `tonelake serve`, and 50 clients in another one, each on a
connection of its own.  Compared is one question, the ten songs nearest to a clip, never asked twice:

    library     50 threads of one process call `lake.similar(clip)`
    held        the same within a `tonelake.store.Hold`, where the library does not look for changes: the service has one too
    service     50 clients ask `/v1/similar?id=CLIP&moments=true`; a sample of its answers is compared with the library's before

Both are asked in two ways: at once, where each asks again as soon as it has an answer, so that times are those of a queue of
50, and paced, where each asks once a second.  The overhead is the service's median less that of `library`.

Memory is the service's own, while the clients ask mixed questions (songs by id and by name, similar songs of one or two songs
with minus and filters, paths, artists, values, answers that the client has already): its median in the last tenth of the time
less that in the second tenth.  The first answer is counted from the start of the process to the end of the first answer to
`/v1/similar`.  Clients and service share the machine's cores.

    python -m bench.serve
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.memory import resident_mb
from bench.report import circumstances, table, write_results
from bench.ui import make_lake

CLIPS, DIM, CLIENTS, STARTS, COMPARED = 100_000, 768, 50, 3, 20
HOME = Path(__file__).resolve().parent.parent


# -- the library


def clip_ids(count: int, seed: int) -> list[str]:
    """Return the ids of all clips of the lake in random order."""
    ids = [f"{number:020x}" for number in range(count)]
    random.Random(seed).shuffle(ids)
    return ids


def be_library(lake_uri: str, clips: int, seconds: float) -> None:
    """Ask the library with 50 threads; print the milliseconds of each answer, by way of asking."""
    import tonelake
    from tonelake.store import Hold, prepare_process

    prepare_process()
    lake = tonelake.open(lake_uri, create=False, progress=False)
    ids = iter(clip_ids(clips, 1))
    for _ in range(COMPARED):
        lake.similar(next(ids))          # loads what the first answers need
    ways = ("closed", "paced")
    library = {way: ask_in_threads(lake, ids, way, seconds, nullcontext) for way in ways}
    held = {way: ask_in_threads(lake, ids, way, seconds, Hold().reading) for way in ways}
    print(json.dumps({"library": library, "held": held}))


def ask_in_threads(
    lake: Any, ids: Iterator[str], way: str, seconds: float, reading: Callable[[], AbstractContextManager[None]]
) -> list[float]:
    """Ask with 50 threads, each within `reading`; return milliseconds."""
    found: list[float] = []
    begun = time.perf_counter()

    def ask(number: int) -> None:
        due = begun + number / CLIENTS if way == "paced" else begun
        while (now := time.perf_counter()) < begun + seconds:
            if now < due:
                time.sleep(due - now)
            started = time.perf_counter()
            with reading():
                lake.similar(next(ids))
            found.append(1e3 * (time.perf_counter() - started))
            due += 1.0 if way == "paced" else 0.0

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# -- the clients


class Client:
    """One connection that is kept, as that of a browser or a player; asks for compressed answers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tag = ""                    # of the last answer
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, *, known: bool = False) -> tuple[int, bytes]:
        """Return status and body; `known`: send the tag of the last answer.  Status 0: the connection was lost."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self._streams
            tag = f"If-None-Match: {self.tag}\r\n" if known and self.tag else ""
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n{tag}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.tag = headers.get("etag", self.tag)
            return int(head[0].split()[1]), gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        except (OSError, asyncio.IncompleteReadError):
            self._streams = None
            return 0, b""


async def ask_as_clients(
    port: int, path_of: Callable[[random.Random], tuple[str, bool]], way: str, *, seconds: float = 0.0, requests: int = 0
) -> dict[str, Any]:
    """Ask with 50 clients for some seconds, or some number of requests; return milliseconds, and counts of other statuses."""
    found: list[float] = []
    errors: dict[str, int] = {}
    begun, left = time.perf_counter(), requests

    async def ask(number: int) -> None:
        nonlocal left
        client, rng = Client(port), random.Random(number)
        due = begun + number / CLIENTS if way == "paced" else begun
        while (now := time.perf_counter()) < begun + seconds or left > 0:
            left -= 1
            if now < due:
                await asyncio.sleep(due - now)
            path, known = path_of(rng)
            started = time.perf_counter()
            status, _ = await client.get(path, known=known)
            found.append(1e3 * (time.perf_counter() - started))
            if status not in (200, 304):
                errors[f"{status} {path}"] = errors.get(f"{status} {path}", 0) + 1
            due += 1.0 if way == "paced" else 0.0

    await asyncio.gather(*(ask(number) for number in range(CLIENTS)))
    return {"ms": found, "errors": errors, "seconds": time.perf_counter() - begun}


def nearest_to(ids: Iterator[str]) -> Callable[[random.Random], tuple[str, bool]]:
    return lambda _: (f"/v1/similar?id={next(ids)}&moments=true", False)


def mixed(clips: int) -> Callable[[random.Random], tuple[str, bool]]:
    """Return questions of every kind, each with its share; almost none is asked twice."""

    def clip(rng: random.Random) -> str:
        return f"{rng.randrange(clips):020x}"

    def similar(rng: random.Random) -> str:
        asked: list[tuple[str, Any]] = [("id", clip(rng)), ("count", rng.choice((10, 10, 20)))]
        kind = rng.random()
        if kind < 0.2:
            asked += [("id", clip(rng)), ("minus", clip(rng))]
        elif kind < 0.3:
            asked += [("where.genre", f"genre {rng.randrange(20)}")]
        elif kind < 0.4:
            asked += [("per", "artist:2")]
        return f"/v1/similar?{urlencode(asked)}"

    kinds: list[tuple[float, Callable[[random.Random], str]]] = [
        (0.20, similar),
        (0.35, lambda rng: f"/v1/songs/{clip(rng)}"),
        (0.10, lambda rng: f"/v1/songs?first={rng.randrange(clips // 10)}&count=20"),
        (0.04, lambda rng: f"/v1/songs?q=song+{rng.randrange(clips // 10)}&count=5"),
        (0.10, lambda rng: f"/v1/artists?q={rng.randrange(clips // 997)}"),
        (0.05, lambda rng: f"/v1/columns/genre/values?first={rng.randrange(20)}"),
        (0.002, lambda rng: f"/v1/path?start={clip(rng)}&end={clip(rng)}&steps=3"),
        (0.158, lambda rng: "/v1/artists"),
    ]

    def choose(rng: random.Random) -> tuple[str, bool]:
        kind = rng.choices(range(len(kinds)), [share for share, _ in kinds])[0]
        return kinds[kind][1](rng), kind == len(kinds) - 1

    return choose


def be_clients(port: int, what: str, clips: int, amount: float) -> None:
    """Ask the service; print what `ask_as_clients` returns."""
    if what == "mixed":
        found = asyncio.run(ask_as_clients(port, mixed(clips), "closed", requests=int(amount)))
    else:
        found = asyncio.run(ask_as_clients(port, nearest_to(iter(clip_ids(clips, 2 + len(what)))), what, seconds=amount))
    print(json.dumps(found))


# -- the service


class Service:
    """`tonelake serve` in a process of its own."""

    def __init__(self, lake_uri: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tonelake", "serve", "--lake", lake_uri, "--port", str(self.port)],
            stdout=subprocess.DEVNULL, cwd=HOME,
        )

    def first_answer_s(self, path: str) -> float:
        """Return the seconds from the start of the process to the first answer."""

        async def ask() -> None:
            while time.perf_counter() - self.begun < 120 and self.process.poll() is None:
                status, _ = await Client(self.port).get(path)
                if status == 200:
                    return
                await asyncio.sleep(0.01)
            raise RuntimeError("the service does not answer")

        asyncio.run(ask())
        return time.perf_counter() - self.begun

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def compare_answers(lake_uri: str, port: int, clips: int) -> None:
    """Check that the service gives the library's answers."""
    import tonelake

    lake = tonelake.open(lake_uri, create=False, progress=False)

    async def ask() -> None:
        client = Client(port)
        for clip in clip_ids(clips, 7)[:COMPARED]:
            _, body = await client.get(f"/v1/similar?id={clip}&moments=true")
            found, expected = json.loads(body), lake.similar(clip)
            assert [row["clip_id"] for row in found] == expected["clip_id"].to_list(), (clip, found, expected)
            assert all(abs(row["score"] - score) < 1e-5 for row, score in zip(found, expected["score"], strict=True))

    asyncio.run(ask())


def run_part(*words: Any) -> Any:
    """Run a part of this module in a process of its own, and return what it prints."""
    command = [sys.executable, "-m", "bench.serve", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HOME)
    return json.loads(done.stdout.splitlines()[-1])


def run_watched(process: int, *words: Any) -> tuple[Any, list[float]]:
    """As `run_part`, with the memory of a process meanwhile, every quarter second in MB."""
    samples: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            samples.append(resident_mb(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return run_part(*words), samples
    finally:
        ended.set()
        thread.join()


# -- the report


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def measure(lake_uri: str, clips: int, seconds: float, requests: int) -> dict[str, Any]:
    starts = []
    for clip in clip_ids(clips, 3)[:STARTS]:
        service = Service(lake_uri)
        starts.append(service.first_answer_s(f"/v1/similar?id={clip}"))
        if len(starts) < STARTS:
            service.stop()
    say(f"first answers after {', '.join(f'{one:.2f}' for one in starts)} s")
    try:
        found = run_part("--library", lake_uri, "--clips", clips, "--seconds", seconds)
        compare_answers(lake_uri, service.port, clips)
        asked: dict[str, Any] = {}
        library = found["library"]
        for way in ("closed", "paced"):
            asked[way] = run_part("--clients", service.port, "--what", way, "--clips", clips, "--seconds", seconds)
            both = [statistics.median(one) for one in (library[way], asked[way]["ms"])]
            say(f"{way}: library {both[0]:.1f} ms, service {both[1]:.1f} ms")
        many, memory = run_watched(
            service.process.pid, "--clients", service.port, "--what", "mixed", "--clips", clips, "--seconds", requests
        )
    finally:
        service.stop()
    tenth = max(len(memory) // 10, 1)
    errors = {path: count for part in (*asked.values(), many) for path, count in part["errors"].items()}
    for path, count in list(errors.items())[:10]:
        say(f"failed {count} times: {path}")
    return {
        **found, "service": {way: found["ms"] for way, found in asked.items()}, "mixed": many["ms"],
        "mixed_s": many["seconds"], "memory_mb": memory, "errors": sum(errors.values()), "first_answer_s": starts,
        "growth_mb": statistics.median(memory[-tenth:]) - statistics.median(memory[tenth : 2 * tenth]),
    }


def report(found: dict[str, Any], clips: int, seconds: float) -> None:
    about = circumstances("vectors, the questions of each client and their order (seeded)")
    rows, figures = [], {}
    for way, heading in (("closed", "asked again at once"), ("paced", "asked once a second")):
        for who in ("library", "held", "service"):
            values = found[who][way]
            median, last = statistics.median(values), percentile(values, 0.99)
            figures |= {f"{who}_{way}_ms": median, f"{who}_{way}_p99_ms": last}
            rows.append([heading, who, f"{len(values):,}", f"{len(values) / seconds:.0f}", f"{median:.1f}", f"{last:.1f}"])
    mixed_rate = len(found["mixed"]) / found["mixed_s"]
    rows.append(["mixed questions, at once", "service", f"{len(found['mixed']):,}", f"{mixed_rate:.0f}",
                 f"{statistics.median(found['mixed']):.1f}", f"{percentile(found['mixed'], 0.99):.1f}"])
    main = {
        "overhead_ms_50_clients": figures["service_closed_ms"] - figures["library_closed_ms"],
        "overhead_ms_50_clients_paced": figures["service_paced_ms"] - figures["library_paced_ms"],
        "overhead_ms_50_clients_held": figures["service_closed_ms"] - figures["held_closed_ms"],
        "errors": found["errors"], "memory_growth_mb": found["growth_mb"],
        "first_answer_s": statistics.median(found["first_answer_s"]),
    }
    text = (
        f"{__doc__.split(chr(10) * 2, 1)[1].rsplit(chr(10) * 2, 1)[0]}\n\n"
        f"{table(['way', 'asked', 'answers', 'a second', 'median, ms', '99 of 100 within, ms'], rows)}\n"
        f"{found['errors']} of {sum(map(len, found['service'].values())) + len(found['mixed']):,} requests failed.  Memory was "
        f"{statistics.median(found['memory_mb']):.0f} MB, at most {max(found['memory_mb']):.0f} MB, and grew by "
        f"{found['growth_mb']:.1f} MB.  The first answer came after "
        f"{', '.join(f'{one:.2f}' for one in found['first_answer_s'])} s ({STARTS} starts)."
    )
    ratios = {
        f"{way}_vs_{who}": figures[f"{who}_{way}_ms"] / figures[f"service_{way}_ms"]
        for way in ("closed", "paced") for who in ("library", "held")
    }
    write_results(
        "serve", f"The service: {CLIENTS} clients, {clips:,} clips", text, about, ratios,
        **{name: round(value, 3) for name, value in main.items()},
        **{name: round(value, 3) for name, value in figures.items()}, mixed_a_second=round(mixed_rate, 1),
        memory_mb=[round(value, 1) for value in found["memory_mb"][:: max(1, len(found["memory_mb"]) // 20)]],
    )
    say(json.dumps(main))


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each way of asking")
    parser.add_argument("--requests", type=int, default=100_000, help="mixed ones, over which memory is watched")
    parser.add_argument("--folder", type=Path, help="where the lake is made, and found again")
    for hidden in ("--library", "--clients", "--what"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.library:
        be_library(arguments.library, arguments.clips, arguments.seconds)
    elif arguments.clients:
        be_clients(int(arguments.clients), arguments.what, arguments.clips, arguments.seconds)
    else:
        os.environ.setdefault("TONELAKE_CACHE", str(Path(tempfile.gettempdir()) / "tonelake-bench"))
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or Path(temporary)
            if not (folder / "lake").exists():
                make_lake(folder, arguments.clips, dim=DIM)
                say(f"lake of {arguments.clips:,} clips made")
            found = measure(str(folder / "lake"), arguments.clips, arguments.seconds, arguments.requests)
        report(found, arguments.clips, arguments.seconds)
        say("bench/results/serve.md and .json are written")


if __name__ == "__main__":
    main()
