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
