"""Adam's step in one pass against torch's three."""

from __future__ import annotations

import pytest
import torch

from tonelake.probes import optimizers
from tonelake.probes.config import Setting
from tonelake.probes.grid import GridData, Schedule, train
from tonelake.probes.heads import Shape
from tonelake.probes.losses import Loss
from tonelake.probes.optimizers import Optimizer

SETTINGS = [Setting(1e-3, 0.0), Setting(3e-2, 0.0), Setting(0.3, 0.1)]


def stepped(kind: str, monkeypatch: pytest.MonkeyPatch, *, kernel: bool) -> Optimizer:
    """An optimizer after twelve steps, in the midst of which a rate is halved and a setting is dropped."""
    monkeypatch.setattr(optimizers, "KERNEL_FROM", 0 if kernel else 1 << 60)
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    found = Optimizer(kind, SETTINGS, {"weight": drawn(2, 3, 5, 7), "bias": drawn(2, 3, 5)}, torch.bfloat16)
    assert found.has_kernel == kernel
    for step in range(12):
        if step == 4:
            found.multiply_rates(torch.tensor([[1.0, 0.5, 1.0], [1.0, 1.0, 1.0]]))
        if step == 8:
            found.keep_only(torch.tensor([0, 1]), torch.tensor([0, 2]))
        size = found.scaled["weight"].shape
        found.step({"weight": drawn(*size).bfloat16(), "bias": drawn(*size[:3])})
    return found


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_pass_equals_torchs_optimizer(kind, monkeypatch):
    ours, torchs = (stepped(kind, monkeypatch, kernel=kernel) for kernel in (True, False))
    for name in ("weight", "bias"):
        torch.testing.assert_close(ours.scaled[name], torchs.scaled[name], rtol=1e-5, atol=1e-5)
    assert torch.equal(ours.working["weight"], ours.scaled["weight"].bfloat16())


def test_weights_that_are_not_finite_stay_so(monkeypatch):
    monkeypatch.setattr(optimizers, "KERNEL_FROM", 0)
    weight = torch.ones(1, 1, 1, 3)
    weight[..., 0], weight[..., 1] = torch.nan, torch.inf
    found = Optimizer("adam", [Setting(1.0, 0.0)], {"weight": weight}, torch.bfloat16)
    found.step({"weight": torch.ones(1, 1, 1, 3).bfloat16()})
    assert found.working["weight"].isfinite().tolist() == [[[[False, False, True]]]]


@pytest.mark.parametrize("shape", [
    Shape(kind="linear", width=64, outputs=4), Shape(kind="mlp", width=64, outputs=4, hidden=16),
    Shape(kind="linear", width=64, outputs=4, mixed=3),
])
def test_every_head_is_trained_by_the_pass(shape, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 200, *([3] if shape.mixed else []), 64, generator=generator)
    targets = (x.flatten(2)[0, :, 0] > 0).long()
    sides = GridData(x[:, :140].bfloat16(), targets[:140], x[:, 140:].bfloat16(), targets[140:])
    losses = []
    for least in (0, 1 << 60):
        monkeypatch.setattr(optimizers, "KERNEL_FROM", least)
        found = train(sides, shape, Loss("multiclass"), SETTINGS[:2], [0], 0, Schedule(epochs=6, patience=0))
        losses.append(torch.from_numpy(found.train_loss))
    torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=1e-3)
    assert float(losses[0].min()) < 0.9
