"""The small MERT in the package loads like any checkpoint, and has learned its training task."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.pretrain import examples, music, timbres, training
from tonelake.embed import encode_clips, load_encoder
from tonelake.embed.encoders.registry import encoder_names
from tonelake.embed.encoders.table import SMALL


@pytest.fixture(scope="module")
def small():
    return load_encoder("small")


def test_it_loads_by_name_and_as_a_checkpoint_folder(small):
    assert "small" in encoder_names() and small.location == small.name == "small"
    assert small.sample_rate == 24_000 and small.frame_samples == 320
    assert len(small.layers) == 7 and set(small.dims) == {192}
    assert load_encoder(str(SMALL)).revision == small.revision
    assert (SMALL / "model.safetensors").stat().st_size < 12_000_000


def test_its_card_states_purpose_limits_and_training():
    card = (SMALL / "README.md").read_text(encoding="utf-8")
    assert "substitute for MERT-v1" in card and "## Training data" in card and "## Quality" in card
    done = json.loads((SMALL / "training.json").read_text())
    assert f"{done['log'][-1]['step']:,} of the recipe's {done['recipe']['steps']:,} steps" in card and done["hours"] < 2
    recipe = training.Recipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in done["recipe"].items()})
    assert json.loads((SMALL / "config.json").read_text()) == json.loads(json.dumps(training.config_json(recipe)))


def phrases(count):
    """Generated music, each piece played by two instruments that are held out of training."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng((9, seed))
        piece = music.compose(rng)
        notes = examples.cut(piece.notes, 0.0, 8.0, 0.5)
        for name in ("plucked", "filtered"):
            tone = timbres.HELD_OUT[name](np.random.default_rng(seed + len(name)))
            made.append(examples.play(notes, [tone], np.ones(4), 4.0, examples.RATE))
    return made


def retrieval_rates(encoder, sounds):
    """For each layer: how often a piece's nearest neighbour among pieces on the other instrument is the piece itself."""
    vectors = encode_clips(encoder, [np.asarray(s, np.float32) for s in sounds], 30.0)
    rates = []
    for layer in range(len(encoder.layers)):
        own = np.stack([v.mean[layer] for v in vectors])
        own = own - own.mean(axis=0)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        likeness = own[0::2] @ own[1::2].T
        rates.append((likeness.argmax(axis=1) == np.arange(len(likeness))).mean())
    return rates


@pytest.mark.slow
def test_a_piece_is_retrieved_across_instruments(small, tmp_path):
    sounds = phrases(16)
    recipe = training.Recipe(seed=100)
    training.export(training.build(recipe, filters=False), recipe, tmp_path / "random")
    learned, random = retrieval_rates(small, sounds), retrieval_rates(load_encoder(str(tmp_path / "random")), sounds)
    assert max(learned) >= 0.6 and max(learned) > max(random) + 0.3
    assert max(learned[1:]) > learned[0]


@pytest.mark.slow
@pytest.mark.no_cover                    # three times as slow when traced
def test_the_demo_runs_on_it(tmp_path, monkeypatch, capsys):
    from tonelake import demo

    monkeypatch.setattr(demo, "PIECES", 5)
    monkeypatch.setattr("tonelake.embed.encoders.table.Entry.present", lambda entry: entry.weights is None)
    demo.run_demo(str(tmp_path / "lake"))
    output = capsys.readouterr().out
    assert "the small model that comes with tonelake" in output and "the results below do not describe MERT" in output
    assert (tmp_path / "lake" / "pictures" / "layers-key.png").stat().st_size > 10_000
