"""The recipes of docs/extending.md: the code blocks of the page are followed once each."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fakes import fill
from sounds import melody, write

import tonelake
from tonelake.store import Lake

HOME = Path(__file__).resolve().parents[2]
PAGE = (HOME / "docs" / "extending.md").read_text(encoding="utf-8")


def block(title: str) -> str:
    """Return the code block of the page with this title."""
    found = re.findall(rf'```\w+ title="{re.escape(title)}"\n(.*?)```', PAGE, re.S)
    assert len(found) == 1, f"{title}: {len(found)} code blocks"
    return found[0]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package of the page, importable, with the entry points of its pyproject.toml as if it were installed."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    for name in ("loudness", "cowbells"):
        (tmp_path / "my_package" / f"{name}.py").write_text(block(f"my_package/{name}.py"))
    project = tomllib.loads(block("pyproject.toml"))["project"]
    info = tmp_path / f"my_package-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


def test_the_encoder_is_found_by_location_and_by_name_and_its_vectors_are_searched(package, tmp_path):
    for number in range(4):
        sound = melody(3, seed=number, rate=16_000) * (0.1 + 0.2 * number)
        write(tmp_path / "music" / f"{number}.wav", sound, rate=16_000)
    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingest_folder(tmp_path / "music", seconds=3.0)
    report = lake.embed("my_package.loudness:Loudness", frames=["log"])
    assert report.new == 4 and not report.failed
    again = lake.embed("loudness")
    assert (again.space, again.new, again.known) == (report.space, 0, 4)
    ids, vectors = lake.vectors(report.space).layer(0)
    levels = dict(zip(ids, vectors.mean(axis=1), strict=True))
    by_file = lake.clips.read(["clip_id", "source"]).sort("source")["clip_id"]
    assert np.all(np.diff([levels[clip] for clip in by_file]) > 0)               # louder files have more energy
    assert len(lake.similar(by_file[0], layer="log", k=3)) == 3
    assert lake.frames(report.space).read(by_file[0], layer=1).states.shape == (30, 4)


def test_the_data_set_is_ingested_with_its_labels(package, tmp_path):
    for maker in ("acme", "zeta"):
        for name in ("large-01", "small-01"):
            write(tmp_path / "set" / maker / f"{name}.wav", melody(2, seed=len(maker + name), rate=16_000), rate=16_000)
    write(tmp_path / "set" / "zeta" / "small-02.wav", melody(2, seed=99, rate=16_000), rate=16_000)
    lake = tonelake.open(tmp_path / "lake", progress=False)
    report = lake.ingest_dataset("cowbells", tmp_path / "set")
    assert not report.failed
    clips = lake.clips.read(["maker", "size", "dataset"])
    assert set(clips["dataset"]) == {"cowbells"} and set(clips["maker"]) == {"acme", "zeta"}
    assert set(clips["size"]) == {"large", "small"}
    from tonelake.ingest import known_datasets

    assert known_datasets()["cowbells"].licence == "CC-BY-4.0"


def test_the_index_kind_is_built_and_used(lake, monkeypatch):
    from tonelake.index.search import approximate

    monkeypatch.setattr(approximate, "KINDS", approximate.KINDS.copy())
    from tonelake.index.search import faiss_files, stored_index

    monkeypatch.setattr(stored_index, "KINDS", approximate.KINDS)
    monkeypatch.setattr(faiss_files, "KINDS", approximate.KINDS)
    exec(block("index/search/approximate.py"), vars(approximate))                # noqa: S102 - the page's own code
    fill(lake, 60, 20, seed=0)
    opened = tonelake.open(lake.uri, progress=False)
    exact = opened.similar(lake.clips.ids()[0], layer="high", k=5)
    assert "ivf-flat" in " ".join(opened.build_indexes(["high"], kind="ivf-flat"))
    found = opened.similar(lake.clips.ids()[0], layer="high", k=5)
    assert len(set(found["clip_id"]) & set(exact["clip_id"])) >= 4


def test_the_page_lists_its_table_and_fits_the_navigation(tmp_path, monkeypatch):
    from streamlit.testing.v1 import AppTest

    lake = Lake(tmp_path / "lake")
    fill(lake, 8, 3, seed=0)
    (tmp_path / "durations.py").write_text(block("ui/pages/durations.py"))
    from tonelake.ui import frame

    monkeypatch.setenv("TONELAKE_LAKE", lake.uri)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    test = AppTest.from_file(str(tmp_path / "durations.py"), default_timeout=60)
    test.query_params["column"] = "artist"
    test.run()
    assert not test.exception, test.exception
    table = pl.from_pandas(test.dataframe[0].value)
    assert dict(table.iter_rows()) == {"Artist 0": 120.0, "Artist 1": 120.0}
    pages = dict(frame.PAGES)
    exec(block("ui/frame.py"), {"PAGES": pages})                         # noqa: S102 - the page's own code
    assert pages == frame.PAGES | {"durations": "Durations"} and pages["library"] == "Library"
    assert all((HOME / f"ui/pages/{name}.py").exists() for name in frame.PAGES)


def patched(text: str, diff: str) -> str:
    """Apply the blocks of a diff without context: removed lines, which must occur, are replaced by the added ones."""
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.M):
        before, after = (re.sub(r"^[-+]", "", part, flags=re.M) for part in (old, new))
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def test_the_label_kind_is_decided_by_the_changed_module(tmp_path):
    text = (HOME / "store" / "columns.py").read_text(encoding="utf-8")
    file = tmp_path / "columns.py"
    file.write_text(patched(text, block("store/columns.py")))
    spec = importlib.util.spec_from_file_location("changed_columns", file)
    columns = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(columns)
    duration = pl.Duration("us")
    assert columns.kind_of(duration) == "duration" and columns.is_number(duration) and not columns.can_group(duration)
    assert columns.kind_of(pl.Int64()) == "integer" and columns.can_group(pl.String()) and not columns.can_group(pl.Float64())
