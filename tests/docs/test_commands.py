"""docs/commands.md equals the output of its generator, and the README and guides name only commands that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
DOCS = HOME / "docs"
PAGES = [HOME / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if page.name != "commands.md")]


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_commands", DOCS / "make_commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(generator) -> dict[str, set[str]]:
    """Return the options of every command by its full name."""
    import typer

    from tonelake.cli import app

    return {
        " ".join(path): {name for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")}
        for _, path, command in generator.leaves(typer.main.get_command(app))
    }


def test_the_command_reference_is_up_to_date(generator):
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert page == generator.reference(), "docs/commands.md: is out of date. Run `python docs/make_commands.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(HOME).as_posix())
def test_every_command_and_option_on_a_page_exists(page, generator):
    known = commands(generator)
    groups = {name.split()[0] for name in known if " " in name}
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    used = [
        *re.findall(r"`tonelake ([^`\n]+)`", text),
        *re.findall(r"^(?:.*\| )?tonelake ([^#\n|]+)", "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)), re.M),
    ]
    for line in used:
        words = line.split()
        if words[0].startswith("-"):
            assert words[0] in ("--help", "--version"), line
            continue
        name = " ".join(words[:2]) if words[0] in groups else words[0]
        if name == "ingest NAME" or (words == [words[0]] and words[0] in groups):
            continue
        own = name if name != "ingest cowbells" else "ingest gtzan"              # the example of a recipe
        assert own in known, f"{page.name}: `tonelake {line}`: no such command"
        options = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
        assert options <= known[own] | {"--help"}, f"{page.name}: `tonelake {line}`: no option {options - known[own]}"
