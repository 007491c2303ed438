"""Start-up: a short command imports only what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tonelake
from tonelake.cli import MODULES, commands_of
from tonelake.index import match_songs

UNUSED = (
    "lancedb.", "lance_namespace.", "pandas.", "scipy.", "sklearn.", "numba.", "torch.", "faiss.", "tonelake.probes.",
    "tonelake.finetune.", "tonelake.evaluate.", "tonelake.embed.", "tonelake.verify.",
)
RUN = f"""
import contextlib, io, sys
from tonelake.cli import main
_, clip, lake = sys.argv
def run(*words):
    sys.argv = ["tonelake", *words, "--lake", lake, "--json"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    loaded = sorted(name for name in sys.modules if name.startswith({UNUSED!r}))
    print(out.getvalue().count("rank"), loaded)
"""


@pytest.fixture(scope="module")
def lines(filled):
    """Lines printed by a process: hits and unwanted modules after a search by id, and then after one by name."""
    match_songs(filled, "track")         # makes the table of names, which imports LanceDB
    code = RUN + "run('similar', clip)\nrun('similar', 'Title 3')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, filled.clips.ids()[0], filled.uri], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines() or [done.stderr]


def test_a_search_by_id_imports_neither_lancedb_nor_encoders(lines):
    assert lines[0] == "10 []"


def test_a_search_by_name_imports_no_more(lines):
    assert lines[1] == "10 []"


def test_each_command_is_found_in_its_module():
    """A command that the table lacks would be found as well, after all modules were imported."""
    assert {module: " ".join(commands_of(module)) for module in MODULES} == MODULES


def test_a_method_of_the_lake_is_the_function_of_its_room():
    from tonelake import index
    from tonelake.status import read_status

    assert tonelake.Lake.similar is index.similar and tonelake.Lake.status is read_status
