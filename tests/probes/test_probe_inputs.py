"""Labels, vectors and settings that a probe cannot use, or can use in part."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from quick_probes import labelled, quick

from tonelake.probes import ProbeConfig, predict, probe
from tonelake.store import InputError, Lake


@pytest.mark.parametrize(
    ("make", "config", "why"),
    [
        (lambda n: {"mood": ["calm"] * n}, quick("mood"), "a probe needs two or more classes"),
        (lambda n: {}, quick("nowhere"), "no column 'nowhere'"),
        (lambda n: {}, quick("album"), "no clip has a value in 'album'"),
        (lambda n: {}, quick(where="year > 3000"), "no clips where year > 3000"),
        (lambda n: {}, quick(where="yeer > 3000"), "filter 'yeer > 3000': cannot be used"),
        (lambda n: {"x": [1.5] * n}, quick("x"), "all 240 clips have x 1.5"),
        (lambda n: {"x": [float("inf")] * n}, quick("x"), "no clip has a finite number"),
        (lambda n: {"x": [float("nan")] * n}, quick("x"), "no clip has a value in 'x'"),     # stored as null
        (lambda n: {}, quick("artist", task="regression"), "does not hold numbers"),
        (lambda n: {}, quick("tags", task="multiclass"), "its task is multilabel"),
        (lambda n: {}, quick("artist", task="multilabel"), "Ingest it with --multi"),
        (lambda n: {}, quick("artist", "title"), "Name one column|does not hold numbers"),
        (lambda n: {}, quick("title"), "use --split random"),
        (lambda n: {}, quick(layers=("17",)), "no layer '17'"),
        (lambda n: {}, quick(space="other"), "no space 'other'"),
        (lambda n: {"mood": [str(i) for i in range(n)]}, quick("mood", split="random"), "--split random"),
    ],
)
def test_columns_that_cannot_be_learned_are_refused(own, make, config, why):
    before = labelled(own, **make(240)).clips.read() if make(240) else own.clips.read()
    with pytest.raises(InputError, match=why):
        probe(own, config)
    assert own.clips.read().equals(before)
    assert not own.files("probes").folders()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"head": "cnn"}, "Choose linear or mlp"), ({"rates": ()}, "one or more"), ({"rates": (-1.0,)}, "above 0"),
        ({"decays": (-1.0,)}, "from 0 to"), ({"epochs": 0}, "1 or more"), ({"dropout": 1.0}, "from 0 to below 1"),
        ({"shares": (0.5, 0.6, 0.1)}, "sum to 1"), ({"prepare": "whiten"}, "Choose raw"),
        ({"task": "ranking"}, "Choose multiclass"), ({"seeds": 10**7}, "fewer rates or seeds"),
        ({"input": "median"}, "Choose mean"), ({"optimizer": "lion"}, "Choose adam"),
    ],
)
def test_invalid_settings_are_refused(settings, why):
    with pytest.raises(InputError, match=why):
        quick(**settings)


def test_missing_labels_are_reported_and_rare_classes_are_only_trained_on(own):
    moods = ["calm" if i % 3 else "wild" for i in range(240)]
    moods[:30] = [None] * 30
    moods[77] = "once"
    run = probe(labelled(own, mood=moods), quick("mood", split="random"))
    assert run.metrics["clips"] == 210
    assert any("30 clips without a label" in note for note in run.metrics["notes"])
    once = run.table("split").filter(pl.col("clip_id") == own.clips.ids()[77])
    assert once["side"].to_list() == ["train"]               # a class of one clip can only be in the training set


def test_a_diverging_setting_does_not_affect_the_others(own):
    huge = quick(rates=(500.0,), optimizer="sgd", decays=(500.0,), batch=8)      # infinite before the first epoch ends
    with pytest.raises(InputError, match=r"no fit reached a finite loss\. Lower the learning rates"):
        probe(own, huge)
    run = probe(own, huge.with_(decays=(500.0, 0.0)))
    assert run.metrics["setting"] == "rate 500, decay 0"


def test_a_label_never_seen_in_training_counts_as_wrong(own):
    sides = ["test" if i % 5 == 0 or i >= 200 else "valid" if i % 5 == 1 else "train" for i in range(240)]
    run = probe(labelled(own, part=sides), quick(split="column:part"))
    unseen = [note for note in run.metrics["notes"] if "without training clips" in note]
    assert len(unseen) == 1 and "these count as wrong" in unseen[0]
    wrong = run.table("predictions").filter(pl.col("target") == "Artist 5")
    assert (wrong["predicted"] != "Artist 5").all()


def test_vectors_that_are_not_finite_are_reported(own):
    """Written by another program, since tonelake refuses to store such vectors."""
    import lance
    import pyarrow as pa

    table = f"{own.uri}/emb_fake.lance"
    stored = lance.dataset(table).to_table()
    values = stored.column("mean_01").combine_chunks().flatten().to_numpy().copy()
    values[5 * 6] = np.nan
    broken = pa.FixedSizeListArray.from_arrays(pa.array(values), 6)
    lance.write_dataset(stored.set_column(stored.schema.get_field_index("mean_01"), "mean_01", broken), table, mode="overwrite")
    with pytest.raises(InputError, match="space 'fake': 1 of 240 vectors of layer high hold NaN"):
        probe(Lake(own.uri), quick(layers=("high",), shares=(0.7, 0.1, 0.2), split="random"))


@pytest.mark.parametrize("text", [
    "columns: [artist]\nhead: cnn\n", "nothing: 1\ncolumns: [a]\n", "- 1\n", "columns: [a]\nepochs: two\n", "head: mlp\n",
    "columns: [a]\nepochs: 1.5\n",
])
def test_an_invalid_settings_file_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError):
        ProbeConfig.from_file(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        ProbeConfig.from_file(tmp_path / "absent.yaml")


def test_hostile_labels_are_harmless(own, rendered_plots):
    names = ["a|b", "../../x", "true", "\x1b[31mred", "x" * 300, "Ünïcode"]
    moods = [names[int(row["artist"][-1])] for row in own.clips.read(["artist"]).to_dicts()]
    run = probe(labelled(own, mood=moods), quick("mood"))
    assert sorted(run.table("confusion")[:, 0]) == sorted(names)
    assert "a\\|b" in run.report()
    assert predict(own, run).table["predicted"].is_in(names).all()
