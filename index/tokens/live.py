"""Search a lake with a live stream of audio: frames of one layer, their tokens, and the nearest clips, while it plays.

    live = LiveEncoder(lake, rate=44_100, layer=7)
    for chunk in microphone:
        step = live.push(chunk)          # step.time_s, step.states, step.tokens; step.hits after each search

Several vocabularies at once: `tokens.live_session`.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.embed import LIVE_DRIFT, LIVE_HOP_S, LIVE_WINDOW_S, FrameBatch, LiveSpaces
from tonelake.index.search.similar import similar
from tonelake.index.tokens.vocabulary import Vocabulary, find_vocabulary
from tonelake.store import InputError, Lake, is_hybrid, read_hybrid

HEARD_S = 3.0                            # most recent audio, whose mean is the query
EVERY_S = 1.0                            # interval between searches

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LiveStep:
    """Frames, tokens and hits that a push completed."""

    time_s: np.ndarray                   # (frame,) middle of each frame, seconds from the stream's first sample
    states: np.ndarray                   # (frame, dim) float32
    tokens: np.ndarray | None            # (frame,) uint16, with a vocabulary
    hits: pl.DataFrame | None            # nearest clips: rank, score, clip_id, …; None without a search
    hits_at_s: float | None              # end of the query audio
    vocabulary: str | None = None        # its name, in a session with vocabularies of several spaces as space/name


class LiveLayer:
    """Tokens of the frames of one layer of a stream, and the nearest clips.  The frames are computed elsewhere.

    `vocabulary`: its name, or space/name; "" for the only one of the space, None for no tokens.  `space`, `layer`: by default
    the vocabulary's, else the lake's default space and its default layer.
    `k`: number of nearest clips to the mean of the last `heard_s` seconds, searched every `every_s` seconds; 0 for none.
    Raises SpaceMismatch for a vocabulary of another layer, InputError for one that is not there and for settings out of range.
    """

    def __init__(
        self, lake: Lake, *, space: str | None = None, layer: int | str | None = None, vocabulary: str | None = None,
        k: int = 5, where: str | None = None, heard_s: float = HEARD_S, every_s: float = EVERY_S,
    ) -> None:
        if heard_s <= 0 or every_s <= 0 or k < 0:
            raise InputError(
                f"a search by {heard_s:g} s every {every_s:g} s for {k} clips: times must be positive, clips 0 or more"
            )
        self.lake, self.k, self.where, self.heard_s, self.every_s = lake, k, where, heard_s, every_s
        self.vocabulary: Vocabulary | None = None
        if vocabulary is not None:
            self.vocabulary = find_vocabulary(lake, vocabulary or None, space=space)
            space = self.vocabulary.space
            layer = self.vocabulary.layer if layer is None else layer
        self.space = lake.spaces.get(space)
        self.layer = self.space.layer_index(layer)
        self._hybrid = read_hybrid(lake, self.space) if is_hybrid(self.space) else None
        self.name: str | None = None                                 # of the vocabulary, in steps
        if self.vocabulary is not None:
            self.vocabulary.check(self.space, self.space.layers[self.layer])
            self.name = self.vocabulary.name
        self._recent: deque[tuple[float, np.ndarray]] = deque()      # frames of the last `heard_s`
        self._said_silent = False
        self._next_s = every_s

    def follow(self, batch: FrameBatch) -> LiveStep:
        """Add the next frames of the stream; return them with their tokens, and hits if a search was due."""
        time_s, states = batch
        tokens = None if self.vocabulary is None else self.vocabulary.tokens_of(states)
        hits, at_s = None, None
        for moment, state in zip(time_s, states, strict=True):
            self._add_frame(float(moment), state)
            if self.k and moment >= self._next_s:
                at_s = float(moment)
                self._next_s += self.every_s * np.ceil((moment - self._next_s + 1e-9) / self.every_s)
        if at_s is not None:             # one search even if several were due: only the latest is useful
            at_s = self._recent[-1][0]
            hits = self._search(np.stack([state for _, state in self._recent]).mean(axis=0, dtype=np.float64))
        return LiveStep(
            time_s=time_s, states=states, tokens=tokens, hits=hits, hits_at_s=at_s, vocabulary=self.name,
        )

    def _search(self, query: np.ndarray) -> pl.DataFrame | None:
        """Search with a (dim,) vector; None, and a sentence the first time, for a zero one, as of silence."""
        if not query.any():
            if not self._said_silent:
                log.info(
                    "live: the last %g s are zero in layer %s, as of silence, so no clips are listed", self.heard_s,
                    self.space.layers[self.layer],
                )
            self._said_silent = True
            return None
        if self._hybrid is not None:
            query = self._hybrid.rejoin(query[None])[0]
        return similar(
            self.lake, query, space=self.space.name, layer=self.space.layers[self.layer], k=self.k, where=self.where,
        )

    def _add_frame(self, moment: float, state: np.ndarray) -> None:
        self._recent.append((moment, state))
        while self._recent[0][0] <= moment - self.heard_s:
            self._recent.popleft()


class LiveEncoder(LiveLayer):
    """Encoder of one stream, with the settings of a space of the lake, and its `LiveLayer`.

    `rate`: of the samples, Hz.  `window_s`: audio context of the encoder; `hop_s`: interval between its runs; `ahead_s`: audio
    after a frame that it waits for.  `device`: by default an accelerator, if there is one.  `drift`: how far the encoder's norm
    over the window may change before earlier frames are computed again; 0 for exactly the frames of offline passes.  Layers
    above the requested one are not computed.  Raises InputError for a projection, and as `LiveLayer`.
    """

    def __init__(
        self, lake: Lake, *, rate: int, space: str | None = None, layer: int | str | None = None, vocabulary: str | None = None,
        k: int = 5, where: str | None = None, window_s: float = LIVE_WINDOW_S, hop_s: float = LIVE_HOP_S, ahead_s: float = 0.0,
        heard_s: float = HEARD_S, every_s: float = EVERY_S, device: str | None = None, drift: float = LIVE_DRIFT,
    ) -> None:
        super().__init__(
            lake, space=space, layer=layer, vocabulary=vocabulary, k=k, where=where, heard_s=heard_s, every_s=every_s
        )
        self.frames = LiveSpaces(
            lake, [(self.space, self.layer)], rate, window_s=window_s, hop_s=hop_s, ahead_s=ahead_s, device=device,
            drift=drift,
        )

    def push(self, samples: np.ndarray) -> LiveStep:
        """Add (samples,) or (samples, channel) in [-1, 1] at the stream's rate; return what they completed."""
        return self.follow(self.frames.push(samples)[0])

    def finish(self) -> LiveStep:
        """End the stream; return the remaining frames."""
        return self.follow(self.frames.finish()[0])
