"""docs/environment.md lists exactly the environment variables that the code reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
ROOMS = ("store", "ingest", "embed", "evaluate", "index", "probes", "finetune", "ui", "tonelake")
MENTIONED = re.compile("environ|getenv|envvar")


def is_environ(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (isinstance(node, ast.Name) and node.id == "environ")


def keys_read(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions whose values are looked up in the environment; assignments alone do not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environ(node.value) and isinstance(node.ctx, ast.Load):
            yield node.slice
        elif isinstance(node, ast.Compare) and is_environ(node.comparators[0]):
            yield node.left
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            of_environ = isinstance(function, ast.Attribute) and is_environ(function.value)
            if name == "getenv" or (name in ("get", "setdefault") and of_environ):
                yield node.args[0]
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "envvar")


def constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the values assigned to names anywhere in the module; of loops over names in all capitals, what they run over."""
    found: dict[str, ast.expr] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            target = node.target.elts[0] if isinstance(node.target, ast.Tuple) else node.target
            literal = isinstance(node.iter, ast.Tuple) and all(isinstance(one, ast.Constant) for one in node.iter.elts)
            if isinstance(target, ast.Name) and (literal or re.match(r"[A-Z_]+\.items\(\)$", ast.unparse(node.iter))):
                found[target.id] = node.iter
    return found


def values_of(node: ast.expr, known: dict[str, ast.expr]) -> set[str]:
    """Return the strings that an expression may be: a constant, a name, the keys of a dictionary or items of a tuple."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.Name) and node.id in known:
        return values_of(known[node.id], {name: value for name, value in known.items() if name != node.id})
    if isinstance(node, ast.Dict):
        return set().union(*(values_of(key, known) for key in node.keys if key is not None))
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return set().union(*(values_of(item, known) for item in node.elts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("items", "keys"):
        return values_of(node.func.value, known)
    raise AssertionError(f"line {node.lineno}: {ast.unparse(node)} is looked up in the environment, but cannot be resolved")


def variables_read() -> set[str]:
    found: set[str] = set()
    for room in ROOMS:
        for file in sorted((HOME / room).rglob("*.py")):
            if not any(parent.is_symlink() for parent in file.parents):
                source = file.read_text(encoding="utf-8")
                if not MENTIONED.search(source):
                    continue             # `keys_read` would find nothing
                tree = ast.parse(source)
                known = constants(tree)
                for key in keys_read(tree):
                    found |= values_of(key, known)
    return found


def documented() -> set[str]:
    page = (HOME / "docs" / "environment.md").read_text(encoding="utf-8")
    own = page.split("## Read by tonelake")[1].split("## Read by libraries")[0]
    rows = [line.split("|")[1] for line in own.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_the_page_lists_the_variables_that_the_code_reads():
    assert documented() == variables_read()


def test_the_check_sees_every_way_of_reading():
    tree = ast.parse("""
import os
NAME = "A"
TABLE = {"B": "1"}
os.environ.get(NAME); os.environ["C"]; os.getenv("D"); "E" in os.environ
for name, value in TABLE.items():
    os.environ.setdefault(name, value)
any(one in os.environ for one in ("F", "G"))
Option("--x", envvar="H")
os.environ["WRITTEN"] = "1"
""")
    known = constants(tree)
    assert set().union(*(values_of(key, known) for key in keys_read(tree))) == set("ABCDEFGH")
