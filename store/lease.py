"""A lease on a folder of an object store, where a lake on a disk has a lock: one process at a time may write there.

A lease is a small file that names its holder.  It is made by a conditional write, renewed by a thread four times in its
length, and marked as released at the end.  One that was not renewed for its whole length, because its holder was killed, is
taken over by a conditional write, so a killed holder delays others by at most LENGTH_S.  Ages are differences between times of
the store's own clock; clocks of machines are never compared.

Leases are advisory: only code that takes the lease is kept out.  A holder that was paused for longer than the length (a
suspended machine, a lost connection) can lose it to another process.  `check`, which `Blobs` calls before every write under a
lease, then raises an error; without a recent renewal it renews first.  A pause between that check and its write is not noticed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from tonelake.store.errors import InputError, LakeError
from tonelake.store.object_blobs import ObjectBlobs, Stored, UnconditionalStore, Version

LENGTH_S = 60.0
LONGEST_S = 3600.0                       # of a lease that another version wrote
RENEWALS = 4                             # in each length
TRUSTED_SHARE = 0.75                     # of the length: a write after it renews the lease first
CLOCK_STEP_S = 1.0                       # stores give times in whole seconds
NO_FILE: Version = {"e_tag": '"0"', "version": "1"}   # a version that no file has
TAKE_TRIES = 3                           # each lost to another process that took the lease first

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The content of a lease's file."""

    owner: str                           # machine and process
    since: str                           # by the owner's clock, for people
    token: str                           # of this one lease
    length_s: float
    renewals: int = 0                    # so that two contents of one lease never have the same e-tag
    released: bool = False

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def read_holder(content: bytes) -> Holder:
    """The holder in a lease's file; an unknown one if the file is damaged, which then lapses like any other."""
    try:
        found = Holder(**json.loads(content))
        if not 0 < float(found.length_s) <= LONGEST_S:
            raise ValueError(found.length_s)
        return dataclasses.replace(found, owner=str(found.owner), since=str(found.since), length_s=float(found.length_s))
    except (ValueError, TypeError):
        return Holder(owner="an unknown process", since="an unknown time", token="", length_s=LENGTH_S)


class Lease:
    """A lease that this process holds, until `release`."""

    def __init__(self, files: ObjectBlobs, name: str, holder: Holder, version: Version, renewed: tuple[float, float]) -> None:
        self._files, self._name, self._holder, self._version, self._renewed = files, name, holder, version, renewed
        self._lost = False
        self._mutex, self._done = threading.Lock(), threading.Event()
        threading.Thread(target=self._keep, name=f"lease {files.uri}", daemon=True).start()

    def check(self) -> None:
        """Raise LakeError unless this process still holds the lease; a request is made only if the last renewal is old."""
        with self._mutex:
            if not self._lost and elapsed_s(self._renewed) > TRUSTED_SHARE * self._holder.length_s:
                self._renew()
            if self._lost:
                raise LakeError(
                    f"{self._files.uri}: another process took over its lease while this one was paused or without a "
                    "connection. Nothing was written; run it again when the other process has finished"
                )

    def release(self) -> None:
        """Let other processes have the lease at once."""
        self._done.set()
        with self._mutex:
            if self._lost:
                log.warning("%s: another process took over the lease while this one was paused", self._files.uri)
                return
            with contextlib.suppress(LakeError, UnconditionalStore):         # it lapses by itself
                released = dataclasses.replace(self._holder, released=True)
                self._files.replace(self._name, released.to_json(), self._version)

    def _keep(self) -> None:
        while not self._done.wait(self._holder.length_s / RENEWALS) and not self._lost:
            with self._mutex, contextlib.suppress(LakeError):        # without a connection it is tried again
                if not self._done.is_set():
                    self._renew()

    def _renew(self) -> None:
        """Renew the lease, or note that it is lost.  Raises LakeError if the store cannot be reached."""
        for _ in range(2):
            started = now()
            holder = dataclasses.replace(self._holder, renewals=self._holder.renewals + 1)
            try:
                version = self._files.replace(self._name, holder.to_json(), self._version)
            except UnconditionalStore:   # since the lease was taken: nothing can be known from now on
                self._renewed = started
                return
            if version is not None:
                self._holder, self._version, self._renewed = holder, version, started
                return
            found = self._files.read_stored(self._name)
            if found is None or read_holder(found.content).token != self._holder.token:
                break
            # A renewal whose answer was lost had been written.
            self._holder, self._version = read_holder(found.content), found.version
        self._lost = True


@contextmanager
def leased(files: ObjectBlobs, name: str, problem: str) -> Iterator[Lease | None]:
    """Hold the lease in the file `name`; None on a store without conditional writes, which is logged once.

    Raises InputError with `problem` and the holder's name if another process or thread holds it.
    """
    try:
        lease = take(files, name, problem)
    except UnconditionalStore:
        files.note_unconditional("two equal runs may work at once")
        yield None
        return
    try:
        yield lease
    finally:
        lease.release()


def take(files: ObjectBlobs, name: str, problem: str) -> Lease:
    """Take a lease that is free, released or lapsed.

    Raises InputError if it is held, UnconditionalStore where the store has no conditional writes.
    """
    import socket

    found: Stored | None = None
    for _ in range(TAKE_TRIES):
        started = now()
        holder = Holder(
            owner=f"process {os.getpid()} on {socket.gethostname()}", since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            token=secrets.token_hex(8), length_s=LENGTH_S,
        )
        if found is None:
            version = files.create(name, holder.to_json())
        else:
            version = files.replace(name, holder.to_json(), found.version)
        if version is not None:
            if files.replace(name, holder.to_json(), NO_FILE) is not None:         # the store ignores the condition
                raise UnconditionalStore
            return Lease(files, name, holder, version, started)
        found = files.read_stored(name)
        if found is not None:
            other = read_holder(found.content)
            until = found.modified + timedelta(seconds=other.length_s + CLOCK_STEP_S)
            if not other.released and files.clock(f"{name}-clock-{holder.token}") < until:
                raise InputError(
                    f"{problem}. Held by {other.owner} since {other.since}; if that process was killed, free from "
                    f"{until.astimezone(UTC):%H:%M:%S} UTC"
                )
    raise InputError(f"{problem}. Several processes are starting it at once")


def now() -> tuple[float, float]:
    """The time in seconds by two clocks: the first one stops while the machine is suspended, the second one may be set."""
    return time.monotonic(), time.time()


def elapsed_s(since: tuple[float, float]) -> float:
    """Seconds since `since`, or more."""
    return max(after - before for after, before in zip(now(), since, strict=True))
