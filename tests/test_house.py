"""The house: imports run down, go through doors, never in circles, and importing a room changes nothing and loads little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
FLOOR = {
    "store": 0, "ingest": 1, "embed": 1, "evaluate": 1, "index": 2, "probes": 2, "finetune": 3, "tonelake": 4, "ui": 4,
}
DRAWN_BESIDE = {"ui": {"tonelake"}, "tonelake": {"ui"}}          # the app opens a lake, the command starts the app
# Shelves of index/: each imports only from lower ones.
SHELVES = {
    "vectors": 0, "log_odds": 0, "ratios": 0, "names": 0, "hubness": 0, "search": 1, "separation": 2, "maps": 2, "tokens": 2,
    "gestures": 3,
}


def files_of(room: str) -> Iterator[Path]:
    """Python files of a room; `tonelake/` without its links to the other rooms."""
    for file in sorted((HOME / room).rglob("*.py")):
        if room != "tonelake" or not any(parent.is_symlink() for parent in file.parents):
            yield file


def module_name(file: Path) -> str:
    parts = file.relative_to(HOME).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "tonelake" else ("tonelake", *parts))


def room_of(module: str) -> str:
    """The room of a module of ours: `tonelake.store.lake` is in `store`, `tonelake.cli` in `tonelake`."""
    second = module.split(".")[1] if "." in module else "tonelake"
    return second if second in FLOOR else "tonelake"


def imports(source: str) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import of ours anywhere in the source, except those for type checkers alone."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        if isinstance(node, ast.expr):
            continue                     # no statement is within an expression
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == "tonelake")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            if node.module and node.module.split(".")[0] == "tonelake":
                yield from ((node.module, alias.name) for alias in node.names)
        pending += ast.iter_child_nodes(node)


@cache
def imports_of(file: Path) -> list[tuple[str, str | None]]:
    return list(imports(file.read_text()))


def uphill(room: str, other: str) -> bool:
    return other != room and other not in DRAWN_BESIDE.get(room, ()) and FLOOR[other] >= FLOOR[room]


def past_the_door(room: str, module: str, name: str | None) -> bool:
    """Whether an import from `room` reaches into another room's submodule."""
    other = room_of(module)
    if other in (room, "tonelake"):
        return False
    return module != f"tonelake.{other}" or (name is not None and name not in exports(other))


@cache
def exports(room: str) -> dict[str, str]:
    """The exports of a room's door: each name with the module that defines it."""
    found = {}
    for node in ast.parse((HOME / room / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1
            found |= {alias.asname or alias.name: f"tonelake.{room}.{node.module}" for alias in node.names}
    return found


ROOMS = [room for room in FLOOR if room != "tonelake"]


@pytest.mark.parametrize("room", FLOOR)
def test_no_import_runs_up_or_sideways_or_past_a_door(room):
    wrong = []
    for file in files_of(room):
        for module, name in imports_of(file):
            other = room_of(f"{module}.{name}" if module == "tonelake" and name in FLOOR else module)
            if uphill(room, other):
                wrong.append(f"{file.relative_to(HOME)} imports {other}, which is not below it")
            elif past_the_door(room, module, name):
                wrong.append(f"{file.relative_to(HOME)} imports {name or ''} from {module}, past the door of {other}")
    assert not wrong


def test_the_check_sees_imports_that_run_up_and_past_a_door():
    inner = "def f():\n    from tonelake.index.vectors import unit\n"
    assert list(imports(inner)) == [("tonelake.index.vectors", "unit")]
    assert list(imports("if TYPE_CHECKING:\n    from tonelake.index import similar\n")) == []
    assert uphill("store", "index") and uphill("ingest", "embed") and uphill("probes", "index")
    assert not uphill("finetune", "probes") and not uphill("ui", "tonelake")
    assert past_the_door("probes", "tonelake.store.lake", "Lake") and not past_the_door("probes", "tonelake.store", "Lake")
    assert past_the_door("probes", "tonelake.store", "a_private_helper")
    assert not past_the_door("store", "tonelake.store.lake", "x")


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_door_promises_is_there(room):
    module = __import__(f"tonelake.{room}", fromlist=["x"])
    listed = ast.literal_eval(next(
        node.value for node in ast.parse((HOME / room / "__init__.pyi").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ))
    assert sorted(listed) == sorted(exports(room)) == sorted(module.__all__)
    for name in listed:
        assert getattr(module, name) is not None
        # Python sets a submodule as an attribute of its package, which would hide an export of that name.
        assert not (HOME / room / f"{name}.py").exists() and not (HOME / room / name).is_dir()


def test_no_module_is_in_a_circle_of_imports():
    """Imports within functions count too: a circle is one, whenever it runs."""
    known = {module_name(file) for room in FLOOR for file in files_of(room)}
    graph: dict[str, set[str]] = {}
    for room in FLOOR:
        for file in files_of(room):
            own = module_name(file)
            graph[own] = set()
            for module, name in imports_of(file):
                target = f"{module}.{name}" if f"{module}.{name}" in known else module
                door = room_of(module)
                if target == f"tonelake.{door}" and door != "tonelake" and name is not None:
                    target = exports(door).get(name, target)
                if target in known and target != own and target != "tonelake":
                    graph[own].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_shelves_of_index_import_only_from_those_below():
    wrong = []
    for file in files_of("index"):
        own = module_name(file).split(".")[2:3]
        for module, _ in imports_of(file):
            parts = module.split(".")
            elsewhere = own and parts[1:2] == ["index"] and len(parts) > 2 and parts[2] != own[0]
            if elsewhere and SHELVES[parts[2]] >= SHELVES[own[0]]:
                wrong.append(f"{file.relative_to(HOME)} imports {module}")
    assert not wrong


def test_every_folder_of_code_has_a_floor():
    rooms = {file.parent.name for file in HOME.glob("*/__init__.py")} - {"bench", "tests"}
    assert rooms == FLOOR.keys()
    links = {link.name: link.readlink() for link in (HOME / "tonelake").iterdir() if link.is_symlink()}
    assert links == {room: Path("..") / room for room in ROOMS}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after running `code`."""
    code += "\nimport sys\nprint('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME)
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['tonelake', '--help']\nfrom tonelake.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass"
    )
    heavy = {"torch", "lancedb", "lance", "librosa", "faiss", "streamlit", "music21", "polars", "numpy"}
    assert not loaded_after(code) & heavy


def test_importing_every_room_changes_nothing_global():
    """A library must not change its host's allocator, threads or environment; commands and workers do so for themselves."""
    code = f"""
import os, pyarrow
import polars                            # sets a variable of its allocator itself
before = dict(os.environ), pyarrow.default_memory_pool().backend_name
import tonelake
for room in {ROOMS}:
    module = __import__("tonelake." + room, fromlist=["x"])
    for name in module.__all__:
        getattr(module, name)
assert before == (dict(os.environ), pyarrow.default_memory_pool().backend_name)
"""
    assert "tonelake" in loaded_after(code)


def test_our_rooms_live_beside_a_users_modules_of_the_same_names(tmp_path):
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text("raise SystemExit('a module of the user was imported')")
    code = "from tonelake.store import Lake; from tonelake.embed import Encoder; import sys; print('store' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "False"


def test_mutation_testing_names_modules_and_tests_that_exist():
    from bench.mutants import TESTS

    for module, tests in TESTS.items():
        assert (HOME / module).is_file(), module
        for room, name in (test.split("/") for test in tests.split()):
            assert (HOME / "tests" / room / f"test_{name}.py").is_file(), f"{room}/{name}"
