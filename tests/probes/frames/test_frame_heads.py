"""Heads of frame probes, and many of them at once: values, gradients and dropout are those of torch's modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonelake.probes.frames.heads import HeadShape, make_head
from tonelake.probes.frames.stacks import ConvStack, ModuleStack, initial_fits, make_stack
from tonelake.store import InputError

SEEDS, DRAW = [0, 1, 0], (3, 4)


@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("kind", ["linear", "context", "mlp", "conv"])
def test_heads_at_once_have_the_values_and_gradients_of_single_modules(kind, layers):
    shape = HeadShape(kind=kind, width=7, outputs=5, hidden=6, context=5, dropout=0.3, layers=layers)
    parameters = initial_fits(shape, SEEDS)
    if layers:
        parameters["mix"] = torch.randn_like(parameters["mix"])
    x = torch.randn(max(layers, 1), 4, 11, 7)
    together, single = ConvStack(shape), ModuleStack(shape)
    masks = together.masks(SEEDS, DRAW, 4, torch.device("cpu"))
    found, expected = together(parameters, x, masks, SEEDS, DRAW), single(parameters, x, None, SEEDS, DRAW)
    torch.testing.assert_close(found.logits, expected.logits)
    gradient = torch.randn(found.logits.shape)
    gradients, wanted = found.backward(gradient), expected.backward(gradient)
    assert gradients.keys() == wanted.keys() == parameters.keys()
    for name in gradients:
        torch.testing.assert_close(gradients[name], wanted[name], atol=1e-4, rtol=1e-4)


def test_dropout_differs_by_seed_and_batch_and_is_absent_in_evaluation():
    shape = HeadShape(kind="conv", width=4, outputs=2, hidden=32, dropout=0.5)
    stack, cpu = ConvStack(shape), torch.device("cpu")
    first, again, later = (stack.masks([0, 1, 0], draw, 3, cpu)[0] for draw in ((1, 2), (1, 2), (1, 3)))
    assert first.equal(again) and not first.equal(later)
    assert first[0].equal(first[2]) and not first[0].equal(first[1])
    assert HeadShape(kind="linear", width=4, outputs=2).make().training
    assert ConvStack(HeadShape(kind="linear", width=4, outputs=2)).masks([0], (1, 2), 3, cpu) is None


@pytest.mark.parametrize("context", [1, 3, 7, 9])
@pytest.mark.parametrize("kind", ["context", "conv"])
def test_a_head_sees_as_many_frames_as_its_context(kind, context):
    head = make_head(kind, 3, 2, context=context, hidden=64).eval()
    x = torch.randn(1, 31, 3, requires_grad=True)
    head(x)[0, 15].sum().backward()
    seen = np.flatnonzero(x.grad[0].abs().sum(dim=1).numpy())
    assert (seen[0], seen[-1]) == (15 - context // 2, 15 + context // 2)


def test_a_gru_runs_one_fit_after_another_and_sees_the_whole_segment():
    shape = HeadShape(kind="gru", width=3, outputs=2, hidden=4, dropout=0.0)
    stack, parameters = make_stack(shape), initial_fits(shape, [0, 1])
    assert isinstance(stack, ModuleStack)
    x = torch.randn(1, 2, 9, 3)
    found = stack(parameters, x, None, [0, 1], ())
    assert found.logits.shape == (2, 18, 2) and not torch.allclose(found.logits[0], found.logits[1])
    changed = x.clone()
    changed[:, :, -1] += 1
    assert not torch.allclose(stack(parameters, changed, None, [0, 1], ()).logits[:, 0], found.logits[:, 0])


def test_an_unknown_head_is_refused():
    with pytest.raises(InputError, match=r"head 'tree': unknown\. Choose linear, context"):
        make_head("tree", 3, 2)
