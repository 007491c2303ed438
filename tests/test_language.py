"""Plain English: docstrings, comments and messages without the turns of phrase that newcomers stumbled over."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
ROOMS = ("store", "ingest", "embed", "evaluate", "index", "probes", "finetune", "ui", "tonelake", "bench")
OPENERS = re.compile(r"^(Of|What|The same|Who|Whoever|Nobody|That it|At most)\b")
AVOIDED = re.compile(
    r"\btold\b|\bcame to\b|\bcome to\b|\bwhat became of\b|\bstands\b|\bgoes? on\b|\banew\b|\bby now\b|\blies\b|\bso many\b"
    r"|\bof which\b|\b(?:is|are) no (?!longer\b|more\b|other\b)[a-z]|\b(?:who|whoever|nobody)\b"
    r"|\bthe while\b|\bin the place of\b"
)
ALLOWED = 0.01                           # share of texts, as CONTRIBUTING says


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring, comment block and literal of several words."""
    source = file.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") >= 2:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def faults(text: str) -> str | None:
    """The first turn of phrase to avoid in a text, or None."""
    for sentence in re.split(r"(?<=[.:;])\s+|\n\s*\n", text.strip()):
        found = OPENERS.search(sentence)
        if found and not sentence.rstrip().endswith("?"):
            return found[0]
    found = AVOIDED.search(text)
    return found[0] if found else None


def files() -> list[Path]:
    return [
        file for room in ROOMS for file in sorted((HOME / room).rglob("*.py"))
        if not any(parent.is_symlink() for parent in file.parents)
    ]


def test_the_code_is_written_in_plain_english():
    found, total = [], 0
    for file in files():
        for line, text in texts(file):
            total += 1
            if fault := faults(text):
                found.append(f"{file.relative_to(HOME)}:{line}: {fault!r} in {text.strip()[:90]!r}")
    assert len(found) <= ALLOWED * total, f"{len(found)} of {total} texts:\n" + "\n".join(found)


@pytest.mark.parametrize("text", [
    "What a user asks with -> vectors", "Of the run.", "the run goes on where it stood", "a file that is no audio",
    "Vectors of the space, of which some are missing", "Who set it has decided.",
])
def test_the_check_sees_what_it_should(text):
    assert faults(text)


def test_a_question_and_plain_sentences_pass():
    assert faults("Resolve a query to one vector per layer. Raises InputError if the clip is unknown.") is None
    assert faults("What sounds like this?") is None
