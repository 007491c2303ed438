"""The experiment with chorales, docs/experiments/chorales.md, from notes to result on a few pieces and two small sounds."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
from experiment_pages import run_page
from soundfonts import write_soundfont

import tonelake
from tonelake.ingest.datasets import chorales

# In each third of the corpus by number, as the page divides it: pieces in G major and e minor, on two tunes.
PIECES = ("bwv117.4", "bwv158.4", "bwv251", "bwv278", "bwv4.8", "bwv86.6", "bwv99.6")

@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="FluidSynth is not installed: package fluidsynth")
def test_the_chorales_run_from_notes_to_result_by_the_commands_of_their_page(tmp_path, monkeypatch):
    monkeypatch.setattr(chorales, "chorale_names", lambda: [f"{piece}.mxl" for piece in PIECES])
    write_soundfont(tmp_path / "TimGM6mb.sf2", {0: [1, 0.5, 0.3], 52: [0.3, 1]})
    (tmp_path / "labels.csv").write_text("BWV,season\n117.4,Annunciation\n999,none\n")
    commands = run_page("chorales", tmp_path, {
        "tonelake ingest chorales": "tonelake ingest chorales --hop 6",
        "/usr/share/sounds/sf2/TimGM6mb.sf2": "TimGM6mb.sf2",
        "tonelake embed": "tonelake embed --encoder spectral",
        "--min-tracks 10": "--min-tracks 1",
        "tonelake map": "tonelake map --method pca",
        "tonelake probe key": "tonelake probe key --epochs 5 --seeds 1 --decays 0",
    })
    printed = {command.text: command.done for command in commands}
    lake = tonelake.open(tmp_path / "lake", progress=False)
    clips = lake.clips.read()
    timbres = ["organ", "TimGM6mb 0", "TimGM6mb 52"]
    assert sorted(set(clips["timbre"])) == sorted(timbres)
    assert clips["piece"].n_unique() == clips["track"].n_unique() == len(PIECES)
    assert len({*clips.group_by("timbre").len()["len"]}) == 1 and clips["recording"].n_unique() == 3 * len(PIECES)
    assert set(clips.filter(piece="bwv117.4")["season"]) == {"Annunciation"} and clips["season"].null_count() < len(clips)
    labelled = [done.stderr for text, done in printed.items() if "--labels" in text]
    assert len(labelled) == 3 and all("1 of 2 rows matched by bwv; without a piece: 999" in text for text in labelled)

    (space,) = lake.spaces.all()
    assert lake.vectors(space).ids().len() == len(clips)
    assert {"keys.csv", "keys.png", "timbres.png"} <= {path.name for path in tmp_path.iterdir()}
    across = next(done for text, done in printed.items() if "--across timbre" in text)
    assert "pairs of one timbre or track are excluded" in across.stderr

    sides = lake.probe_run("keys").table("split").join(clips, on="clip_id")
    assert sides.group_by("piece").agg(pl.col("side").n_unique())["side"].max() == 1
    assert sides.filter(side="test")["timbre"].n_unique() == 3
    runs = (lake.probe_run(name) for name in ("held-out-timbres", "seen-timbres"))
    held_out, seen = (run.table("split").join(clips, on="clip_id") for run in runs)
    assert held_out["clip_id"].n_unique() == seen["clip_id"].n_unique()
    assert held_out.group_by("piece").agg(pl.col("timbre").n_unique())["timbre"].max() == 1
    tested = held_out.filter(side="test").group_by("fold").agg(pl.col("timbre").unique()).sort("fold")
    assert sorted(timbre for (timbre,) in tested["timbre"]) == sorted(timbres)
