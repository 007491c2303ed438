"""Fixtures that skip the rendering of plots, about a third of the time of a quick run."""

from __future__ import annotations

from pathlib import Path

import pytest


def write_empty_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **settings: Path(path).touch())


@pytest.fixture(autouse=True)
def skip_rendering(request, monkeypatch):
    """Write empty files instead of plots in tests that do not use `rendered_plots`.  Fixtures of modules still render."""
    if "rendered_plots" not in request.fixturenames:
        write_empty_plots(monkeypatch)


@pytest.fixture
def rendered_plots():
    """Render the plots of this test's runs."""
