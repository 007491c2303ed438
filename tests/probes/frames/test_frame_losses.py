"""Losses, gradients and validation scores of frame heads, compared with torch and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional

from tonelake.probes.frames.frame_losses import Cells, FrameLoss, ValidationSums, positive_weights, start_of_bias

GROUPS = {"onset": slice(0, 2), "frame": slice(2, 5)}


def cells(targets: np.ndarray) -> Cells:
    rows, outputs = np.nonzero(targets)
    return Cells(torch.from_numpy(rows), torch.from_numpy(outputs), torch.from_numpy(targets[rows, outputs].astype(np.float32)))


@pytest.mark.parametrize("soft", [False, True])
def test_the_weighted_binary_loss_and_its_gradient_are_those_of_torch(soft):
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(40, 5, generator=generator) < 0.2).float() * (0.5 if soft else 1)
    weights = torch.tensor([3.0, 3.0, 7.0, 7.0, 7.0])
    logits = torch.randn(3, 40, 5, generator=generator, requires_grad=True)
    unjudged = torch.tensor([3, 17])
    judged = torch.ones(40)
    judged[unjudged] = 0
    targets[unjudged] = 0
    expected = (functional.binary_cross_entropy_with_logits(
        logits, targets.expand(3, 40, 5), pos_weight=weights, reduction="none"
    ) * judged[:, None]).sum(dim=(1, 2))
    wanted = torch.autograd.grad(expected.sum(), logits)[0]
    loss, own = FrameLoss("multilabel", weights), cells(targets.numpy())
    torch.testing.assert_close(loss.value(logits.detach().clone(), own, unjudged), expected.detach())
    torch.testing.assert_close(loss.gradient(logits.detach().clone(), own, unjudged), wanted)


def test_cross_entropy_ignores_unlabelled_frames_and_weighs_classes():
    targets = torch.tensor([0, -1, 2, 2, 1])
    weights = torch.tensor([1.0, 2.0, 0.5])
    logits = torch.randn(2, 5, 3, requires_grad=True)
    expected = torch.stack([
        functional.cross_entropy(own, targets, weight=weights, ignore_index=-1, reduction="sum") for own in logits
    ])
    loss = FrameLoss("multiclass", weights)
    torch.testing.assert_close(loss.value(logits.detach(), targets, None), expected.detach())
    wanted = torch.autograd.grad(expected.sum(), logits)[0]
    torch.testing.assert_close(loss.gradient(logits.detach(), targets, None), wanted)
    assert float(loss.amount(targets, 5, 3)) == 4.0


def test_the_validation_score_is_the_mean_average_precision_of_groups_and_parts():
    rng = np.random.default_rng(0)
    sums = ValidationSums(FrameLoss("multilabel", torch.ones(5)), 2, GROUPS, 2, torch.device("cpu"))
    expected = np.zeros((2, 2, 2))
    for part in range(2):
        targets = (rng.random((400, 5)) < 0.1).astype(np.uint8)
        logits = rng.normal(size=(2, 400, 5)).astype(np.float32) + 2 * targets
        kept = np.ones(400, bool)
        kept[[5, 399]] = False
        own = targets.copy()
        own[~kept] = 0
        sums.add(torch.from_numpy(logits.copy()), cells(own), torch.from_numpy(np.flatnonzero(~kept)), part)
        for fit in range(2):
            for number, group in enumerate(GROUPS.values()):
                expected[fit, part, number] = average_precision_score(
                    targets[kept][:, group].ravel(), logits[fit][kept][:, group].ravel()
                )
    loss, score = sums.results()
    np.testing.assert_allclose(score, expected.mean(axis=(1, 2)), atol=1e-3)
    assert np.isfinite(loss).all()


def test_the_validation_score_of_classes_is_the_accuracy_over_labelled_frames():
    sums = ValidationSums(FrameLoss("multiclass", torch.ones(3)), 1, {"chord": slice(0, 3)}, 1, torch.device("cpu"))
    logits = torch.eye(3)[None, [0, 1, 1, 2]]
    sums.add(logits, torch.tensor([0, 1, 2, -1]), None, 0)
    assert sums.results()[1] == pytest.approx([2 / 3])


def test_balanced_weights_make_positives_of_a_group_weigh_as_much_as_negatives():
    counts = np.array([1, 3, 20, 30, 40])
    weights = positive_weights("multilabel", counts, 100, GROUPS, balanced=True)
    np.testing.assert_allclose(weights, [196 / 4] * 2 + [210 / 90] * 3, rtol=1e-6)
    np.testing.assert_allclose(start_of_bias("multilabel", counts, 100, GROUPS, weights), np.zeros(5), atol=1e-5)
    plain = positive_weights("multilabel", counts, 100, GROUPS, balanced=False)
    assert start_of_bias("multilabel", counts, 100, GROUPS, plain)[0] == pytest.approx(np.log(0.02 / 0.98))
    classes = positive_weights("multiclass", np.array([10, 0, 30]), 50, {}, balanced=True)
    np.testing.assert_allclose(classes, [2, 0, 2 / 3], rtol=1e-6)
