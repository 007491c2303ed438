"""Search of a lake on an object store: its index inside the lake beside a scan; part of `bench.search`.

    python -m bench.object_store --rows 20000            # prints the table without writing results

The store is moto in another process of this machine, with what it lacks against a real one put right: moto copies a whole
object to answer for a range of it, so here it keeps the bytes at hand.  A request takes two or three milliseconds of Python;
on a store far away the rows that a query reads take one round trip together.  The store counts requests and bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.reading import lake_of, made_up_clips
from bench.report import table

K, ROUNDS, WAIT_S = 10, 3, 60.0
BUCKET = "bench-lakes"
COUNTED = "/requests-counted"            # answered with the number of requests and bytes since it was last asked for
BATCH, APPENDED = 64, 64


def serve(port: int) -> None:
    """Serve S3 until killed, with objects kept as bytes."""
    import moto.server
    from moto.s3.models import FakeKey

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    plain: Any = FakeKey.value

    def read(key: Any) -> bytes:
        if "bytes_at_hand" not in vars(key):
            key.bytes_at_hand = plain.fget(key)
        return key.bytes_at_hand

    def write(key: Any, value: bytes) -> None:
        vars(key).pop("bytes_at_hand", None)
        plain.fset(key, value)

    FakeKey.value = property(read, write)            # type: ignore[method-assign,assignment]
    run = moto.server.run_simple
    moto.server.run_simple = lambda host, at, app, **how: run(host, at, counted(app), **how)       # type: ignore[assignment]
    moto.server.main(["-H", "127.0.0.1", "-p", str(port)])


def counted(app: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a WSGI application that counts requests and bytes, and reports them at COUNTED as a list of `Counts`."""
    counts, lock = [0] * 4, threading.Lock()

    def call(environ: Any, start: Any) -> list[bytes]:
        body = b"" if environ["PATH_INFO"] == COUNTED else b"".join(app(environ, start))
        with lock:
            if environ["PATH_INFO"] == COUNTED:
                start("200 OK", [])
                body, counts[:] = json.dumps(counts).encode(), [0] * 4
            else:
                writes = environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE") or "list-type" in environ["QUERY_STRING"]
                sizes = len(body), int(environ.get("CONTENT_LENGTH") or 0)
                counts[:] = map(sum, zip(counts, (not writes, writes, *sizes), strict=True))
        return [body]

    return call


class Counts(NamedTuple):
    """Requests since they were last asked for: those that cost as much as a GET, and as a PUT (lists too); and their bytes."""

    gets: int
    puts: int
    sent: int                            # bytes of answers
    received: int


def take_requests() -> Counts:
    """Return the requests since the last call."""
    with urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT']}{COUNTED}") as answer:
        return Counts(*json.load(answer))


def take_counts() -> tuple[int, int]:
    """Return the number of requests and of bytes of answers since the last call."""
    counts = take_requests()
    return counts.gets + counts.puts, counts.sent


