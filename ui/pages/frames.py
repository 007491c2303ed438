"""Frames page: notes, beats, chords and sections of a clip over its spectrogram, labels beside a prediction, played by the
app's player; and the scores, layers and learning curves of the run on frames that made the prediction."""

from functools import partial
from typing import Any

import polars as pl
import streamlit as st

from tonelake import probes
from tonelake.clip_events import (
    MOST_DRAWN,
    WRITERS,
    ClipEvents,
    clip_events,
    clips_with_events,
    event_file,
    file_name,
    prediction_names,
    reference_names,
)
from tonelake.pitch_spectrogram import grid_of
from tonelake.store import is_number
from tonelake.ui.components import piano_roll
from tonelake.ui.plotly_charts import by_epoch, curves, figure_label, intervals, show
from tonelake.ui.shared import answer_or_stop, count_phrase, drop_invalid_choice, page_lake, song_title, stop_with_hint

MAX_CHOICES = 200                        # clips in the list; a search finds the others
NO_PREDICTION = "none"
SIDES = {
    "train": "The run was trained on this clip, so the scores are too high.",
    "valid": "The run chose its settings on this clip, so the scores are too high.",
    "test": "The run has not seen this clip: it is in its test set.",
}

lake = page_lake()
st.title("Frames", anchor=False)
if not lake.clips.count():
    stop_with_hint("This lake has no clips yet.", "tonelake ingest folder PATH")


def matching(clips: pl.DataFrame, words: str) -> pl.DataFrame:
    """Return the clips whose artist, title and track together contain all words."""
    names = [name for name in ("artist", "title", "track") if name in clips.columns]
    text = pl.concat_str([pl.col(name).fill_null("") for name in names], separator=" ").str.to_lowercase()
    for word in words.lower().split():
        clips = clips.filter(text.str.contains(word, literal=True))
    return clips


def name_of(clip: dict[str, Any]) -> str:
    """Return artist, title and position of a clip as plain text."""
    title = song_title(clip)
    place = f"{int(clip['start_s'] // 60)}:{clip['start_s'] % 60:04.1f}"
    return " · ".join(str(part) for part in (clip.get("artist"), title, place) if part)


names = answer_or_stop(prediction_names, lake)
drop_invalid_choice("prediction", [NO_PREDICTION, *names])
prediction = st.selectbox(
    "Prediction", [NO_PREDICTION, *names], index=min(1, len(names)), key="prediction", bind="query-params", disabled=not names,
    help="A run on frames (`tonelake probe notes --frames`), or events that one has stored (`tonelake predict RUN --save`).",
)
chosen_run = None if prediction == NO_PREDICTION else prediction


def show_clip() -> None:
    """Show the piano roll of the chosen clip, with the scores of the prediction and files of both sides."""
    clips = answer_or_stop(clips_with_events, lake, chosen_run)
    if not len(clips):
        st.info("No recording has notes, beats or other events yet. They are read from MIDI, JAMS and text files beside audio.")
        st.code("tonelake ingest events PATH", language=None, wrap_lines=True)
        stop_with_hint("A run on frames that has learned from some finds them in other clips.", "tonelake probe notes --frames")
    second, third, fourth = st.columns([3, 4, 2])
    words = second.text_input("Search", key="q", bind="query-params", placeholder="artist or title").strip()
    wanted = st.query_params.get("clip", "")
    found = matching(clips, words)
    if not len(found):
        st.info("No clip with events matches.")
        st.stop()
    listed = found.head(MAX_CHOICES)
    if wanted in found["clip_id"] and wanted not in listed["clip_id"]:
        listed = pl.concat([found.filter(pl.col("clip_id") == wanted), listed.head(MAX_CHOICES - 1)])
    labels = {row["clip_id"]: name_of(row) for row in listed.iter_rows(named=True)}
    if st.session_state.get("listed clip") not in labels:
        st.session_state["listed clip"] = wanted if wanted in labels else next(iter(labels))
    clip_id = third.selectbox("Clip", list(labels), format_func=labels.__getitem__, key="listed clip")
    st.query_params["clip"] = clip_id
    recording = clips.filter(pl.col("clip_id") == clip_id)["recording"][0]
    sources = answer_or_stop(reference_names, lake, recording)
    drop_invalid_choice("labels", sources)
    reference = fourth.selectbox(
        "Labels", sources or ["none"], key="labels", bind="query-params", disabled=len(sources) < 2,
        help="Kind of file that the labels were read from.",
    )
    if len(found) > MAX_CHOICES:
        st.caption(f"The list has {MAX_CHOICES} of {len(found):,} clips. A search finds the others.")

    shown: ClipEvents = answer_or_stop(clip_events, lake, clip_id, reference=reference, prediction=chosen_run)
    drawing = shown.drawing()
    wide, narrow = st.columns([5, 1], gap="medium")
    with wide:
        piano_roll(drawing, grid_of(shown.clip["duration_s"]), shown.clip, key="roll")
        for side in drawing["sides"]:
            if side["count"] > MOST_DRAWN:
                st.text(f"{MOST_DRAWN:,} of {side['count']:,} notes ({side['label']}) are drawn. Files hold all of them.")
        st.caption("A click seeks, a drag moves, + and − zoom. With the roll in focus, space plays, arrows seek (Shift: 5 s).")
    with narrow:
        show_scores(shown)
    offer_files(shown)


