"""Generate docs/commands.md from the command line: every command with its help, example, arguments and options.

    python docs/make_commands.py            # rewrites docs/commands.md; tests/docs/test_commands.py compares the two
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

PAGE = Path(__file__).with_name("commands.md")
INTRODUCTION = """\
# Commands

Generated from the command line by `docs/make_commands.py`. Do not edit.

Every command takes `--help`. The lake is the folder `./lake` unless `--lake` or `TONELAKE_LAKE` names another folder or an
object-store URI. Tables are printed on a terminal and JSON lines in a pipe; `--json` and `--csv` choose. Exit codes: 0 done,
1 failed, 2 wrong usage. Long commands can be interrupted and run again.
"""
KINDS = {int: "integer", float: "number", Path: "path"}
COMMON = ("--help", "--show-completion", "--install-completion")


def leaves(command: Any, path: tuple[str, ...] = (), panel: str = "") -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield (panel, path, command) for each command that runs something, in the order of `--help`."""
    for name, sub in getattr(command, "commands", {}).items():
        if sub.hidden:
            continue
        own = text_or_empty(getattr(sub, "rich_help_panel", "")) or panel
        if hasattr(sub, "commands"):
            yield from leaves(sub, (*path, name), own)
        else:
            yield own, (*path, name), sub


def text_or_empty(value: Any) -> str:
    """Return `value` if it is text: typer marks an unset panel with a placeholder object."""
    return value if isinstance(value, str) else ""


def cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")


def default_of(parameter: Any) -> str:
    """Return the default as shown to the user, or "" if there is none to show."""
    value = parameter.default
    if callable(value) or value is None or value is False or value in ((), []):
        return ""
    if value is True:
        return "on"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return str(value.value if hasattr(value, "value") else value)


def values_of(parameter: Any) -> str:
    """Return the kind of value a parameter takes, e.g. `integer` or `a|b`; "" for a flag."""
    return "" if getattr(parameter, "is_flag", False) else kind_of(parameter.type_descriptor.annotation)


def kind_of(annotation: Any) -> str:
    """Return the word for a Python type: of `X | None` and of lists, the word for their elements."""
    elements = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) is Literal:
        return "|".join(map(str, elements))
    if elements:
        return kind_of(elements[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(one.value) for one in annotation)
    return KINDS.get(annotation, "text")


def usage(path: tuple[str, ...], command: Any) -> str:
    parts = ["tonelake", *path]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = (parameter.metavar or parameter.name).upper().strip("[]").removesuffix("...")
            name += " ..." if parameter.nargs == -1 else ""
            parts.append(name if parameter.required else f"[{name}]")
    return " ".join(parts)


def described(path: tuple[str, ...], command: Any) -> str:
    """Return the section of one command."""
    text = inspect.cleandoc(command.help or "")
    text, _, example = text.partition("Example:")
    lines = [f"### {' '.join(path)}", "", re.sub(r"\s*\n(?!\n)\s*", " ", text).strip(), ""]
    shown = [usage(path, command), *(re.split(r"\s{3,}|\n", example.strip()) if example else [])]
    lines += ["```text", *dict.fromkeys(shown), "```", ""]
    arguments = [one for one in command.params if one.param_type_name == "argument" and getattr(one, "help", None)]
    options = [one for one in command.params if one.param_type_name == "option" and one.opts[0] not in COMMON]
    lines += [f"- `{one.name.upper()}`: {cell(one.help)}" for one in arguments]
    lines += [""] if arguments else []
    if options:
        lines += ["| option | value | default | |", "|---|---|---|---|"]
        for one in options:
            names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
            value, default = cell(values_of(one)), cell(default_of(one))
            lines.append(f"| {names} | {f'`{value}`' if value else ''} | {f'`{default}`' if default else ''} "
                         f"| {cell(getattr(one, 'help', '') or '')} |")
        lines.append("")
    return "\n".join(lines)


def reference() -> str:
    """Return the whole page."""
    import typer

    from tonelake.cli import app

    found: dict[str, list[tuple[tuple[str, ...], Any]]] = {}
    for panel, path, command in leaves(typer.main.get_command(app)):
        found.setdefault(panel or "Commands", []).append((path, command))
    parts = [INTRODUCTION]
    for panel, commands in found.items():
        rows = [f"| [`{' '.join(path)}`](#{'-'.join(path)}) | {cell((command.help or '').split('Example:')[0])} |"
                for path, command in commands]
        parts += [f"## {panel}\n", "\n".join(["| command | |", "|---|---|", *rows]), "",
                  *(described(path, command) for path, command in commands)]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"{PAGE} is written")
