"""Clips of a run in the order in which a person should review them, to clean labels or to see what a run confuses.

A high loss means that the run and the label disagree; a low confidence, that the run is uncertain.  Test clips show what the
run confuses; the label of a training clip with a high loss is one that training could not fit, often a wrong one.  Runs of
probes and of fine-tuning have the same tables of predictions.
"""

from __future__ import annotations

from typing import Any, Protocol

import polars as pl

from tonelake.store import InputError, Lake, is_list, is_number

TRAINING_PREDICTIONS = "training_predictions"            # a table: clips that are not test clips, with a column `side`
TRAINING_SIDES = ("train", "valid")
REVIEW_SIDES = (*TRAINING_SIDES, "test", "all")
SHOWN = ("artist", "title", "album", "track", "start_s", "duration_s", "source")


class EvaluatedRun(Protocol):
    """A finished probe or fine-tuning."""

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> dict[str, Any]: ...

    def table(self, name: str) -> pl.DataFrame: ...


def review(
    lake: Lake, run: EvaluatedRun, *, by: str = "loss", side: str = "test", target: str | None = None,
    predicted: str | None = None, k: int | None = 20,
) -> pl.DataFrame:
    """Return the k clips with the highest loss or the lowest confidence; all for None.

    `side`: test, train, valid, or all, which adds a column `side`.
    `target` and `predicted`: only clips with this label, and with this prediction; together one cell of the confusion matrix.
    Columns: clip_id, target, predicted, the predicted probability, loss, and columns that describe the clip.  Clips that are
    no longer in the lake are left out.  Raises InputError for an order or a side that the run does not have.
    """
    table, kind = predictions_on(run, side), run.metrics["task"]
    orders = sort_orders(table, kind)
    if by not in orders:
        older = "" if "loss" in table.columns else ". Runs of earlier versions have no losses: train it again with --again"
        known = " or ".join(orders) or "none"
        raise InputError(f"run {run.name!r}: clips cannot be ordered by {by!r}. Choose {known}{older}")
    for column, wanted in (("target", target), ("predicted", predicted)):
        if wanted is not None:
            table = table.filter(label_filter(table, column, wanted, run.name))
    table = table.sort(orders[by], descending=by == "loss", maintain_order=True)
    here = lake.clips.take(table["clip_id"].to_list() if k is None else table["clip_id"].head(4 * k + 100).to_list(), SHOWN)
    hidden = [name for name in ("fold", "track", "gap", "likeliest", "probabilities", "scores") if name in table.columns]
    found = table.drop(hidden).join(here, on="clip_id", how="inner", maintain_order="left")
    return found if k is None else found.head(k)


def predictions_on(run: EvaluatedRun, side: str) -> pl.DataFrame:
    """Return the predictions of one side, or of all with a column `side`.  Raises InputError if the run does not have them."""
    if side not in REVIEW_SIDES:
        raise InputError(f"--side {side}: unknown. Choose {', '.join(REVIEW_SIDES)}")
    if side == "test":
        return run.table("predictions")
    try:
        training = run.table(TRAINING_PREDICTIONS)
    except InputError as error:
        raise InputError(
            f"run {run.name!r}: has no predictions of training clips, because an earlier release trained it. Train it again "
            "with --again, or review its test clips"
        ) from error
    if side != "all":
        return training.filter(side=side).drop("side")
    tested = run.table("predictions").with_columns(side=pl.lit("test"))
    return pl.concat([tested.select(name for name in training.columns if name in tested.columns), training], how="diagonal")


def sort_orders(table: pl.DataFrame, kind: str) -> dict[str, pl.Expr]:
    """Return the possible sort orders of predictions, by name."""
    orders = {"loss": pl.col("loss")} if "loss" in table.columns else {}
    if kind == "multiclass":
        orders["confidence"] = pl.col("probability")
    elif kind == "multilabel":           # a probability near one half is uncertain
        orders["confidence"] = pl.col("probabilities").list.eval((pl.element() - 0.5).abs()).list.mean()
    return orders


def label_filter(table: pl.DataFrame, column: str, wanted: str, run: str) -> pl.Expr:
    """Return a filter for a class or tag in `column`.  Raises InputError for runs that predict numbers."""
    if column not in table.columns or is_number(table[column].dtype):
        raise InputError(f"run {run!r}: predicts numbers, so it has no classes to filter by")
    if is_list(table[column].dtype):
        return pl.col(column).list.contains(wanted)
    return pl.col(column) == wanted
