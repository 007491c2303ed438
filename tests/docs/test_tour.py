"""The cells of docs/tour.ipynb run in order on a lake like the demo's."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import pytest

import tonelake
from tonelake.embed import have_weights
from tonelake.ingest import write_demo_music

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tour.ipynb"


@pytest.fixture
def notebook() -> dict:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def test_the_notebook_is_valid_and_holds_no_outputs(notebook):
    assert notebook["nbformat"] == 4
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown") and isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
def test_every_cell_runs_on_the_demo_lake(notebook, tmp_path, monkeypatch):
    labels = write_demo_music(tmp_path / "music", pieces=24)
    lake = tonelake.open(tmp_path / "demo-lake", progress=False)
    lake.ingest_folder(tmp_path / "music", seconds=10.0, labels=labels)
    lake.embed("musicnn" if have_weights("musicnn") else "small")        # as the demo where MERT's weights are absent
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), f"{NOTEBOOK.name}:{cell['id']}", "exec")
            exec(code, names)                            # noqa: S102 - the notebook's own code
    assert names["hits"]["rank"].to_list() == [1, 2, 3, 4, 5]
    assert names["query"]["track"] not in names["hits"]["track"].to_list()
    assert names["run"].table("layers")["name"].to_list() == list(names["space"].layers)
