"""Operations that a GPU would refuse, tested without one: tensors of two devices, shapes and types that do not fit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from fake_cuda import DEVICE, fake_cuda, moved

from tonelake.embed.encoders.hubert import HubertEncoder
from tonelake.finetune import FinetuneConfig
from tonelake.finetune.model import LoraModel
from tonelake.probes.config import Setting
from tonelake.probes.grid import GridData, Schedule, train
from tonelake.probes.heads import Shape
from tonelake.probes.losses import Loss


@pytest.fixture(params=["95M-tiny", "330M-tiny"])
def encoder(request, checkpoints):
    return HubertEncoder(checkpoints / request.param)


def on_gpu(encoder, precision):
    other = copy.copy(encoder)
    other._model, other.device = moved(encoder.model), DEVICE
    return other.at(precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("keep", [None, [(0, None), (3, 40), (0, 1)]])
def test_encoding_stays_on_the_device_until_pooled(encoder, precision, keep, monkeypatch):
    windows = np.zeros((3, 24_000), np.float32)
    with fake_cuda(monkeypatch) as ins:
        pooled = on_gpu(encoder, precision).encode(windows, keep, frames=(1, 2))
    expected = encoder.encode(windows, keep, frames=(1, 2))
    assert ins.copied and set(ins.copied) == {"cpu"}
    for mine, theirs in zip((*pooled.mean, *pooled.max), (*expected.mean, *expected.max), strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    assert [[a.shape for a in layer] for layer in pooled.frames] == [[a.shape for a in layer] for layer in expected.frames]


def test_two_devices_in_one_operation_are_noticed(encoder, monkeypatch):
    with fake_cuda(monkeypatch):
        on = on_gpu(encoder, "float32")
        on.device = "cpu"
        with pytest.raises(Exception, match="two devices"):
            on.encode(np.zeros((1, 24_000), np.float32))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("parts", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_grid_of_probes_is_trained_on_the_device(kind, head, parts, dtype, monkeypatch):
    def side(clips):
        vectors = torch.zeros(2, clips, *([parts] if parts else []), 10)
        targets = torch.zeros(clips, dtype=torch.int64) if kind == "multiclass" else torch.zeros(clips, 4)
        return vectors.to(DEVICE, dtype), targets.to(DEVICE)

    shape, settings = Shape(kind=head, width=10, outputs=4, hidden=6, mixed=parts), [Setting(1e-3, 0.0), Setting(1e-2, 1e-3)]
    with fake_cuda(monkeypatch) as ins:
        weights = None if kind == "regression" else torch.ones(4).to(DEVICE)
        loss = Loss(kind, weights, 0.0 if kind == "regression" else 0.1)
        schedule = Schedule(optimizer="adamw", batch=8, epochs=2, dropout=0.2)
        fitted = train(GridData(*side(12), *side(9)), shape, loss, settings, [0, 1, 2], 0, schedule)
        states = {name: (str(state.device), tuple(state.shape)) for name, state in fitted.states.items()}
    assert states == {name: (DEVICE, (2, 3, 2, *size)) for name, size in shape.sizes().items()}
    assert set(ins.copied) == {"cpu"} and fitted.score.shape == (2, 3, 2)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("above", [0, 1])
def test_fine_tuning_computes_its_loss_on_the_device(encoder, kind, above, monkeypatch):
    config = FinetuneConfig("kind", task=kind, above=above, rank=2, hidden=8, window_s=1.0, frames=above > 0)
    model = LoraModel(encoder, config, 3, None if kind == "regression" else torch.ones(3)).train()
    with fake_cuda(monkeypatch):
        model = moved(model)
        waves = [torch.zeros(samples).to(DEVICE) for samples in (24_000, 60_000)]
        states = [[torch.zeros(frames, encoder.dims[above]).half().to(DEVICE) for frames in (49, 20)]] * 2
        labels = (torch.zeros(2, dtype=torch.int64) if kind == "multiclass" else torch.zeros(2, 3)).to(DEVICE)
        with torch.autocast("cuda", torch.bfloat16):
            made = model(labels, frames=states) if above else model(labels, audio=waves)
        assert (str(made["loss"].device), str(made["logits"].device)) == (DEVICE, DEVICE)
        assert made["logits"].shape == (2, 3)
