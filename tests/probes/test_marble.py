"""MARBLE's training loops, written out in plain torch as its code has them, against ours on the same vectors.

The reference has a loop a fit, torch's own layers, Adam and ReduceLROnPlateau, and metrics by scikit-learn and mir_eval.  It is
given our initial weights, order of files and dropout masks, since both sides would draw others.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from fakes import fill
from mir_eval.key import weighted_score
from sklearn import metrics as theirs
from torch.nn import functional

from tonelake.probes import ProbeConfig, differences_of, probe_all, stages_of
from tonelake.probes.chosen import Chosen
from tonelake.probes.experiment import make_experiment
from tonelake.probes.grid_parts import part_tensors
from tonelake.probes.heads import initial_parameters
from tonelake.probes.inputs import input_specs
from tonelake.probes.protocols import resolve_task
from tonelake.store import InputError, Lake

KEYS = ("C major", "G major", "A minor", "C minor", "F# major", "Eb major")


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """A lake of 24 tracks with two or four clips.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("marble") / "lake")
    fill(lake, tracks=24, clips_a_track=4, seed=2)
    number = lake.clips.read(["artist"])["artist"].str.tail(1).cast(pl.Int64)
    lake.clips.set_labels(pl.DataFrame({"clip_id": lake.clips.ids(), "key": [KEYS[i] for i in number]}))
    return lake


def config_of(lake, version, column, task=None, **changes):
    config = resolve_task(lake, ProbeConfig((column,), task=task, where="start_s < 10 OR year % 2 = 0"))
    changes = {"layers": ("high",), "hidden": 12, "seeds": 1, "device": "cpu", "precision": "float32", "batch": 6} | changes
    (stage,) = stages_of(f"marble-v{version}", config, **changes)
    return stage.config


def score_of(name, names, targets, logits):
    """Return the metric that stops a fit, from (item, out) logits."""
    if name == "accuracy":
        return theirs.accuracy_score(targets, logits.argmax(1))
    if name == "key_score":
        return np.mean([weighted_score(names[a], names[b]) for a, b in zip(targets, logits.argmax(1), strict=True)])
    if name == "r2":
        return theirs.r2_score(targets, logits)
    varied = [tag for tag in range(targets.shape[1]) if 0 < targets[:, tag].mean() < 1]
    return np.mean([theirs.roc_auc_score(targets[:, tag], logits[:, tag]) for tag in varied])


def means(values, files):
    return np.stack([values[files == file].mean(axis=0) for file in dict.fromkeys(files)])


