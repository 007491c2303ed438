"""What a GPU would refuse, without one: tensors of two devices in one operation, shapes and types that do not fit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from fake_cuda import DEVICE, fake_cuda, moved

from embed import hubert
from embed.hubert import HubertEncoder


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
    assert hubert and torch
