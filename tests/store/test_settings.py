"""Settings: their YAML, their digests, and the errors for values that a setting refuses."""

import copy
from dataclasses import replace

import pytest

from tonelake.embed import EmbedSettings
from tonelake.embed.encoders.base import PRECISIONS
from tonelake.evaluate import TARGET_KINDS
from tonelake.finetune import FinetuneConfig, FinetuneRun
from tonelake.probes import ProbeConfig, Run
from tonelake.probes.inputs import PREPARATIONS, STATS
from tonelake.store import InputError, LakeError, Manifest, setting_fields, settings_to_yaml
from tonelake.store.runs import CONFIG_FILE, METRICS_FILE, check_same_run
from tonelake.store.settings import parse_settings

PROBE = ProbeConfig(
    ("genre", "mood"), space="mert", task="multilabel", where="year > 1990", layers=("7", "all"), input="mean+max",
    prepare="l2", head="mlp", hidden=64, dropout=0.5, class_weights="balanced", label_smoothing=0.1, optimizer="adamw",
    rates=(1e-5, 0.1), decays=(0.0, 1e-3), batch=32, epochs=7, patience=0, split="by:artist", shares=(0.5, 0.25, 0.25),
    split_seed=3, seeds=2, device="cpu", precision="float32", protocol="marble",
)
TUNING = FinetuneConfig(
    "meter", space="mert", task="regression", where="year > 1990", rank=4, alpha=8.0, lora_dropout=0.1, targets=("q_proj",),
    above=6, hidden=32, dropout=0.0, window_s=10.0, crop_s=20.0, class_weights="none", label_smoothing=0.2, noise=0.01,
    shift_s=0.5, gain=0.1, pitch=1.0, mix=0.25, head_rate=2e-4, lora_rate=1e-4, decay=0.0, schedule="cosine", wait=2,
    lowest_rate=0.0, warmup=0.1, clip_norm=0.5, batch=4, together=16, epochs=3, patience=2, split="run:first",
    shares=(0.6, 0.2, 0.2), split_seed=1, seed=5, start="old", checkpointing=True, device="cpu", precision="bfloat16",
)
CLASSES = [ProbeConfig, FinetuneConfig, EmbedSettings]


@pytest.mark.parametrize(("settings", "digest"), [
    (PROBE, "2da534292767c9a8cc7f11e000a456da"), (ProbeConfig(("artist",), decays=(0.0,)), "35bf25b75439fdeada98ab8bd9069e9b"),
    (TUNING, "e502f57afed67ac58faa8f8fe8e36652"),
    (FinetuneConfig("kind", frames=True, above=6), "57c5860132420df86f3cf2c99ba48865"),
])
def test_digests_are_those_of_runs_stored_before_settings_were_pydantic_dataclasses(settings, digest):
    assert settings.digest(b"data") == digest


@pytest.mark.parametrize("settings", [PROBE, TUNING], ids=["probe", "finetune"])
def test_settings_survive_a_round_trip_through_yaml(settings, tmp_path):
    text = settings_to_yaml(settings, "abc")
    values, digest = parse_settings(text, "here")
    assert digest == "abc" and type(settings).from_dict(values, "here") == settings
    (tmp_path / "my.yaml").write_text(text)
    assert type(settings).from_file(tmp_path / "my.yaml") == settings
    assert type(settings).from_dict(values, "here").digest(b"data") == settings.digest(b"data")


def test_a_configuration_file_of_an_earlier_run_still_loads(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "columns: [artist]\nspace: mert-v1-95m\ntask: null\nwhere: null\nlayers: [each]\ninput: mean\nprepare: standardise\n"
        "head: linear\nhidden: 512\ndropout: 0.2\nclass_weights: none\nlabel_smoothing: 0.0\noptimizer: adam\n"
        "rates: [0.0001, 0.001, 0.01]\ndecays: [0.0]\nbatch: 64\nepochs: 100\npatience: 10\nsplit: by:track\n"
        "shares: [0.7, 0.1, 0.2]\nsplit_seed: 0\nseeds: 3\ndevice: auto\nprecision: auto\nprotocol: ''\ndigest: abc\n"
    )
    assert ProbeConfig.from_file(tmp_path / "config.yaml") == ProbeConfig(("artist",), space="mert-v1-95m", decays=(0.0,))


