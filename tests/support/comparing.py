"""Compare what two lakes hold."""

from __future__ import annotations

import numpy as np

from tonelake.store import Lake


def assert_equal_vectors(lake: Lake, reference: Lake, *, frames: bool = False, tolerance: float = 0.0) -> None:
    """Both lakes have one vector per clip of `reference`, equal up to `tolerance` times the largest value of a layer.

    `frames`: compare the frames of layer 1 of some clips as well.
    """
    mine, theirs = lake.vectors(), reference.vectors()
    assert mine.space.fingerprint == theirs.space.fingerprint
    ids = reference.clips.read(["clip_id"])["clip_id"].to_list()
    assert mine.count() == mine.ids().n_unique() == len(ids)
    for layer in range(len(mine.space.layers)):
        for stat in ("mean", "max"):
            a, b = mine.take(ids, layer, stat=stat).vectors, theirs.take(ids, layer, stat=stat).vectors
            assert np.abs(a - b).max() <= tolerance * np.abs(b).max()
            assert np.abs(a - b[::-1]).max() > 0.05 * np.abs(b).max()          # the bound would notice swapped rows
    if frames:
        assert lake.frames().table.count() == len(ids)
        for clip in ids[::7]:
            a, b = lake.frames().read(clip, 1), reference.frames().read(clip, 1)
            np.testing.assert_array_equal(a.frame_s, b.frame_s)
            assert np.abs(a.states.astype(float) - b.states).max() <= tolerance * np.abs(b.states).max()
