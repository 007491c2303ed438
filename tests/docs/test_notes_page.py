"""The report on notes: which timbres are where, figures by group over pieces, repeated notes, and the aims that were missed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bench.notes.models import DEFAULTS, NOTES, TUNED, Result
from bench.notes.page import write_page
from bench.notes.pieces import CHOOSING, HELD_OUT, ORGAN, SEEN, timbres_of
from bench.notes.results import by_encoder
from bench.notes.scores import FAST_HELD, HELD_GROUP, SEEN_GROUP, group_figures, repeated_recall

ATTACKS = dict.fromkeys([*SEEN, *HELD_OUT, ORGAN], 50.0) | {"harpsichord": 8.0, "piano": 8.0, "guitar": 10.0}


def note(start, end, pitch):
    return {"kind": "note", "start_s": float(start), "end_s": float(end), "pitch": float(pitch), "begins": True, "ends": True}


@pytest.fixture(scope="module")
def clips():
    """Forty test pieces in three timbres each."""
    rows = [(f"{piece}-{i}", f"p{piece}", timbre) for piece in range(40) for i, timbre in enumerate(timbres_of("test", piece))]
    return pl.DataFrame(rows, ["clip_id", "piece", "timbre"], orient="row")


def scored(model, clips, values):
    """A result whose onset F1 is that of the clip's timbre in `values`, else 0.6; other scores are 0.5."""
    names = ("onset_f1", "onset_offset_f1", "frame_f1", "triad_recall", "median_error_s", "f1", "cmlt", "amlt")
    columns = {name: [0.5] * len(clips) for name in names}
    columns["onset_f1"] = [values.get(timbre, 0.6) for timbre in clips["timbre"]]
    table = clips.select("clip_id").with_columns(pl.DataFrame(columns))
    return Result(model=model, scores=table, events=pl.DataFrame(), about="1 parameter; peaks")


def test_timbres_of_the_test_set_are_in_no_other_set():
    parts = {part: {timbre for number in range(40) for timbre in timbres_of(part, number)} for part in ("train", "validation")}
    assert parts["train"] == set(SEEN) and parts["validation"] == {*SEEN, *CHOOSING}
    assert {timbre for number in range(40) for timbre in timbres_of("test", number)} == {*SEEN, *HELD_OUT, ORGAN}


def test_groups_are_means_over_their_timbres_with_intervals_over_pieces(clips):
    values = dict.fromkeys(SEEN, 0.8) | {"choir": 0.2, "harpsichord": 0.9}
    figures = group_figures(scored(NOTES[0], clips, values), clips, ATTACKS)
    assert figures[SEEN_GROUP, "onset_f1"].value == pytest.approx(0.8)
    assert figures[HELD_GROUP, "onset_f1"].value == pytest.approx((0.2 + 0.9 + 0.6 + 0.6) / 4)
    assert figures[FAST_HELD, "onset_f1"].value == pytest.approx(0.9)
    assert figures["clarinet", "onset_f1"].value == pytest.approx(0.6)
    held = figures[HELD_GROUP, "onset_f1"]
    assert held.low < held.value < held.high


def test_repeated_notes_are_those_that_follow_a_note_of_their_pitch_at_once():
    reference = pl.DataFrame([note(0, 1, 60), note(1, 2, 60), note(2.5, 3, 60), note(0, 1, 64), note(1, 2, 65), note(2, 3, 65)])
    found = pl.DataFrame([note(0, 2, 60), note(2.5, 3, 60), note(0, 1, 64), note(1, 2, 65), note(2.01, 3, 65)])
    events = found.select(pl.lit("a").alias("clip_id"), pl.all().exclude("begins", "ends"))
    result = Result(model=NOTES[0], scores=pl.DataFrame(), events=events, about="")
    assert repeated_recall(result, {"a": reference}, {"a": "piano"}) == {SEEN_GROUP: (0.5, 1.0)}


def test_the_page_has_every_model_and_says_which_aims_were_missed(clips):
    models = [*NOTES, DEFAULTS, TUNED]
    good = dict.fromkeys(SEEN, 0.9) | {"harpsichord": 0.95}
    results = [scored(model, clips, good if model is NOTES[0] else {}) for model in models]
    notes = [(result, group_figures(result, clips, ATTACKS)) for result in results]
    repeated = {model.label: dict.fromkeys((SEEN_GROUP, HELD_GROUP, ORGAN), (0.25, 0.75)) for model in models}
    page = write_page(
        about={"date": "2026-01-01"}, notes=notes, beats=notes[:2], repeated=repeated, attacks=ATTACKS, speeds={"vqt": 500.0}
    )
    assert all(f"| {model.label} |" in page for model in models)
    assert "- Onset F1, seen timbres: 0.90" in page and "aim 0.80: reached" in page
    assert "Layer 6 of `small`, seen timbres: 0.60; aim 0.55: reached" in page
    low = [(result, group_figures(result, clips, ATTACKS)) for result in [scored(model, clips, {
        timbre: 0.3 for timbre in (*SEEN, *HELD_OUT) if model is not TUNED}) for model in models]]
    page = write_page(
        about={}, notes=low, beats=[], repeated=repeated, attacks=ATTACKS, speeds={}
    )
    assert "**less than the aim by 0.50**" in page and "0.03 below basic-pitch" in page and "**missed by 0.27**" in page
    assert not np.isnan(by_encoder(notes, "onset_f1", [SEEN_GROUP])["vqt"]["harmonic"][SEEN_GROUP])
