"""Outputs of a live session: each takes its events as they come.  JSON lines and OSC are here, notes in `live_midi`.

An output that fails is left out with one sentence, and the others continue.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Collection, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from tonelake.recombine import recombine
from tonelake.store import InputError, TonelakeError, import_extra, printable

if TYPE_CHECKING:
    from tonelake.lake import Lake

LOOPBACK = "127.0.0.1"
HIT_COLUMNS = ("rank", "score", "clip_id", "artist", "title", "track", "start_s")

log = logging.getLogger(__name__)


class LiveEvent(NamedTuple):
    """Something that a live session found or made."""

    kind: str                            # tokens, gesture, hits or continue
    at_s: float                          # seconds of the stream
    data: Any                            # (time_s, tokens) of frames, the row of a gesture, a frame of hits, or an `Answer`
    vocabulary: str | None = None


class Answer:
    """An answer to a performer, in sounds of the lake.  `path`: of `Continuer.path`, one row an event."""

    def __init__(self, path: pl.DataFrame) -> None:
        self.path = path
        self._sound: np.ndarray | None = None

    def sound(self, lake: Lake) -> np.ndarray:
        """Return its audio, (samples,) float32 at `recombine.RATE`, which is made once.  Raises AudioError."""
        if self._sound is None:
            self._sound = recombine(lake, self.path)
        return self._sound

    def offsets_s(self) -> np.ndarray:
        """Return (event + 1,) seconds from the answer's beginning: where each event begins, and where the last one ends."""
        length = (self.path["end_s"] - self.path["start_s"]).to_numpy()
        return np.concatenate([[0.0], np.cumsum(length)])


class Output(Protocol):
    """Takes the events of a session that are of `kinds`."""

    @property
    def name(self) -> str: ...
    @property
    def kinds(self) -> Collection[str]: ...

    def send(self, event: LiveEvent) -> None:
        """Write an event.  Any error means that the output has failed."""

    def close(self, cut: bool) -> str | None:
        """Finish; return a sentence about what was written.  `cut`: at once, without playing what is due later."""


class Outputs:
    """All outputs of a session.  Threads may send at the same time; each output is used by one of them at a time."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = [(one, Lock()) for one in outputs]
        self._failed: set[int] = set()

    def send(self, event: LiveEvent) -> None:
        """Send an event to each output that takes its kind.  Raises TonelakeError once every output has failed."""
        for number, (output, lock) in enumerate(self._outputs):
            if event.kind not in output.kinds or number in self._failed:
                continue
            with lock:
                try:
                    output.send(event)
                except Exception as error:           # of any library: the session must not end with it
                    self._failed.add(number)
                    log.warning("%s: failed (%s). It gets no more events; the session continues", output.name, text_of(error))
        if len(self._failed) == len(self._outputs):
            raise TonelakeError("outputs: each of them has failed, so the session ends. Begin it again")

    def close(self, cut: bool = False) -> None:
        """Finish each output, also those that failed, and log what was written."""
        for number, (output, lock) in enumerate(self._outputs):
            with lock:
                try:
                    said = output.close(cut)
                except Exception as error:
                    if number not in self._failed:
                        log.warning("%s: could not be finished (%s)", output.name, text_of(error))
                else:
                    if said:
                        log.info("%s", said)


def text_of(error: Exception) -> str:
    """Return an error as text: its class if it has none."""
    return printable(str(error)).rstrip(".") or type(error).__name__


class JsonLines:
    """Each event as a line of JSON on standard output."""

    name, kinds = "standard output", ("tokens", "gesture", "hits", "continue")

    def send(self, event: LiveEvent) -> None:
        line = {"at_s": round(event.at_s, 3), event.kind: self._plain(event)}
        if event.vocabulary is not None:
            line["vocabulary"] = event.vocabulary
        print(json.dumps(line, ensure_ascii=False, default=str), flush=True)

    def close(self, cut: bool) -> None: ...

    @staticmethod
    def _plain(event: LiveEvent) -> Any:
        if event.kind == "tokens":
            return event.data[1].tolist()
        if event.kind == "hits":
            return event.data.select(HIT_COLUMNS).to_dicts()
        return event.data.path.to_dicts() if event.kind == "continue" else event.data


class Osc:
    """Events as messages of Open Sound Control over UDP.  `docs/gestures.md` lists their arguments.

    `address`: HOST:PORT, or PORT of this machine.  Raises InputError for another form, and for an unknown host.
    """

    kinds = ("tokens", "gesture", "hits", "continue")

    def __init__(self, address: str) -> None:
        host, port = host_and_port(address)
        client = import_extra("pythonosc.udp_client", "live", "OSC")
        self.name = f"OSC to {address}"
        try:                             # looked up once: a client would do it for each message
            (family, *_, found), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise InputError(
                f"--osc {address}: host {host!r} is unknown ({error.strerror or error}). Give its number"
            ) from error
        self._client = client.SimpleUDPClient(found[0], port, family=family)
        self._last: dict[str, int] = {}                  # token of the last frame, by vocabulary

    def send(self, event: LiveEvent) -> None:
        getattr(self, f"_send_{event.kind}")(event)

    def close(self, cut: bool) -> None:
        self._client.close()

    def _message(self, address: str, *values: int | float | str | None) -> None:
        """Send one message.  Its types do not depend on the values: an unknown number is -1, unknown text is empty."""
        self._client.send_message(f"/tonelake/{address}", values)

    def _send_tokens(self, event: LiveEvent) -> None:
        name = event.vocabulary or ""
        for time_s, token in zip(*event.data, strict=True):
            if int(token) != self._last.get(name):
                self._message("token", int(token), float(time_s), name)
            self._last[name] = int(token)

    def _send_gesture(self, event: LiveEvent) -> None:
        row = event.data
        self._message(
            "gesture", row["number"], number(row["token"], int), number(row["start_s"]), number(row["end_s"]),
            number(row["loudness"]), number(row["pitch"]), number(row["centroid"]), number(row["consonance"]),
            row["ratio"] or "", event.vocabulary or "",
        )

    def _send_hits(self, event: LiveEvent) -> None:
        for hit in event.data.iter_rows(named=True):
            self._message(
                "hit", hit["rank"], number(hit["score"]), hit["clip_id"], text(hit["title"] or hit["track"]),
                text(hit["artist"]), number(hit["start_s"]), float(event.at_s),
            )

    def _send_continue(self, event: LiveEvent) -> None:
        path, offsets_s = event.data.path, event.data.offsets_s()
        for row, offset_s in zip(path.iter_rows(named=True), offsets_s, strict=False):
            self._message(
                "continue", row["step"], len(path), row["token"], row["clip_id"], number(row["start_s"]), number(row["end_s"]),
                float(offset_s), number(row["loudness"]), number(row["pitch"]), "; ".join(row["relaxed"]),
            )


def number(value: float | int | None, kind: type = float) -> Any:
    """Return a number as `kind`; -1 if it is unknown."""
    return kind(-1 if value is None else value)


def text(value: str | None) -> str:
    """Return text without control characters; "" if it is unknown."""
    return printable(value or "")


def host_and_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT, [HOST]:PORT or PORT.  Raises InputError for another form.

    >>> host_and_port("9000"), host_and_port("lights.local:57120"), host_and_port("[::1]:9000")
    (('127.0.0.1', 9000), ('lights.local', 57120), ('::1', 9000))
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or not 0 < int(port) < 65_536 or (not host and ":" in address):
        raise InputError(
            f"--osc {address!r}: not a host and a port. Write for example 127.0.0.1:9000, or 9000 for this machine"
        )
    return host or LOOPBACK, int(port)
