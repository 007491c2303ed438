"""Metric learning: a projection that improves retrieval of unseen groups and becomes a space."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from fakes import FakeEncoder, clip_rows

import tonelake
from tonelake.embed.settings import describe_space
from tonelake.probes import learn_metric
from tonelake.probes.metric_learning import contrastive, hold_out_groups
from tonelake.store import InputError, Lake, LakeError, Projection, SpaceMismatch, make_projected, read_projection

DIM = 12


class Wide(FakeEncoder):
    layers, dims, default_layer = ("one", "two"), (DIM, DIM), 1


def fill(path, tracks=160, clips=3, groups=40, seed=0):
    """Groups of four tracks that differ along three directions of layer `two`, masked by louder differences between tracks."""
    lake = Lake(path)
    number = pl.col("track").str.slice(5).cast(pl.Int64) % groups
    rows = clip_rows(tracks, clips).with_columns(artist=pl.format("Artist {}", number))
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(Wide(), "wide", 30.0))
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(tracks), clips)
    useful = rng.standard_normal((groups, 3))[track % groups] + 0.2 * rng.standard_normal((len(track), 3))
    loud = 4 * rng.standard_normal((tracks, DIM - 3))[track] + 0.3 * rng.standard_normal((len(track), DIM - 3))
    turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    layers = [rng.standard_normal((len(track), DIM)), np.concatenate([useful, loud], axis=1) @ turn]
    layers = [layer.astype(np.float32) for layer in layers]
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, [layer + 1 for layer in layers], [1] * len(track))
    return lake


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Do not change it."""
    lake = fill(tmp_path_factory.mktemp("metric") / "lake")
    opened = tonelake.open(lake.uri)
    return opened, opened.learn_metric("artist", dim=3, rate=1e-2, epochs=30)


@pytest.mark.parametrize("loss", ["contrastive", "proxy"])
def test_retrieval_of_unseen_groups_improves(tmp_path, loss):
    opened = tonelake.open(fill(tmp_path / "lake").uri)
    found = opened.learn_metric("artist", loss=loss, dim=3, rate=1e-2)
    assert found.groups[2] >= 2
    assert found.after["recall_1"][0] > found.before["recall_1"][0] + 0.2
    assert "test groups" in str(found)


def test_a_projection_can_be_used_like_any_space(learned):
    opened, found = learned
    assert found.space == "wide-artist"
    clip = opened.clips.read()["clip_id"][0]
    hits = opened.similar(clip, space=found.space, k=5, not_same="track")
    assert len(hits) == 5
    assert opened.spaces.get().name == "wide"       # the default space is still the embedded one
    assert opened.layers("artist", space=found.space).recommended == "artist"
    run, = opened.probe("artist", space=found.space, rates=(1e-2,), seeds=1, epochs=5)
    assert run.metrics["layer"] == "artist"


def test_vectors_equal_the_parents_times_the_matrix(learned):
    """Reference: the product written out."""
    opened, found = learned
    space = opened.spaces.get(found.space)
    projection = read_projection(opened, space)
    ids, vectors = opened.vectors(space).layer(0)
    parent = opened.vectors("wide").take(ids.to_list(), "two").vectors
    np.testing.assert_allclose(vectors, parent @ projection.weight.T + projection.bias, rtol=2e-3, atol=2e-3)    # float16
    assert vectors.shape[1] == 3
    most, parent = (opened.vectors(name).take(ids.to_list(), layer, stat="max").vectors
                    for name, layer in ((space, 0), ("wide", "two")))
    np.testing.assert_allclose(most, parent @ projection.weight.T + projection.bias, rtol=2e-3, atol=2e-3)
    assert np.abs(most - vectors).max() > 0.1


def test_new_clips_are_added_by_extend_metric_only(tmp_path):
    opened = tonelake.open(fill(tmp_path / "lake").uri)
    found = opened.learn_metric("artist", dim=3, epochs=2)
    late = clip_rows(170, 2).filter(pl.col("track") == "track165")
    opened.clips.add(late)
    vectors = [np.ones((2, DIM), np.float32)] * 2
    opened.vectors("wide").add(late["clip_id"].to_list(), vectors, vectors, [1, 1])
    assert opened.extend_metric(found.space) == 2
    assert opened.extend_metric(found.space) == 0
    assert set(late["clip_id"]) <= set(opened.vectors(found.space).ids())
    with pytest.raises(InputError, match="tonelake metric --extend wide-artist"):
        opened.embed(space=found.space)
    with pytest.raises(InputError, match="not a projection"):
        opened.extend_metric("wide")
    with pytest.raises(InputError, match="space 'wide-artist': already exists"):
        opened.learn_metric("artist", space="wide")
    with pytest.raises(InputError, match="is itself a projection"):
        opened.learn_metric("artist", space=found.space, name="twice")


