"""Decoding in processes that may die alone: each thread owns one child, feeds it a request, and replaces it when it
crashes or hangs.  Replies come in the order of the requests, and only a few are ever in flight.

Children are started as plain programs, not by multiprocessing: they do not import the caller's script again (so a
script needs no `if __name__ == "__main__"`), and they are safe beside Lance, which must not be forked.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np

from tonelake.ingest.errors import AudioError
from tonelake.store import cores

HOME = Path(__file__).absolute().parents[2]           # the folder that holds `tonelake`; links are not followed
TIME_LIMIT_S = 600.0                     # for one request; a 12-hour file decodes in about two minutes
AHEAD = 3                                # requests in flight for each worker

Reply = dict[str, Any] | AudioError


class DecoderPool:
    """A pool of decoding processes.  Use as a context manager, or close it."""

    def __init__(self, count: int | None = None, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        """`count`: processes; by default one less than there are processors, which leaves one to the encoder."""
        self.count = count if count is not None else max(1, cores() - 1)
        self.time_limit_s = time_limit_s
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="decode")
        self._mine = threading.local()
        self._children: set[subprocess.Popen] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; what they were asked and have not answered is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for child in self._children:
                child.kill()
        self._threads.shutdown(wait=True)
        for child in self._children:
            _close(child)

    def map(self, requests: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Reply]]:
        """(request, reply) in the order of the requests.  A reply to `read` has its samples as `samples`; a request
        that fails, crashes its process or runs too long has an AudioError for a reply."""
        waiting: deque[tuple[dict[str, Any], Future[Reply]]] = deque()
        for request in requests:
            waiting.append((request, self._threads.submit(self._ask, request)))
            if len(waiting) >= self.count * AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One reply to one request; an AudioError is raised."""
        ((_, reply),) = self.map([request])
        if isinstance(reply, AudioError):
            raise reply
        return reply

    def _ask(self, request: dict[str, Any]) -> Reply:
        child = getattr(self._mine, "child", None)
        if child is None or child.poll() is not None:
            child = self._mine.child = self._start()
        with _Deadline(child, self.time_limit_s) as deadline:
            try:
                assert child.stdin is not None and child.stdout is not None
                child.stdin.write(json.dumps(request).encode() + b"\n")
                child.stdin.flush()
                line = child.stdout.readline()
                head = json.loads(line) if line.endswith(b"\n") else {}
                body = child.stdout.read(head.get("bytes", 0))
            except (OSError, ValueError):
                head, body = {}, b""
        name = Path(request["source"]).name
        if deadline.passed or not head or len(body) != head["bytes"]:
            child.kill()
            _close(child)
            self._mine.child = None
            with self._lock:
                self._children.discard(child)
            if deadline.passed:
                return AudioError(f"{name}: did not decode within {self.time_limit_s:.0f} s")
            return AudioError(f"{name}: crashed the decoder (exit status {child.returncode}): the file is damaged")
        if "error" in head:
            return AudioError(head["error"])
        if "samples" in head:
            head["samples"] = np.frombuffer(body, dtype="<f4")
        return head

    def _start(self) -> subprocess.Popen:
        # -P: a module in the user's working directory must not stand in for one of ours.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tonelake.ingest.decoder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        with self._lock:
            self._children.add(child)
        return child


class _Deadline:
    """Kills a child that has not answered within `seconds`, and says so; one that has is left alone from then on."""

    def __init__(self, child: subprocess.Popen, seconds: float) -> None:
        self.passed = False
        self._child, self._over, self._lock = child, False, threading.Lock()
        self._timer = threading.Timer(seconds, self._kill)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._over = True
        self._timer.cancel()

    def _kill(self) -> None:
        with self._lock:
            if not self._over:
                self.passed = True
                self._child.kill()


def _close(child: subprocess.Popen) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):                       # it died with a request half written
                pipe.close()
    child.wait()
