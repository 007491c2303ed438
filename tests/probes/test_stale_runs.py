"""A lake that changed: the same command makes another run, an explicit name is refused, a half-finished run is not resumed."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
from fakes import fill

from tonelake.probes import ProbeConfig, Run, predict, probe, run_training
from tonelake.probes.experiment import Experiment
from tonelake.store import InputError, Lake

CONFIG = ProbeConfig(
    ("genre",), layers=("high",), rates=(1e-2,), decays=(0.0,), seeds=1, epochs=3, split="column:split", device="cpu",
    precision="float32",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A lake with genres, albums of four tracks, a split, and a run named `mine`.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("stale") / "lake")
    fill(lake, tracks=16, clips_a_track=2, seed=1)
    number = pl.col("track").str.slice(5).cast(pl.Int64)
    clips = lake.clips.read(["clip_id", "track"]).with_columns(
        genre=pl.when(number % 2 == 0).then(pl.lit("jaz")).otherwise(pl.lit("rock")), album=pl.format("Album {}", number // 4),
        split=pl.when(number < 10).then(pl.lit("train")).when(number < 12).then(pl.lit("valid")).otherwise(pl.lit("test")),
    )
    lake.clips.set_labels(clips.drop("track"))
    probe(lake, CONFIG, name="mine")
    return lake


@pytest.fixture
def lake(made, tmp_path):
    shutil.copytree(made.uri, tmp_path / "lake")
    return Lake(tmp_path / "lake")


def change(lake, **values) -> None:
    """Set columns of clips: column = {track: value}."""
    clips = lake.clips.read(["clip_id", "track", *values])
    for column, by_track in values.items():
        clips = clips.with_columns(pl.coalesce(pl.col("track").replace_strict(by_track, default=None), column).alias(column))
    lake.clips.update(clips.drop("track"))


def correct_the_split(lake):
    change(lake, split={"track000": "test", "track012": "train"})


def correct_an_album(lake):
    change(lake, album={"track000": "Album 3"})              # now in the training and in the test set


def confirm_duplicates(lake):
    ids = lake.clips.read(["clip_id", "track"]).filter(pl.col("track").is_in(["track000", "track015"]))["clip_id"]
    lake.clips.set_labels(pl.DataFrame({"clip_id": ids, "same_as": [ids[0]] * len(ids)}))


def correct_a_class(lake):
    change(lake, genre={f"track{number:03d}": "jazz" for number in range(0, 16, 2)})


@pytest.mark.parametrize(("correct", "changed"), [
    (correct_the_split, r"the training, validation and test sets \(--split column:split\) changed"),
    (correct_an_album, "column 'album' changed"),
    (confirm_duplicates, "which clips are one track and the confirmed duplicates changed"),
    (correct_a_class, r"1 class name \('jaz' then, 'jazz' now\) changed"),
])
def test_a_corrected_lake_makes_another_run_with_its_own_sets_and_names(lake, correct, changed):
    first = probe(lake, CONFIG)
    assert probe(lake, CONFIG).metrics == first.metrics
    correct(lake)
    with pytest.raises(InputError, match=f"run 'mine': was made from other data: {changed}"):
        probe(lake, CONFIG, name="mine")
    second = probe(lake, CONFIG)
    assert second.name != first.name and Run.named(lake, first.name).metrics == first.metrics
    note, = [note for note in second.metrics["notes"] if "same settings" in note]
    assert note.startswith(f"run {first.name} has the same settings, but was made from other data: ")
    clips = lake.clips.read(["clip_id", "split", "genre"])
    sides = second.table("split").join(clips, on="clip_id")
    assert (sides["side"] == sides["split"]).all() and len(sides) == len(clips)
    assert second.table("classes")["name"].to_list() == sorted(clips["genre"].unique())
    shared = {row["column"]: row["clips"] for row in second.metrics["leaks"]}
    expected = {correct_an_album: ("album", 8), confirm_duplicates: ("track", 2)}.get(correct)
    assert expected is None or shared[expected[0]] == expected[1]
    if correct is correct_the_split:
        assert probe(lake, CONFIG, name="mine", again=True).table("split").equals(second.table("split"))


def test_a_half_finished_run_is_not_resumed_with_other_sets(lake, monkeypatch):
    config = CONFIG.with_(layers=("low", "high"), split="by:track")
    real, calls = Experiment.fit, []

    def dies(self, fold, specs):
        if calls:
            raise KeyboardInterrupt
        calls.append(specs)
        return real(self, fold, specs[:1])

    monkeypatch.setattr(Experiment, "parts", lambda self: [(0, [spec]) for spec in self.specs])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Experiment, "fit", dies)
        probe(lake, config, name="begun")
    partial = lake.files("probes/begun/partial")
    assert len(partial.names(".safetensors")) == 1
    confirm_duplicates(lake)
    with pytest.raises(InputError, match=r"run 'begun' \(half finished\): was made from other data: .*one track"):
        probe(lake, config, name="begun")
    assert len(partial.names(".safetensors")) == 1           # refusing deletes nothing
    done = probe(lake, config, name="begun", again=True)
    assert done.metrics["resumed"] == 0
    sides = dict(done.table("split").select("clip_id", "side").iter_rows())
    tracks = lake.clips.read(["clip_id", "track"]).filter(pl.col("track").is_in(["track000", "track015"]))
    assert len({sides[clip] for clip in tracks["clip_id"]}) == 1


def test_a_run_that_another_process_made_of_other_data_meanwhile_is_not_returned(lake, monkeypatch):
    real = run_training.lock_run

    def meanwhile(files, name):
        monkeypatch.setattr(run_training, "lock_run", real)
        correct_the_split(lake)
        probe(lake, CONFIG, name="new")
        return real(files, name)

    monkeypatch.setattr(run_training, "lock_run", meanwhile)
    with pytest.raises(InputError, match="run 'new': was made from other data"):
        probe(lake, CONFIG, name="new")


def test_fits_without_the_settings_of_their_run_are_not_used(lake):
    run = probe(lake, CONFIG, name="mine")
    part = lake.files("probes/mine/partial")
    part.put("epochs-0-000.safetensors", lambda path: path.write_bytes(b"of an unknown run"))
    for name in ("config.yaml", "metrics.json"):
        run.files.remove(name)
    assert probe(lake, CONFIG, name="mine").metrics["resumed"] == 0


def test_another_version_of_the_code_makes_another_run(lake, monkeypatch):
    first = probe(lake, CONFIG)
    monkeypatch.setattr("tonelake.probes.experiment.PROBE_VERSION", 1_000)
    assert probe(lake, CONFIG).name != first.name
    with pytest.raises(InputError, match="run 'mine': was computed by another version of the code"):
        probe(lake, CONFIG, name="mine")


def test_a_run_of_an_earlier_release_opens_and_predicts_and_is_not_returned_for_new_data(lake):
    """Earlier releases wrote no manifest, and a digest of settings, clips, targets and space."""
    run = Run.named(lake, "mine")
    run.files.remove("manifest.json")
    text = run.files.read("config.yaml")
    run.files.put_text("config.yaml", text.replace(text.split("digest: ")[1].split("\n")[0], "0" * 32))
    old = Run.named(lake, "mine")
    assert old.metrics == run.metrics and len(predict(lake, "mine").table) == 32
    new = probe(lake, CONFIG)
    assert new.name != "mine"
    assert "run mine has the same settings, but comes from an earlier release" in " ".join(new.metrics["notes"])
    with pytest.raises(InputError, match="run 'mine': comes from an earlier release"):
        probe(lake, CONFIG, name="mine")
