"""Print frames as tables, JSON lines or CSV, and show progress bars.  Colours follow NO_COLOR, as Rich does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from tonelake.store import printable, progress_lines, wants_lines

if TYPE_CHECKING:
    import polars as pl

Item = TypeVar("Item")
NARROW = {"clip_id": 8}                                  # digits that distinguish rows: commands accept shortened ids
WHOLE = ("clip_id", "at", "time", "layer", "precision", "recall@1 (95 %)", "mAP (95 %)")       # never wrapped


def emit(
    frame: pl.DataFrame, *, as_json: bool = False, as_csv: bool = False, empty: str = "nothing to show",
    view: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> None:
    """Print a table (shortened by `view`) on a terminal, JSON lines into a pipe or with `as_json`, CSV with `as_csv`."""
    if as_csv:
        sys.stdout.write(flat(frame).write_csv())
    elif as_json or not sys.stdout.isatty():
        for row in frame.to_dicts():
            sys.stdout.write(json.dumps(row, default=_plain, ensure_ascii=False) + "\n")
    else:
        show_table(view(frame) if view is not None else frame, empty=empty)


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame without nested columns, for CSV: lists joined by |, one column for each field of a struct."""
    import polars as pl

    from tonelake.store import is_list, joined_lists

    for name, kind in frame.schema.items():
        if is_list(kind):
            frame = frame.with_columns(joined_lists(frame[name], "|"))
        elif isinstance(kind, pl.Struct):
            fields = [f"{name}_{field.name}" for field in kind.fields]
            frame = frame.with_columns(frame[name].struct.rename_fields(fields)).unnest(name)
    return frame


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def show_table(frame: pl.DataFrame, *, title: str | None = None, empty: str = "nothing to show") -> None:
    """Print a table on the terminal; columns without any value are left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tonelake.store import is_number

    console = Console()
    if not len(frame):
        console.print(f"[dim]{empty}[/dim]")
        return
    shown = [name for name in frame.columns if frame[name].null_count() < len(frame)]
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in shown:
        number = is_number(frame[name].dtype)
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number or name in WHOLE)
    for row in frame.select(shown).iter_rows():
        table.add_row(*(Text(cell(name, value)) for name, value in zip(shown, row, strict=True)))
    console.print(table)


def cell(name: str, value: Any) -> str:
    """One value as short text for a terminal.

    >>> cell("score", 0.98765), cell("clip_id", "0123456789abcdef")
    ('0.988', '01234567')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, list):
        return ", ".join(cell("", item) for item in value)
    return printable(str(value))[: NARROW.get(name, 200)]


def progress_bar(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Yield items while a bar on standard error shows the rate and the time left; no bar if that is not a terminal.

    With TONELAKE_PROGRESS=lines in the environment, records of progress for a program are written instead.
    """
    if wants_lines():
        yield from progress_lines(items, total, label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    rate = TextColumn("{task.fields[rate]}")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(),
        console=console, disable=not console.is_terminal, transient=True,
    ) as bar:
        task = bar.add_task(label, total=total, rate="")
        for item in items:
            yield item
            speed = bar.tasks[task].speed
            bar.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")
