"""Why a hit is near: the best moments of a song, and the depth of the layers at which two sounds agree, against brute force."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows

from tonelake.index import best_moments, layer_agreement
from tonelake.index.search.agreement import THIRDS, depths
from tonelake.store import Lake, Space

LAYERS = 9


@pytest.fixture
def deep(lake) -> tuple[Lake, Space, list[np.ndarray]]:
    """A lake of 40 songs of 6 clips in a space of nine layers, and its vectors."""
    rows = clip_rows(40, 6).with_columns(start_s=pl.col("start_s") * 2)              # 10 s clips that do not overlap
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="deep", revision="1", sample_rate=8_000, layers=tuple(map(str, range(LAYERS))), dims=(5,) * LAYERS, window_s=5.0,
        hop_s=5.0, precision="float32",
    ))
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((len(rows), 5)).astype(np.float32) for _ in range(LAYERS)]
    layers[7][6:12] = layers[7][0:6]                                                 # song 1 equals song 0 in a late layer
    layers[1][12:18] = layers[1][0:6]                                                # song 2 in an early one
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, layers, [1] * len(rows))
    return lake, space, layers


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_best_moments_are_those_nearest_to_the_others_on_average(deep):
    lake, space, layers = deep
    ids = lake.clips.ids()
    others = [40, 80, 120]
    scores = {
        layer: (unit(layers[layer][:6]) @ unit(layers[layer][others]).T).mean(axis=1) for layer in (2, 4)
    }
    mixed = 0.25 * scores[2] + 0.75 * scores[4]
    clips = lake.clips.take(ids[:6].to_list())
    found = best_moments(lake, space, {2: 0.25, 4: 0.75}, clips, ids.gather(others).to_list())
    best = np.argsort(-mixed)[:2]                                                    # at most a third of six clips
    assert found["clip_id"].to_list() == ids.gather(best).to_list()
    np.testing.assert_allclose(found["score"], mixed[best], atol=1e-3)          # vectors are stored as float16


def test_overlapping_moments_are_given_once_and_a_song_of_one_clip_has_none(deep):
    lake, space, _ = deep
    ids = lake.clips.ids()
    together = lake.clips.take(ids[:6].to_list()).with_columns(duration_s=pl.lit(1_000.0))
    assert len(best_moments(lake, space, {0: 1.0}, together, ids[50:53].to_list())) == 1
    assert not len(best_moments(lake, space, {0: 1.0}, together.head(1), ids[50:53].to_list()))
    assert not len(best_moments(lake, space, {0: 1.0}, together, []))


def test_clips_without_vectors_have_no_part_in_best_moments(deep):
    lake, space, _ = deep
    lake.clips.add(clip_rows(41, 6))
    clips = lake.clips.take(lake.clips.ids()[240:246].to_list())
    assert not len(best_moments(lake, space, {0: 1.0}, clips, lake.clips.ids()[:3].to_list()))


def test_a_hit_agrees_most_at_the_depth_where_it_is_nearest_beyond_what_is_usual(deep):
    lake, _, layers = deep
    ids = lake.clips.ids()
    found = layer_agreement(lake, ids[2], [ids[8], ids[14], ids[100]], space="deep")
    assert found["depth"].to_list()[:2] == ["late layers", "early layers"]
    assert found["layer"].to_list()[:2] == ["7", "1"]
    # Against brute force with the whole lake as the sample: 240 clips are fewer than are drawn.
    above = np.empty((3, LAYERS))
    for layer in range(LAYERS):
        cosines = unit(layers[layer]) @ unit(layers[layer][2])
        above[:, layer] = (cosines[[8, 14, 100]] - cosines.mean()) / cosines.std()
    mean = above.reshape(3, 3, 3).mean(axis=2)
    assert found["depth"].to_list() == [THIRDS[part] for part in mean.argmax(axis=1)]
    np.testing.assert_allclose(found["above"], mean.max(axis=1), atol=2e-3)


def test_a_space_of_a_few_layers_names_the_layer(lake):
    from fakes import fill

    fill(lake, 6, 4, seed=0)
    ids = lake.clips.ids()
    assert set(layer_agreement(lake, ids[0], ids[4:9].to_list())["depth"]) <= {"layer low", "layer high"}
    assert depths(9).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and depths(1).tolist() == [0]
    assert not len(layer_agreement(lake, ids[0], []))
