"""Measured figures in README and docs equal bench/results, and their paragraphs name machine and commit."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SPEC = importlib.util.spec_from_file_location("make_figures", ROOT / "docs" / "make_figures.py")
assert SPEC is not None and SPEC.loader is not None
make_figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_figures)
MACHINES = ("with AMX", "EPYC", "Xeon", "H200")              # words by which texts name a machine, most specific first
QUOTED = {page.name: page.read_text(encoding="utf-8") for page in make_figures.pages()}
MARKED = [name for name, text in QUOTED.items() if make_figures.MARK.search(text)]


def test_pages_quote_benchmarks():
    assert {"README.md", "finetuning.md", "gestures.md", "probing.md", "searching.md"} <= set(MARKED)


@pytest.mark.parametrize("name", MARKED)
def test_quoted_figures_are_those_of_the_results(name):
    """If a benchmark was measured again: python docs/make_figures.py."""
    assert make_figures.renew(QUOTED[name]) == QUOTED[name]


@pytest.mark.parametrize("name", MARKED)
def test_quoted_figures_name_machine_and_commit(name):
    for paragraph in re.split(r"\n\n|\n(?=- )", QUOTED[name]):
        for bench in {mark["name"] for mark in make_figures.MARK.finditer(paragraph)}:
            about = make_figures.results(bench)["about"]
            assert about["commit"].split()[0] in paragraph, (bench, paragraph)
            machine = next(word for word in MACHINES if word in about["machine"])
            assert machine in " ".join(paragraph.split()), (bench, machine, paragraph)


def test_a_figure_that_was_measured_again_is_rewritten(monkeypatch):
    monkeypatch.setattr(make_figures, "results", lambda name: {
        "ratios": {"speed": 2.345}, "about": {"commit": "abc1234 and changes"}, "ms": {"a, b": 1234.5},
    })
    page = "1.0<!-- x: speed --> times, 9<!-- x: ms / a, b --> ms, commit 0<!-- x: about / commit -->, 2.3 times"
    assert make_figures.renew(page) == (
        "2.3<!-- x: speed --> times, 1,234<!-- x: ms / a, b --> ms, commit abc1234<!-- x: about / commit -->, 2.3 times"
    )


def test_no_text_compares_with_an_unnamed_loop():
    for name, text in QUOTED.items():
        assert "plain loop" not in text, name


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_every_result_names_date_machine_and_commit_in_both_files(path):
    about = json.loads(path.read_text(encoding="utf-8"))["about"]
    report = path.with_suffix(".md").read_text(encoding="utf-8")
    for key in ("date", "machine", "commit", "versions"):
        assert f"- {key}: {about[key]}\n" in report
