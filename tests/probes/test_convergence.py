"""Fits to convergence against scikit-learn, and the fits of a grid in blocks against all at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from quick_probes import labelled
from torch.nn import functional

from tonelake.probes import ProbeConfig, predict, probe
from tonelake.probes.blocks import train_in_blocks
from tonelake.probes.config import Setting
from tonelake.probes.convergence import fit_to_convergence
from tonelake.probes.experiment import make_experiment
from tonelake.probes.grid import HISTORY, GridData, Schedule, train
from tonelake.probes.heads import Shape
from tonelake.probes.lbfgs import LENGTH, History, Point, descend
from tonelake.probes.losses import Loss, balanced_weights
from tonelake.probes.streaming import StreamedGridData
from tonelake.store import InputError

DECAYS = (1.0, 0.1, 0.01, 0.001)
SETTINGS = [Setting(0.0, decay) for decay in DECAYS]


def correlated(clips=300, width=24, out=5, seed=0):
    """(clip, width) standardised vectors whose directions differ in variance by 1,000 to 1, and (clip, out) scores."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(rng.standard_normal((width, width)))
    x = (rng.standard_normal((clips, width)) * np.geomspace(1, 1000**-0.5, width)) @ turned
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    return x, x @ rng.standard_normal((width, out)) / 2 + rng.gumbel(size=(clips, out))


def data_of(x, targets, valid=60):
    vectors, targets = torch.from_numpy(x)[None], torch.from_numpy(targets)
    return GridData(vectors[:, valid:], targets[valid:], vectors[:, :valid], targets[:valid])


def weights_of(found, setting, spec=0):
    return (found.states[name][spec, 0, setting].double().numpy() for name in ("weight", "bias"))


