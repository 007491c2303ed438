"""The grid of fits: gradients against autograd, fits against a plain torch loop, and independence of the other fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tonelake.probes import ProbeConfig
from tonelake.probes.config import Setting
from tonelake.probes.experiment import make_experiment
from tonelake.probes.grid import GridData, Schedule, train
from tonelake.probes.heads import Shape, forward, initial_parameters
from tonelake.probes.losses import Loss, balanced_weights
from tonelake.probes.streaming import StreamedGridData

SETTINGS = [Setting(1e-3, 0.0), Setting(1e-2, 1e-3)]


def plain_loss(kind, logits, targets, weights, smoothing):
    if kind == "multiclass":
        return functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)
    if kind == "multilabel":
        smoothed = targets + (1 - targets) * smoothing
        return functional.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weights)
    return functional.mse_loss(logits, targets)


def plain_forward(shape, state, x, mask=None):
    """(clip, out) by torch's own layers; x (clip, width) or (part, clip, width)."""
    if shape.mixed:
        x = torch.einsum("l,lbd->bd", torch.softmax(state["mix"], 0), x)
    if shape.kind == "mlp":
        x = torch.relu(functional.linear(x, state["hidden.weight"], state["hidden.bias"]))
        x = x if mask is None else x * mask
    return functional.linear(x, state["weight"], state["bias"])


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("mixed", [0, 3])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_losses_and_gradients_equal_autograds(head, mixed, kind):
    generator = torch.Generator().manual_seed(3)
    groups, settings, clips, width, out, hidden = 2, 3, 7, 5, 4, 6
    shape = Shape(kind=head, width=width, outputs=out, hidden=hidden, mixed=mixed)
    state = {n: torch.randn(groups, settings, *s, generator=generator) for n, s in shape.sizes().items()}
    x = torch.randn(groups, *([mixed] if mixed else []), clips, width, generator=generator)
    mask = (torch.rand(groups, 1, hidden, clips, generator=generator) > 0.2).float() / 0.8 if head == "mlp" else None
    if kind == "multiclass":
        targets = torch.randint(0, out, (groups, clips), generator=generator)
    else:
        targets = (torch.rand(groups, clips, out, generator=generator) > 0.5).float()
    weights = torch.rand(out, generator=generator) if kind != "regression" else None
    smoothing = 0.1 if kind != "regression" else 0.0
    rates = 0.5 + torch.rand(1, settings, generator=generator)
    made = forward(shape, state, x, mask, rates=rates)
    values, gradient = Loss(kind, weights, smoothing)(made.logits, targets)
    found = made.backward(gradient)

    by_rate = {n: value * rates.view(1, -1, *[1] * (value.dim() - 2)) for n, value in state.items()}
    leaves = {name: value.requires_grad_() for name, value in by_rate.items()}
    for g in range(groups):
        for k in range(settings):
            logits = plain_forward(shape, {n: v[g, k] for n, v in leaves.items()}, x[g], None if mask is None else mask[g, 0].T)
            plain = plain_loss(kind, logits, targets[g], weights, smoothing)
            torch.testing.assert_close(values[g, k], plain.detach(), rtol=1e-5, atol=1e-6)
            plain.backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name], leaf.grad, rtol=1e-4, atol=1e-6)


