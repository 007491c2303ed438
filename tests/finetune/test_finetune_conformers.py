"""MERT-v2 and MuQ are fine-tuned like MERT-v1: LoRA on their projections, the spectrum in float32.  Random checkpoints."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import QUICK
from safetensors.torch import save_file
from sounds import melody

import tonelake
from tonelake.embed import encode_clips, load_encoder, lora_targets_of
from tonelake.finetune import FinetuneRun
from tonelake.finetune.angles import layer_angles, orthogonality
from tonelake.finetune.checkpoint_file import read_checkpoint_file
from tonelake.finetune.initial_weights import load_initial_weights
from tonelake.finetune.model import LoraModel
from tonelake.store import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = Path(__file__).parents[1] / "data"
TARGETS = {"mert2": ("query_proj", "value_proj"), "muq": ("linear_q", "linear_v")}
ATTENTION = {"mert2": "layers.{}.attn.", "muq": "conformer.layers.{}.self_attn."}
BOTH = pytest.mark.parametrize("kind", TARGETS)
TINY = DATA / "mert2" / "tiny"
CONFIG = replace(QUICK, task="multiclass", checkpointing=False, lora_dropout=0.0, dropout=0.0)
WAVE = melody(5.2, seed=4, rate=24_000)[:, 0]


def folder_of(kind):
    return str(DATA / kind / "tiny")


def untrained(kind="mert2", **settings):
    return LoraModel(load_encoder(folder_of(kind)), replace(CONFIG, **settings), 2)


@pytest.fixture(scope="module", params=list(TARGETS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def lake(sung, tmp_path_factory, kind):
    """A lake with a finished run, from stored frames of layer 1.  Do not change it."""
    folder = tmp_path_factory.mktemp(kind) / "lake"
    shutil.copytree(sung.uri, folder)
    lake = tonelake.open(folder, create=False, progress=False)
    lake.embed(folder_of(kind), window=2.0, precision="float32", device="cpu", frames=[1], space=kind)
    lake.finetune(config=QUICK, space=kind, above=1, frames=True, name="run")
    return lake


@BOTH
def test_before_training_pooled_layers_equal_the_stored_vectors_with_and_without_checkpointing(kind):
    expected = encode_clips(load_encoder(folder_of(kind)), [WAVE], 2.0)[0]
    grads = []
    for checkpointing in (False, True):
        model = untrained(kind, checkpointing=checkpointing).train()
        found = model.pooled([torch.from_numpy(WAVE)])[0]
        for layer, (mean, maximum) in enumerate(zip(expected.mean, expected.max, strict=True)):
            limit = 2e-5 * np.abs(maximum).max()
            np.testing.assert_allclose(found[layer].detach().numpy(), np.concatenate([mean, maximum]), atol=limit)
        model(torch.tensor([1]), [torch.from_numpy(WAVE)])["loss"].backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    plain, recomputed = grads
    lora = {ATTENTION[kind].format(block) + target for block in range(3) for target in TARGETS[kind]}
    assert {name.split(".lora_")[0].removeprefix("peft.base_model.model.") for name in plain if ".lora_" in name} == lora
    assert all(".lora_" in name or name.startswith("head.") for name in plain) and plain.keys() == recomputed.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(recomputed[name], grad, rtol=1e-4, atol=1e-7)


@BOTH
def test_blocks_above_a_layer_train_from_its_frames_as_from_the_audio(kind):
    model = untrained(kind, above=1).train()
    assert {name.split("layers.")[1][0] for name, _ in model.parameters_of(lora=True)} == {"1", "2"}
    samples = WAVE[:48_000]
    frames = load_encoder(folder_of(kind)).encode(samples[None], frames=[1]).frames[0][0]
    heard, stored = model.pooled([torch.from_numpy(samples)]), model.pooled([], [[torch.from_numpy(frames)]])
    assert heard.shape == (1, 3, 96) and heard.requires_grad and stored.requires_grad
    torch.testing.assert_close(stored, heard, rtol=0, atol=4e-3 * heard.detach().abs().max().item())


@BOTH
def test_in_bfloat16_the_spectrum_stays_float32_and_layers_equal_those_of_embed(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))
    encoder = load_encoder(folder_of(kind))
    stored = encode_clips(encoder.at("bfloat16"), [WAVE], 2.0)[0]
    encoder.prepare_training(48_000, "bfloat16", "cpu")
    model, kinds = LoraModel(encoder, replace(CONFIG, precision="bfloat16"), 2).eval(), []
    encoder.model.feature_extractor.register_forward_hook(lambda module, given, mel: kinds.append(mel.dtype))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = model.pooled([torch.from_numpy(WAVE)])[0]
    assert set(kinds) == {torch.float32}
    for layer, mean in enumerate(stored.mean):
        assert torch.cosine_similarity(found[layer, :48], torch.from_numpy(mean), dim=0) > 0.9999


def test_a_run_adapts_its_own_projections_and_plain_peft_opens_the_adapter(lake, kind):
    from peft import PeftModel

    folder = f"{lake.uri}/adapters/run/adapter"
    assert FinetuneRun.named(lake, "run").config.targets == TARGETS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(load_encoder(folder_of(kind)).model, folder).eval()
    samples = WAVE[:48_000]
    with torch.no_grad():
        expected = theirs(torch.from_numpy(samples)[None])[0].numpy()
    plain, merged = (load_encoder(folder_of(kind), adapter=adapter) for adapter in ("", folder))
    ours = merged.hidden_states(samples)
    assert np.abs(ours[3] - expected).max() <= 2e-5 * np.abs(expected).max()
    changed = [np.abs(a - b).max() for a, b in zip(ours, plain.hidden_states(samples), strict=True)]
    assert changed[:2] == [0, 0] and min(changed[2:]) > 1e-4             # blocks above layer 1 only


def test_a_space_of_the_adapter_has_the_vectors_of_the_merged_weights(lake, kind):
    from tonelake.ingest import read_clips

    report = lake.embed(adapter="run")
    space = lake.spaces.get(report.space)
    assert report.new == 12 and space.adapter and space.window_s == 2.0
    clips = lake.clips.read().head(1)
    (_, samples), = read_clips(clips, 24_000)
    merged = load_encoder(folder_of(kind), adapter=f"{lake.uri}/adapters/run/adapter")
    expected = encode_clips(merged, [samples], 2.0)[0].mean[3]
    stored = lake.vectors(space.name).take(clips["clip_id"].to_list(), 3).vectors[0]
    np.testing.assert_allclose(stored, expected, atol=1e-3 * np.abs(expected).max())     # float16 in the store


def test_angles_are_between_updates_of_one_kind_of_layer(lake, kind):
    layers = orthogonality(lake, "run").layers
    assert set(layers["module"]) == set(TARGETS[kind]) and set(layers.select("first", "second").row(0)) == {"1", "2"}
    generator = torch.Generator().manual_seed(0)
    pairs = {
        f"layers.{block}.{part}.w_1": (torch.randn(2, 6, generator=generator), torch.randn(4, 2, generator=generator))
        for block in range(2) for part in ("ffn1", "ffn2")
    }
    assert layer_angles(pairs)["module"].to_list() == ["ffn1.w_1", "ffn2.w_1"]


def test_a_checkpoint_of_a_training_starts_another_one(tmp_path):
    model = untrained()
    saved = {name: torch.randn_like(tensor) for name, tensor in model.trained().items()}
    save_file(saved, tmp_path / "model.safetensors")
    report = load_initial_weights(model, read_checkpoint_file(tmp_path / "model.safetensors"))
    assert not report.skipped and len(report.loaded) == len(saved) == 12 + 7
    for name, tensor in model.trained().items():
        torch.testing.assert_close(tensor, saved[name])


def test_default_targets_are_known_without_weights_and_others_are_refused_by_name(lake, kind):
    assert lora_targets_of("m-a-p/MERT-v2-30s") == lora_targets_of(str(TINY)) == TARGETS["mert2"]
    assert lora_targets_of("OpenMuQ/MuQ-large-msd-iter") == lora_targets_of(folder_of("muq")) == TARGETS["muq"]
    assert lora_targets_of("m-a-p/MERT-v1-330M") == ("q_proj", "v_proj") and lora_targets_of("/gone") == ()
    choices = {"mert2": "w_1, w_2, query_", "muq": "intermediate_dense, output_dense, linear_q"}[kind]
    with pytest.raises(InputError, match=rf"--targets q_proj: tiny has no such linear layers\. Choose among {choices}"):
        lake.finetune(config=QUICK, space=kind, targets=["q_proj", TARGETS[kind][1]])
