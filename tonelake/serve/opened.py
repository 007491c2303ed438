"""The lake of the service, opened at the first request and again where another one has replaced it.

While another program writes, replaces or deletes the lake, its files can be missing for a moment.  Such an error is a LakeError
here, and is raised only if a second attempt fails as well.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa

from tonelake import Lake
from tonelake import open as open_lake
from tonelake.ingest import AudioError
from tonelake.store import Holding, InputError, LakeError, prepare_process

REOPEN_AFTER_S, WARN_AFTER_S = 5.0, 60.0
READING = (LakeError, OSError, RuntimeError, pa.ArrowException, pl.exceptions.PolarsError)       # where files are missing
Result = TypeVar("Result")

log = logging.getLogger("tonelake.serve")


def identity_on_disk(path: str) -> tuple[int, str] | None:
    """Return what distinguishes the lake in a folder from one that replaces it; None for a URI, or where there is no folder."""
    try:
        inode = Path(path).stat().st_ino
    except OSError:
        return None
    try:
        values = json.loads((Path(path) / "lake.json").read_bytes())
    except (OSError, ValueError):        # of the first releases, or damaged, which `tonelake.open` reports
        return inode, ""
    return inode, str(values.get("identity", "")) if isinstance(values, dict) else ""


def is_of_the_lake(error: Exception) -> bool:
    """Whether an error can come from files of a lake that are missing or damaged."""
    if isinstance(error, InputError | AudioError):
        return False
    return isinstance(error, READING) or (isinstance(error, ValueError) and "not found" in str(error))       # Lance's own


class OpenedLake:
    """A lake by its URI.  Thread-safe."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._lake: Lake | None = None
        self._identity: tuple[int, str] | None = None
        self._reopened = self._warned = -WARN_AFTER_S
        self._holding = Holding(uri)

    def get(self) -> Lake:
        """Return the present lake.  Raises LakeError if there is none, or it cannot be opened."""
        identity = identity_on_disk(self.uri)
        lake = self._lake
        if lake is not None and identity == self._identity:
            return lake
        with self._lock:
            if self._lake is None or identity != self._identity:
                self._lake = None
                prepare_process()
                opened = open_lake(self.uri, create=False, progress=False)
                opened.only_reads = True
                self._lake, self._identity = opened, identity
            return self._lake

    def answer(self, question: Callable[[Lake], Result]) -> Result:
        """Return the answer of the present lake, with a second attempt where the first one failed for reasons of the lake.

        Raises LakeError if both fail, other errors of tonelake as they are.
        """
        try:
            return self._ask(question)
        except Exception as error:
            if not is_of_the_lake(error):
                raise
            log.debug("reading the lake again: %s: %s", type(error).__name__, error)
        with self._lock:
            if time.monotonic() - self._reopened > REOPEN_AFTER_S:       # a damaged lake is not opened for every request
                self._lake, self._reopened = None, time.monotonic()
        self._holding.renew()
        try:
            return self._ask(question)
        except Exception as error:
            if not is_of_the_lake(error):
                raise
            if time.monotonic() - self._warned > WARN_AFTER_S:           # not at every request
                self._warned = time.monotonic()
                log.warning("the lake cannot be read: %s: %s", type(error).__name__, error)
            raise LakeError(
                "lake: cannot be read at the moment; it is being written or replaced, or is damaged. Try again, and run "
                "`tonelake verify` if that does not help"
            ) from error

    def _ask(self, question: Callable[[Lake], Result]) -> Result:
        """Return an answer, looking at the disk only as far as the lake changed since the last one (`tonelake.store.Hold`)."""
        hold = self._holding.current()
        lake = hold.once("lake", self.get)
        with hold.reading():
            return question(lake)