def data(specs=2, clips=300, width=20, classes=5, valid=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(specs, clips + valid, width, generator=generator)
    noise = torch.randn(clips + valid, classes, generator=generator)
    y = (x[0] @ torch.randn(width, classes, generator=generator) + noise).argmax(1)
    return GridData(x[:, :clips].contiguous(), y[:clips], x[:, clips:].contiguous(), y[clips:])


OPTIMIZERS = {
    "adam": lambda p, s: torch.optim.Adam(p, s.rate, weight_decay=s.decay),
    "adamw": lambda p, s: torch.optim.AdamW(p, s.rate, weight_decay=s.decay),
    "sgd": lambda p, s: torch.optim.SGD(p, s.rate, weight_decay=s.decay, momentum=0.9),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_fit_equals_a_plain_torch_loop(optimizer):
    sides, shape = data(classes=7), Shape(kind="linear", width=20, outputs=7)
    found = train(sides, shape, Loss("multiclass"), SETTINGS, [0, 1], 0, Schedule(optimizer=optimizer, epochs=5, patience=0))
    for spec in range(2):
        for seed in (0, 1):
            for k, setting in enumerate(SETTINGS):
                state = {name: value.clone().requires_grad_() for name, value in initial_parameters(shape, seed, 0).items()}
                stepper = OPTIMIZERS[optimizer](list(state.values()), setting)
                best, hits = (-1.0, -np.inf, 0, None), []
                for epoch in range(5):
                    hits.append(np.zeros(2))
                    order = torch.from_numpy(np.random.default_rng([seed, 0, epoch]).permutation(300))
                    for start in range(0, 300, 64):
                        rows = order[start : start + 64]
                        stepper.zero_grad()
                        logits = plain_forward(shape, state, sides.train[spec][rows])
                        for place, top in enumerate((1, 5)):
                            likely = logits.topk(top).indices == sides.train_targets[rows][:, None]
                            hits[-1][place] += likely.any(dim=1).sum().item() / 300
                        functional.cross_entropy(logits, sides.train_targets[rows]).backward()
                        stepper.step()
                    with torch.no_grad():
                        logits = plain_forward(shape, state, sides.valid[spec])
                        right = (logits.argmax(1) == sides.valid_targets).float().mean().item()
                        loss = functional.cross_entropy(logits, sides.valid_targets).item()
                    if (right, -loss) > best[:2]:
                        best = (right, -loss, epoch + 1, state["weight"].detach().clone())
                assert found.score[spec, seed, k] == pytest.approx(best[0], abs=1e-6)
                assert found.epoch[spec, seed, k] == best[2]
                np.testing.assert_allclose(found.history[spec, seed, k][:, 3:5], hits, atol=1e-6)
                torch.testing.assert_close(found.states["weight"][spec, seed, k], best[3], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "shape", [Shape(kind="linear", width=20, outputs=5), Shape(kind="mlp", width=20, outputs=5, hidden=16)]
)
def test_a_fit_is_the_same_alone_as_in_the_grid(shape):
    """Also if other fits stop before or after it."""
    settings = [Setting(1e-4, 0.0), Setting(3e-3, 0.0), Setting(0.3, 1e-2)]
    schedule = Schedule(epochs=25, patience=3, dropout=0.2 if shape.kind == "mlp" else 0.0)
    sides = data(specs=2)
    grid = train(sides, shape, Loss("multiclass"), settings, [0, 1, 2], 1, schedule)
    assert len(np.unique(grid.epochs)) > 2                   # they stop at different times
    for spec, seed, k in [(0, 0, 0), (1, 2, 1), (0, 1, 2), (1, 0, 2)]:
        one = GridData(sides.train[spec : spec + 1], sides.train_targets, sides.valid[spec : spec + 1], sides.valid_targets)
        alone = train(one, shape, Loss("multiclass"), [settings[k]], [seed], 1, schedule)
        assert alone.epoch[0, 0, 0] == grid.epoch[spec, seed, k]
        assert alone.epochs[0, 0, 0] == grid.epochs[spec, seed, k]
        for name, value in alone.states.items():
            torch.testing.assert_close(value[0, 0, 0], grid.states[name][spec, seed, k], rtol=1e-3, atol=1e-5)


def test_padding_has_no_weight_in_a_loss():
    """Batches of whole tracks are padded where seeds have tracks of other lengths."""
    generator = torch.Generator().manual_seed(1)
    logits, present = torch.randn(1, 2, 4, 5, generator=generator), torch.tensor([[1.0, 1, 1, 0, 0]])
    for kind in ("multiclass", "multilabel", "regression"):
        targets = torch.tensor([[0, 3, 1, 2, 2]]) if kind == "multiclass" else torch.rand(1, 5, 4, generator=generator).round()
        weights = None if kind == "regression" else torch.rand(4, generator=generator)
        loss = Loss(kind, weights, 0.0 if kind == "regression" else 0.1)
        value, gradient = loss(logits.clone(), targets, present)
        short, short_gradient = loss(logits[..., :3].clone(), targets[:, :3])
        torch.testing.assert_close(value, short)
        torch.testing.assert_close(gradient[..., :3], short_gradient)
        assert not gradient[..., 3:].any()


@pytest.mark.slow
def test_the_default_grid_reaches_regularised_logistic_regression():
    """400 training clips of 512 dimensions: without L2 a linear probe stays below.  Two draws, tested on 3,000 clips."""
    from sklearn.linear_model import LogisticRegression

    accuracy = {"sklearn": 0.0, "without": 0.0, "default": 0.0}
    sides = slice(0, 400), slice(400, 600), slice(600, 3600)
    for draw in range(2):
        rng = np.random.default_rng(draw)
        labels = rng.integers(0, 10, 3600)
        x = (0.15 * rng.standard_normal((10, 512))[labels] + rng.standard_normal((3600, 512))).astype(np.float32)
        x = (x - x[sides[0]].mean(axis=0)) / x[sides[0]].std(axis=0)
        best = (-1.0, 0.0)
        for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
            model = LogisticRegression(C=strength).fit(x[sides[0]], labels[sides[0]])
            best = max(best, (model.score(x[sides[1]], labels[sides[1]]), model.score(x[sides[2]], labels[sides[2]])))
        accuracy["sklearn"] += best[1] / 2
        vectors, targets = torch.from_numpy(x), torch.from_numpy(labels)
        data_of_fits = GridData(vectors[None, sides[0]], targets[sides[0]], vectors[None, sides[1]], targets[sides[1]])
        for name, changes in (("without", {"decays": (0.0,)}), ("default", {})):
            settings = ProbeConfig(("artist",), **changes).settings
            found = train(
                data_of_fits, Shape(kind="linear", width=512, outputs=10), Loss("multiclass"), settings, [0], 0, Schedule()
            )
            weight, bias = (found.states[part][0, 0, found.score[0, 0].argmax()] for part in ("weight", "bias"))
            predicted = functional.linear(vectors[sides[2]], weight, bias).argmax(dim=1)
            accuracy[name] += (predicted == targets[sides[2]]).float().mean().item() / 2
    assert accuracy["default"] > accuracy["without"] + 0.02
    assert accuracy["default"] > accuracy["sklearn"] - 0.01                  # a standard error of the test sets


def test_a_diverging_fit_does_not_affect_the_others():
    sides = data(specs=1)
    schedule, shape = Schedule(optimizer="sgd", epochs=6, patience=0), Shape(kind="linear", width=20, outputs=5)
    settings = [Setting(1e-2, 0), Setting(900, 900)]
    calm = train(sides, shape, Loss("multiclass"), settings[:1], [0], 0, schedule)
    both = train(sides, shape, Loss("multiclass"), settings, [0], 0, schedule)
    torch.testing.assert_close(both.states["weight"][0, 0, 0], calm.states["weight"][0, 0, 0])
    assert both.epochs[0, 0, 1] < 6
    assert np.isfinite(both.score[0, 0, 0])


def test_without_validation_clips_the_last_state_is_kept():
    sides = data(specs=1, valid=0)
    found = train(sides, Shape(kind="linear", width=20, outputs=5), Loss("multiclass"), SETTINGS, [0], 0, Schedule(epochs=4))
    assert (found.epoch == 4).all()
    assert (found.epochs == 4).all()


def test_class_weights_are_inverse_frequencies():
    """Reference: scikit-learn's `balanced`; sizes as in the chorale study, 430 pieces with 2 to 33 snippets."""
    from sklearn.utils.class_weight import compute_class_weight

    rng = np.random.default_rng(0)
    targets = np.concatenate([np.repeat(np.arange(430), rng.integers(2, 12, 430)), np.zeros(25, int)])
    weights = balanced_weights("multiclass", targets, 430)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(430), y=targets), rtol=1e-6)
    assert weights[targets].mean() == pytest.approx(1)
    tags = (rng.random((100, 3)) < [0.5, 0.1, 0.01]).astype(np.float32)
    tags[0, 2] = 1
    np.testing.assert_allclose(balanced_weights("multilabel", tags, 3), (1 - tags).sum(0) / tags.sum(0), rtol=1e-6)