def test_files_are_encoded_by_the_parent_and_then_projected(tmp_path):
    from sounds import melody, write

    write(tmp_path / "music" / "song.wav", melody(9, seed=0))
    opened = tonelake.open(tmp_path / "lake")
    opened.ingest_folder(tmp_path / "music", seconds=3)
    opened.embed("spectral")
    space = opened.spaces.get()
    layer = space.layer_index("chroma")
    weight = np.random.default_rng(0).standard_normal((5, space.dims[layer])).astype(np.float32)
    projection = Projection(
        parent=space.name, fingerprint=space.fingerprint, layers=(layer,), weight=weight, bias=np.zeros(5, np.float32)
    )
    made = make_projected(opened, projection, "small", "five", "made")
    assert opened.extend_metric("small") == opened.clips.count()
    file = write(tmp_path / "query.wav", melody(3, seed=2))
    hits = opened.similar(file, space="small", k=3, clips=True)
    from tonelake.index.search.query import resolve

    whole = resolve(opened, file, space, [layer]).vectors[layer]
    own = resolve(opened, file, made, [0]).vectors[0]
    np.testing.assert_allclose(own, weight @ whole, rtol=1e-4, atol=1e-4)
    assert len(hits) == 3


def test_the_contrastive_loss_equals_the_papers_sum():
    """Equation 2, clip by clip; pairs of one track do not count if groups span tracks."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((10, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    group, track = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 3]), np.array([0, 1, 1, 2, 3, 4, 5, 6, 7, 7])
    losses = []
    for i in range(10):
        others = [j for j in range(10) if track[j] != track[i]]
        alike = [j for j in others if group[j] == group[i]]
        if alike:
            bottom = np.log(sum(np.exp(z[i] @ z[j] / 0.1) for j in others))
            losses.append(-np.mean([z[i] @ z[p] / 0.1 - bottom for p in alike]))
    found = contrastive(torch.from_numpy(z), torch.from_numpy(group), torch.from_numpy(track))
    assert float(found) == pytest.approx(np.mean(losses))


def test_no_group_is_in_two_sets():
    targets, track = np.repeat(np.arange(20), 6), np.arange(120) // 2
    sides = hold_out_groups(targets, track, 0, "artist")
    assert sorted(np.concatenate(sides)) == list(range(20))
    assert [len(side) for side in sides] == [12, 4, 4]
    alone = np.concatenate([targets, [20]])              # a group of one track cannot be evaluated: it is trained on
    sides = hold_out_groups(alone, np.append(track, 60), 0, "artist")
    assert 20 in sides[0]
    with pytest.raises(InputError, match="a metric needs 6 groups"):
        hold_out_groups(targets[:12], track[:12], 0, "artist")


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"loss": "triplet"}, "Choose contrastive"), ({"dim": 1}, "at least 2"), ({"layer": "each"}, "one layer"),
     ({"layer": "weighted"}, "one layer, or `all`"),
     ({"name": "No Name"}, "not a valid name"), ({"layer": 7}, "no layer 7")],
)
def test_invalid_settings_are_refused(tmp_path, settings, why):
    opened = tonelake.open(fill(tmp_path / "lake").uri)
    with pytest.raises(InputError, match=why):
        opened.learn_metric("artist", **settings)
    assert [space.name for space in opened.spaces.all()] == ["wide"]


def test_a_replaced_projection_file_is_detected(learned, tmp_path):
    shutil.copytree(learned[0].uri, tmp_path / "copy")
    lake = Lake(tmp_path / "copy")
    space = lake.spaces.get("wide-artist")
    projection = read_projection(lake, space)
    from tonelake.store.projection import FILE, write_projection

    other = replace(projection, weight=projection.weight * 2)
    lake.files("projections/wide-artist").put(FILE, lambda path: write_projection(path, other))
    with pytest.raises(SpaceMismatch, match="is not the map"):
        read_projection(lake, space)
    lake.files("projections/wide-artist").put(FILE, lambda path: path.write_bytes(b"torn"))
    with pytest.raises(LakeError, match="cannot be read"):
        read_projection(lake, space)
    lake.files("projections/wide-artist").remove(FILE)
    with pytest.raises(LakeError, match="is missing"):
        read_projection(lake, space)
    with pytest.raises(SpaceMismatch, match="already exists with other settings"):
        make_projected(lake, other, "wide-artist", "artist", "made")


# -- identity

SETTINGS = {"dim": 3, "rate": 1e-2, "epochs": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A lake with the metric `wide-artist`.  Do not change it."""
    lake = fill(tmp_path_factory.mktemp("stale") / "lake", tracks=48, clips=2, groups=12)
    return lake, tonelake.open(lake.uri, progress=False).learn_metric("artist", **SETTINGS)


