"""Run a live session: pieces of sound -> a live encoder -> events for the outputs, until the sound or the user ends it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tonelake.index import LiveGestures
from tonelake.live_inputs import file_pieces, stream_pieces
from tonelake.live_outputs import LiveEvent

if TYPE_CHECKING:
    from tonelake.duet import Duet
    from tonelake.index import LiveEncoder, LiveSession, LiveStep

    Live = LiveEncoder | LiveSession | LiveGestures[Any]

log = logging.getLogger(__name__)


def run_session(
    live: Live, pieces: Iterable[np.ndarray], send: Callable[[LiveEvent], None], *, duet: Duet | None = None,
    late: Lateness | None = None,
) -> None:
    """Push all pieces into a live encoder or session, and send what it finds.

    Hits are sent when the nearest clips have changed.  A `duet` hears the gestures of the first vocabulary, so `live` is
    a `LiveGestures` then.  `late` warns where the encoder falls behind.
    """
    shown: dict[str | None, list[str]] = {}
    for piece in pieces:
        if duet is not None:
            duet.listen(piece, live.frames.rate)
        steps = list_of(live.push(piece))
        send_steps(live, steps, send, shown, duet)
        if late is not None and len(steps[0].time_s):
            late.note(float(steps[0].time_s[-1]))
    send_steps(live, list_of(live.finish()), send, shown, duet)


def send_steps(
    live: Live, steps: list[LiveStep], send: Callable[[LiveEvent], None], shown: dict[str | None, list[str]], duet: Duet | None
) -> None:
    """Send what the steps of a moment completed.  `shown`: the clips that were sent last, by vocabulary."""
    rows: list[dict[str, Any]] = live.take() if isinstance(live, LiveGestures) else []
    for number, step in enumerate(steps):
        at_s, name = float(step.time_s[-1]) if len(step.time_s) else 0.0, step.vocabulary
        if step.tokens is not None and len(step.tokens):
            send(LiveEvent("tokens", at_s, (step.time_s, step.tokens), name))
        own = [{key: value for key, value in row.items() if key != "vocabulary"} for row in rows if row["vocabulary"] == name]
        for row in own:
            send(LiveEvent("gesture", row["end_s"], row, name))
        if step.hits is not None and step.hits_at_s is not None and len(step.hits):
            now = step.hits["clip_id"].to_list()
            if now != shown.get(name):
                shown[name] = now
                send(LiveEvent("hits", step.hits_at_s, step.hits, name))
        if duet is not None and number == 0 and step.tokens is not None and (len(step.tokens) or own):
            duet.hear(at_s or own[-1]["end_s"], own, step.time_s, step.tokens)


def list_of(steps: LiveStep | list[LiveStep]) -> list[LiveStep]:
    """Return the steps of a session, or the one step of an encoder, as a list."""
    return steps if isinstance(steps, list) else [steps]


def steps_of(live: LiveEncoder | LiveGestures[LiveStep], pieces: Iterable[np.ndarray]) -> Iterator[LiveStep]:
    """Yield the steps of a live encoder for all pieces, and its last one."""
    for piece in pieces:
        yield live.push(piece)
    yield live.finish()


def listen_to_file(live: LiveEncoder | LiveGestures[LiveStep], path: Path, *, real_time: bool = True) -> Iterator[LiveStep]:
    """Yield steps of the live encoder while a file plays, or as fast as possible without `real_time`.  Raises AudioError."""
    return steps_of(live, file_pieces(path, live.frames.rate, real_time=real_time))


def listen_to_stream(
    live: LiveEncoder | LiveGestures[LiveStep], stream: BinaryIO, *, channels: int = 1, form: str = "s16le"
) -> Iterator[LiveStep]:
    """Yield steps of the live encoder for raw interleaved samples, until the stream ends.

    Raises InputError for an unknown format or number of channels.
    """
    return steps_of(live, stream_pieces(stream, live.frames.rate, channels=channels, form=form))


class Stop:
    """End a session by Ctrl-C: a wait for sound at once, else after the present piece.  A second Ctrl-C interrupts everything.

        with Stop() as stop:
            for piece in stop.until(pieces): ...
    """

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False
        self._before: Any = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():    # others cannot set handlers, and get no signals
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def until(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield pieces until they end or the user ends them."""
        waited = iter(pieces)
        try:
            while not self.asked:
                self._waiting = True
                try:
                    piece = None if self.asked else next(waited, None)
                except KeyboardInterrupt:
                    return
                finally:
                    self._waiting = False
                if piece is None:
                    return
                yield piece
        finally:
            if isinstance(waited, Generator):
                waited.close()           # the file or the device

    def _ask(self, *_: object) -> None:
        again, self.asked = self.asked, True
        if again:
            self._restore()
        if again or self._waiting:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


class Lateness:
    """Warn if the encoder falls behind the stream, at most once a minute."""

    def __init__(self) -> None:
        self._begun, self._said = time.monotonic(), 0.0

    def note(self, at_s: float) -> None:
        """Warn if it is time to.  `at_s`: seconds of the stream that are encoded."""
        behind, now = time.monotonic() - self._begun - at_s, time.monotonic()
        if behind >= 2.0 and now - self._said >= 60:
            self._said = now
            log.warning("%.1f s behind. Use a lower --layer, a shorter --window or a longer --hop", behind)
