"""Search of a lake on an object store: its index inside the lake beside a scan; part of `bench.search`.

    python -m bench.object_store --rows 20000            # prints the table without writing results

The store is moto in another process of this machine, with what it lacks against a real one put right: moto copies a whole
object to answer for a range of it, so here it keeps the bytes at hand.  A request takes two or three milliseconds of Python;
on a store far away the rows that a query reads take one round trip together.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.reading import lake_of
from bench.report import table

K, ROUNDS, WAIT_S = 10, 3, 60.0
BUCKET = "bench-lakes"


def serve(port: int) -> None:
    """Serve S3 until killed, with objects kept as bytes."""
    from moto.s3.models import FakeKey
    from moto.server import main

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
    main(["-H", "127.0.0.1", "-p", str(port)])


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


def median_ms(work: Any, items: Any) -> float:
    """Return the median milliseconds of one call for each item."""
    taken = []
    for item in items:
        started = time.perf_counter()
        work(item)
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def object_store(vectors: np.ndarray, queries: np.ndarray) -> tuple[str, float]:
    """Return a table, and the median milliseconds of an index query whose rows have not been read before.

    `vectors`: (row, dim) float16; `queries`: (query, dim) float32, half of them to fill the caches of the lists.
    """
    from tonelake.index import build_index, similar
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

        half = len(queries) // 2
        first_ms = median_ms(ask, [0])
        for number in range(1, half):
            ask(number)
        new_ms = median_ms(ask, range(half, len(queries)))
        again_ms = statistics.median(median_ms(ask, range(half, len(queries))) for _ in range(ROUNDS))
        recall = np.mean([len(np.intersect1d(found[number], true[number])) / K for number in range(len(queries))])
        whole_ms = median_ms(lambda number: similar(lake, queries[number], space="bench", clips=True), range(half, half + 32))
        stored = find_index(lake, space, 0, metric="cosine")
        assert stored is not None
        delete_index(lake, space, stored)
        forget_descriptions(lake, space)
        started = time.perf_counter()
        load_layer(lake, space, 0)
        load_s = time.perf_counter() - started
        scan_ms = median_ms(lambda number: similar(lake, queries[number], space="bench", clips=True), range(half, half + 32))
    rows = [
        ["index, first query", f"{first_ms:.1f}"],
        ["index, rows not read before", f"{new_ms:.1f}"],
        ["index, rows in memory", f"{again_ms:.2f}"],
        ["`similar` with the index", f"{whole_ms:.1f}"],
        ["`similar` without, the layer in memory", f"{scan_ms:.1f}"],
    ]
    about = (
        f"\n{made.factory}, {made.width} lists visited, {made.refine} candidates for each hit; recall@{K} {recall:.3f}; built "
        f"in {build_s:.1f} s, {made.bytes / 1e6:,.0f} MB. Without an index the layer is read first: {load_s:.1f} s. The store "
        "is moto on loopback (one process, requests of 2 to 3 ms), so times of a real store differ by its round trips.\n"
    )
    return table(["query", "ms, median"], rows) + about, new_ms


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
