"""The page docs/experiments/stems.md on a tiny tree like Slakh's: from MIDI and audio to four adapters compared by note F1."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from experiment_pages import run_page
from slakh_tree import STEMS, make_slakh_tree, notes_of

import tonelake

SONGS, SECONDS = 10, 6.0                 # two in the validation and two in the test set
NOTES = ("Bass", "Guitar", "Piano")      # the instruments with pitches


@pytest.fixture(scope="module")
def page(tmp_path_factory, checkpoints):
    """The commands of the page with what they printed, and the lake."""
    folder = tmp_path_factory.mktemp("stems")
    make_slakh_tree(folder / "slakh2100", SONGS, SECONDS)
    small = (
        f"--encoder {checkpoints / '95M-tiny'} --lowest 30 --highest 80 --rank 4 --hidden 32 --dropout 0 --window-s 2 "
        "--crop-s 6 --together 2 --batch 2 --lora-rate 3e-3 --head-rate 5e-3 --device cpu --precision float32"
    )
    commands = run_page("stems", folder, {
        "--encoder mert-95m": small, "--epochs 30": "--epochs 4", "--keep-every 5": "--keep-every 2",
        "--warmup-steps 500": "--warmup-steps 2", "--epoch 15": "--epoch 2",
    })
    printed = {command.text: command.done.stdout for command in commands}
    return printed, tonelake.open(folder / "lake", progress=False)


def rows_of(printed, command):
    return [json.loads(line) for line in printed[command].splitlines()]


def onset_f1(lake, run, instruments):
    """The mean over test clips of the F1 of onsets by mir_eval, against the notes that the tree was rendered from."""
    from mir_eval.transcription import precision_recall_f1_overlap

    numbers = [i for i, stem in enumerate(STEMS) if stem.instrument in instruments]
    found = run.table("events").partition_by("clip_id", as_dict=True)
    values = []
    for clip, track in run.table("scores").filter(model="tuned").select("clip_id", "track").iter_rows():
        song = int(track.removeprefix("Track"))
        played = sorted({
            (round(start * 960), pitch): (start, end, pitch)
            for number in numbers for start, end, pitch, _ in notes_of(song, number, SECONDS)
        }.values())
        own = found.get((clip,), run.table("events").clear())
        estimate = own.select("start_s", "end_s").to_numpy().astype(float)
        if not len(estimate):
            values.append(0.0)
            continue
        reference = np.array(played)
        hertz = [440 * 2 ** ((np.asarray(pitch, float) - 69) / 12) for pitch in (reference[:, 2], own["pitch"].to_numpy())]
        values.append(precision_recall_f1_overlap(
            reference[:, :2], hertz[0], np.maximum(estimate, estimate[:, :1] + [[0, 1e-3]]), hertz[1], offset_ratio=None
        )[2])
    return float(np.mean(values))


@pytest.mark.slow
@pytest.mark.no_cover
def test_mix_and_bass_adapter_are_compared_by_note_f1_on_the_same_songs(page):
    """Against the notes that the audio was rendered from, not those that were read from its MIDI files."""
    printed, lake = page
    runs = {name: lake.finetune_run(name) for name in ("mix", "bass")}
    for name, instruments in (("mix", NOTES), ("bass", ("Bass",))):
        run = runs[name]
        value = run.metrics["figures"]["onset_f1"]["value"]
        assert value == pytest.approx(onset_f1(lake, run, instruments), abs=0.02)
        assert run.metrics["judged"] == 2 and run.config.events == "notes"
    assert runs["bass"].metrics["figures"]["onset_f1"]["value"] > 0.1                    # four pitches, four epochs
    sides = [run.table("split").select("track", "side").unique().sort("track") for run in runs.values()]
    assert sides[0].equals(sides[1]) and sides[0]["side"].value_counts().sort("side").rows() == [
        ("test", 2), ("train", 6), ("valid", 2),
    ]
    mix, bass = rows_of(printed, "tonelake adapters mix bass guitar piano")[:2]
    for row in (mix, bass):
        scores = runs[row["run"]].table("scores").filter(model="tuned")
        assert row["figure"] == "onset_f1" and row["tracks"] == 2 and row["value"] == pytest.approx(scores["onset_f1"].mean())
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert bass["away"] == pytest.approx(bass["value"] - mix["value"])
    assert bass["away_low"] <= bass["away"] <= bass["away_high"] and mix["away_low"] is None


@pytest.mark.slow
@pytest.mark.no_cover
def test_the_stems_page_runs_from_a_folder_like_slakhs_to_four_adapters(page):
    printed, lake = page
    (plan,) = (text for text in printed if "--plan" in text)
    planned = {row["stem"]: row for row in rows_of(printed, plan)}
    assert set(planned) == {"mix", "bass", "guitar", "piano", "in all"}
    assert sum("measured here; clips counted" in row["how"] and "those of" not in row["how"] for row in planned.values()) == 1
    assert planned["bass"]["audio_hours"] == pytest.approx(SONGS * SECONDS / 3600) and planned["bass"]["tracks"] == SONGS
    assert planned["in all"]["hours"] == pytest.approx(sum(planned[s]["hours"] for s in ("mix", "bass", "guitar", "piano")))
    assert lake.events.summary().filter(kind="note")["recordings"].item() == 4 * SONGS
    compared = rows_of(printed, "tonelake adapters mix bass guitar piano")
    assert [row["run"] for row in compared] == ["mix", "bass", "guitar", "piano"] and any(row["tied"] for row in compared)
    config = lake.finetune_run("guitar").config
    assert (config.mix, config.mix_stems) == (0.5, 4)
    assert (config.schedule, config.warmup_steps, config.cosine_floor) == ("cosine", 2, 1e-6)
    assert config.where == "stem = 'guitar'" and lake.finetune_run("mix").config.mix == 0
    epoch = rows_of(printed, "tonelake adapters bass --epoch 2")
    assert {row["epoch"] for row in epoch} == {2} and "onset_f1" in {row["figure"] for row in epoch}
    report = printed["tonelake adapters bass --report"]
    assert "## Notes by octave" in report and "frozen" in report and "onset F1" in report and "mix" in report
    groups = pl.DataFrame(rows_of(printed, "tonelake adapters mix --table groups"))
    assert set(groups.filter(by="instrument")["group"]) == {"bass", "guitar", "piano"}
    drums = lake.finetune_run("drums")
    assert (drums.config.events, drums.config.column, drums.metrics["main"]) == ("onsets", "onsets", "f1")
    assert {row["run"] for row in rows_of(printed, "tonelake adapters")} == {"mix", "bass", "guitar", "piano", "drums"}
    assert not lake.spaces.get(None).adapter and not len(lake.vectors(lake.spaces.get(None)).ids())    # nothing was embedded
