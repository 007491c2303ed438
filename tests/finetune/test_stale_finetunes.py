"""A lake that changed: a fine-tuning is another one, is refused under its old name, and is not resumed with other sets."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from quick import QUICK

from tonelake.finetune import FinetuneRun, finetune
from tonelake.finetune.runs import claim_work, digest_of_start
from tonelake.finetune.setup import make_setup
from tonelake.store import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = replace(QUICK, split="column:fold", epochs=1)
SIDES = ["train"] * 6 + ["valid"] * 2 + ["test"] * 4


@pytest.fixture
def lake(mine):
    """A lake with a split column, `fold`, and albums of three tracks."""
    clips = mine.clips.read(["clip_id", "source"]).sort("source")
    mine.clips.set_labels(clips.select("clip_id").with_columns(
        fold=pl.Series(SIDES), album=pl.format("Album {}", pl.int_range(pl.len()) // 3)
    ))
    return mine


def change(lake, column: str, values: dict[int, object]) -> None:
    """Set a column of clips, by their place in the order of sources."""
    ids = lake.clips.read(["clip_id", "source"]).sort("source")["clip_id"]
    lake.clips.update(pl.DataFrame({"clip_id": [ids[i] for i in values], column: list(values.values())}))


def correct_the_split(lake):
    change(lake, "fold", {0: "test", 8: "train"})


def confirm_duplicates(lake):
    ids = lake.clips.read(["clip_id", "source"]).sort("source")["clip_id"]
    lake.clips.set_labels(pl.DataFrame({"clip_id": [ids[0], ids[11]], "same_as": [ids[0]] * 2}))


@pytest.mark.parametrize(("correct", "changed"), [
    (correct_the_split, ["the training, validation and test sets (--split column:fold)"]),
    (lambda lake: change(lake, "album", {0: "Album 3"}), ["column 'album'"]),
    (confirm_duplicates, ["which clips are one track", "the confirmed duplicates"]),
    (lambda lake: change(lake, "kind", dict.fromkeys(range(1, 12, 2), "quiet")), None),
])
def test_a_correction_changes_the_manifest(lake, correct, changed):
    before = make_setup(lake, CONFIG).manifest()
    assert make_setup(lake, CONFIG).manifest() == before
    correct(lake)
    after = make_setup(lake, CONFIG).manifest()
    assert after.digest != before.digest
    if changed is not None:
        assert after.changed_parts(before) == changed
    else:
        assert any("class name" in part for part in after.changed_parts(before))


def test_the_first_tag_of_a_clip_is_part_of_the_manifest(lake):
    config = replace(CONFIG, column="tags")
    before = make_setup(lake, config).manifest()
    tags = lake.clips.read(["clip_id", "tags"]).with_columns(pl.col("tags").list.reverse())
    lake.clips.update(tags)
    assert make_setup(lake, config).manifest().changed_parts(before) == ["the first tags of the clips"]


def test_the_work_folder_of_another_run_is_emptied(tmp_path):
    work = tmp_path / "adapters" / "x" / "work"
    claim_work(work, "a")
    (work / "checkpoint-3").mkdir()
    (work / "pooled-0-0-1-ab.bin").write_bytes(b"x")
    claim_work(work, "a")
    assert (work / "checkpoint-3").is_dir()                  # resumed
    claim_work(work, "b")
    assert [file.name for file in work.iterdir()] == ["digest"]
    (work / "digest").unlink()                               # as left by an earlier release
    (work / "seed-0.safetensors").write_bytes(b"x")
    claim_work(work, "b")
    assert [file.name for file in work.iterdir()] == ["digest"]


def test_initial_weights_count_by_their_content(lake, tmp_path):
    folder = tmp_path / "peft"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"one")
    first = digest_of_start(lake, str(folder))
    shutil.copytree(folder, tmp_path / "copy")
    assert digest_of_start(lake, str(tmp_path / "copy")) == first
    (folder / "adapter_model.safetensors").write_bytes(b"two")
    assert digest_of_start(lake, str(folder)) != first
    file = tmp_path / "old.pt"
    assert digest_of_start(lake, str(file)) == "absent"
    file.write_bytes(b"weights")
    assert digest_of_start(lake, str(file)) not in (first, "absent")
    with pytest.raises(InputError, match="no fine-tuning 'nothing'"):
        digest_of_start(lake, "nothing")


@pytest.mark.slow
def test_fine_tunings_are_neither_returned_nor_resumed_with_other_sets(lake, monkeypatch, caplog):
    done = finetune(lake, config=CONFIG)
    longer = replace(CONFIG, epochs=3)

    def stop(line):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tonelake.finetune.trainer.epoch_line", stop)
        finetune(lake, config=longer, name="begun")
    work = Path(lake.uri) / "adapters" / "begun" / "work"
    assert (work / "digest").is_file() and list(work.glob("pooled-*.bin")) and list(work.rglob("checkpoint-*"))
    correct_the_split(lake)
    with pytest.raises(InputError, match=f"run '{done.name}': was made from other data: the training, "):
        finetune(lake, config=CONFIG, name=done.name)
    with pytest.raises(InputError, match=r"run 'begun' \(half finished\): was made from other data: the training"):
        finetune(lake, config=longer, name="begun")
    # The settings of a run on another machine may be gone while this machine still has its work folder.
    for name in ("config.yaml", "manifest.json"):
        FinetuneRun.folder(lake, "begun").remove(name)
    with caplog.at_level("INFO", "tonelake.finetune"):
        begun = finetune(lake, config=longer, name="begun")
    assert not any("resuming from" in message for message in caplog.messages)
    test = lake.clips.ids("fold = 'test'").sort().to_list()
    for run in (begun, finetune(lake, config=CONFIG)):
        assert run.name != done.name
        assert run.table("split").filter(side="test")["clip_id"].sort().to_list() == test
    assert run.metrics["notes"][-1].startswith(f"run {done.name} has the same settings, but was made from other data: the ")
    started = replace(longer, start="begun")
    before = make_setup(lake, started).manifest()
    for name in ("adapter/adapter_model.safetensors", "head.safetensors"):       # another fine-tuning under its name
        shutil.copy(Path(run.files.uri) / name, Path(begun.files.uri) / name)
    assert make_setup(lake, started).manifest().changed_parts(before) == ["the initial weights"]
