"""The commands that train: output for people and programs, and exit codes."""

from __future__ import annotations

import json

import polars as pl
import pytest
from fakes import fill
from typer.testing import CliRunner

from tonelake import views
from tonelake.cli import app
from tonelake.render import show_table
from tonelake.store import Lake

QUICK = ["--rates", "1e-2", "--seeds", "1", "--epochs", "8"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A lake with one run.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("cli") / "lake")
    fill(lake, tracks=24, clips_a_track=10, seed=1)
    done = call(lake, "probe", "artist", *QUICK, "--name", "first")
    return lake, done


def call(lake, *words):
    return CliRunner().invoke(app, [*words, "--lake", lake.uri])


def rows(done) -> list[dict]:
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_probe_prints_layers_for_programs_and_a_summary_for_people(probed):
    _, done = probed
    assert [row["name"] for row in rows(done)] == ["low", "high"]
    assert "Layer high of fake predicts artist with accuracy" in done.stderr
    assert "note: no spectral baseline" in done.stderr
    assert "run first: tonelake probes first" in done.stderr


def test_runs_are_listed_compared_and_read(probed):
    lake, _ = probed
    assert rows(call(lake, "probes"))[0]["run"] == "first"
    assert "accuracy" in rows(call(lake, "probes", "first"))[0]
    assert {row["side"] for row in rows(call(lake, "probes", "first", "--table", "split"))} == {"train", "valid", "test"}
    assert call(lake, "probes", "first", "--report").stdout.startswith("# artist, from fake")
    assert call(lake, "probes", "--report").exit_code == 2
    with pytest.raises(ValueError, match="no run 'nowhere'"):
        CliRunner().invoke(app, ["probes", "nowhere", "--lake", lake.uri], catch_exceptions=False)


def test_tables_fit_eighty_columns(probed, capsys):
    lake, done = probed
    show_table(views.probe_layers(pl.DataFrame(rows(done))))
    show_table(views.probes(pl.DataFrame(rows(call(lake, "probes")))))
    shown = capsys.readouterr().out
    assert "high *" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_predictions_are_written_to_the_terminal_a_file_or_the_clips(probed, tmp_path):
    lake, _ = probed
    found = rows(call(lake, "predict", "first", "--where", "artist = 'Artist 1'"))
    assert len(found) == 40
    assert found[0]["predicted"].startswith("Artist")
    done = call(lake, "predict", "first", "--out", str(tmp_path / "p.csv"))
    assert "240 clips" in done.stderr
    assert len(pl.read_csv(tmp_path / "p.csv")) == 240
    done = call(lake, "predict", "first", "--save")
    assert "artist_predicted, artist_probability written" in done.stderr
    assert lake.clips.read(["artist_predicted"])["artist_predicted"].null_count() == 0


def test_a_config_repeats_a_run(probed, tmp_path):
    lake, _ = probed
    (tmp_path / "again.yaml").write_text(lake.files("probes/first").read("config.yaml"))
    done = call(lake, "probe", "--config", str(tmp_path / "again.yaml"), "--name", "second", "--json")
    first = [row["accuracy"] for row in rows(call(lake, "probes", "first"))]
    assert [row["accuracy"] for row in rows(done)] == first


def test_a_metric_becomes_a_space(probed):
    lake, _ = probed
    done = call(lake, "metric", "artist", "--dim", "3", "--epochs", "2")
    assert {row["figure"] for row in rows(done)} == {"map", "recall_1", "r_precision"}
    assert "tonelake similar CLIP --space fake-artist" in done.stderr
    assert "space fake-artist: 0 new clips" in call(lake, "metric", "--extend", "fake-artist").stderr
    assert call(lake, "metric").exit_code == 2


@pytest.mark.parametrize("words", [["probe", "artist", "--rates", "fast"], ["probe", "artist", "--shares", "a,b"]])
def test_invalid_numbers_are_wrong_usage(probed, words):
    assert call(probed[0], *words).exit_code == 2


def test_probing_works_on_an_object_store(s3):
    """From the lake to predictions, with every file of the run in the store."""
    lake = Lake(f"{s3}/lake")
    fill(lake, tracks=16, clips_a_track=4, seed=1)
    assert len(rows(call(lake, "probe", "artist", *QUICK, "--name", "far"))) == 2
    assert not lake.files("probes/far/partial").names(".safetensors")
    assert rows(call(lake, "probes"))[0]["run"] == "far"
    assert len(rows(call(lake, "predict", "far"))) == 64
    assert "# artist, from fake" in call(lake, "probes", "far", "--report").stdout
