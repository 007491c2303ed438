"""Rewrite the measured figures of README.md and docs/*.md from bench/results/*.json.

A figure of a benchmark is followed by a comment, which is not shown, with its place in the results:

    2.3<!-- embed: auto_30s_vs_autocast --> times as fast        a ratio of bench/results/embed.json
    241<!-- live: latency_ms / cpu, window 5 s, layer 7 --> ms   any other value, by its keys
    commit 744a6ea<!-- embed: about / commit -->                 text

A number keeps its number of decimals.  `tests/docs/test_figures.py` compares pages and results.

    python docs/make_figures.py
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MARK = re.compile(r"(?P<shown>[\w.,]+)<!-- (?P<name>[\w-]+): (?P<keys>[^>]+?) -->")


def pages() -> list[Path]:
    """Return the pages that may quote benchmarks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def results(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def value(name: str, keys: str) -> Any:
    """Return a value of a benchmark; a single key is one of its ratios."""
    found = results(name)
    for key in keys.split(" / ") if " / " in keys else ("ratios", keys):
        found = found[key]
    return found


def renew(text: str) -> str:
    """Return a page with its marked figures as measured.  Raises KeyError if a benchmark has no such value."""
    def written(mark: re.Match[str]) -> str:
        found, (_, _, decimals) = value(mark["name"], mark["keys"]), mark["shown"].partition(".")
        shown = found.split()[0] if isinstance(found, str) else f"{found:,.{len(decimals)}f}"
        return f"{shown}<!-- {mark['name']}: {mark['keys']} -->"

    return MARK.sub(written, text)


if __name__ == "__main__":
    for page in pages():
        page.write_text(renew(page.read_text(encoding="utf-8")), encoding="utf-8")