def test_directions_are_those_of_the_two_loops():
    """With more steps than are kept, and one without curvature, which is left out."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    hessian = root @ root.T + np.eye(12)
    history, pairs = History(12, torch.device("cpu")), []
    for number in range(LENGTH + 4):
        step = rng.standard_normal(12)
        change = hessian @ step if number != 5 else -step
        history.add(*(torch.from_numpy(v).float() for v in (step, change)))
        if number != 5:
            pairs = [*pairs, (step, change)][-LENGTH:]
        gradient = rng.standard_normal(12)
        left, along = gradient.copy(), []
        for s, y in reversed(pairs):
            along.append(s @ left / (s @ y))
            left -= along[-1] * y
        left *= pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1])
        for (s, y), a in zip(pairs, reversed(along), strict=True):
            left += s * (a - y @ left / (s @ y))
        np.testing.assert_allclose(history.direction(torch.from_numpy(gradient).float()), -left, rtol=1e-3, atol=1e-4)


def test_a_step_that_raises_the_value_is_shortened():
    """A quartic, where a step of 1 along the negative gradient leads far beyond the minimum."""

    def quartic(x):
        return Point(x=x, value=float((x**4).sum()), gradient=4 * x**3)

    values = [point.value for point, _ in zip(descend_points(quartic, torch.full((3,), 5.0)), range(40), strict=False)]
    assert all(after <= before for before, after in pairwise(values))
    assert values[-1] < 1e-6 * values[0]


def descend_points(function, x):
    return (point for point, _ in descend(function, function(x), History(len(x), x.device)))


def objective(sides, weight, bias, decay, each=1.0):
    """The mean cross-entropy of the training clips, weighted by `each`, with the penalty, in float64."""
    logits = torch.from_numpy(sides.train[0].double().numpy() @ weight.T + bias)
    losses = functional.cross_entropy(logits, sides.train_targets, reduction="none").numpy()
    return np.average(losses, weights=each * np.ones(len(losses))) + decay / 2 * (weight**2).sum()


@pytest.mark.parametrize(("weighted", "away"), [(False, 0), (True, 0), (False, 5)])
def test_classes_reach_the_objective_of_scikit_learn(weighted, away):
    """The objectives agree to 1e-4; scikit-learn runs to a hundredth of its tolerance.  `away`: mean of the vectors."""
    from sklearn.linear_model import LogisticRegression

    x, scores = correlated()
    x, y = x + np.float32(away), (scores + np.array([2, 1, 0, 0, 0])).argmax(axis=1)
    sides, shape = data_of(x, y), Shape(kind="linear", width=24, outputs=5)
    weights = torch.from_numpy(balanced_weights("multiclass", y[60:], 5)) if weighted else None
    found = fit_to_convergence(sides, shape, Loss("multiclass", weights), SETTINGS, 200)
    each = np.ones(240) if weights is None else weights.numpy()[y[60:]].astype(float)

    for number, decay in enumerate(DECAYS):
        theirs = LogisticRegression(C=1 / (decay * each.sum()), tol=1e-6, max_iter=5000).fit(x[60:].astype(float), y[60:], each)
        reference = objective(sides, theirs.coef_.astype(float), theirs.intercept_.astype(float), decay, each)
        assert objective(sides, *weights_of(found, number), decay, each) == pytest.approx(reference, rel=1e-4)
    weight, bias = weights_of(found, 2)
    logits = x[:60] @ weight.T + bias
    assert found.score[0, 0, 2] == pytest.approx((logits.argmax(axis=1) == y[:60]).mean(), abs=1e-6)
    assert (found.epochs < 60).all()


def test_each_tag_reaches_the_objective_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x, scores = correlated(out=3)
    y = (scores > [0.5, 1.5, 2.5]).astype(np.float32)
    found = fit_to_convergence(data_of(x, y), Shape(kind="linear", width=24, outputs=3), Loss("multilabel"), SETTINGS, 200)

    def objective_of(weight, bias, decay, tag):
        logits = torch.from_numpy(x[60:].astype(float) @ weight + bias)
        loss = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(y[60:, tag].astype(float)))
        return float(loss) + decay / 2 * (weight**2).sum()

    for number, decay in enumerate(DECAYS):
        weight, bias = weights_of(found, number)
        ours = theirs = 0.0
        for tag in range(3):
            model = LogisticRegression(C=1 / (decay * 240), tol=1e-6, max_iter=5000).fit(x[60:], y[60:, tag])
            theirs += objective_of(model.coef_[0].astype(float), float(model.intercept_[0]), decay, tag)
            ours += objective_of(weight[tag], bias[tag], decay, tag)
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_numbers_are_those_of_ridge_regression():
    from sklearn.linear_model import Ridge

    x, y = correlated(out=2)
    y = ((y - y[60:].mean(axis=0)) / y[60:].std(axis=0)).astype(np.float32)
    found = fit_to_convergence(data_of(x, y), Shape(kind="linear", width=24, outputs=2), Loss("regression"), SETTINGS, 200)
    for number, decay in enumerate(DECAYS):
        weight, bias = weights_of(found, number)
        theirs = Ridge(alpha=decay * 240 / 2).fit(x[60:], y[60:])
        np.testing.assert_allclose(x @ weight.T + bias, theirs.predict(x), atol=0.02)


@pytest.mark.parametrize("changes", [{"TURNED_ONCE": 0}, {"WIDEST_BASIS": 1}, {"BLOCK_BYTES": 4 * 24 * 7}, {"BASIS_CLIPS": 50}])
def test_coordinates_and_blocks_do_not_change_the_minimum(changes, monkeypatch):
    x, scores = correlated()
    sides, shape = data_of(x, scores.argmax(axis=1)), Shape(kind="linear", width=24, outputs=5)
    reference = fit_to_convergence(sides, shape, Loss("multiclass"), SETTINGS, 200)
    for name, value in changes.items():
        monkeypatch.setattr(f"tonelake.probes.convergence.{name}", value)
    found = fit_to_convergence(sides, shape, Loss("multiclass"), SETTINGS, 500)
    for number, decay in enumerate(DECAYS):
        reached = objective(sides, *weights_of(found, number), decay)
        assert reached == pytest.approx(objective(sides, *weights_of(reference, number), decay), rel=2e-4)


def test_separable_classes_without_a_decay_end_at_a_flat_objective():
    x = np.repeat(np.eye(3, dtype=np.float32), 40, axis=0)
    y = np.repeat(np.arange(3), 40)
    found = fit_to_convergence(
        data_of(x, y, valid=0), Shape(kind="linear", width=3, outputs=3), Loss("multiclass"), [Setting(0.0, 0.0)], 100
    )
    assert found.train_loss[0, 0, 0] < 1e-3 and found.epochs[0, 0, 0] < 100
    assert all(torch.isfinite(value).all() for value in found.states.values())
    assert found.score[0, 0, 0] == pytest.approx(-found.train_loss[0, 0, 0])     # without validation clips


def test_streaming_from_the_store_gives_the_fits_of_memory(filled, monkeypatch):
    experiment = make_experiment(filled, ProbeConfig(("artist",), layers=("high",), solver="lbfgs"))
    in_memory, _ = experiment.fit(0, experiment.specs)
    monkeypatch.setattr("tonelake.probes.experiment.MEMORY_SHARE", 0.0)
    monkeypatch.setattr(StreamedGridData.__init__, "__defaults__", (4 * 6 * 50,))            # 50 clips at a time
    streamed, _ = experiment.fit(0, experiment.specs)
    np.testing.assert_allclose(streamed.train_loss[..., 1:], in_memory.train_loss[..., 1:], rtol=2e-3)
    np.testing.assert_allclose(streamed.score, in_memory.score, atol=0.06)


def test_a_run_to_convergence_is_selected_stored_and_applied_like_any_other(own):
    run = probe(own, ProbeConfig(("artist",), solver="lbfgs"))
    fits, layers = run.table("fits"), run.table("layers")
    assert len(fits) == 2 * 4 and fits["rate"].unique().to_list() == [0.0] and run.config.seeds == 1
    best = layers.filter("best").row(0, named=True)
    assert best["name"] == "high" and run.metrics["setting"] == f"decay {best['decay']:g}"
    history = run.table("history").filter("chosen", layer="high")
    assert history["valid_loss"].drop_nulls().len() == 1 and history["train_loss"].null_count() == 0
    report = run.report()
    assert "fitted to convergence by L-BFGS in at most 100 iterations" in report and "| rate |" not in report
    assert probe(own, ProbeConfig(("artist",), solver="lbfgs", seeds=5)).metrics == run.metrics      # seeds decide nothing
    stored = run.table("predictions").join(predict(own, run).table, on="clip_id", suffix="_now")
    assert (stored["predicted"] == stored["predicted_now"]).all() and len(stored)
    short = probe(own, ProbeConfig(("artist",), solver="lbfgs", epochs=1, decays=(0.01,)))
    assert "2 of 2 fits (decay 0.01) did not converge in 1 iterations" in " ".join(short.metrics["notes"])


def test_numbers_and_tags_have_fits_to_convergence_too(own):
    rng = np.random.default_rng(0)
    clips = len(own.clips.ids())
    labelled(own, tempo=rng.uniform(60, 180, clips), tags=[["a"] if i % 3 else ["a", "b"] for i in range(clips)])
    for column, main in (("tempo", "r2"), ("tags", "map")):
        run = probe(own, ProbeConfig((column,), layers=("high",), solver="lbfgs"))
        assert np.isfinite(run.metrics["figures"][main]["value"])


@pytest.mark.parametrize(("settings", "message"), [
    ({"head": "mlp"}, "fits linear heads. Use --head linear or --solver batches"),
    ({"layers": ("high", "weighted")}, r"does not learn weights of layers \(--layers weighted\)"),
    ({"rates": (1e-3,), "batch": 32}, "does not use rates, batch. Leave them out, or use --solver batches"),
    ({"precision": "bfloat16"}, "computes in float32. Leave --precision out"),
])
def test_settings_without_a_meaning_for_convergence_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ProbeConfig(("artist",), solver="lbfgs", **settings)


@pytest.mark.parametrize(("most", "workers"), [(0, 1), (500, 1), (900, 1), (2_000, 2), (0, 3)])
def test_blocks_of_fits_have_the_results_of_all_at_once(most, workers, monkeypatch):
    """One fit of both specs at once, two seeds of a setting, or three seeds of one; histories end at different epochs."""
    monkeypatch.setattr("tonelake.probes.blocks.FEWEST_PARAMETERS", 1)
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 260, 20, generator=generator), torch.randint(0, 5, (260,), generator=generator)
    sides, shape = GridData(x[:, :200], y[:200], x[:, 200:], y[200:]), Shape(kind="linear", width=20, outputs=5)
    settings = [Setting(1e-4, 0.0), Setting(3e-3, 0.0), Setting(0.3, 1e-2)]
    schedule, loss = Schedule(epochs=15, patience=2), Loss("multiclass")
    whole = train(sides, shape, loss, settings, [0, 1, 2], 1, schedule)
    found = train_in_blocks(sides, shape, loss, settings, [0, 1, 2], 1, schedule, None, most, workers)
    assert torch.get_num_threads() == threads
    for name in ("epoch", "epochs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert len(np.unique(whole.epochs)) > 2
    np.testing.assert_allclose(found.score, whole.score, atol=1e-6)
    assert found.history.shape == whole.history.shape and found.history.shape[-1] == len(HISTORY)
    np.testing.assert_allclose(found.history, whole.history, rtol=1e-3, atol=1e-5, equal_nan=True)
    for name, value in whole.states.items():
        torch.testing.assert_close(found.states[name], value, rtol=1e-3, atol=1e-5)


def test_an_error_in_one_block_stops_those_beside_it(monkeypatch):
    """Three blocks on two threads, which would take hours."""
    monkeypatch.setattr("tonelake.probes.blocks.FEWEST_PARAMETERS", 1)
    x, y = torch.zeros(1, 12, 2), torch.zeros(12, dtype=torch.int64)
    sides, schedule = GridData(x, y, x, y), Schedule(epochs=10**7, patience=0)
    settings = [Setting(0.1, 0.0), Setting(0.1, 0.0), Setting(0.1, 0.0)]
    begun = iter(range(10**7))

    def loss(*batch):
        if next(begun) == 50:
            raise ValueError("broken")
        return Loss("multiclass")(*batch)

    loss.kind, loss.weights = "multiclass", None
    with pytest.raises(ValueError, match="broken"):
        train_in_blocks(sides, Shape(kind="linear", width=2, outputs=2), loss, settings, [0], 0, schedule, None, 0, 2)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_constant_vectors_and_a_single_class_give_finite_heads(decay):
    x, settings = np.zeros((40, 3), np.float32), [Setting(0.0, decay)]
    constant = fit_to_convergence(
        data_of(x, np.arange(40) % 2, valid=10), Shape(kind="linear", width=3, outputs=2), Loss("multiclass"), settings, 50
    )
    assert constant.train_loss[0, 0, 0] == pytest.approx(np.log(2), abs=1e-4)
    varied = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    single = fit_to_convergence(
        data_of(varied, np.zeros(40, int), valid=10), Shape(kind="linear", width=3, outputs=1), Loss("multiclass"), settings, 50
    )
    assert single.train_loss[0, 0, 0] == 0 and all(torch.isfinite(value).all() for value in single.states.values())
