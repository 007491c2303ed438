"""Records with more than four fields are built by keyword, so that two fields cannot be swapped unnoticed."""

from __future__ import annotations

import ast
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
ROOMS = ("store", "ingest", "embed", "evaluate", "index", "probes", "finetune", "ui", "tonelake")
MOST = 4                                 # fields of a record that may be built by position


def nodes() -> list[tuple[Path, ast.ClassDef | ast.Call]]:
    """The definitions of classes, and the calls with several positional arguments, of every file."""
    files = [file for room in ROOMS for file in (HOME / room).rglob("*.py")]
    return [
        (file, node) for file in files if not any(parent.is_symlink() for parent in file.parents)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.Call) and len(node.args) > 1)
    ]


def called(node: ast.Call) -> str:
    """The last name of what is called: `Run` for `Run(...)` and `runs.Run(...)`; empty for other expressions."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def large_records(found: list[tuple[Path, ast.ClassDef | ast.Call]]) -> set[str]:
    """Names of data classes and named tuples with more than `MOST` fields."""
    return {
        node.name for _, node in found
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(mark) for mark in node.decorator_list)
        | any("NamedTuple" in ast.unparse(base) for base in node.bases)
        and sum(isinstance(line, ast.AnnAssign) for line in node.body) > MOST
    }


def test_records_with_many_fields_are_built_by_keyword():
    """The first argument may be positional: what the record is about."""
    found = nodes()
    names = large_records(found)
    assert len(names) > 20
    wrong = [
        f"{file.relative_to(HOME)}:{node.lineno}: {ast.unparse(node.func)}"
        for file, node in found
        if isinstance(node, ast.Call) and called(node) in names
    ]
    assert not wrong