@pytest.mark.parametrize("layers", [("high",), ("all",)])
def test_streaming_from_the_store_gives_the_results_of_training_in_memory(filled, monkeypatch, layers):
    config = ProbeConfig(("artist",), layers=layers, seeds=2, rates=(1e-3, 1e-2), epochs=6, patience=2, batch=16)
    experiment = make_experiment(filled, config)
    in_memory, _ = experiment.fit(0, experiment.specs)
    monkeypatch.setattr("tonelake.probes.experiment.MEMORY_SHARE", 0.0)
    monkeypatch.setattr("tonelake.probes.streaming.STRETCH_BYTES", 1)             # one batch at a time
    monkeypatch.setattr(StreamedGridData.__init__, "__defaults__", (1,))
    monkeypatch.setattr("tonelake.probes.inputs.BLOCK_BYTES", 4 * 10 * 17)
    made = []
    monkeypatch.setattr("tonelake.probes.experiment.StreamedGridData", lambda *a: made.append(StreamedGridData(*a)) or made[-1])
    streamed, _ = experiment.fit(0, experiment.specs)
    assert len(made) == 1
    np.testing.assert_array_equal(streamed.epochs, in_memory.epochs)
    for name, value in in_memory.states.items():
        torch.testing.assert_close(streamed.states[name], value, rtol=1e-3, atol=1e-5)


def test_large_heads_in_bfloat16_reach_the_same_accuracy():
    """On a learnable problem; the bound is three times the standard error of 400 clips at this accuracy."""
    sides = data(specs=1, clips=2000, width=256, classes=8, valid=400, seed=4)
    shape = Shape(kind="linear", width=256, outputs=8)
    exact = train(sides, shape, Loss("multiclass"), SETTINGS, [0, 1], 0, Schedule(epochs=8))
    half = GridData(sides.train.bfloat16(), sides.train_targets, sides.valid.bfloat16(), sides.valid_targets)
    rough = train(half, shape, Loss("multiclass"), SETTINGS, [0, 1], 0, Schedule(epochs=8))
    bound = 3 * np.sqrt(exact.score * (1 - exact.score) / 400).max()
    assert np.abs(rough.score - exact.score).max() < bound
    assert exact.score.max() > 0.6


def test_precision_depends_on_the_head_and_not_on_other_fits(filled):
    config = ProbeConfig(("artist",), precision="bfloat16")
    small = make_experiment(filled, config)
    assert {small.compute_dtype(spec) for spec in small.specs} == {torch.float32}
    large = make_experiment(filled, replace(config, head="mlp", hidden=10_000))
    assert {large.compute_dtype(spec) for spec in large.specs} == {torch.bfloat16}
