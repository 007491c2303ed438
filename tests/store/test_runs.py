"""Runs on disk: a damaged one is named with its remedy, when it is read and by `verify`."""

from __future__ import annotations

import json

import polars as pl
import pytest

from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.runs import FinetuneRun
from tonelake.probes.config import ProbeConfig
from tonelake.probes.runs import Run
from tonelake.store import LakeError
from tonelake.store.settings import settings_to_yaml
from tonelake.verify import verify

COMMON = {"summary": "s", "finished": "2026-01-01T00:00:00.000+00:00", "main": "accuracy", "space": "fake", "clips": 3}
METRICS = {
    Run: COMMON | {"task": "multiclass", "figures": {"accuracy": {}}, "baselines": {}, "fits": 1},
    FinetuneRun: COMMON | {"figures": {"accuracy": {}}, "trainable": 1, "epochs": 1},
}
CONFIGS = {Run: ProbeConfig(columns=("artist",)), FinetuneRun: FinetuneConfig(column="artist")}


@pytest.fixture(params=METRICS)
def kind(request):
    return request.param


@pytest.fixture
def files(kind, lake):
    """The files of a finished run `x` that listing needs."""
    files = lake.files(f"{kind.kind}/x")
    files.put_text("config.yaml", settings_to_yaml(CONFIGS[kind], "digest"))
    files.put_text("metrics.json", json.dumps(METRICS[kind]))
    return files


def test_a_complete_run_is_found(kind, files, lake):
    run = kind.find(lake, "x")
    assert run.metrics == METRICS[kind] and run.config == CONFIGS[kind] and verify(lake).is_empty()


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "7", "{}", '"x"', '{"summary": 1, "finished": "2026"}'])
def test_invalid_metrics_are_named(kind, files, lake, text):
    files.put_text("metrics.json", text)
    with pytest.raises(LakeError, match=r"metrics\.json of run 'x': cannot be read \(.+\)\. Delete its folder"):
        kind.all(lake)
    found = verify(lake)
    assert found.select("what", "where").rows() == [("run", f"{kind.kind}/x")]


def test_each_metric_has_to_be_present_and_of_its_type(kind, files, lake):
    for key in ("summary", "finished", *kind.types):
        rest = {name: value for name, value in METRICS[kind].items() if name != key}
        files.put_text("metrics.json", json.dumps(rest))
        with pytest.raises(LakeError, match=f"no '{key}'"):
            kind.find(lake, "x")
        files.put_text("metrics.json", json.dumps(rest | {key: None}))
        with pytest.raises(LakeError, match=f"{key} is None"):
            kind.find(lake, "x")


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml"])
def test_files_that_are_not_text_are_named(kind, files, lake, name):
    files.put(name, lambda path: path.write_bytes(b"{\xff\xfe"))
    with pytest.raises(LakeError, match=rf"{kind.kind}/x/{name}: is damaged \(not UTF-8 text from byte 1 on\)"):
        kind.find(lake, "x")
    assert verify(lake).filter(pl.col("what") == "run")["problem"].str.contains("is damaged").all()
