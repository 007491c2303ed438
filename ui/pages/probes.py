"""Probes page: compare probes and fine-tunes; figures by class and by layer, confusions, and the clips behind them."""

import numpy as np
import polars as pl
import streamlit as st

from tonelake import finetune, probes
from tonelake.index import mapped_layers
from tonelake.store import InputError, Space
from tonelake.ui.components import clip_list, list_actions
from tonelake.ui.plotly_charts import (
    axis_labels,
    by_epoch,
    curves,
    figure_label,
    intervals,
    matrix,
    share_colours,
    shares,
    show,
)
from tonelake.ui.shared import (
    MAX_LISTED,
    answer_or_stop,
    count_phrase,
    csv_button,
    drop_invalid_choice,
    existing_columns,
    follow_action,
    page_lake,
    rows_for_list,
    stop_with_hint,
    with_joined_lists,
)

MAX_CLASSES = 120                        # classes in the confusion matrix; of more, the most confused ones are shown
MAX_RANKED = 200                         # confusions in the list
RANKED = {
    "clips": st.column_config.NumberColumn(format="%.1f", help="Test clips, the mean over seeds"),
    "share": st.column_config.ProgressColumn(min_value=0, max_value=100, format="%d %%", help="Share of the test clips"),
    "support": st.column_config.NumberColumn("labelled", format="%d", help="Test clips with this label"),
}

lake = page_lake()
st.title("Probes", anchor=False)
found: dict[str, probes.Run | finetune.FinetuneRun] = {}
for one in answer_or_stop(probes.Run.all, lake):
    found[one.name] = one
for tuned in answer_or_stop(finetune.FinetuneRun.all, lake):
    found[f"{tuned.name} (fine-tune)" if tuned.name in found else tuned.name] = tuned
if not found:
    stop_with_hint("No probe has been trained in this lake.", "tonelake probe COLUMN")

with st.expander(f"All {len(found)} runs" if len(found) > 1 else "The run and its baselines"):
    for table in (answer_or_stop(lake.compare_probes), answer_or_stop(lake.list_finetunes)):
        if len(table):
            st.dataframe(table, hide_index=True)
    mains = [run for run in found.values() if run.metrics["figures"].get(run.metrics["main"])]
    if len(mains) > 1:
        values = [run.metrics["figures"][run.metrics["main"]] for run in mains]
        show(intervals(
            [run.name for run in mains], *([value[end] for value in values] for end in ("value", "low", "high")),
            x="main figure, with its 95 % interval",
            notes=[f"{figure_label(run.metrics['main'])} {run.metrics.get('over') or ''}" for run in mains],
        ), "runs", "The main figure of each run with its 95 % interval")
        st.caption("Compare runs on the same test clips only.")

drop_invalid_choice("run", list(found))
name = st.selectbox("Run", list(found), index=len(found) - 1, key="run", bind="query-params")
run = found[name]
metrics, kind = run.metrics, run.metrics["task"]
st.text(metrics["summary"])
split = run.config.split if isinstance(run, probes.Run) else None
precision = probes.describe_precision(metrics, split)
if precision:
    st.text(precision, help=probes.wider_split(split))
for note in metrics["notes"]:
    st.text(f"Note: {note}")


def table_of(part: str) -> pl.DataFrame | None:
    """Return a table of the run, or None if runs of its kind do not have it."""
    try:
        return run.table(part)
    except InputError:
        return None


def place_of_run() -> tuple[Space | None, str]:
    """Return the space and layer in which other pages show the run's clips."""
    try:
        space = lake.spaces.get(metrics["space"])
    except InputError:
        return None, ""
    layer = str(metrics.get("layer", ""))
    return space, layer if layer in space.layers else space.layers[space.default_layer]


space, layer = place_of_run()
mapped = space is not None and space.layer_index(layer) in mapped_layers(lake, space)
actions = ("open", "queue", "map") if mapped else ("open", "queue")
classes, confusion = table_of("classes"), table_of("confusion")


def follow_selection(ranked: pl.DataFrame, labels: list[str]) -> None:
    """Choose the label and the prediction that were last selected, as a cell of the matrix or as a row of the list.

    `ranked`: the list; `labels`: those of the matrix, in the order of `shown_names`.
    """
    points = (st.session_state.get("confusion") or {}).get("selection", {}).get("points", [])
    rows = (st.session_state.get("ranked") or {}).get("selection", {}).get("rows", [])
    chosen: dict[str, tuple[str, ...] | None] = {"cell": None, "row": None}
    if points and points[0].get("x") in labels and points[0].get("y") in labels:
        chosen["cell"] = (shown_names[labels.index(points[0]["y"])], shown_names[labels.index(points[0]["x"])])
    if rows and rows[0] < len(ranked):
        chosen["row"] = tuple(ranked.row(rows[0])[:2])
    for kind, pair in chosen.items():
        if pair is not None and pair != st.session_state.get(f"last {kind}"):
            st.session_state["true"], st.session_state["said"] = pair
        st.session_state[f"last {kind}"] = pair


