"""Adapters of fine-tuning runs: embedded as spaces, continued, compared, and refused if they do not fit."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from quick import QUICK, tuned
from sounds import melody, write

import tonelake
from tonelake.embed import CheckpointError, EncoderError, encoder_of, load_encoder
from tonelake.embed.encoders.adapter import read_adapter
from tonelake.embed.encoders.hubert import normalize
from tonelake.finetune import FinetuneRun, finetune
from tonelake.finetune.angles import orthogonality
from tonelake.store import InputError, SpaceMismatch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def trained(sung, tmp_path_factory):
    """A lake with two finished runs, of the mix and of the bass.  Do not change it."""
    folder = tmp_path_factory.mktemp("trained") / "lake"
    shutil.copytree(sung.uri, folder)
    lake = tonelake.open(folder, create=False, progress=False)
    lake.finetune(config=QUICK, name="mix")
    lake.finetune(config=QUICK, name="other", split="run:mix", seed=1)
    return lake


@pytest.fixture
def adapted(trained, tmp_path):
    shutil.copytree(trained.uri, tmp_path / "lake")
    return tonelake.open(tmp_path / "lake", create=False, progress=False)


def test_plain_peft_opens_the_adapter_with_equal_results(adapted, checkpoints):
    import warnings

    import torch
    from peft import PeftModel

    folder = f"{adapted.uri}/adapters/mix/adapter"
    plain = load_encoder(str(checkpoints / "95M-tiny"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(plain.model, folder).eval()
    wave = torch.from_numpy(melody(2.0, seed=3, rate=24_000)[:, 0])[None]
    with torch.no_grad():
        theirs = model(normalize(wave)).last_hidden_state[0].numpy()
    ours = load_encoder(str(checkpoints / "95M-tiny"), adapter=folder).hidden_states(wave[0].numpy())[-1]
    assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()
    unchanged = load_encoder(str(checkpoints / "95M-tiny")).hidden_states(wave[0].numpy())[-1]
    assert np.abs(ours - unchanged).max() > 1e-3 * np.abs(theirs).max()


def test_an_adapters_vectors_are_a_space_of_their_own(adapted):
    base = adapted.spaces.get("95m-tiny-w2")
    report = adapted.embed(adapter="mix")
    space = adapted.spaces.get(report.space)
    assert (report.new, report.failed) == (12, 0)
    assert space.fingerprint != base.fingerprint and space.adapter and space.window_s == base.window_s
    assert space.adapter_location == "adapters/mix/adapter"
    assert adapted.embed(adapter="mix").known == 12
    assert adapted.embed(space=space.name).known == 12
    clip = adapted.clips.read()["clip_id"][0]
    assert adapted.similar(clip, space=space.name, k=3)["clip_id"].len() == 3
    source = adapted.clips.read()["source"][0]
    assert adapted.similar(source, space=space.name, k=3)["clip_id"].len() == 3
    compared = adapted.compare(base.name, space.name, "kind")
    assert len(compared) == 4
    with pytest.raises(InputError, match="itself of an adapter"):
        adapted.finetune(config=QUICK, space=space.name)
    other = adapted.embed(adapter="other")
    assert other.space != report.space and other.new == 12


def test_a_moved_lake_finds_its_adapters_and_one_that_changed_is_refused(adapted, tmp_path):
    name = adapted.embed(adapter="mix").space
    shutil.move(adapted.uri, tmp_path / "moved")
    moved = tonelake.open(tmp_path / "moved", create=False, progress=False)
    space = moved.spaces.get(name)
    assert encoder_of(space, home=moved.uri).adapter == space.adapter
    shutil.copy(
        tmp_path / "moved/adapters/other/adapter/adapter_model.safetensors", tmp_path / "moved/adapters/mix/adapter/"
    )
    with pytest.raises(EncoderError, match="has changed since"):
        encoder_of(space, home=moved.uri)


def test_a_run_trained_again_under_its_name_makes_a_space_apart_and_its_old_space_is_refused(adapted, tmp_path):
    home = Path(adapted.uri) / "adapters"
    old = adapted.embed(adapter="mix").space
    shown = dict(adapted.list_spaces().select("name", "run").iter_rows())
    assert shown == {"95m-tiny-w2": None, old: "mix"}
    shutil.rmtree(home / "mix")
    shutil.copytree(home / "other", home / "mix")            # as if deleted, and trained again with another seed
    file = write(tmp_path / "query.wav", melody(2.5, seed=90, rate=24_000), rate=24_000)
    said = f"space '{old}': its adapter, of run 'mix', has changed since the space was embedded.*--adapter mix"
    with pytest.raises(EncoderError, match=said):
        adapted.similar(file, space=old, k=2)
    for more in ({}, {"adapter": "mix"}):
        with pytest.raises(SpaceMismatch, match=said):
            adapted.embed(space=old, **more)
    apart = adapted.embed(adapter="mix")
    assert apart.space.startswith(old) and apart.space != old and apart.new == 12
    assert adapted.embed(adapter="mix").space == apart.space
    shown = dict(adapted.list_spaces().select("name", "run").iter_rows())
    assert (shown[old], shown[apart.space]) == ("mix (replaced)", "mix")
    status = adapted.status()
    gaps = status.spaces.with_columns(missing=pl.when(pl.col("name") == old).then(4).otherwise(0))
    assert "--space" not in replace(status, spaces=gaps).next_step()         # it could not be extended
    clip = adapted.clips.read()["clip_id"][0]
    assert len(adapted.similar(clip, space=old, k=2)) == 2   # its stored vectors are still compared with each other
    shutil.rmtree(home / "mix")
    assert adapted.list_spaces().filter(name=old)["run"].item() == "mix (missing)"
    with pytest.raises(CheckpointError, match=r"adapter of run 'mix': is missing, as .* has no adapter_config\.json"):
        adapted.similar(file, space=old, k=2)


@pytest.mark.parametrize(("change", "said"), [
    ({"use_dora": True}, "use_dora"), ({"peft_type": "IA3"}, "peft_type"), ({"r": 3}, "not of rank 3"),
    ({"bias": "all"}, "bias"),
])
def test_adapters_other_than_plain_lora_are_refused(adapted, change, said):
    folder = Path(adapted.uri) / "adapters" / "mix" / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=said):
        read_adapter(str(folder))


def test_an_adapter_of_another_encoder_is_refused(adapted, checkpoints):
    with pytest.raises(CheckpointError, match=r"belongs to 95M-tiny"):
        adapted.embed(str(checkpoints / "330M-tiny"), adapter="mix")
    with pytest.raises(InputError, match="no adapter folder and no run"):
        adapted.embed(adapter="../mix")
    with pytest.raises(InputError, match="takes no adapter"):
        adapted.embed("spectral", adapter="mix")


def test_a_run_for_another_task_starts_from_the_weights_that_fit_and_names_the_others(adapted, caplog):
    config = replace(QUICK, column="tags", start="mix", epochs=1)
    with caplog.at_level("INFO", "tonelake.finetune"):
        run = finetune(adapted, config=config)
    begun = run.metrics["started_from"]
    assert "head.outer.weight ((2, 16) instead of (3, 16))" in begun and "head.outer.bias" in begun
    assert begun.startswith("17 tensors loaded") and "lora" not in begun         # 12 of LoRA, 5 of the head
    assert begun in caplog.messages


def test_a_run_starts_from_a_checkpoint_file_of_another_project(adapted, tmp_path):
    import torch

    model, _ = tuned(adapted, QUICK)
    theirs = {
        name.removeprefix("peft.").replace("base_model.model.", "mert.base_model.model."): torch.randn_like(tensor)
        for name, tensor in model.trained().items() if ".lora_" in name
    } | {"classifier.0.weight": torch.randn(5, 7), "classifier.3.weight": torch.randn(4, 5)}
    torch.save({"model_state_dict": theirs, "epoch": 3}, tmp_path / "best.pt")
    run = finetune(adapted, config=QUICK, start=str(tmp_path / "best.pt"), epochs=1)
    assert run.metrics["started_from"].startswith("12 tensors loaded; skipped")
    assert "classifier.0.weight ((5, 7) instead of (16, 96))" in run.metrics["started_from"]
    angles = orthogonality(None, str(tmp_path / "best.pt"))
    assert len(angles.classes) == 6 and len(angles.layers) == 6
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match="refused"):
        finetune(adapted, config=QUICK, start=str(tmp_path / "evil.pt"))


def test_angles_are_those_of_whole_updates(trained):
    angles = orthogonality(trained, "mix")
    adapter = read_adapter(f"{trained.uri}/adapters/mix/adapter")
    for row in angles.layers.to_dicts():
        names = [f"encoder.layers.{row[side]}.attention.{row['module']}" for side in ("first", "second")]
        one, other = (adapter.update(name).numpy().ravel() for name in names)
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert row["degrees"] == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-2)
    head = FinetuneRun.named(trained, "mix").head()["outer.weight"].numpy()
    cosine = head[0] @ head[1] / np.linalg.norm(head[0]) / np.linalg.norm(head[1])
    assert angles.classes["degrees"].to_list() == pytest.approx([np.degrees(np.arccos(cosine))], abs=1e-3)
    assert set(angles.classes.select("first", "second").row(0)) == {"loud", "soft"}


def test_runs_are_compared_on_the_tracks_that_both_held_out(trained):
    first, second = (FinetuneRun.named(trained, name) for name in ("mix", "other"))
    assert set(first.table("predictions")["track"]) == set(second.table("predictions")["track"])
    compared = trained.compare_finetunes(["mix", "other"])
    assert compared["run"].to_list() == ["mix", "other"] and compared["away"][0] == 0
    predictions = second.table("predictions")
    assert compared["value"][1] == pytest.approx((predictions["predicted"] == predictions["target"]).mean())
    assert trained.list_finetunes()["run"].to_list() == ["mix", "other"]
