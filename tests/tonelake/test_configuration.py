"""Configuration files: keys and values that fit, sentences for those that do not, and what wins over what."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from commands import rows, run
from sounds import melody, write

import tonelake
from tonelake.configuration import Configuration, Quantizer
from tonelake.store import InputError, SpaceNotFound, setting_fields

PERFORMANCE = """
encoder: fakes:FakeEncoder
window_s: 1
layer: -2
pooling: mean
device: cpu
quantizer: {kind: kmeans, size: 8, seed: 3}
live_window_s: 1
live_hop_s: 0.2
hits: 1
"""


def written(folder, text):
    file = folder / "performance.yaml"
    file.write_text(text)
    return file


# -- the file


def test_a_file_gives_keys_defaults_and_short_forms(tmp_path):
    found = Configuration.from_file(written(tmp_path, "encoder: mert-95m\nlayer: -1\nquantiser: {kind: kmeans, size: 64}\n"))
    assert (found.encoder, found.layer, found.quantized) == ("mert-95m", "-1", Quantizer(size=64))
    for text, quantizer in (
        ("tokens: 64", Quantizer(size=64)), ("quantizer: 64", Quantizer(size=64)), ("quantizer: kmeans", Quantizer()),
        ("quantizer: {metric: cosine}", Quantizer(metric="cosine")), ("tokens: 64\nquantizer: {size: 64, seed: 1}",
                                                                       Quantizer(size=64, seed=1)),
    ):
        found = Configuration.from_file(written(tmp_path, text))
        assert found.quantized == quantizer and found.asks_for_tokens
    assert not Configuration().asks_for_tokens
    assert Configuration.from_file(written(tmp_path, "frames: 5\nvocabulary: [a, b/c]")) == Configuration(
        frames=("5",), vocabulary=("a", "b/c")
    )
    assert [one.name for one in setting_fields(Configuration)] == [one.name for one in fields(Configuration)]
    assert all(one.description for cls in (Configuration, Quantizer) for one in setting_fields(cls))


@pytest.mark.parametrize("text, message", [
    ("encodr: x", "setting 'encodr': does not exist. Did you mean 'encoder'\\?"),
    ("layer: [1]", r"setting 'layer': \[1\] is not text"), ("layer: true", "setting 'layer': True is not text"),
    ("pooling: max", "setting 'pooling': 'max' is not a choice. Choose mean or mean\\+max"),
    ("tokens: many", "setting 'tokens': 'many' is not a whole number. Give a whole number from 2 to 65535"),
    ("tokens: 1", "setting 'tokens': 1 is out of range"),
    ("quantizer: {sise: 3}", "quantizer, setting 'sise': does not exist. Did you mean 'size'"),
    ("quantizer: vq", "quantizer, setting 'kind': 'vq' is not a choice. Choose kmeans"),
    ("quantizer: [1]", "setting 'quantizer': .* is no kind, size or table. Write {kind: kmeans, size: 64}"),
    ("tokens: 64\nquantizer: 32", "'tokens': 64 differs from the quantizer's size of 32. Give one of them"),
    ("hybrid: [a, b]\nencoder: c", "setting 'hybrid': joins stored spaces, and 'encoder' embeds a new one"),
    ("window_s: 2\nhop_s: 3", "'hop_s': 3 s is out of range for windows of 2 s"), ("precision: int8", "'int8' is not a choice"),
    ("live_hop_s: 0", "'live_hop_s': 0 is out of range"), ("- a", "holds no settings"), ("a: [", "cannot be read as YAML"),
    ("encoder: !!python/object/apply:os.system [ls]", "cannot be read as YAML"), ("hits: -1", "'hits': -1 is out of range"),
])
def test_keys_and_values_that_do_not_fit_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        Configuration.from_file(written(tmp_path, text))
    assert "performance.yaml" in str(caught.value)


# -- commands


@pytest.fixture(scope="module")
def performed(tmp_path_factory):
    """A folder with music, a configuration, and the lake that commands with this configuration made."""
    folder = tmp_path_factory.mktemp("performed")
    for number in range(3):
        write(folder / "music" / f"{number}.wav", melody(2.0, seed=number, rate=8_000), 8_000)
    lake, file = folder / "lake", written(folder, PERFORMANCE)
    assert run("ingest", "folder", folder / "music", lake=lake).returncode == 0
    for command in (("embed", "--workers", 1), ("tokens", "fit"), ("tokens", "apply"), ("tokens", "gestures", "--workers", 1)):
        done = run(*command, "--config", file, lake=lake)
        assert done.returncode == 0, done.stderr
    return folder


def test_one_file_serves_every_command(performed):
    lake, file = tonelake.open(performed / "lake", progress=False), performed / "performance.yaml"
    (space,) = lake.spaces.all()
    assert (space.location, space.window_s, lake.frames(space).layers()) == ("fakes:FakeEncoder", 1.0, [0])      # -2 is layer 0
    assert lake.list_vocabularies().select("vocabulary", "tokens", "clips").rows() == [("low-8", 8, 3)]
    assert tonelake.index.read_vocabulary(lake).seed == 3
    shown = rows(run("tokens", "show", lake.clips.ids()[0], "--config", file, "--json", lake=lake.uri))
    assert {"token", "start_s"} <= set(shown[0])
    played = run("listen", performed / "music" / "0.wav", "--fast", "--config", file, lake=lake.uri)
    assert played.returncode == 0, played.stderr
    lines = [json.loads(line) for line in played.stdout.splitlines()]
    assert "vocabulary low-8: space " in played.stderr and any("tokens" in line for line in lines)
    assert all(len(line["hits"]) == 1 for line in lines if "hits" in line)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(performed, tmp_path):
    lake = tonelake.open(performed / "lake", progress=False)
    file = written(tmp_path, PERFORMANCE.replace("size: 8", "size: 6"))
    done = run("tokens", "fit", "--config", file, "--k", 5, "--name", "five", lake=lake.uri)
    assert done.returncode == 0 and "vocabulary five of layer low" in done.stderr and "5 tokens" in done.stderr
    assert run("tokens", "fit", "--config", file, lake=lake.uri).returncode == 0
    assert set(lake.list_vocabularies()["vocabulary"]) == {"low-8", "five", "low-6"}
    # Several vocabularies: the file's layer and size name one, and a name on the command line wins.
    assert "tokens of low-6 stored" in run("tokens", "apply", "--config", file, lake=lake.uri).stderr
    assert "tokens of five stored" in run("tokens", "apply", "five", "--config", file, lake=lake.uri).stderr
    refused = run("tokens", "apply", lake=lake.uri)
    assert refused.returncode == 2 and "3 vocabularies" in refused.stderr


def test_several_encoders_and_a_hybrid_are_configured(performed, tmp_path):
    lake = tonelake.open(performed / "lake", progress=False)
    (fine,) = (space.name for space in lake.spaces.all() if space.location == "fakes:FakeEncoder")
    other = written(tmp_path, "encoder: fakes:CoarseEncoder\nspace: coarse\nwindow_s: 1\nlayer: whole\ntokens: 4\n")
    joint = tmp_path / "hybrid.yaml"
    joint.write_text(f"hybrid: [{fine}/low, coarse]\ntokens: 4\nframes: 0\n")
    assert "no space 'coarse'" in run("tokens", "fit", "--config", joint, lake=lake.uri).stderr
    for file in (other, joint):
        for command in (("embed", "--workers", 1), ("tokens", "fit"), ("tokens", "apply")):
            done = run(*command, "--config", file, lake=lake.uri)
            assert done.returncode == 0, done.stderr
    found = {tuple(row) for row in lake.list_vocabularies().select("space", "vocabulary").rows()}
    assert {("coarse", "whole-4"), ("hybrid", "hybrid-4")} <= found
    both = tmp_path / "session.yaml"
    both.write_text(PERFORMANCE + "vocabulary: [low-8, whole-4, hybrid/hybrid-4]\n")
    played = run("listen", performed / "music" / "1.wav", "--fast", "--config", both, lake=lake.uri)
    assert played.returncode == 0, played.stderr
    assert [name in played.stderr for name in (f"{fine}/low-8", "coarse/whole-4", "hybrid/hybrid-4")] == [True] * 3
    refused = run("tokens", "apply", "--config", both, lake=lake.uri)
    assert refused.returncode == 2 and "names 3 vocabularies, and this command takes one" in refused.stderr
    assert run("tokens", "apply", "low-8", "--config", both, lake=lake.uri).returncode == 0


def test_an_encoder_without_a_space_names_the_remedy(performed):
    lake = tonelake.open(performed / "lake", progress=False)
    with pytest.raises(SpaceNotFound, match=r"encoder spectral: no space of this lake .* Run `tonelake embed`"):
        Configuration(encoder="spectral").space_in(lake)
    with pytest.raises(SpaceNotFound, match="no space"):
        Configuration(encoder="fakes:FakeEncoder", window_s=7.0).space_in(lake)
    assert Configuration().space_in(lake) is None and Configuration(space="x").space_in(lake) == "x"
    assert Configuration(layer="high").for_session(lake, None, None, ()) == (None, "high", [])
    assert Configuration(layer="high").for_session(lake, None, "low", ["a"]) == (None, "low", ["a"])


def test_a_missing_file_is_a_sentence(performed):
    done = run("embed", "--config", "none.yaml", lake=performed / "lake")
    assert done.returncode == 2 and "none.yaml: cannot be read" in done.stderr
    assert not Path("none.yaml").exists()
