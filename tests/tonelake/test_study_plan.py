"""A study of artists is planned before any file exists."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run

from tonelake import study_plan
from tonelake.embed import EmbedSettings
from tonelake.store import InputError
from tonelake.study_plan import plan_study


@pytest.fixture(scope="module")
def plan():
    """A plan of 30 artists with 4 short tracks of two clips each, timed on 80 clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_plan, "COMPARED_CLIPS", 80)
        patch.setattr(study_plan, "TIMINGS", 1)
        return plan_study(
            30, 4, EmbedSettings("fakes:FakeEncoder"), track_s=4.0, seconds=2.0, per_track=2, workers=3, price=2.0
        )


def test_a_study_is_extrapolated_from_a_few_files_and_leaves_nothing_behind(plan):
    assert (plan.total_tracks, plan.clips, plan.compared) == (120, 240, 80)
    assert plan.embedding.hours == pytest.approx(240 * 2 / 3600)
    assert plan.embedding.disk_bytes == 240 * (2 * 10 * 2 + 40)
    assert plan.embedding.seconds == pytest.approx(480 / plan.embedding.speed)
    assert plan.ingest_total_s == pytest.approx(120 * plan.ingest_s / 3)
    assert 0 < plan.layers_s < 60 and 0 < plan.pairs_s < 60
    assert plan.seconds == pytest.approx(plan.ingest_total_s + plan.embedding.seconds + plan.layers_s + plan.pairs_s)
    assert plan.cost == pytest.approx(plan.seconds / 3600 * 2.0)
    assert plan.embedding.memory_bytes > 50e6 and plan.compare_bytes == 2 * 8 * 240 * 6
    assert not list(Path(tempfile.gettempdir()).glob("tonelake-plan-*/lake/spaces"))


def test_every_printed_figure_says_whether_it_was_measured_or_derived(plan):
    lines = str(plan).splitlines()
    assert [line.split()[0] for line in lines] == ["study", "ingest", "embed", "compare", "time", "disk", "memory", "cost"]
    assert all("measured" in line or "derived" in line for line in lines)
    assert "extrapolated with the square" in lines[3] and "divided by 3 processes" in lines[1]
    assert re.search(r"s a track; derived", lines[4]) and re.search(r"at 2 per hour, \S+ a track; derived", lines[7])
    free = replace(plan, embedding=replace(plan.embedding, price=0.0), compared=240)
    assert "extrapolated" not in str(free) and "add --price" in str(free)


def test_times_grow_with_the_square_of_clips_only_in_the_part_that_grows(monkeypatch):
    monkeypatch.setattr(study_plan, "COMPARED_CLIPS", 40)

    def timed(folder, space, artists, clips, clips_a_track):
        return 1 + 1e-3 * (artists * clips) ** 2, float(artists)

    monkeypatch.setattr(study_plan, "time_sample", timed)
    found = study_plan.time_comparison(Path("x"), None, 100, 10, 2)
    assert found == (pytest.approx(1 + 1e-3 * 1_000**2), pytest.approx(4 + 2 * (1_000**2 - 40**2) / (40**2 - 20**2)), 40)
    assert study_plan.time_comparison(Path("x"), None, 4, 10, 2)[2] == 40


def test_the_command_needs_no_lake(tmp_path, monkeypatch, plan):
    asked = {}
    monkeypatch.setattr(study_plan, "plan_study", lambda *numbers, **choice: asked.update(choice, numbers=numbers) or plan)
    done = run(
        "embed", "--plan", "--artists", 30, "--tracks", 4, "--per-track", 2, "--price", 2, "--encoder", "spectral",
        lake=tmp_path / "lake",
    )
    assert done.returncode == 0 and done.stdout == f"{plan}\n" and not (tmp_path / "lake").exists()
    assert asked["numbers"][:2] == (30, 4) and asked["numbers"][2].encoder == "spectral" and asked["per_track"] == 2
    assert run("embed", "--artists", 30, lake=tmp_path / "lake").returncode == 2


def test_a_study_that_allows_no_comparison_is_refused():
    with pytest.raises(InputError, match=r"1 artists × 4 tracks: nothing to compare"):
        plan_study(1, 4, EmbedSettings("spectral"))
    with pytest.raises(InputError, match="tracks of 0 s: not supported"):
        plan_study(2, 4, EmbedSettings("spectral"), track_s=0.0)
