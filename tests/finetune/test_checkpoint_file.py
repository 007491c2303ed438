"""Checkpoint files of other projects: tensors, plain values and NumPy scalars are read, everything else is refused."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import QUICK, tuned

from tonelake.finetune import orthogonality
from tonelake.finetune.checkpoint_file import load_plain, read_checkpoint_file
from tonelake.finetune.foreign_checkpoint import match_optimizer
from tonelake.finetune.initial_weights import load_initial_weights, read_initial_weights
from tonelake.store import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

SCALARS = {
    "best_val_acc": np.float64(0.8125), "epoch": np.int64(7), "done": np.bool_(True), "half": np.float16(0.5),
    "swapped": np.dtype(">f4").type(2.5), "name": np.str_("meter 5/4"), "raw": np.bytes_(b"ab"), "turn": np.complex64(1 + 2j),
}


def foreign_states(model, names=("5", "3")):
    """Return LoRA and head in another project's names and layout, with recognisable values."""
    torch.manual_seed(1)
    lora = {}
    for name, tensor in model.named_parameters():
        if ".lora_" in name:
            wrapped = name.replace("peft.base_model.model.encoder", "mert.base_model.model.encoder").replace(".default", "")
            lora[wrapped] = torch.randn_like(tensor)
    head = model.head
    order = torch.nn.Sequential(
        torch.nn.LayerNorm(len(head.norm.weight)), torch.nn.Linear(head.inner.in_features, head.inner.out_features),
        torch.nn.GELU(), torch.nn.Dropout(0.4), torch.nn.Linear(head.outer.in_features, len(names)),
    )
    torch.nn.init.normal_(order[0].weight)
    return lora, {"layer_weights": torch.randn(len(head.layer_scores)), **order.state_dict()}


