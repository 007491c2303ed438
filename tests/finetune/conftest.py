"""Plots are rendered only in tests that check them."""

from __future__ import annotations

from rendering import rendered_plots, skip_rendering

__all__ = ["rendered_plots", "skip_rendering"]