def beside(key: str) -> dict[str, float | None]:
    """Return the frozen encoder's figure, and a fine-tune's difference from it with its interval."""
    frozen, away = metrics.get("frozen"), (metrics.get("difference") or {}).get(key, {})
    if not frozen:
        return {}
    value = frozen["figures"].get(key, {}).get("value")
    if not frozen.get("head"):               # of an earlier release
        return {"linear probe, frozen": value}
    return {"frozen": value, "difference": away.get("value"), "from": away.get("low"), "to": away.get("high")}


titles = ["Overview", *(["Classes"] if classes is not None else []), *(["Confusion"] if confusion is not None else []), "Clips"]
tabs = dict(zip(titles, st.tabs(titles, key="tab", bind="query-params", on_change="rerun"), strict=True))

if tabs["Overview"].open:
    with tabs["Overview"]:
        figures = pl.DataFrame([
            {"figure": figure_label(key), **value} | beside(key) | {
                other: values.get(key, {}).get("value") for other, values in (metrics.get("baselines") or {}).items()
            } for key, value in metrics["figures"].items()
        ], infer_schema_length=None)
        st.dataframe(figures, hide_index=True)
        if metrics.get("difference"):
            st.caption(
                "frozen: the same head, pooling and layers, trained in the same way on the frozen encoder. The difference is "
                f"paired on the same test clips. Intervals: 95 %, {metrics['over']}."
            )
        layers, history, fits = table_of("layers"), table_of("history"), table_of("fits")
        seeds = table_of("seeds")
        if seeds is not None and len(seeds) > 1:
            st.subheader("Seeds")
            st.caption(
                f"Figures are means over these seeds. Adapter, predictions and learning curves are those of seed "
                f"{metrics['kept_seed']}, which is best on the validation clips."
            )
            st.dataframe(seeds, hide_index=True)
        main = metrics["main"]
        if layers is not None and f"{main}_low" in layers.columns and len(layers) > 1:
            st.subheader("By layer")
            chance = (metrics.get("baselines") or {}).get("chance", {}).get(main, {}).get("value")
            show(
                curves([(main, layers, main)], y=figure_label(main), chance=chance), "layers", f"{figure_label(main)} by layer"
            )
            if metrics.get("over"):
                st.caption(f"Intervals are 95 %, {metrics['over']} of the test set.")
        elif layers is not None and "share" in layers.columns:
            st.subheader("The head's share of each layer")
            drawn = shares(layers["layer"].cast(pl.String).to_list(), layers["share"].to_list(), y="share")
            show(drawn, "layer-shares", "The head's share of each layer")
        decays = table_of("decays")
        if decays is not None:
            st.subheader("Weight decay")
            st.caption("Each decay at the layer and rate that the validation set selects for it; away: minus the selected one.")
            st.dataframe(decays, hide_index=True)
        if history is not None and "layer" in history.columns:
            st.subheader("Learning curves")
            epochs = probes.mean_history(history, metrics["layer"])
            measured = [part for part in ("top_1", "top_5", "loss") if epochs[f"train_{part}"].null_count() < len(epochs)]
            for place, part in zip(st.columns(len(measured)), measured, strict=True):
                with place:
                    sides = {f"train_{part}": "training", f"valid_{part}": "validation"}
                    show(by_epoch(epochs, sides, y=figure_label(part)), f"{part} by epoch", f"{figure_label(part)} by epoch")
            st.caption("Selected fits, the mean over seeds and folds. Training figures are those of the batches.")
        elif history is not None and isinstance(run, finetune.FinetuneRun):
            st.subheader("Learning curves")
            left, right = st.columns(2)
            with left:
                losses = {"loss": "training", "valid_loss": "validation"}
                show(by_epoch(history, losses, y="loss"), "losses", "Loss by epoch")
            with right:
                measured = [part for part in history.columns if part.startswith("valid_") and part != "valid_loss"]
                labels = {part: figure_label(part.removeprefix("valid_")) for part in measured} or {"valid": "validation"}
                show(by_epoch(history, labels, y="on the validation clips"), "validation", "Validation figures by epoch")
            st.caption(f"The {figure_label(run.config.monitored)} of the validation clips decides when training stops.")
        if fits is not None:
            st.subheader("Fits")
            st.caption("Every fit of the grid, with its settings, stopping epoch and best validation score.")
            st.dataframe(fits, hide_index=True)
        if metrics.get("leaks"):
            st.subheader("Overlap of training and test set")
            st.dataframe(pl.DataFrame(metrics["leaks"]), hide_index=True)