def test_numpy_scalars_are_read_from_their_bytes(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"head_state_dict": {"0.weight": torch.ones(2, 3)}, "metrics": SCALARS}, tmp_path / "best.pt")
    read = load_plain(tmp_path / "best.pt")["metrics"]
    assert read == {key: value.item() for key, value in SCALARS.items()}
    assert {type(value) for value in read.values()} == {float, int, bool, str, bytes, complex}
    older = tmp_path / "older.pt"                        # as by NumPy 1, whose core had another name
    rewrite_pickle(tmp_path / "best.pt", older, lambda data: data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert load_plain(older)["metrics"] == read
    assert set(torch.serialization.get_safe_globals()) == before


def rewrite_pickle(source: Path, target: Path, change) -> None:
    """Copy a file of torch.save with its pickle changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(item.filename, change(data) if item.filename.endswith("data.pkl") else data)


def test_a_head_and_lora_in_another_projects_layout_are_loaded_in_full(sung, tmp_path):
    model, _ = tuned(sung, replace(QUICK, first_layer=1))
    lora, head = foreign_states(model)
    content = {
        "epoch": 12, "best_val_acc": np.float64(0.9), "head_state_dict": head, "lora_state_dict": lora, "classes": [5, 3],
        "args": {"lora_r": 2, "lora_alpha": 8, "noise": np.float32(0.01)},
    }
    torch.save(content, tmp_path / "best.pt")
    weights = read_initial_weights(sung, str(tmp_path / "best.pt"))
    assert (weights.epoch, weights.scale, weights.names) == (12, 4.0, ("5", "3"))
    report = load_initial_weights(model, weights, ("3", "5"))
    assert not report.skipped and len(report.loaded) == len(lora) + 7
    mine = dict(model.named_parameters())
    for name, tensor in lora.items():
        own = name.replace("mert.base", "peft.base").replace(".weight", ".default.weight")
        torch.testing.assert_close(mine[own].detach(), tensor * (2 if "lora_B" in own else 1))      # scale 4 on a scale of 2
    torch.testing.assert_close(mine["head.layer_scores"].detach(), head["layer_weights"])
    torch.testing.assert_close(mine["head.norm.weight"].detach(), head["0.weight"])
    torch.testing.assert_close(mine["head.inner.bias"].detach(), head["1.bias"])
    torch.testing.assert_close(mine["head.outer.weight"].detach(), head["4.weight"].flip(0))        # classes in our order
    whole = {"model_state_dict": lora | {f"classifier.{name}": tensor for name, tensor in head.items() if "." in name}}
    whole["model_state_dict"]["layer_weights"] = head["layer_weights"]                              # beside the head
    torch.save(whole, tmp_path / "whole.pt")
    other, _ = tuned(sung, replace(QUICK, first_layer=1))
    assert not load_initial_weights(other, read_initial_weights(sung, str(tmp_path / "whole.pt"))).skipped
    torch.testing.assert_close(other.head.layer_scores.detach(), head["layer_weights"])
    with pytest.raises(InputError, match="fits this model"):
        load_initial_weights(model, replace(weights, pairs={}, others={"head.0.weight": torch.ones(9, 9)}))
    other = load_initial_weights(model, weights, ("3", "7"))
    assert sum("of the classes 5, 3" in skipped for skipped in other.skipped) == 2


def lightning_file(path, model, *, epoch=4, processed=5, prefix="model."):
    """Write a checkpoint as Lightning does: the whole model under a prefix, loops, callbacks and hyper-parameters."""
    lora, head = foreign_states(model)
    head.pop("layer_weights")
    frozen = {
        name.replace("peft.base_model.model.", f"{prefix}encoder.base_model.model."): p.detach().clone()
        for name, p in model.named_parameters() if not p.requires_grad
    }
    lora = {name.replace("mert.", f"{prefix}encoder."): tensor for name, tensor in lora.items()}
    state = frozen | lora | {f"{prefix}classifier.{name}": tensor for name, tensor in head.items()}
    state |= {f"{prefix}layer_weights": torch.randn(len(model.head.layer_scores)), "criterion.pos_weight": torch.ones(2)}
    trained = [*lora.values(), *head.values(), state[f"{prefix}layer_weights"]]
    optimizer = torch.optim.AdamW(list(map(torch.nn.Parameter, [*frozen.values(), *trained])), lr=3e-4)
    for parameter in optimizer.param_groups[0]["params"][len(frozen) :]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    content = {
        "epoch": epoch, "global_step": 40, "pytorch-lightning_version": "2.5.0", "state_dict": state,
        "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": epoch + 1, "processed": processed}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_f1'}": {"best_model_score": torch.tensor(0.5), "best_k_models": {}}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [], "hparams_name": "kwargs",
        "hyper_parameters": {"lora_r": 2, "lora_alpha": 8, "classes": ["5", "3"], "lr": 3e-4},
    }
    torch.save(content, path)
    return state


def test_what_fits_of_a_lightning_checkpoint_is_loaded_and_the_rest_named(sung, tmp_path):
    """LoRA, head and layer weights are loaded; the encoder's weights are compared, not loaded."""
    model, _ = tuned(sung, QUICK)
    state = lightning_file(tmp_path / "last.ckpt", model)
    weights = read_initial_weights(sung, str(tmp_path / "last.ckpt"))
    assert (weights.epoch, weights.scale, weights.names) == (5, 4.0, ("5", "3")) and len(weights.optimizer["param_groups"]) == 1
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    report = load_initial_weights(model, weights, ("3", "5"))
    mine = dict(model.named_parameters())
    assert set(report.loaded) == {name for name, p in mine.items() if p.requires_grad}
    assert report.skipped == ["criterion.pos_weight (not in this model)"]
    assert report.equal == len(before) and not report.differing
    assert f"{len(before)} tensors are this encoder's own weights" in str(report)
    torch.testing.assert_close(mine["head.outer.weight"].detach(), state["model.classifier.4.weight"].flip(0))
    torch.testing.assert_close(mine["head.layer_scores"].detach(), state["model.layer_weights"])
    assert all(torch.equal(mine[name].detach(), tensor) for name, tensor in before.items())

    # An encoder trained as a whole, under other prefixes: its weights are named, not loaded.
    with torch.no_grad():
        for name in state:
            if name.endswith("k_proj.weight"):
                state[name] += 0.1
    plain = {
        name.replace("model.encoder.base_model.model.", "net.mert.").replace(".base_layer", ""): tensor
        for name, tensor in state.items()
    }
    torch.save({"state_dict": plain | {"net.mert.encoder.layers.7.fc.weight": torch.ones(1)}}, tmp_path / "whole.ckpt")
    report = load_initial_weights(model, read_initial_weights(sung, str(tmp_path / "whole.ckpt")))
    assert len(report.differing) == 3 + 1 and report.equal == len(before) - 3
    assert "mert.encoder.layers.*.attention.k_proj.weight (3), mert.encoder.layers.*.fc.weight" in str(report)
    assert all(torch.equal(mine[name].detach(), tensor) for name, tensor in before.items())
    only = {name: tensor for name, tensor in plain.items() if "mert" in name and ".lora_" not in name}
    torch.save({"state_dict": only}, tmp_path / "encoder.ckpt")
    with pytest.raises(InputError, match=r"weights of an encoder, which are not loaded: mert\.encoder"):
        load_initial_weights(model, read_initial_weights(sung, str(tmp_path / "encoder.ckpt")))


def test_lightning_counts_epochs_from_zero_and_its_optimizer_fits(sung, tmp_path):
    model, _ = tuned(sung, QUICK)
    lightning_file(tmp_path / "half.ckpt", model, epoch=4, processed=4)                  # saved within the fifth epoch
    assert read_checkpoint_file(tmp_path / "half.ckpt").epoch == 4
    torch.save({"epoch": 4, "pytorch-lightning_version": "1.9", "state_dict": {"head.0.weight": torch.ones(2, 3)}},
               tmp_path / "old.ckpt")
    assert read_checkpoint_file(tmp_path / "old.ckpt").epoch == 5
    weights = read_checkpoint_file(tmp_path / "half.ckpt")
    weights = replace(weights, scale=None, names=())                                     # loaded as they are
    report = load_initial_weights(model, weights)
    rates = (QUICK.lora_rate, QUICK.head_rate)
    ours = torch.optim.AdamW([
        {"params": [p for _, p in model.parameters_of(lora=lora)], "lr": rate}
        for lora, rate in zip((True, False), rates, strict=True)
    ])
    state, problem = match_optimizer(weights, report, model, ours)
    assert not problem and state["param_groups"][0]["lr"] == 3e-4 and len(state["state"]) == len(report.loaded)


def test_angles_are_those_of_the_files_last_layer_and_updates(sung, tmp_path):
    model, _ = tuned(sung, QUICK)
    lora, head = foreign_states(model, ("3", "4", "5"))
    content = {"head_state_dict": head, "lora_state_dict": lora, "class_to_idx": {"5": 2, "3": 0, "4": 1}, "f1": np.float32(1)}
    torch.save(content, tmp_path / "best.pt")
    found = orthogonality(None, str(tmp_path / "best.pt"))
    first, second = head["4.weight"].double()[[0, 2]]
    expected = np.degrees(np.arccos(float(first @ second / first.norm() / second.norm())))
    assert found.classes.filter(first="3", second="5")["degrees"].item() == pytest.approx(expected)
    assert set(found.layers["module"]) == {"q_proj", "v_proj"} and len(found.layers) == 2 * 3


class Canary:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def hostile_files(folder: Path) -> dict[str, str]:
    """Write files that must be refused; return a part of the message for each."""
    tensors = {"head_state_dict": {"0.weight": torch.ones(2, 3)}}
    said = {"canary.pt": "io.open", "namespace.pt": "argparse.Namespace", "object.pt": "NumPy value of type 'O8'"}
    torch.save(tensors | {"metric": Canary(folder / "ran")}, folder / "canary.pt")
    torch.save(tensors | {"args": argparse.Namespace(lr=1)}, folder / "namespace.pt")
    torch.save(tensors | {"history": np.arange(3.0)}, folder / "array.pt")
    said["array.pt"] = "_reconstruct"
    torch.save(tensors | {"when": np.datetime64("2026-01-01")}, folder / "date.pt")
    said["date.pt"] = "NumPy value of type 'M8'"
    torch.save(tensors | {"record": np.zeros(1, [("a", "f4")])[0]}, folder / "fields.pt")
    said["fields.pt"] = "NumPy value of type 'V4'"
    torch.save(tensors | {"metric": np.float64(1.5)}, folder / "plain.pt")
    code = b"X\x02\x00\x00\x00"                            # BINUNICODE of two characters
    changes = {
        "object.pt": (code + b"f8", code + b"O8"), "short.pt": (code + b"f8", code + b"f4"),
        "other.pt": (b"cnumpy\ndtype", b"cnumpy\nload"), "core.pt": (b"multiarray\nscalar", b"multiarray\nfromfile"),
    }
    said |= {"short.pt": "NumPy scalar of 8 bytes", "other.pt": "numpy.load", "core.pt": "multiarray.fromfile"}
    for name, (old, new) in changes.items():
        def change(data: bytes, old: bytes = old, new: bytes = new) -> bytes:
            assert data.count(old) == 1
            return data.replace(old, new)

        rewrite_pickle(folder / "plain.pt", folder / name, change)
    (folder / "plain.pickle.pt").write_bytes(pickle.dumps(Canary(folder / "ran")))
    (folder / "cut.pt").write_bytes((folder / "plain.pt").read_bytes()[:300])
    return said | {"plain.pickle.pt": "pickled code", "cut.pt": "damaged"}


def test_files_with_anything_but_plain_data_are_refused_in_a_sentence(tmp_path):
    for name, said in hostile_files(tmp_path).items():
        with pytest.raises(InputError, match=f"{name}: refused, because it .*{said}"):
            read_checkpoint_file(tmp_path / name)
    circle = {"head_state_dict": {"0.weight": torch.ones(2, 3)}}
    circle["model"] = {"state_dict": circle}
    torch.save(circle, tmp_path / "circle.pt")
    assert read_checkpoint_file(tmp_path / "circle.pt").others.keys() == {"head.0.weight"}
    assert not (tmp_path / "ran").exists()
    assert read_checkpoint_file(tmp_path / "plain.pt").others["head.0.weight"].shape == (2, 3)
