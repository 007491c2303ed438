"""Decode in child processes, so that a crash or a hang costs one file only.

Each thread owns one child, sends it one request at a time, and replaces it when it crashes or hangs.  Replies come in the
order of the requests, and only a few requests are in flight.  A child that cannot start is an error of the installation,
with what it wrote to standard error, and never a failure of the file.

Children are plain programs rather than processes of multiprocessing or loky, which import the caller's script again (so a
script would need `if __name__ == "__main__"`); and Lance must not be forked.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np

from tonelake.ingest.chorale_sources import is_chorale
from tonelake.ingest.decoder_process import READY
from tonelake.ingest.errors import AudioError, DecoderStartError
from tonelake.store import cores

HOME = Path(__file__).absolute().parents[2]           # the folder that contains `tonelake`; links are not followed
TIME_LIMIT_S = 600.0                     # for one request; a 12-hour file decodes in about two minutes
AHEAD = 3                                # requests, or groups of them, in flight for each process
PIECE_CLIPS = 16                         # most clips of a chorale that one process reads together
DECODERS = 3                             # most decoders that a file has; see `containers.decoders`
EXIT_S = 5.0                             # allowed between the end of a process's output and its exit
STDERR_BYTES = 4096                      # kept of what a process writes to standard error, from its end
STDERR_LINES = 3                         # shown of them: of a traceback, the failing line and the error

Reply = dict[str, Any] | AudioError


class DecoderPool:
    """A pool of decoder processes.  Use as a context manager, or close it."""

    command: Sequence[str] = (sys.executable, "-P", "-m", "tonelake.ingest.decoder_process")
    # -P: a module in the user's working directory must not replace one of ours.

    def __init__(self, count: int | None = None, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        """`count`: number of processes; by default one less than the cores, which leaves one to the encoder."""
        self.count = count if count is not None else max(1, cores() - 1)
        self.time_limit_s = time_limit_s
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="decode")
        self._of_thread = threading.local()
        self._decoders: set[_Decoder] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and drop unanswered requests."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for decoder in self._decoders:
                decoder.process.kill()
        self._threads.shutdown(wait=True)
        for decoder in self._decoders:
            decoder.end()

    def map(self, requests: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Reply]]:
        """Yield (request, reply) in the order of the requests.

        The reply to `read` has its samples as `samples`; the reply to a request that fails, crashes its process or exceeds
        the time limit is an AudioError.  Raises DecoderStartError if the installation cannot decode.
        """
        waiting: deque[tuple[list[dict[str, Any]], Future[list[Reply]]]] = deque()
        for group in rendered_together(requests):
            waiting.append((group, self._threads.submit(self._ask_each, group)))
            if len(waiting) >= self.count * AHEAD:
                done, future = waiting.popleft()
                yield from zip(done, future.result(), strict=True)
        while waiting:
            done, future = waiting.popleft()
            yield from zip(done, future.result(), strict=True)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request.  Raises AudioError in place of returning it, and DecoderStartError."""
        ((_, reply),) = self.map([request])
        if isinstance(reply, AudioError):
            raise reply
        return reply

    def _ask_each(self, requests: list[dict[str, Any]]) -> list[Reply]:
        return [self._ask(request) for request in requests]

    def _ask(self, request: dict[str, Any]) -> Reply:
        """The reply of this thread's process.  If a file crashes one decoding library, another is tried."""
        reply, crashed = self._ask_once(request)
        for skip in range(1, DECODERS if crashed and request.get("do") in ("identify", "scan", "read") else 0):
            other, crashed_too = self._ask_once(request | {"skip": skip})
            if not isinstance(other, AudioError):
                return other
            if not crashed_too:          # the library after the one that crashes refuses the file, or there is none
                break
        return reply

    def _ask_once(self, request: dict[str, Any]) -> tuple[Reply, bool]:
        """(reply, whether the process crashed)."""
        decoder: _Decoder | None = getattr(self._of_thread, "decoder", None)
        if decoder is None or decoder.process.poll() is not None:
            decoder = self._of_thread.decoder = self._start()
        with _Deadline(decoder.process, self.time_limit_s) as deadline:
            head, body = decoder.exchange(request)
        if deadline.passed or not head or len(body) != head["bytes"]:
            decoder.process.kill()
            decoder.end()
            self._of_thread.decoder = None
            with self._lock:
                self._decoders.discard(decoder)
            if not decoder.ready:
                why = f"within {self.time_limit_s:.0f} s" if deadline.passed else f"exit status {decoder.process.returncode}"
                raise DecoderStartError(
                    f"decoder process: did not start ({why}): {decoder.last_errors()}. "
                    "Check the installation with `tonelake doctor`"
                )
            name = Path(request["source"]).name
            if deadline.passed:
                return AudioError(f"{name}: did not decode within {self.time_limit_s:.0f} s"), False
            return AudioError(f"{name}: crashed the decoder (exit status {decoder.process.returncode})"), True
        if "broken" in head:
            raise DecoderStartError(head["broken"])
        if "error" in head:
            return AudioError(head["error"]), False
        if "samples" in head:
            head["samples"] = np.frombuffer(body, dtype="<f4")
        return head, False

    def _start(self) -> _Decoder:
        decoder = _Decoder(self.command)
        with self._lock:
            self._decoders.add(decoder)
        return decoder


