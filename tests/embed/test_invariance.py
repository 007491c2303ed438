"""A clip has a bit-identical vector independent of other clips, their order, the number of workers, and the date."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from sounds import melody, write

from tonelake.embed import EmbedSettings, embed_clips, open_space
from tonelake.ingest import ingest_folder, read_clips
from tonelake.store import Lake

SECONDS = (7.0, 2.0, 5.3, 2.0, 9.1, 1.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("invariance")
    for number, seconds in enumerate(SECONDS):
        write(home / f"{number}.wav", melody(seconds, seed=number))
    return home


def vectors(lake, checkpoints, *, workers=1, order=None, at_once=None, variant="95M-tiny", hop=None):
    """Vectors by clip id of one embedding, with clips in this order, `at_once` per batch."""
    settings = EmbedSettings(
        str(checkpoints / variant), space="bits", window_s=2.0, hop_s=hop, precision="float32", device="cpu"
    )
    space, encoder = open_space(lake, settings)
    if at_once:
        encoder.clips_at_once = at_once

    def read(clips, rate, count):
        return read_clips(clips if order is None else clips[[i % len(clips) for i in order]], rate, count)

    assert embed_clips(lake, space, encoder, read, workers=workers).failed == 0
    table = lake.vectors(space)
    ids = sorted(table.ids())
    stacked = [table.take(ids, layer, stat=stat).vectors for layer in range(len(space.layers)) for stat in ("mean", "max")]
    return {clip: np.concatenate([layer[row] for layer in stacked]) for row, clip in enumerate(ids)}


@pytest.fixture(scope="module")
def alone(folder, checkpoints, tmp_path_factory):
    """Each file embedded in a lake of its own."""
    found = {}
    ingested = Lake(tmp_path_factory.mktemp("ingested") / "lake")
    ingest_folder(ingested, folder, seconds=None)
    for number in range(len(SECONDS)):
        lake = Lake(shutil.copytree(ingested.uri, tmp_path_factory.mktemp("alone") / "lake"))
        clip = lake.clips.read(where=f"track LIKE '%{number}%'")["clip_id"][0]
        lake.clips.table.delete(f"clip_id != '{clip}'")
        found |= vectors(lake, checkpoints)
    assert len(found) == len(SECONDS)
    return found


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("order", [None, (5, 2, 0, 4, 1, 3), (3, 1, 4, 0, 2, 5)])
def test_order_and_workers_change_no_bit(folder, checkpoints, alone, lake, workers, order):
    ingest_folder(lake, folder, seconds=None)
    found = vectors(lake, checkpoints, workers=workers, order=order)
    assert found.keys() == alone.keys()
    for clip, vector in found.items():
        np.testing.assert_array_equal(vector, alone[clip])


def test_clips_that_share_batches_differ_by_rounding_at_most(folder, checkpoints, alone, lake):
    """As on an accelerator; a CPU takes one clip at a time.  Tolerance: the last digit of stored float16."""
    ingest_folder(lake, folder, seconds=None)
    found = vectors(lake, checkpoints, at_once=4)
    for clip, vector in found.items():
        np.testing.assert_allclose(vector, alone[clip], rtol=2e-3, atol=2e-3)
