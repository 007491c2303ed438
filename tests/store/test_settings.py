"""Settings of runs: from YAML and back, and clear errors for what is no setting."""

from dataclasses import replace

import pytest

from tonelake.finetune import FinetuneConfig, FinetuneRun
from tonelake.probes import ProbeConfig, Run
from tonelake.store import InputError, LakeError
from tonelake.store.runs import CONFIG_FILE, METRICS_FILE, check_same_run
from tonelake.store.settings import parsed, to_plain

PROBE = ProbeConfig(("genre", "mood"), rates=(1e-5, 0.1), layers=("7", "all"), where="year > 1990")
TUNING = FinetuneConfig("meter", head_rate=2e-4, checkpointing=True, targets=("q_proj",), batch=4)


@pytest.mark.parametrize("settings", [PROBE, TUNING], ids=["probe", "finetune"])
def test_settings_come_back_from_their_yaml(settings, tmp_path):
    text = to_plain(settings, "abc")
    values, digest = parsed(text, "here")
    assert digest == "abc" and type(settings).from_dict(values, "here") == settings
    (tmp_path / "my.yaml").write_text(text)
    assert type(settings).from_file(tmp_path / "my.yaml") == settings
    assert type(settings).from_dict(values, "here").digest(b"data") == settings.digest(b"data")


def test_any_other_setting_or_data_is_another_experiment():
    others = [replace(PROBE, seeds=4), replace(PROBE, columns=("genre",)), replace(PROBE, rates=(1e-5, 0.2))]
    assert len({PROBE.digest(b"a"), PROBE.digest(b"b"), *(other.digest(b"a") for other in others)}) == 5


@pytest.mark.parametrize(("kind", "values", "said"), [
    (ProbeConfig, {"columns": ["genre"], "sedes": 3}, "file: no setting 'sedes'; there are columns, "),
    (ProbeConfig, {"columns": ["genre"], 7: 3}, "file: no setting '7'"),
    (ProbeConfig, {"seeds": 3}, "file: names no columns to learn"),
    (ProbeConfig, {"columns": ["genre"], "epochs": None}, "epochs is empty: give it a value, or leave it out"),
    (ProbeConfig, {"columns": ["genre"], "epochs": 2.5}, "epochs 2.5 is not a whole number"),
    (ProbeConfig, {"columns": ["genre"], "epochs": True}, "epochs True is not a whole number"),
    (ProbeConfig, {"columns": ["genre"], "dropout": "much"}, "file: could not convert string to float"),
    (ProbeConfig, {"columns": ["genre"], "rates": ["1e-3", "fast"]}, "file: could not convert string to float"),
    (FinetuneConfig, {"rank": 8}, "file: names no column to learn"),
    (FinetuneConfig, {"column": "meter", "frames": "yes"}, "frames 'yes': true or false"),
])
def test_what_is_no_setting_is_named(kind, values, said):
    with pytest.raises(InputError, match=f"^{said}"):
        kind.from_dict(values, "file")


def test_one_value_stands_for_a_list_of_one():
    config = ProbeConfig.from_dict({"columns": "genre", "rates": "1e-3", "layers": 7}, "here")
    assert (config.columns, config.rates, config.layers) == (("genre",), (0.001,), ("7",))


@pytest.mark.parametrize(("text", "said"), [
    ("a: [", "my.yaml cannot be read as YAML"), ("- genre", "my.yaml holds no settings"), ("", "my.yaml holds no settings"),
    ("\udcff", "my.yaml cannot be read as YAML"),
])
def test_what_is_no_yaml_of_settings_is_named(text, said, tmp_path):
    (tmp_path / "my.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=said):
        ProbeConfig.from_file(tmp_path / "my.yaml")


@pytest.mark.parametrize("kind", [Run, FinetuneRun])
def test_a_stored_run_whose_settings_are_damaged_is_no_fault_of_the_input(kind, lake):
    files = kind.folder(lake, "torn")
    files.put_text(CONFIG_FILE, "columns: [")
    files.put_text(METRICS_FILE, "{}")
    for look in (lambda: kind.find(lake, "torn"), lambda: check_same_run(files, "torn", "digest", "experiment")):
        with pytest.raises(LakeError, match=r"(?s)config\.yaml of run 'torn' cannot be read as YAML.*delete its folder"):
            look()
    files.remove(CONFIG_FILE)
    check_same_run(files, "torn", "digest", "experiment")
    with pytest.raises(LakeError, match=r"run 'torn' has no config\.yaml: delete its folder"):
        kind.find(lake, "torn")
