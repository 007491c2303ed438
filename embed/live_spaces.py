"""Frames of layers of several spaces from one stream: each encoder is loaded once, and runs once a hop for all of its layers.

    frames = LiveSpaces(lake, [(mert, 7), (mert, 11), (hybrid, 0)], 44_100)
    for chunk in microphone:
        of_7, of_11, of_hybrid = frames.push(chunk)

Frames of a hybrid are joined from those of its parts as the stored ones are (`store.hybrid`): at the rate of the slowest part,
each frame once the frames of the other parts that are nearest to it in time are certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tonelake.embed.live import LIVE_DRIFT, LIVE_HOP_S, LIVE_WINDOW_S, FrameBatch, LayerBatch, LiveLayers
from tonelake.embed.settings import encoder_of
from tonelake.store import Hybrid, InputError, Lake, Space, is_derived, is_hybrid, is_projection, nearest, read_hybrid, slowest

LayerOfSpace = tuple[Space, int]


class LiveSpaces:
    """One stream.  Memory is constant: a window of samples for each encoder, and a few frames of each part of a hybrid."""

    def __init__(
        self, lake: Lake, wanted: Sequence[LayerOfSpace], rate: int, *, window_s: float = LIVE_WINDOW_S,
        hop_s: float = LIVE_HOP_S, ahead_s: float = 0.0, device: str | None = None, drift: float = LIVE_DRIFT,
    ) -> None:
        """`wanted`: a space and the number of a layer each; `rate`: of the samples that will be pushed, Hz; `device`: by
        default an accelerator, if there is one.

        Raises InputError for a space whose frames are not computed from audio, and as `LiveLayers`.
        """
        self.rate = rate
        hybrids = [read_hybrid(lake, space) if is_hybrid(space) else None for space, _ in wanted]
        self._parts = [
            [(part.space, part.layer) for part in hybrid.parts] if hybrid else [one]
            for one, hybrid in zip(wanted, hybrids, strict=True)
        ]
        spaces: dict[str, Space] = {}
        layers: dict[str, list[int]] = {}
        for space, layer in (part for parts in self._parts for part in parts):
            check_encoded(space)
            spaces[space.fingerprint] = space
            layers[space.fingerprint] = sorted({*layers.get(space.fingerprint, ()), layer})
        self._streams = {
            key: LiveLayers(
                encoder_of(space, device, home=lake.uri), layers[key], rate, window_s=window_s, hop_s=hop_s, ahead_s=ahead_s,
                drift=drift,
            )
            for key, space in spaces.items()
        }
        self._joints = [
            HybridFrames(hybrid, [self._streams[space.fingerprint].spacing_s for space, _ in parts]) if hybrid else None
            for hybrid, parts in zip(hybrids, self._parts, strict=True)
        ]

    @property
    def latency_s(self) -> float:
        """The longest time between a sample and the last of the frames that contain it, without computation."""
        wait_s = max((joint.wait_s for joint in self._joints if joint is not None), default=0.0)
        return max(stream.latency_s for stream in self._streams.values()) + wait_s

    def push(self, samples: np.ndarray) -> list[FrameBatch]:
        """Take (samples,) or (samples, channel) in [-1, 1]; returns the frames that are due of each wanted layer.

        Raises InputError as `LiveLayers.push`.
        """
        return self._frames({key: stream.push(samples) for key, stream in self._streams.items()})

    def finish(self) -> list[FrameBatch]:
        """End the stream; returns the remaining frames of each wanted layer."""
        return self._frames({key: stream.finish() for key, stream in self._streams.items()}, last=True)

    def _frames(self, found: Mapping[str, LayerBatch], last: bool = False) -> list[FrameBatch]:
        frames = []
        for parts, joint in zip(self._parts, self._joints, strict=True):
            batches = [
                found[space.fingerprint].of(self._streams[space.fingerprint].layers.index(layer)) for space, layer in parts
            ]
            frames.append(batches[0] if joint is None else joint.push(batches, last=last))
        return frames


class HybridFrames:
    """Join the frames of a hybrid's parts while they come."""

    def __init__(self, hybrid: Hybrid, spacings_s: Sequence[float]) -> None:
        """`spacings_s`: seconds from frame to frame of each part."""
        self._hybrid = hybrid
        self._grid = slowest(spacings_s)
        self.wait_s = max(spacing for i, spacing in enumerate(spacings_s) if i != self._grid)        # for the frame after it
        self._kept = [
            FrameBatch(np.empty(0), np.empty((0, part.space.dims[part.layer]), np.float32)) for part in hybrid.parts
        ]

    def push(self, parts: Sequence[FrameBatch], *, last: bool = False) -> FrameBatch:
        """Take the next frames of each part; returns the joined frames that are certain, or with `last` all that are left."""
        kept = [
            FrameBatch(np.concatenate([old.time_s, new.time_s]), np.concatenate([old.states, new.states]))
            for old, new in zip(self._kept, parts, strict=True)
        ]
        grid_s = kept[self._grid].time_s
        if not all(len(one.time_s) for one in kept):
            ready = 0
        elif last:
            ready = len(grid_s)
        else:                            # a later frame cannot be nearer than one at or after the grid's
            ready = int(np.searchsorted(grid_s, min(one.time_s[-1] for one in kept), side="right"))
        found = [nearest(one.time_s, grid_s[:ready]) if ready else np.empty(0, np.int64) for one in kept]
        joined = self._hybrid.join([one.states[rows] for one, rows in zip(kept, found, strict=True)])
        if ready:                        # of the other parts, the last frame used may be the nearest to the next one as well
            first = [ready if i == self._grid else int(rows[-1]) for i, rows in enumerate(found)]
            kept = [FrameBatch(one.time_s[at:], one.states[at:]) for one, at in zip(kept, first, strict=True)]
        self._kept = kept
        return FrameBatch(grid_s[:ready], joined)


def check_encoded(space: Space) -> None:
    """Raise InputError for a space whose frames cannot be computed from audio by one encoder."""
    if is_projection(space):
        raise InputError(f"space {space.name!r} is a projection. Choose the space that it was made from")
    if is_derived(space):
        raise InputError(f"space {space.name!r} is a hybrid inside a hybrid. Make one of the spaces that both are made from")
