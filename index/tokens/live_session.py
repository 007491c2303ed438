"""One stream for several vocabularies, of one or several spaces: a step of each, tagged by the vocabulary.

    session = LiveSession(lake, ["7-2048", "musicnn/timbre-64"], rate=44_100)
    for chunk in microphone:
        for step in session.push(chunk):
            print(step.vocabulary, step.tokens)

A vocabulary records its space and layer.  The encoder of a space is loaded once, and runs once a hop for all the layers that
are needed; the nearest clips are searched once for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tonelake.embed import LIVE_DRIFT, LIVE_HOP_S, LIVE_WINDOW_S, FrameBatch, LiveSpaces
from tonelake.index.tokens.live import EVERY_S, HEARD_S, LiveLayer, LiveStep
from tonelake.store import InputError, Lake


class LiveSession:
    """One stream and its layers.  Memory is constant.

    `vocabularies`: names, or space/name where several spaces have the name; without any, one layer is followed without tokens:
    `space` and `layer`, by default the lake's.  With vocabularies, `space` is where their names are sought, and `layer` must be
    theirs.  The other settings are those of `LiveEncoder`.  The steps of the first vocabulary of each layer have the hits.
    Raises InputError for a vocabulary that is given twice, and as `LiveEncoder`.
    """

    def __init__(
        self, lake: Lake, vocabularies: Sequence[str] = (), *, rate: int, space: str | None = None,
        layer: int | str | None = None, k: int = 5, where: str | None = None, window_s: float = LIVE_WINDOW_S,
        hop_s: float = LIVE_HOP_S, ahead_s: float = 0.0, heard_s: float = HEARD_S, every_s: float = EVERY_S,
        device: str | None = None, drift: float = LIVE_DRIFT,
    ) -> None:
        self.layers = [
            LiveLayer(
                lake, space=space, layer=layer, vocabulary=name, k=k, where=where, heard_s=heard_s, every_s=every_s
            )
            for name in (vocabularies or (None,))
        ]
        self._name_layers()
        wanted = [(one.space, one.layer) for one in self.layers]
        unique = list(dict.fromkeys(wanted))
        self._source = [unique.index(one) for one in wanted]
        for number, one in enumerate(self.layers):
            if self._source[number] in self._source[:number]:
                one.k = 0
        self.frames = LiveSpaces(
            lake, unique, rate, window_s=window_s, hop_s=hop_s, ahead_s=ahead_s, device=device, drift=drift
        )

    def _name_layers(self) -> None:
        """Tag steps by the names of vocabularies, as space/name if these are of several spaces."""
        several = len({one.space.name for one in self.layers}) > 1
        for one in self.layers:
            one.name = f"{one.space.name}/{one.name}" if several and one.name else one.name
        names = [one.name for one in self.layers]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"vocabulary {twice!r}: given twice. Give each vocabulary once")

    @property
    def vocabularies(self) -> list[str]:
        """Names of the vocabularies, as steps are tagged."""
        return [one.name for one in self.layers if one.name is not None]

    def push(self, samples: np.ndarray) -> list[LiveStep]:
        """Add (samples,) or (samples, channel) in [-1, 1] at the stream's rate; return what they completed, by vocabulary."""
        return self._steps(self.frames.push(samples))

    def finish(self) -> list[LiveStep]:
        """End the stream; return the remaining frames, by vocabulary."""
        return self._steps(self.frames.finish())

    def _steps(self, batches: Sequence[FrameBatch]) -> list[LiveStep]:
        return [one.follow(batches[source]) for one, source in zip(self.layers, self._source, strict=True)]