def show_scores(shown: ClipEvents) -> None:
    """Show how well the prediction agrees with the labels of the clip, or why there is nothing to compare."""
    if shown.problem:
        st.markdown("**No prediction**")
        st.text(shown.problem)
    elif not shown.prediction_name:
        st.text("No prediction is chosen." if names else "No run has been trained on frames.")
        if not names:
            st.code("tonelake probe notes --frames", language=None, wrap_lines=True)
    elif not shown.reference_name:
        st.text("This recording has no labels to compare with.")
        st.code("tonelake ingest events PATH", language=None, wrap_lines=True)
    elif not shown.scores:
        st.text("The labels and the prediction have no kind of event in common in this clip.")
    for name, value in list(shown.scores.items())[:1]:
        st.metric(name, f"{value:.2f}")
    if len(shown.scores) > 1:
        others = pl.DataFrame(list(shown.scores.items())[1:], schema=["score", "value"], orient="row")
        two_places = {"value": st.column_config.NumberColumn(format="%.2f")}
        st.dataframe(others, hide_index=True, column_config=two_places)
    if shown.scores:
        st.caption("For this clip alone." + (f" {SIDES[shown.side]}" if shown.side in SIDES else ""))


def offer_files(shown: ClipEvents) -> None:
    """Offer the events of both sides as files."""
    kept = [(True, shown.estimate, "Prediction")] if len(shown.estimate) else []
    kept += [(False, shown.reference, "Labels")] if len(shown.reference) else []
    for predicted, events, title in kept:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(f"{title}, {count_phrase(len(events), 'event')}:")
            for form in WRITERS:
                if form == "MIDI" and not (events["kind"] == "note").any():
                    continue
                st.download_button(
                    form, partial(event_file, shown, form, predicted=predicted), file_name(shown, form, predicted=predicted),
                    WRITERS[form][1], key=f"{title} {form}", on_click="ignore",
                )


def show_run(run: probes.FrameRun) -> None:
    """Show the scores of a run on its test clips, by layer and by group, and its learning curves."""
    metrics, main = run.metrics, run.metrics["main"]
    st.text(metrics["summary"])
    precision = probes.describe_precision(metrics)
    if precision:
        st.text(precision)
    for note in metrics["notes"]:
        st.text(f"Note: {note}")
    scores = pl.DataFrame([
        {"score": label_of(name), **figure} | {
            baseline: known.get(name, {}).get("value") for baseline, known in metrics["baselines"].items()
        } for name, figure in metrics["figures"].items()
    ], infer_schema_length=None)
    three = {name: st.column_config.NumberColumn(format="%.3f") for name, kind in scores.schema.items() if is_number(kind)}
    st.dataframe(scores, hide_index=True, column_config=three)
    st.caption(f"On {count_phrase(metrics['judged'], 'test clip')}, with 95 % intervals {metrics['over']}.")
    layers = run.table("layers")
    if len(layers) > 1:
        st.subheader("By layer")
        show(curves([(label_of(main), layers.fill_nan(None), main)], y=label_of(main)), "layers", f"{label_of(main)} by layer")
    groups = run.table("groups") if "groups.parquet" in run.files.names(".parquet") else pl.DataFrame()
    for (by,), part in groups.group_by("by", maintain_order=True) if len(groups.columns) else ():
        shown = next(name for name in (main, "f1", part["score"][0]) if name in part["score"])
        own = part.filter(pl.col("score") == shown).fill_nan(None).drop_nulls("value")
        if len(own) > 1:
            st.subheader(f"By {by}" if by in ("octave", "instrument") else "By group")
            show(intervals(
                [str(group) for group in own["group"]], *(own[end].to_list() for end in ("value", "low", "high")),
                x=f"{label_of(shown)}, with its 95 % interval", notes=[count_phrase(n, "clip") for n in own["clips"]],
            ), f"by {by}", "Scores by group with 95 % intervals")
    st.subheader("Learning curves")
    epochs = probes.frame_history(run.table("history"), metrics["layer"])
    left, right = st.columns(2)
    with left:
        losses = {"train_loss": "training", "valid_loss": "validation"}
        show(by_epoch(epochs, losses, y="loss"), "losses", "Loss by epoch")
    with right:
        show(by_epoch(epochs, {"score": "validation"}, y="score"), "validation", "Validation score by epoch")
    st.caption("The chosen setting, means over seeds. The score is that of the validation clips, which chooses the epoch.")


def label_of(name: str) -> str:
    return probes.SCORE_LABELS.get(name, figure_label(name))


clip_tab, run_tab = st.tabs(["Clip", "Run"], key="tab", bind="query-params", on_change="rerun")
if run_tab.open:
    with run_tab:
        run = answer_or_stop(probes.FrameRun.find, lake, chosen_run) if chosen_run else None
        if run is None:
            st.info("These events are stored without their run." if chosen_run else "Choose a prediction above to see its run.")
            if not names:
                stop_with_hint("No run has been trained on frames.", "tonelake probe notes --frames")
        else:
            show_run(run)
if clip_tab.open:
    with clip_tab:
        show_clip()
