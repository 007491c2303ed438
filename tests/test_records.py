"""Records with more than four fields are built by keyword, so that two fields cannot be swapped unnoticed."""

from __future__ import annotations

import ast
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
ROOMS = ("store", "ingest", "embed", "evaluate", "index", "probes", "finetune", "ui", "tonelake")
MOST = 4                                 # fields of a record that may be built by position


def trees() -> dict[Path, ast.Module]:
    files = [file for room in ROOMS for file in (HOME / room).rglob("*.py")]
    return {
        file: ast.parse(file.read_text()) for file in files if not any(parent.is_symlink() for parent in file.parents)
    }


def called(node: ast.Call) -> str:
    """The last name of what is called: `Run` for `Run(...)` and `runs.Run(...)`; empty for other expressions."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def large_records(parsed: dict[Path, ast.Module]) -> set[str]:
    """Names of data classes and named tuples with more than `MOST` fields."""
    return {
        node.name for tree in parsed.values() for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(mark) for mark in node.decorator_list)
        | any("NamedTuple" in ast.unparse(base) for base in node.bases)
        and sum(isinstance(line, ast.AnnAssign) for line in node.body) > MOST
    }


def test_records_with_many_fields_are_built_by_keyword():
    """The first argument may be positional: what the record is about."""
    parsed = trees()
    names = large_records(parsed)
    assert len(names) > 20
    wrong = [
        f"{file.relative_to(HOME)}:{node.lineno}: {ast.unparse(node.func)}"
        for file, tree in parsed.items() for node in ast.walk(tree)
        if isinstance(node, ast.Call) and len(node.args) > 1 and called(node) in names
    ]
    assert not wrong