@pytest.fixture
def own(made, tmp_path):
    shutil.copytree(made[0].uri, tmp_path / "lake")
    return tonelake.open(tmp_path / "lake", progress=False)


def rename_an_artist(lake):
    clips = lake.clips.read(["clip_id", "artist"])
    lake.clips.update(clips.with_columns(artist=pl.col("artist").replace("Artist 3", "Artist III")))


def confirm_duplicates(lake):
    ids = lake.clips.read(["clip_id", "track"]).filter(pl.col("track").is_in(["track000", "track001"]))["clip_id"]
    lake.clips.set_labels(pl.DataFrame({"clip_id": ids, "same_as": [ids[0]] * len(ids)}))


def test_equal_settings_and_data_return_the_stored_metric(made, own, monkeypatch):
    monkeypatch.setattr("tonelake.probes.metric_learning.fit_projection", None)
    assert own.learn_metric("artist", **SETTINGS) == made[1] == own.learn_metric("artist", name="wide-artist", **SETTINGS)
    said = r"already exists with other settings \(epochs 2 instead of 3 and seed 0 instead of 7\)"
    with pytest.raises(InputError, match=said):
        own.learn_metric("artist", seed=7, **SETTINGS | {"epochs": 3})


@pytest.mark.parametrize(("change", "changed"), [
    (rename_an_artist, r"1 class name \('Artist 3' then, 'Artist III' now\)"),
    (confirm_duplicates, "which clips are one track"),
])
def test_changed_data_make_a_space_of_their_own_and_an_explicit_name_is_refused(made, own, change, changed):
    change(own)
    with pytest.raises(InputError, match=f"'wide-artist': already exists, and was made from other data: .*{changed}.*--name"):
        own.learn_metric("artist", name="wide-artist", **SETTINGS)
    found = own.learn_metric("artist", **SETTINGS)
    assert found.space.startswith("wide-artist-") and len(own.vectors(found.space).ids()) == 96
    assert found.notes[0].startswith("space wide-artist was made from other data: ") and found.notes[0] in str(found)
    assert own.learn_metric("artist", **SETTINGS) == found
    assert len(own.spaces.all()) == 3


def test_an_interrupted_metric_is_finished_only_with_its_own_data(made, own):
    before = made[1]

    def dies(*_):
        raise KeyboardInterrupt

    for name in ("one", "two"):
        with pytest.raises(KeyboardInterrupt):
            learn_metric(Lake(own.uri), "artist", dies, name=name, **SETTINGS)
    found = own.learn_metric("artist", name="one", **SETTINGS)
    assert (found.before, found.after, found.epochs) == (before.before, before.after, before.epochs)
    confirm_duplicates(own)
    with pytest.raises(InputError, match="space 'two': already exists, and was made from other data"):
        own.learn_metric("artist", name="two", **SETTINGS)


def test_a_metric_of_an_earlier_release_is_kept_beside_a_new_one(own):
    for name in ("manifest.json", "metric.json"):
        own.files("projections/wide-artist").remove(name)
    assert own.extend_metric("wide-artist") == 0
    found = own.learn_metric("artist", **SETTINGS)
    assert found.space != "wide-artist" and "space wide-artist comes from an earlier release" in found.notes[0]
    with pytest.raises(InputError, match=r"space 'wide': already exists\. Choose another --name"):
        own.learn_metric("artist", name="wide", **SETTINGS)