def reference(experiment, version):
    """Train one fit as MARBLE does; return its epoch, epochs, validation score, and test probabilities or values by file."""
    config, task, split, spec = experiment.config, experiment.task, experiment.splits[0], experiment.specs[0]
    vectors = torch.from_numpy(experiment.inputs.read_columns(spec))
    scale = experiment.target_scale(split) if task.kind == "regression" else (0, 1)
    targets = torch.from_numpy((task.targets - scale[0]) / scale[1] if task.kind == "regression" else task.targets)
    start = initial_parameters(experiment.shape(spec), 0, 0)
    hidden, output = torch.nn.Linear(spec.width, config.hidden), torch.nn.Linear(config.hidden, len(task.names))
    for name, part in (("hidden.", hidden), ("", output)):
        part.weight.data.copy_(start[f"{name}weight"])
        part.bias.data.copy_(start[f"{name}bias"])
    optimizer = torch.optim.Adam([*hidden.parameters(), *output.parameters()], lr=config.rates[0])
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=config.rate_patience)
    criterion = {
        "multiclass": functional.cross_entropy, "multilabel": functional.binary_cross_entropy_with_logits,
        "regression": functional.mse_loss,
    }[task.kind]
    train, valid, test = split.train, split.valid, split.test
    files = np.unique(task.track[train])
    by_file = version == 1

    def judged(rows):
        with torch.no_grad():
            logits = output(torch.relu(hidden(vectors[rows]))).numpy()
        return (means(logits, task.track[rows]), np.unique(task.track[rows], return_index=True)[1]) if by_file else (
            logits, np.arange(len(rows))
        )

    best, best_epoch, rates = -np.inf, 0, []
    for epoch in range(config.epochs):
        rng = np.random.default_rng([0, 0, epoch])
        order = rng.permutation(len(files)) if by_file else rng.permutation(len(train))
        masks = torch.Generator().manual_seed(epoch)
        for first in range(0, len(order), config.batch):
            own = order[first : first + config.batch]
            rows = np.concatenate([train[task.track[train] == files[file]] for file in own]) if by_file else train[own]
            inner = torch.relu(hidden(vectors[rows]))
            kept = torch.rand(len(rows), config.hidden, generator=masks) >= config.dropout
            loss = criterion(output(inner * kept / (1 - config.dropout)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        logits, first_rows = judged(valid)
        score = score_of(config.monitor, task.names, targets[valid][first_rows].numpy(), logits)
        if score > best:
            best, best_epoch = score, epoch + 1
            at_best = [value.detach().clone() for part in (hidden, output) for value in part.parameters()]
        plateau.step(score)
        rates.append(optimizer.param_groups[0]["lr"])
        if epoch + 1 - best_epoch >= config.patience:
            break
    if version == 1:
        for parameter, value in zip((*hidden.parameters(), *output.parameters()), at_best, strict=True):
            parameter.data.copy_(value)
    with torch.no_grad():
        logits = output(torch.relu(hidden(vectors[test])))
    if version == 1:
        logits = torch.from_numpy(means(logits.numpy(), task.track[test]))
    tested = {"multiclass": lambda x: x.softmax(1), "multilabel": torch.sigmoid, "regression": lambda x: x}[task.kind](logits)
    tested = tested.numpy() if version == 1 else means(tested.numpy(), task.track[test])
    return best_epoch, epoch + 1, best, tested * scale[1] + scale[0], min(rates)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("column", "task"), [("artist", None), ("key", None), ("tags", None), ("year", "regression")])
def test_fits_stop_and_predict_as_in_marbles_loop(tracks, column, task, version):
    config = config_of(tracks, version, column, task, rates=(2e-2,), epochs=45, patience=12, rate_patience=3)
    experiment = make_experiment(tracks, config)
    results, preparations = experiment.fit(0, experiment.specs)
    best_epoch, epochs, best, tested, least_rate = reference(experiment, version)
    assert results.epochs[0, 0, 0] == epochs
    history = results.history[0, 0, 0]
    assert history[:, 2].max() == pytest.approx(best, abs=1e-5)
    assert results.epoch[0, 0, 0] == (best_epoch if version == 1 else epochs)
    chosen = Chosen(experiment, experiment.specs[0], [part_tensors(results, 0, preparations[0])])
    (found,) = chosen.test_scores()
    np.testing.assert_allclose(found, tested, rtol=2e-3, atol=2e-4)
    assert least_rate < 2e-2                                 # the plateau was reached, so the scheduler took part
    assert history[-1, 7] in (np.float32(least_rate), np.float32(2 * least_rate))            # the rate of the last epoch


def test_marbles_settings_follow_the_kind_of_task(tracks):
    accuracy, keys, tags, numbers = (
        config_of(tracks, 1, *column, hidden=512, layers=("each", "blocks"), batch=64)
        for column in (("artist",), ("key",), ("tags",), ("year", "regression"))
    )
    assert [c.monitor for c in (accuracy, keys, tags, numbers)] == ["accuracy", "key_score", "auroc", "r2"]
    assert [(c.patience, c.rate_patience) for c in (accuracy, keys, tags, numbers)] == [(20, 6), (20, 5), (10, 3), (20, 5)]
    assert (accuracy.head, accuracy.hidden, accuracy.dropout, accuracy.batch, len(accuracy.rates)) == ("mlp", 512, 0.2, 64, 6)
    assert (accuracy.average, accuracy.keep, accuracy.prepare, accuracy.decays) == ("tracks", "best", "raw", (0.0,))
    second = config_of(tracks, 2, "artist")
    assert (second.average, second.keep, second.rates) == ("test", "last", (5e-3,))


def test_a_run_that_differs_from_a_protocol_says_so_in_its_name_and_report(tracks):
    config = config_of(tracks, 1, "artist", head="linear")
    assert config.protocol == "marble-v1-like"
    assert "head linear instead of mlp" in differences_of(config)
    assert any("split by:track instead" in difference for difference in differences_of(config))
    (run,) = probe_all(
        tracks, "artist", protocol="marble-v2", epochs=2, seeds=1, hidden=8, where="start_s < 10 OR year % 2 = 0"
    )
    assert "- Settings follow the marble-v2 protocol, except: hidden 8 instead of 512; epochs 2 instead of 100" in run.report()
    assert run.metrics["judged_are"] == "tracks"
    assert len(run.table("predictions")) == run.metrics["judged"] == run.table("predictions")["clip_id"].n_unique()


def test_a_published_split_is_used_by_marbles_protocols(tmp_path):
    lake = Lake(tmp_path / "lake")
    fill(lake, tracks=16, clips_a_track=3, seed=2)
    side = ["test" if i % 16 >= 12 else "valid" if i % 16 >= 9 else "train" for i in range(48)]
    lake.clips.set_labels(pl.DataFrame({"clip_id": lake.clips.ids(), "split": side}))
    (run,) = probe_all(lake, "artist", protocol="marble-v2", epochs=1, seeds=1, hidden=8, average="none")
    assert run.config.split == "column:split"


def test_the_input_layer_is_left_out_of_marbles_weighting(tracks):
    class Space:
        name, layers, dims = "s", ("0", "1", "2"), (8, 8, 8)

    (blocks,), (weighted,) = input_specs(Space, ("blocks",)), input_specs(Space, ("weighted",))
    assert [layer for layer, _ in blocks.columns] == [1, 2]
    assert [layer for layer, _ in weighted.columns] == [0, 1, 2]
    from tonelake.probes.heads import Shape

    shape = Shape(kind="linear", width=8, outputs=3, mixed=2, mix_start=blocks.mix_start)
    assert initial_parameters(shape, 0, 0)["mix"].std() > 0
    assert not torch.equal(initial_parameters(shape, 0, 0)["mix"], initial_parameters(shape, 1, 0)["mix"])


def test_clips_of_a_track_with_different_labels_cannot_be_averaged(tracks):
    with pytest.raises(InputError, match=r"the clips of 24 tracks have different values of 'start_s'\. Use --average none"):
        make_experiment(tracks, ProbeConfig(("start_s",), task="regression", average="tracks"))


def test_a_validation_metric_must_suit_the_task(tracks):
    with pytest.raises(InputError, match="--monitor key_score: needs keys"):
        make_experiment(tracks, ProbeConfig(("artist",), monitor="key_score"))
    with pytest.raises(InputError, match="--monitor r2: needs numbers"):
        make_experiment(tracks, ProbeConfig(("artist",), monitor="r2"))
