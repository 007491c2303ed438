"""Optional dependencies: a missing one is a sentence with a command that installs it, from a clone and from a wheel."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tonelake.store import MissingExtra, import_extra, require_extra
from tonelake.store.extras import requirements_of

HOME = Path(__file__).parents[2]
ROOMS = ("store", "ingest", "embed", "evaluate", "index", "probes", "finetune", "ui", "tonelake", "docs", "README.md")


def test_a_missing_library_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    sentence = r'^maps by UMAP: umap-learn is not installed\. Install with: .* -m pip install "umap-learn>=0\.5\.12"$'
    for load in (import_extra, require_extra):
        with pytest.raises(MissingExtra, match=sentence):
            load("umap", "maps", "maps by UMAP")


def test_an_installed_library_is_imported():
    import json

    assert import_extra("json", "maps", "anything") is json
    require_extra("json", "maps", "anything")


def test_an_error_inside_an_installed_library_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import a_library_that_is_missing_here")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_missing_here"):
        import_extra("half_installed", "maps", "anything")


def normalized(requirement: str) -> str:
    """A requirement with its version limits in one order."""
    return str(Requirement(requirement))


def test_every_extra_that_the_code_asks_for_is_declared():
    declared = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = set()
    for room in ROOMS:
        for file in (HOME / room).rglob("*.py"):
            asked |= {match[1] for match in re.finditer(r'(?:import|require)_extra\([^,()]+, "([\w-]+)"', file.read_text())}
    assert {"maps", "ray", "stems", "youtube", "chorales", "finetune", "ui"} <= asked <= declared.keys()
    for extra in asked:
        assert sorted(map(normalized, requirements_of(extra))) == sorted(map(normalized, declared[extra]))


def test_no_message_installs_by_a_name_that_is_not_registered():
    """The name `tonelake` is not registered on a package index: such a command would install a stranger's package."""
    wrong = re.compile(r"pip install\s+(?:-\S+\s+)*['\"]?tonelake(?![-_\w]*\.whl)")
    found = []
    for room in ROOMS:
        files = [HOME / room] if room.endswith(".md") else [*(HOME / room).rglob("*.py"), *(HOME / room).rglob("*.md")]
        found += [str(file.relative_to(HOME)) for file in files if wrong.search(file.read_text())]
    assert not found