if "Classes" in tabs and tabs["Classes"].open:
    with tabs["Classes"]:
        assert classes is not None
        shown = existing_columns(classes, [
            "name", "support", "recall", "precision", "f1", "frozen_f1", "ap", "frozen_ap", "roc_auc", "primary_accuracy",
            "frozen_primary_accuracy", "attracts", "attracts_most", "mistaken_for",
        ])
        st.caption("A click on a heading sorts. " + (
            "Recall is a class's own accuracy." if kind == "multiclass" else
            "Recall: share of the tag's clips with a probability of at least one half. Primary accuracy: share of the clips "
            "that list the tag first for which it is the likeliest tag."
        ))
        st.dataframe(classes.select(shown), hide_index=True, height=min(700, 60 + 35 * len(classes)))
        if "attracts" in classes.columns:
            attracting = classes.filter(pl.col("attracts") > 0).sort("attracts", descending=True).head(12)
            if len(attracting):
                st.subheader("Attractors")
                st.caption("Classes that clips of others are taken for: how many (the mean over seeds), and which most often.")
                told = existing_columns(attracting, ["name", "attracts", "attracts_most", "support"])
                st.dataframe(attracting.select(told), hide_index=True)
        csv_button(classes, "classes.csv")

shown_names: list[str] = []
if confusion is not None:
    counts = confusion[:, 1:].to_numpy().astype(float)
    every = confusion[:, 0].cast(pl.String).to_list()
    wrong = counts - np.diag(np.diag(counts))
    kept = np.sort(np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:MAX_CLASSES])
    shown_names, counts = [every[i] for i in kept], counts[np.ix_(kept, kept)]
    ranked = probes.rank_confusions(confusion)
    follow_selection(ranked, axis_labels(shown_names))

if "Confusion" in tabs and tabs["Confusion"].open:
    with tabs["Confusion"]:
        left, right = st.columns([3, 2], gap="medium")
        with left:
            st.caption("Rows: label; columns: prediction. Click a cell to list its clips below.")
            if len(every) > MAX_CLASSES:
                st.text(f"The {MAX_CLASSES} of {len(every)} most confused classes.")
            by_label = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
            drawn = matrix(
                np.where(counts > 0, by_label, np.nan), shown_names, limits=(0.0, 1.0), colours=share_colours(), clickable=True,
                axes=("label", "prediction"),
                hover="label %{customdata[0]}<br>prediction %{customdata[1]}<br>%{z:.0%} of the label's clips<extra></extra>",
            )
            show(drawn, "confusion", "Confusion matrix", on_select="rerun", selection_mode="points", tools=True)
        with right:
            if len(ranked):
                st.caption("Confusions, most clips first. Select a row to hear them below.")
                st.dataframe(
                    ranked.head(MAX_RANKED).with_columns((pl.col("share") * 100).round(0)), hide_index=True, key="ranked",
                    on_select="rerun", height=520, selection_mode="single-row", column_config=RANKED,
                )
                csv_button(ranked, "confusions.csv")
            else:
                st.info("This run confuses no classes: every test clip is predicted as labelled.")

if tabs["Clips"].open or ("Confusion" in tabs and tabs["Confusion"].open):
    place = tabs["Clips"] if tabs["Clips"].open else tabs["Confusion"]
    with place:
        predictions = run.table("predictions")
        orders = list(probes.sort_orders(predictions, kind))
        first, second, third = st.columns(3)
        truth = said = None
        if classes is not None:
            options = ["any", *classes["name"]]
            for key in ("true", "said"):
                drop_invalid_choice(key, options)
            truth = first.selectbox("Label", options, key="true", bind="query-params")
            said = second.selectbox("Prediction", options, key="said", bind="query-params")
        if not orders:
            stop_with_hint("This run has neither losses nor confidences. Train it again.", "tonelake probe COLUMN --again")
        drop_invalid_choice("by", orders)
        by = third.selectbox("Worst first by", orders, key="by", bind="query-params",
                             help="loss: the run contradicts the label; confidence: the run is unsure.")
        wanted = {"target": None if truth in (None, "any") else truth, "predicted": None if said in (None, "any") else said}
        clips = answer_or_stop(probes.review, lake, run, by=by, k=None, **wanted)
        st.subheader(count_phrase(len(clips), "test clip"))
        if not len(clips):
            st.info("No test clip matches this choice.")
            st.stop()
        clips = with_joined_lists(clips)
        pair = existing_columns(clips, ["target", "predicted"])
        note = pl.format("{} → {}", *pair) if len(pair) == 2 else None
        figure = "probability" if "probability" in clips.columns else "loss"
        rows = rows_for_list(clips.head(MAX_LISTED), score=figure, note=note, moments=True, whole=False)
        meaning = "the probability of the prediction" if figure == "probability" else "the loss"
        st.caption(f"Label → prediction; the figure is {meaning}.")
        list_actions(lake, clips, key="judged actions", name="clips", whole=False)
        result = clip_list(rows, key="judged", actions=actions)
        if space is not None:
            follow_action(result, space, layer)
        if len(clips) > MAX_LISTED:
            st.text(f"The first {MAX_LISTED} of {len(clips):,}.")
