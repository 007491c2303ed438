"""Plots of runs are rendered only in tests that look at them: rendering takes about half of the time of a quick run.

Elsewhere the code that draws runs as usual, on a figure that accepts every call and writes an empty file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_rendered: list[Any] = []                # the function that makes figures, once it is patched


class Blank:
    """A figure, axes, legend or spine on which nothing appears."""

    def __getattr__(self, name: str) -> Blank:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *values: Any, **settings: Any) -> Blank:
        return self

    def __getitem__(self, key: Any) -> Blank:
        return self

    def subplots(self, rows: int = 1, columns: int = 1) -> Any:
        if columns == 1:
            return self
        several = np.empty(columns, object)
        several[:] = [self] * columns
        return several

    def savefig(self, path: Path, **settings: Any) -> None:
        Path(path).touch()


@contextmanager
def blank_plots() -> Iterator[None]:
    from tonelake.probes import plots

    _rendered.append(plots.new_figure)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "new_figure", lambda width, height: Blank())
        yield


@pytest.fixture
def rendered_plots(monkeypatch):
    """Render the plots of this test's runs."""
    monkeypatch.setattr("tonelake.probes.plots.new_figure", _rendered[-1])
