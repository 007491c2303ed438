"""Decoder processes that outlive their pool and serve the next one: a start takes a third of a second; most tests ingest."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tonelake.ingest.decoder_pool import DecoderPool, _Decoder

IDLE = 4                                 # most processes kept of a kind
# Decoders run at usual priority: those that give way to an encoder would also give way to the tests of other processes.
PROMPT = (
    sys.executable, "-P", "-c",
    "import os; os.nice = lambda more: 0\nfrom tonelake.ingest.decoder_process import main\nmain()",
)
COMMAND, START, CLOSE = DecoderPool.command, DecoderPool._start, DecoderPool.close
_idle: dict[Any, list[Any]] = defaultdict(list)
# Processes not yet ended.  A reader that a test interrupted may be garbage together with a kept process; its closing ends the
# process, but `Popen` would warn if it was finalised before the reader.
_processes: list[Any] = []
_ended: list[bool] = []                  # not empty once the session has ended: pools that are closed later keep nothing


def _kind() -> Any:
    """Folder and environment that a process inherits; those of another are not its own."""
    changing = ("PYTEST_", "TONELAKE_LAKE", "COLUMNS")
    return os.getcwd(), frozenset(item for item in os.environ.items() if not item[0].startswith(changing))  # noqa: PTH109


def _start(self: DecoderPool) -> Any:
    kind = _kind()
    if self.command != COMMAND:
        return START(self)
    while _idle[kind]:
        decoder = _idle[kind].pop()
        if decoder.process.poll() is None:
            with self._lock:
                self._decoders.add(decoder)
            return decoder
        decoder.end()
    decoder = _Decoder(PROMPT)
    decoder.kind = kind
    _processes[:] = [process for process in _processes if process.returncode is None] + [decoder.process]
    with self._lock:
        self._decoders.add(decoder)
    return decoder


def _close(self: DecoderPool) -> None:
    if self.command == COMMAND and not _ended:
        self._threads.shutdown(wait=True, cancel_futures=True)       # each process has answered, so that none is busy
        for decoder in list(self._decoders):
            if decoder.ready and decoder.process.poll() is None and len(_idle[decoder.kind]) < IDLE:
                self._decoders.discard(decoder)
                _idle[decoder.kind].append(decoder)
    CLOSE(self)


@contextmanager
def kept_decoders() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecoderPool, "_start", _start)
        patch.setattr(DecoderPool, "close", _close)
        try:
            yield
        finally:
            _ended.append(True)
            for decoder in (decoder for idle in _idle.values() for decoder in idle):
                decoder.process.kill()
                decoder.end()
            _idle.clear()


@contextmanager
def own_decoders() -> Iterator[None]:
    """Each pool starts processes and ends them, as users have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecoderPool, "_start", START)
        patch.setattr(DecoderPool, "close", CLOSE)
        yield
