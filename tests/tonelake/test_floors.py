"""The floors of the house: imports run down, never up, and never between the middle rooms except where drawn."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
FLOOR = {"store": 0, "ingest": 1, "embed": 1, "index": 2, "probes": 2, "finetune": 2, "tonelake": 3, "ui": 3}
ALSO = {"finetune": {"probes"}, "ui": {"tonelake"}, "tonelake": {"ui"}}      # drawn beside their own floor


def imports(file: Path) -> set[str]:
    """Our packages that a file imports, anywhere in it, except for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{file}: relative imports hide where they lead")
    return found & FLOOR.keys()


def uphill(room: str, used: set[str]) -> set[str]:
    return {other for other in used - {room} - ALSO.get(room, set()) if FLOOR[other] >= FLOOR[room]}


def test_no_import_runs_up_or_sideways():
    wrong = []
    for room in FLOOR:
        for file in (HOME / room).rglob("*.py"):
            wrong += [f"{file.relative_to(HOME)} imports {other}" for other in uphill(room, imports(file))]
    assert not wrong


def test_the_check_sees_an_import_that_runs_up(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from index.search.exact import unit\n")
    assert uphill("store", imports(bad)) == {"index"}
    assert uphill("ingest", {"embed", "store"}) == {"embed"}
    assert uphill("ui", {"index", "tonelake"}) == set()


def test_every_package_of_ours_has_a_floor():
    packages = {file.parent.name for file in HOME.glob("*/__init__.py")} - {"bench", "tests"}
    assert packages <= FLOOR.keys()


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['tonelake', '--help']\n"
        "from tonelake.cli import app\n"
        "try:\n    app()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lancedb', 'lance', 'librosa', 'faiss', 'streamlit', 'music21', 'polars', 'numpy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME).stdout
    assert "loaded: []" in shown


def test_a_users_module_that_hides_ours_is_named(tmp_path):
    (tmp_path / "tonelake.embed.py").write_text("")
    done = subprocess.run([sys.executable, "-c", "import tonelake"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}/embed.py hides tonelake's 'embed' package" in done.stderr