def test_other_settings_or_data_give_another_digest():
    others = [replace(PROBE, seeds=4), replace(PROBE, columns=("genre",)), replace(PROBE, rates=(1e-5, 0.2))]
    assert len({PROBE.digest(b"a"), PROBE.digest(b"b"), *(other.digest(b"a") for other in others)}) == 5


@pytest.mark.parametrize(("kind", "values", "message"), [
    (ProbeConfig, {"columns": ["genre"], "sedes": 3},
     "file, setting 'sedes': does not exist. Did you mean 'seeds'\\? The settings are columns, "),
    (ProbeConfig, {"columns": ["genre"], 7: 3}, "file, setting '7': does not exist. The settings are"),
    (ProbeConfig, {"seeds": 3}, "file, setting 'columns': is required. Give one or more texts: Label column to predict"),
    (ProbeConfig, {"columns": ["genre"], "epochs": None},
     "file, setting 'epochs': is empty. Give a whole number of 1 or more, or leave the setting out"),
    (ProbeConfig, {"columns": ["genre"], "epochs": 2.5}, "file, setting 'epochs': 2.5 is not a whole number. Give"),
    (ProbeConfig, {"columns": ["genre"], "epochs": True}, "file, setting 'epochs': True is not a whole number"),
    (ProbeConfig, {"columns": ["genre"], "epochs": "3"}, "file, setting 'epochs': '3' is not a whole number"),
    (ProbeConfig, {"columns": ["genre"], "epochs": 0},
     "file, setting 'epochs': 0 is out of range. Give a whole number of 1 or more"),
    (ProbeConfig, {"columns": ["genre"], "dropout": "much"},
     "file, setting 'dropout': 'much' is not a number. Give a number from 0 to below 1"),
    (ProbeConfig, {"columns": ["genre"], "dropout": True}, "file, setting 'dropout': True is not a number"),
    (ProbeConfig, {"columns": ["genre"], "dropout": float("nan")}, "file, setting 'dropout': nan is not a finite number"),
    (ProbeConfig, {"columns": ["genre"], "rates": ["1e-3", "fast"]},
     "file, setting 'rates': 'fast' is not a number. Give one or more numbers above 0 and below 1000"),
    (ProbeConfig, {"columns": ["genre"], "head": "cnn"}, "file, setting 'head': 'cnn' is not a choice. Choose linear or mlp"),
    (ProbeConfig, {"columns": ["genre"], "shares": [0.5, 0.6, 0.1]}, "file, .*sum to 1"),
    (FinetuneConfig, {"rank": 8}, "file, setting 'column': is required. Give text: Label column to predict"),
    (FinetuneConfig, {"column": "meter", "frames": "yes"},
     "file, setting 'frames': 'yes' is neither true nor false. Give true or false"),
    (FinetuneConfig, {"column": "meter", "frames": 1}, "file, setting 'frames': 1 is neither true nor false"),
    (FinetuneConfig, {"column": True}, "file, setting 'column': True is not text. Give text"),
    (EmbedSettings, {"window_s": 5, "hop_s": 6}, "file, setting 'hop_s': 6 s is out of range for windows of 5 s"),
])
def test_a_refused_value_is_named_with_its_remedy(kind, values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        kind.from_dict(values, "file")


@pytest.mark.parametrize(("kind", "values"), [
    (ProbeConfig, {"columns": ("a",), "epochs": True}), (ProbeConfig, {"columns": ("a",), "epochs": "3"}),
    (ProbeConfig, {"columns": ("a",), "epochs": 3.0}), (ProbeConfig, {"columns": "a"}), (ProbeConfig, {}),
    (ProbeConfig, {"columns": ("a",), "sedes": 3}), (FinetuneConfig, {"column": "a", "alpha": "8"}),
    (FinetuneConfig, {"column": "a", "checkpointing": 1}), (EmbedSettings, {"precision": "int4"}),
])
def test_a_constructor_is_strict_and_raises_an_input_error(kind, values):
    with pytest.raises(InputError, match=r"^setting '\w+': .*\. "):
        kind(**values)
    assert ProbeConfig(("a",), dropout=0) == ProbeConfig(("a",), dropout=0.0)        # an integer where a float is expected
    assert ProbeConfig(["a"], layers=[7]).layers == ("7",)                           # a list where a tuple is expected


def test_a_single_value_is_read_as_a_list_of_one():
    config = ProbeConfig.from_dict({"columns": "genre", "rates": "1e-3", "layers": 7}, "here")
    assert (config.columns, config.rates, config.layers) == (("genre",), (0.001,), ("7",))


@pytest.mark.parametrize("kind", CLASSES)
def test_every_setting_has_a_help_text(kind):
    for field in setting_fields(kind):
        assert field.description[0].isupper() and field.description.endswith("."), field.name
        assert field.required or field.several or field.default is None or type(field.default) is field.kind, field.name


def test_fields_describe_an_option_completely():
    fields = {field.name: field for field in setting_fields(ProbeConfig)}
    assert (fields["columns"].required, fields["columns"].several, fields["columns"].kind) == (True, True, str)
    assert (fields["rates"].kind, fields["rates"].default) == (float, (1e-4, 1e-3, 1e-2))
    assert (fields["space"].optional, fields["space"].kind, fields["space"].default) == (True, str, None)
    assert fields["optimizer"].choices == ("adam", "adamw", "sgd") and fields["optimizer"].default == "adam"
    fields = {field.name: field for field in setting_fields(FinetuneConfig)}
    assert (fields["checkpointing"].kind, fields["checkpointing"].optional) == (bool, True)
    assert (fields["head_rate"].kind, fields["head_rate"].limits) == (float, " above 0")


def test_choices_are_those_of_the_code_that_implements_them():
    probe, tuning, embed = ({field.name: field.choices for field in setting_fields(kind)} for kind in CLASSES)
    assert probe["input"] == tuple(STATS) and probe["prepare"] == PREPARATIONS
    assert probe["task"] == tuning["task"] == TARGET_KINDS
    assert embed["precision"] == ("auto", *PRECISIONS)


@pytest.mark.parametrize("settings", [PROBE, TUNING, EmbedSettings("spectral", window_s=5)])
def test_settings_are_frozen_hashable_and_survive_a_copy(settings):
    assert copy.deepcopy(settings) == settings and hash(settings) == hash(replace(settings))
    with pytest.raises(AttributeError):
        settings.device = "cpu"


@pytest.mark.parametrize(("text", "message"), [
    ("a: [", "my.yaml: cannot be read as YAML"), ("- genre", "my.yaml: holds no settings"), ("", "my.yaml: holds no settings"),
    ("\udcff", "my.yaml: cannot be read as YAML"),
])
def test_a_file_that_is_not_yaml_of_settings_is_named(text, message, tmp_path):
    (tmp_path / "my.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        ProbeConfig.from_file(tmp_path / "my.yaml")


@pytest.mark.parametrize("kind", [Run, FinetuneRun])
def test_damaged_settings_of_a_stored_run_are_an_error_of_the_lake(kind, lake):
    files = kind.folder(lake, "torn")
    files.put_text(CONFIG_FILE, "columns: [")
    files.put_text(METRICS_FILE, "{}")
    config = PROBE if kind is Run else TUNING
    manifest = Manifest(settings=config.identity(), parts={})
    for read in (lambda: kind.find(lake, "torn"), lambda: check_same_run(files, "torn", config, manifest, "experiment")):
        with pytest.raises(LakeError, match=r"(?s)config\.yaml of run 'torn': cannot be read as YAML.*[Dd]elete its folder"):
            read()
    files.remove(CONFIG_FILE)
    check_same_run(files, "torn", config, manifest, "experiment")
    with pytest.raises(LakeError, match=r"run 'torn': has no config\.yaml. Delete its folder"):
        kind.find(lake, "torn")
