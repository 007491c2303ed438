"""Runs on disk: a damaged one is named with its remedy, by reading and by `verify`; one of other data with what changed."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest

from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.runs import FinetuneRun
from tonelake.probes.config import ProbeConfig
from tonelake.probes.runs import Run
from tonelake.store import (
    InputError,
    LakeError,
    Manifest,
    check_same_run,
    notes_on_earlier_runs,
    read_manifest,
    write_manifest,
)
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


# -- identity


def manifest(kind, **parts: str) -> Manifest:
    known = {"code": "1", "clips": "a", "targets": "b", "names": "c", "sides": "d", "songs": "e", "column album": "f"}
    return Manifest(settings=CONFIGS[kind].identity(), parts=known | parts, clips=3, names=("jaz", "rock"))


@pytest.fixture
def recorded(kind, lake):
    """The files of a finished run `x` with a manifest."""
    files = lake.files(f"{kind.kind}/x")
    write_manifest(files, manifest(kind))
    files.put_text("config.yaml", settings_to_yaml(CONFIGS[kind], manifest(kind).digest))
    files.put_text("metrics.json", json.dumps(METRICS[kind]))
    return files


def check(kind, files, now, config=None, **more):
    check_same_run(files, "x", config or CONFIGS[kind], now, "experiment", **more)


@pytest.mark.parametrize(("parts", "said"), [
    ({"sides": "other"}, r"the training, validation and test sets \(--split by:track\) changed"),
    ({"songs": "other"}, "which clips are one track changed"),
    ({"column album": "other"}, "column 'album' changed"),
    ({"column artist": "new"}, "column 'artist' changed"),
    ({"start": "new"}, "the initial weights changed"),
    ({"names": "other"}, r"1 class name \('jaz' then, 'jazz' now\) changed"),
    ({"sides": "other", "column album": "g"}, "and column 'album' changed"),
    ({"clips": "other", "sides": "other", "songs": "other"}, r"the clips \(3 then, 4 now\) changed\."),
    ({"code": "2"}, r"another version of the code\. Choose"),
    ({"code": "2", "targets": "z"}, "another version of the code and from other data: the labels changed"),
])
def test_a_run_of_other_data_is_refused_with_what_changed(kind, recorded, parts, said):
    now = manifest(kind, **parts)
    if "names" in parts:
        now = replace(now, names=("jazz", "rock"))
    if "clips" in parts:
        now = replace(now, clips=4)
    with pytest.raises(InputError, match=f"run 'x': was .*{said}.*--again"):
        check(kind, recorded, now)
    check(kind, recorded, now, again=True)                   # replaces it
    recorded.remove("metrics.json")
    with pytest.raises(InputError, match=r"run 'x' \(half finished\): was "):
        check(kind, recorded, now)


def test_the_same_manifest_is_accepted_and_other_settings_are_named(kind, recorded):
    check(kind, recorded, manifest(kind))
    config = replace(CONFIGS[kind], split_seed=4)
    other = replace(manifest(kind), settings=config.identity())
    for again in (False, True):
        with pytest.raises(InputError, match=r"holds another experiment, with split_seed 0 instead of 4\. Choose"):
            check(kind, recorded, other, config, again=again)


def test_a_run_of_an_earlier_release_is_neither_returned_nor_replaced_silently(kind, files, lake):
    with pytest.raises(InputError, match=r"run 'x': comes from an earlier release, which did not record its sets.*--again"):
        check(kind, files, manifest(kind))
    note, = notes_on_earlier_runs(lake, kind, manifest(kind))
    assert note.startswith("run x has the same settings, but comes from an earlier release")
    assert kind.find(lake, "x").config == CONFIGS[kind] and [run.name for run in kind.all(lake)] == ["x"]


def test_the_newest_earlier_run_of_the_same_settings_is_noted(kind, recorded, lake):
    assert notes_on_earlier_runs(lake, kind, manifest(kind)) == []                   # the run itself
    newer = lake.files(f"{kind.kind}/newer")
    write_manifest(newer, manifest(kind, songs="g"))
    newer.put_text("config.yaml", settings_to_yaml(CONFIGS[kind], "y"))
    newer.put_text("metrics.json", json.dumps(METRICS[kind] | {"finished": "2026-02-01T00:00:00.000+00:00"}))
    lake.files(f"{kind.kind}/torn").put_text("config.yaml", "columns: [")
    note, = notes_on_earlier_runs(lake, kind, manifest(kind, sides="other", songs="g"))
    assert note.startswith("run newer has the same settings, but was made from other data: the training")
    other = replace(manifest(kind), settings=replace(CONFIGS[kind], split_seed=4).identity())
    assert notes_on_earlier_runs(lake, kind, other) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"digest": "x", "settings": {}, "parts": {}, "clips": 1, "names": []}'])
def test_a_damaged_manifest_counts_as_unrecorded(kind, recorded, text):
    assert read_manifest(recorded) == manifest(kind)
    assert read_manifest(recorded, "other") is None
    recorded.put_text("manifest.json", text)
    assert read_manifest(recorded) is None
