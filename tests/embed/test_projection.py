"""Heads from safetensors files as spaces, against PyTorch's own modules."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from commands import run
from fakes import WordsEncoder, fill
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from sounds import melody, write

from tonelake import index
from tonelake.embed import CheckpointError, project_space
from tonelake.embed.encoders.projection import read_head
from tonelake.store import InputError, Lake, SpaceMismatch, read_projection

ACTIVATION = {"relu": torch.nn.ReLU, "gelu": torch.nn.GELU, "tanh": torch.nn.Tanh}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A lake of 40 clips in space `words`, of layers low (4 wide) and high (6).  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("projected") / "lake")
    fill(lake, tracks=8, clips_a_track=5, seed=2, encoder=WordsEncoder)
    return lake


@pytest.fixture
def lake(source, tmp_path):
    shutil.copytree(source.uri, tmp_path / "lake")
    return Lake(tmp_path / "lake")


def perceptron(activation: str, widths=(6, 9, 5, 3)) -> torch.nn.Sequential:
    torch.manual_seed(1)
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(widths):
        layers += [torch.nn.Linear(before, after), ACTIVATION[activation]()]
    return torch.nn.Sequential(*layers[:-1])


def projected(lake, module, layer=1, stat="mean"):
    ids = lake.clips.ids().to_list()
    vectors = lake.vectors(lake.spaces.get("words")).take(ids, layer, stat=stat).vectors
    with torch.no_grad():
        return ids, module(torch.from_numpy(np.ascontiguousarray(vectors, np.float32))).numpy()


@pytest.mark.parametrize("activation", ACTIVATION)
@pytest.mark.parametrize("prefix", ["", "head.", "model.genre."])
def test_a_perceptron_projects_as_in_pytorch(lake, tmp_path, activation, prefix):
    module, file = perceptron(activation), tmp_path / "head.safetensors"
    save_tensors({prefix + name: value for name, value in module.state_dict().items()}, file, {"activation": activation})
    report = project_space(lake, file, source="words/high")
    assert (report.space, report.new, report.known, report.shape) == ("words-head", 40, 0, (6, 9, 5, 3))
    assert report.activation == activation and not report.assumed
    for stat in ("mean", "max"):
        ids, expected = projected(lake, module, stat=stat)
        found = lake.vectors(lake.spaces.get("words-head")).take(ids, 0, stat=stat).vectors
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)        # stored as float16
    again = project_space(lake, file, source="words/high")
    assert (again.new, again.known) == (0, 40)


def test_one_linear_takes_all_layers_side_by_side_and_bfloat16_is_read(lake, tmp_path):
    module = torch.nn.Linear(10, 2).bfloat16()
    save_tensors(module.state_dict(), tmp_path / "linear.safetensors")
    report = project_space(lake, tmp_path / "linear.safetensors", source="words/all", name="flat")
    assert report.activation == "" and "1 linear map (10 → 2)" in str(report)
    ids = lake.clips.ids().to_list()
    joined = np.concatenate([lake.vectors(lake.spaces.get("words")).take(ids, layer).vectors for layer in (0, 1)], axis=1)
    expected = joined @ module.weight.float().detach().numpy().T + module.bias.float().detach().numpy()
    np.testing.assert_allclose(lake.vectors(lake.spaces.get("flat")).take(ids, 0).vectors, expected, rtol=2e-3, atol=2e-3)


def test_new_clips_are_added_and_files_are_encoded_and_projected(lake, tmp_path):
    module, file = perceptron("relu"), tmp_path / "x.safetensors"
    save_tensors(module.state_dict(), file)
    report = project_space(lake, file, source="words/high", name="mine")
    assert report.assumed and "relu between them, the default" in str(report)
    fill(lake, tracks=9, clips_a_track=5, seed=2, encoder=WordsEncoder)          # a ninth track
    assert str(project_space(lake, file, source="words/high", name="mine")).startswith("space mine: 5 clips projected")
    write(tmp_path / "new.wav", melody(2.0, seed=5, rate=8_000), 8_000)
    query = index.read_query(lake, tmp_path / "new.wav", space="words").vectors[1]
    with torch.no_grad():
        vector = module(torch.from_numpy(query)).numpy()
    np.testing.assert_allclose(index.read_query(lake, tmp_path / "new.wav", space="mine").vectors[0], vector, atol=1e-4)
    assert len(index.similar(lake, tmp_path / "new.wav", space="mine", k=3)) == 3
    hits = index.similar(lake, lake.clips.ids()[0], spaces="words:0.5,mine:0.5", k=3)
    assert set(hits["cosine"][0]) == {"words", "mine"}


def test_identity_is_of_the_tensors_the_activation_and_the_source(lake, tmp_path):
    file = tmp_path / "x.safetensors"
    save_tensors(perceptron("relu").state_dict(), file)
    project_space(lake, file, source="words/high", name="mine")
    space = lake.spaces.get("mine")
    assert read_projection(lake, space).digest == space.adapter
    with pytest.raises(SpaceMismatch, match="'mine': already exists with other settings"):
        project_space(lake, file, source="words/high", name="mine", activation="gelu")
    with pytest.raises(InputError, match="is itself a projection"):
        project_space(lake, file, source="mine")
    shutil.copy(file, tmp_path / "renamed.safetensors")
    assert project_space(lake, tmp_path / "renamed.safetensors", source="words/high", name="mine").new == 0
    save_tensors({name: value + 1 for name, value in perceptron("relu").state_dict().items()}, file)
    with pytest.raises(SpaceMismatch):
        project_space(lake, file, source="words/high", name="mine")


def w(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(("tensors", "error"), [
    ({"0.weight": w(3, 6)}, "0.bias is missing"),
    ({"0.bias": w(3)}, "0.weight is missing"),
    ({"weight": w(3, 6), "bias": w(4)}, r"shape \(3, 6\) and the bias \(4,\)"),
    ({"0.weight": w(3, 6), "0.bias": w(3), "2.weight": w(2, 4), "2.bias": w(2)},
     "2.weight takes vectors of width 4, 0.weight gives 3"),
    ({"0.weight": w(3, 6), "0.bias": w(3), "1.weight": w(3), "1.bias": w(3)}, "Normalisation"),
    ({"0.weight": w(3, 6) * np.nan, "0.bias": w(3)}, "0.weight holds NaN"),
    ({"0.weight": w(3, 6), "0.bias": w(3) * np.inf}, "0.bias holds NaN or infinity"),
    ({"0.weight": w(3, 6), "0.bias": w(3), "scale": w(1)}, "'scale' is not the weight or bias"),
    ({"0.weight": w(3, 6), "0.bias": w(3), "0.running_mean": w(3)}, "not the weight or bias"),
    ({"a.weight": w(3, 6), "a.bias": w(3), "b.weight": w(2, 3), "b.bias": w(2)}, "several heads"),
    ({f"{n}.{m}.{k}": v for n in "01" for m in "02" for k, v in (("weight", w(3, 3)), ("bias", w(3)))}, "several heads"),
    ({"weight": np.ones((3, 6), np.int32), "bias": w(3)}, "holds I32 values"),
    ({}, "has no tensors"),
])
def test_a_file_that_is_no_head_is_refused(tmp_path, tensors, error):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=error):
        read_head(tmp_path / "x.safetensors")


def test_one_of_several_heads_is_chosen_by_its_prefix(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"genre.weight": w(3, 6), "genre.bias": w(3), "mood.weight": w(2, 6), "mood.bias": w(2)}, file)
    assert read_head(file, "mood")[0][0][0].shape == (2, 6)
    with pytest.raises(CheckpointError, match="under 'key'; it has genre, mood"):
        read_head(file, "key")
    layers = {f"layers.{n}.linear.{k}": v for n in (10, 2) for k, v in (("weight", w(6, 6) * n), ("bias", w(6)))}
    save_file(layers, file)
    assert [weight[0, 0] for weight, _ in read_head(file)[0]] == [2, 10]         # by number, not by letter


def test_a_head_that_does_not_fit_and_odd_files_are_refused(source, tmp_path):
    file = tmp_path / "x.safetensors"
    save_tensors(perceptron("relu").state_dict(), file, {"activation": "swish"})
    with pytest.raises(CheckpointError, match=r"activation 'swish'\. Only relu, gelu, tanh"):
        read_head(file)
    save_tensors(perceptron("relu").state_dict(), file, {"activation": "gelu"})
    with pytest.raises(InputError, match=r"width 6, layer low of space 'words' has 4"):
        project_space(source, file, source="words/low")
    with pytest.raises(InputError, match="metadata says gelu"):
        project_space(source, file, source="words/high", activation="tanh")
    with pytest.raises(InputError, match="--activation sine: unknown"):
        project_space(source, file, source="words/high", activation="sine")
    file.write_bytes(b"\x80\x04pickled")
    for path in (file, tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
            read_head(path)
    assert [space.name for space in source.spaces.all()] == ["words"]


def test_the_command_projects_and_refuses_options_of_an_encoder(lake, tmp_path):
    file = tmp_path / "Merit v2.safetensors"
    save_tensors(perceptron("gelu").state_dict(), file)
    done = run("embed", "--projection", file, "--from", "words/high", "--activation", "gelu", lake=lake.uri)
    assert done.returncode == 0 and "space words-merit-v2: 40 clips projected from words/high" in done.stderr, done.stderr
    assert run("embed", "--projection", file, "--encoder", "small", lake=lake.uri).returncode == 2
    assert run("embed", "--from", "words", lake=lake.uri).returncode == 2
