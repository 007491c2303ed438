"""Clips that a run judged, those first that a person should listen to: for cleaning labels, and for seeing what it confuses.

A high loss says that the run and the label disagree; a low confidence, that the run does not know.  Runs of probes and of
fine-tuning keep the same table of predictions.
"""

from __future__ import annotations

from typing import Any, Protocol

import polars as pl

from tonelake.store import InputError, Lake

SHOWN = ("artist", "title", "album", "track", "start_s", "duration_s", "source")


class Judged(Protocol):
    """A finished run of either kind."""

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> dict[str, Any]: ...

    def table(self, name: str) -> pl.DataFrame: ...


def review(
    lake: Lake, run: Judged, *, by: str = "loss", target: str | None = None, predicted: str | None = None, k: int | None = 20,
) -> pl.DataFrame:
    """The k judged clips with the highest loss, or with the lowest confidence; all for None.

    `target` and `predicted`: only clips whose label, and of which the run says, this class or tag: together one cell of the
    confusion.  Columns: clip_id, target, predicted, what the run gives them (probability), loss, and what names a clip.
    Clips that have left the lake since are left out.  Raises InputError for an order that the run does not have.
    """
    table, kind = run.table("predictions"), run.metrics["task"]
    orders = orders_of(table, kind)
    if by not in orders:
        older = "" if "loss" in table.columns else "; losses are kept since a later version: run it again with --again"
        known = " or ".join(orders) or "none"
        raise InputError(f"clips of run {run.name!r} cannot be ordered by {by!r}: choose {known}{older}")
    for column, wanted in (("target", target), ("predicted", predicted)):
        if wanted is not None:
            table = table.filter(holds(table, column, wanted, run.name))
    table = table.sort(orders[by], descending=by == "loss", maintain_order=True)
    here = lake.clips.take(table["clip_id"].to_list() if k is None else table["clip_id"].head(4 * k + 100).to_list(), SHOWN)
    hidden = [name for name in ("fold", "track", "gap", "likeliest", "probabilities", "scores") if name in table.columns]
    found = table.drop(hidden).join(here, on="clip_id", how="inner", maintain_order="left")
    return found if k is None else found.head(k)


def orders_of(table: pl.DataFrame, kind: str) -> dict[str, pl.Expr]:
    """What predictions can be ordered by."""
    orders = {"loss": pl.col("loss")} if "loss" in table.columns else {}
    if kind == "multiclass":
        orders["confidence"] = pl.col("probability")
    elif kind == "multilabel":           # by the tag that is surest to be there or not: near one half it knows nothing
        orders["confidence"] = pl.col("probabilities").list.eval((pl.element() - 0.5).abs()).list.mean()
    return orders


def holds(table: pl.DataFrame, column: str, wanted: str, run: str) -> pl.Expr:
    if column not in table.columns or table[column].dtype.is_numeric():
        raise InputError(f"run {run!r} predicts numbers: it has no classes to choose by")
    if isinstance(table[column].dtype, pl.List):
        return pl.col(column).list.contains(wanted)
    return pl.col(column) == wanted