def rendered_together(requests: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield requests in groups for one process: consecutive clips of a chorale, which it parses and renders once, else single.

    Requests that are not grouped are passed on at once, before the next one is drawn.
    """
    group: list[dict[str, Any]] = []
    for request in requests:
        if group and (request["source"] != group[0]["source"] or len(group) == PIECE_CLIPS):
            yield group
            group = []
        group.append(request)
        if request["do"] != "read" or not is_chorale(request["source"]):
            yield group
            group = []
    if group:
        yield group


def decoder_libraries() -> dict[str, str]:
    """Versions of the decoding libraries, as a decoder process imports them.  Raises DecoderStartError if it cannot."""
    with DecoderPool(1) as pool:
        return pool.ask({"do": "libraries", "source": ""})["libraries"]


class _Decoder:
    """One decoder process, and the end of what it wrote to standard error."""

    def __init__(self, command: Sequence[str]) -> None:
        self.ready = False               # its imports worked
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._stdin, self._stdout = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        self._errors = _Tail(cast(IO[bytes], self.process.stderr))

    def exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Send a request and read the head and body of its reply; ({}, b"") if the process ends or replies with garbage."""
        with contextlib.suppress(OSError):                           # a process that has ended: reading tells how far it got
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        try:
            while not self.ready:        # skip what a site hook printed before
                line = self._read_line()
                self.ready = line == READY
            head = json.loads(self._read_line())
            return (head, self._stdout.read(head["bytes"])) if isinstance(head, dict) and "bytes" in head else ({}, b"")
        except (OSError, ValueError):
            return {}, b""

    def _read_line(self) -> bytes:
        """One line of the process's output.  Raises BrokenPipeError if it has ended, and waits for its exit status before."""
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            with contextlib.suppress(subprocess.TimeoutExpired):     # its pipe closes before its exit status is known
                self.process.wait(EXIT_S)
            raise BrokenPipeError("the decoder process has ended")
        return line

    def last_errors(self) -> str:
        """The last lines that the process wrote to standard error, on one line."""
        return "; ".join(self._errors.lines()[-STDERR_LINES:]) or "nothing on standard error"

    def end(self) -> None:
        """Close the pipes of a process that was killed, and wait for it."""
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):                       # it ended with a request half written
                pipe.close()
        self.process.wait()
        self._errors.join(timeout=1.0)


class _Tail(threading.Thread):
    """Reads a pipe to its end and keeps the last STDERR_BYTES bytes."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(name="decoder-stderr", daemon=True)
        self._pipe, self._tail = pipe, b""
        self.start()

    def run(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), STDERR_BYTES):
                self._tail = (self._tail + chunk)[-STDERR_BYTES:]

    def lines(self) -> list[str]:
        """The lines read so far, without empty ones."""
        return [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]


class _Deadline:
    """Kills a process that has not replied within `seconds` and sets `passed`; one that has replied is left alone."""

    def __init__(self, process: subprocess.Popen, seconds: float) -> None:
        self.passed = False
        self._process, self._over, self._lock = process, False, threading.Lock()
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
                self._process.kill()
