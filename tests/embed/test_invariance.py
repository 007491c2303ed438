"""A clip has a bit-identical vector independent of other clips, their order, the number of workers, and the date."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from sounds import melody, write

from tonelake.embed import EmbedSettings, embed_clips, encode_clips, load_encoder, open_space
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


@pytest.mark.parametrize("kind", ["Hubert", "Wav2Vec2"])
@pytest.mark.parametrize("stable", [False, True])
def test_clips_of_mixed_lengths_equal_transformers_on_each_alone(tmp_path, kind, stable):
    """Folders as transformers saves them, base and large layout: nothing is padded, at any layer."""
    import torch
    import transformers

    large = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True} if stable else {}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, conv_dim=[16] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **large
    )
    model = getattr(transformers, f"{kind}Model")(config).eval()
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), device="cpu")
    waves = [melody(seconds, seed=number, rate=16_000)[:, 0] for number, seconds in enumerate((1.0, 1.3, 2.0, 2.0, 3.1))]
    together = encode_clips(encoder, waves, 30.0)
    for wave, found in zip(waves, together, strict=True):
        alone = encode_clips(encoder, [wave], 30.0)[0]
        with torch.no_grad():
            scaled = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))
            theirs = model(scaled[None], output_hidden_states=True)
        states = (*theirs.hidden_states[:-1], theirs.last_hidden_state)      # normalised in the large layout
        assert len(states) == len(encoder.layers) == 3
        for layer, state in enumerate(states):
            expected = state[0].mean(dim=0).numpy()
            np.testing.assert_allclose(found.mean[layer], alone.mean[layer], atol=1e-5)
            np.testing.assert_allclose(found.mean[layer], expected, atol=4e-4 * np.abs(expected).max())


def test_clips_that_share_batches_differ_by_rounding_at_most(folder, checkpoints, alone, lake):
    """As on an accelerator; a CPU takes one clip at a time.  Tolerance: the last digit of stored float16."""
    ingest_folder(lake, folder, seconds=None)
    found = vectors(lake, checkpoints, at_once=4)
    for clip, vector in found.items():
        np.testing.assert_allclose(vector, alone[clip], rtol=2e-3, atol=2e-3)
