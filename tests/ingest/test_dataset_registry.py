"""Data sets found by discovery: the package's own, and those of other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_files import sound, text
from typer.testing import CliRunner

from tonelake import cli, ingest
from tonelake.store import InputError, MissingExtra

HOME = Path(__file__).parents[2]
SETS = ("fma", "giantsteps", "gtzan", "jamendo", "magnatagatune", "meter2800", "musdb", "nsynth", "slakh", "wikimeter")


def test_every_data_set_is_a_command(tmp_path):
    commands = CliRunner().invoke(cli.app, ["ingest", "--help"]).output
    assert all(name in commands for name in SETS)
    sound(tmp_path / "set" / "genres" / "pop" / "pop.00000.wav", 0, seconds=5.0)
    done = CliRunner().invoke(cli.app, [
        "ingest", "gtzan", str(tmp_path / "set"), "--lake", str(tmp_path / "lake"), "--seconds", "2", "--workers", "1",
    ])
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(cli.app, ["ingest", "fma", str(tmp_path / "set"), "--lake", str(tmp_path / "lake")])
    assert wrong.exit_code != 0


@pytest.mark.parametrize(("module", "call", "words"), [
    ("datasets", lambda lake, folder: ingest.ingest_hf(lake, folder), "Hugging Face data sets"),
    ("mirdata", lambda lake, folder: ingest.ingest_mirdata(lake, "gtzan_genre", folder), "data sets by mirdata"),
])
def test_a_library_that_is_not_installed_is_named_with_its_extra(lake, tmp_path, monkeypatch, module, call, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{words}: .* not installed\. Install with"):
        call(lake, tmp_path)


def test_every_module_of_the_package_is_a_data_set_with_its_terms():
    found = ingest.known_datasets()
    assert tuple(found) == SETS
    for dataset in found.values():
        assert dataset.title and dataset.citation and dataset.licence and dataset.layout
        assert not dataset.title.endswith(".") and "20" in dataset.citation          # a year


MINI = """
from tonelake.ingest import DataSet, Listed, ListedFile, audio_below

def read(folder):
    return Listed([ListedFile(path, path.stem, {"mood": path.parent.name}) for path in audio_below(folder)])

DATASET = DataSet(
    title="Mini: moods", citation="Nobody 2026", licence="CC0", layout="calm/1.wav", read=read, seconds=2.0,
)
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """An installed package with four entry points: one data set, and three that cannot be used."""
    home = tmp_path / "site"
    text(home / "minisets" / "mini.py", MINI)
    text(home / "minisets" / "broken.py", "import no_such_module")
    text(home / "minisets" / "other.py", "DATASET = 7")
    text(home / "minisets" / "__init__.py", "")
    names = {"mini": "mini", "broken": "broken", "other": "other", "gtzan": "mini"}
    info = home / "minisets-1.0.dist-info"
    text(info / "METADATA", "Metadata-Version: 2.1", "Name: minisets", "Version: 1.0")
    text(info / "entry_points.txt", "[tonelake.datasets]", *(f"{name} = minisets.{at}:DATASET" for name, at in names.items()))
    monkeypatch.syspath_prepend(str(home))
    yield home
    for name in [name for name in sys.modules if name.startswith("minisets")]:
        del sys.modules[name]


def test_a_data_set_of_another_package_is_ingested_by_its_entry_point(lake, tmp_path, plugins):
    sound(tmp_path / "set" / "calm" / "1.wav", 1, seconds=4.0)
    sound(tmp_path / "set" / "wild" / "2.wav", 2)
    report = ingest.ingest_dataset(lake, "mini", tmp_path / "set", workers=1)
    assert (report.added.new, report.failed) == (3, 0)
    assert {row["mood"] for row in lake.clips.read().to_dicts()} == {"calm", "wild"}
    assert set(lake.clips.read()["dataset"]) == {"mini"}


def test_an_entry_point_that_cannot_be_loaded_is_named_and_does_not_break_the_others(lake, tmp_path, plugins, caplog):
    assert set(ingest.known_datasets()) == {*SETS, "mini"}
    warnings = "\n".join(record.getMessage() for record in caplog.records)
    assert "'broken': entry point minisets.broken:DATASET of minisets cannot be loaded (ModuleNotFoundError" in warnings
    assert "'other': entry point minisets.other:DATASET of minisets cannot be loaded (TypeError: is a int" in warnings
    assert "'gtzan': ignored entry point minisets.mini:DATASET" in warnings          # a name that is taken
    assert ingest.known_datasets()["gtzan"].title.startswith("GTZAN")
    with pytest.raises(InputError, match=r"data set 'broken': .* of minisets .*no_such_module.*Update or uninstall it"):
        ingest.ingest_dataset(lake, "broken", tmp_path)
    with pytest.raises(InputError, match=r"data set 'absent': is not known. Choose one of broken, fma, .*mini, "):
        ingest.ingest_dataset(lake, "absent", tmp_path)


def test_data_sets_of_other_packages_are_commands_and_heavy_libraries_stay_unloaded(plugins, tmp_path):
    broken = ["tonelake", "ingest", "broken", str(tmp_path), "--lake", str(tmp_path / "lake")]
    code = (
        "import sys\nfrom tonelake.cli import app, main\n"
        "try:\n    app(['ingest', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'polars', 'pyarrow', 'lancedb', 'torch', 'yaml'} & set(sys.modules)))\n"
        f"sys.argv = {broken!r}\nmain()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HOME), str(plugins)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "Mini: moods" in done.stdout and "Cannot be loaded" in done.stdout and done.stdout.endswith("[]\n")
    assert done.returncode == 2 and "no_such_module" in done.stderr