@contextlib.contextmanager
def store() -> Iterator[str]:
    """The URI of a bucket on a store of this machine, with endpoint and credentials in the environment."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "bench.object_store", "--serve", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            give_up = time.monotonic() + WAIT_S
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if server.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError("moto does not start. Install it with `pip install 'moto[s3,server]'`")
                time.sleep(0.1)
            boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT"]).create_bucket(Bucket=BUCKET)
            yield f"s3://{BUCKET}"
        finally:
            server.kill()


class Row(NamedTuple):
    """Cost of one call: the median of several, and their mean number of requests."""

    name: str
    ms: float
    requests: float
    mb: float

    def cells(self) -> list[str]:
        return [self.name, f"{self.ms:.1f}", f"{self.requests:,.0f}", f"{self.mb:,.2f}"]


def measured(name: str, work: Callable[[Any], Any], items: Sequence[Any]) -> Row:
    """Call `work` with each item."""
    taken = []
    take_counts()
    for item in items:
        started = time.perf_counter()
        work(item)
        taken.append(1000 * (time.perf_counter() - started))
    requests, size = take_counts()
    return Row(name, statistics.median(taken), requests / len(items), size / len(items) / 1e6)


def object_store(vectors: np.ndarray, queries: np.ndarray) -> tuple[str, float]:
    """Return a table, and the median milliseconds of an index query whose rows have not been read before.

    `vectors`: (row, dim) float16; `queries`: (query, dim) float32, half of them to fill the caches of the lists.
    """
    from tonelake.index import build_index, similar, similar_many
    from tonelake.index.search.approximate import true_neighbours
    from tonelake.index.search.described_index import find_index, forget_descriptions
    from tonelake.index.search.exact import load_layer
    from tonelake.index.search.stored_index import delete_index, search_stored

    with store() as bucket:
        lake, space, ids = lake_of(f"{bucket}/lake", vectors)
        kept = lake.vectors(space)
        started = time.perf_counter()
        made, _ = build_index(lake, space, 0)
        build_s = time.perf_counter() - started
        snapshot = kept.table.snapshot()
        row_of = {clip: row for row, clip in enumerate(snapshot.keys.to_pylist())}
        true = np.array([[row_of[ids[row]] for row in rows] for rows in true_neighbours(queries, vectors, K, "cosine")])
        found: dict[int, np.ndarray] = {}

        def ask(number: int) -> None:
            answer = search_stored(lake, space, made, queries[number], K, None, snapshot)
            assert answer is not None
            found[number] = answer[0]

        half, some = len(queries) // 2, range(len(queries) // 2, len(queries) // 2 + 32)
        rows = [measured("index, first query", ask, [0])]
        for number in range(1, half):
            ask(number)
        rows += [measured("index, rows not read before", ask, range(half, len(queries)))]
        rows += [measured("index, rows in memory", ask, [*range(half, len(queries))] * ROUNDS)]
        new_ms = rows[1].ms
        recall = np.mean([len(np.intersect1d(found[number], true[number])) / K for number in range(len(queries))])

        def ask_whole(number: int) -> None:
            similar(lake, queries[number], space="bench", clips=True)

        rows += [measured("`similar` with the index", ask_whole, some)]
        batch, tracks = ids[:: len(ids) // BATCH][:BATCH], range(0, len(ids) // 10, len(ids) // 100)
        rows += [measured(f"`similar_many` of {BATCH} clips", lambda asked: similar_many(lake, asked, space="bench"), [batch])]
        few = f"track IN ({', '.join(repr(str(track)) for track in tracks)})"
        rows += [measured("`similar`, ten songs pass a filter", lambda where: similar(lake, queries[0], where=where), [few])]
        clips = made_up_clips(len(ids) + APPENDED)[len(ids) :]
        lake.clips.add(clips)
        copies = vectors[:APPENDED].astype(np.float32)
        kept.add(clips["clip_id"].to_list(), [copies], [copies], [1] * APPENDED)
        rows += [measured(f"`similar` after {APPENDED} clips were added", ask_whole, [half])]
        stored = find_index(lake, space, 0, metric="cosine")
        assert stored is not None
        delete_index(lake, space, stored)
        forget_descriptions(lake, space)
        rows += [measured("reading the layer, without an index", lambda layer: load_layer(lake, space, layer), [0])]
        rows += [measured("`similar` without an index, the layer in memory", ask_whole, some)]
    about = (
        f"\n{made.factory}, {made.width} lists visited, {made.refine} candidates for each hit; recall@{K} {recall:.3f}; built "
        f"in {build_s:.1f} s, {made.bytes / 1e6:,.0f} MB. The store is moto on loopback (one process, requests of 2 to 3 ms), "
        "so times of a real store differ by its round trips. Five requests of `similar` look for changes of the lake.\n"
    )
    return table(["query", "ms, median", "requests", "MB"], [row.cells() for row in rows]) + about, new_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    from bench.search import make_vectors

    print(object_store(*make_vectors(arguments.rows))[0])


if __name__ == "__main__":
    main()
