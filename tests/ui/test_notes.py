"""The page of notes: events of a clip beside a prediction, with scores and files, over its spectrogram."""

from __future__ import annotations

import io
import json

import mido
import numpy as np
import polars as pl
import pytest
from app_pages import page
from fakes import clip_rows
from framed_notes import fill_with_notes
from sounds import write

import tonelake
from tonelake import clip_events as shown_events
from tonelake.clip_events import (
    EVERY_SOURCE,
    clip_events,
    clips_with_events,
    event_file,
    file_name,
    prediction_names,
    reference_names,
)
from tonelake.embed import load_encoder
from tonelake.evaluate import score_events
from tonelake.pitch_spectrogram import BINS, PART_COLUMNS, PART_S, RATE, part_count, spectrogram_part
from tonelake.store import InputError

HOSTILE = "<img src=x onerror=alert(1)> **bold** ../../x"
RECORDING = "r" * 32


def event(kind: str, start_s: float, end_s: float | None = None, **others) -> dict:
    row = {"recording": RECORDING, "kind": kind, "start_s": start_s, "end_s": end_s or start_s, "source": "midi"}
    return row | {"value": None, "pitch": None} | others


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A lake of one recording in two clips with labels, and a stored prediction.  Do not change it."""
    lake = tonelake.open(tmp_path_factory.mktemp("labelled") / "lake", progress=False)
    shared = {"recording": RECORDING, "track": "t", "source": "made:0", "digest": "0" * 32, "cut": "10s", "title": HOSTILE}
    lake.clips.add(pl.DataFrame([
        {"clip_id": f"{i:020x}", "start_s": 10.0 * i, "duration_s": 10.0, **shared} for i in range(2)
    ] + [{"clip_id": "f" * 20, "start_s": 0.0, "duration_s": 10.0, **shared, "recording": "s" * 32, "track": "silent"}]))
    lake.events.replace(pl.DataFrame([
        event("note", 9.0, 11.0, pitch=60.0, value="Bass"), event("note", 12.0, 13.0, pitch=64.0),
        event("note", 14.0, 15.0, pitch=67.0),
        event("beat", 10.5, source="beats"), event("downbeat", 10.5, source="beats"), event("beat", 11.5, source="beats"),
        event("section", 0.0, 20.0, value=HOSTILE, source="lab"), event("chord", 10.0, 20.0, value="C:maj", source="lab"),
        event("note", 12.02, 13.0, pitch=64.0, source="predicted:heads"),
        event("note", 17.0, 18.0, pitch=72.0, source="predicted:heads"),
        event("note", 8.0, 10.1, pitch=72.0, source="predicted:heads"),
    ]))
    return lake


def test_a_clip_has_its_labels_and_its_prediction_with_the_scores_of_evaluate(labelled):
    clip = f"{1:020x}"
    found = clip_events(labelled, clip, prediction="heads")
    notes = found.reference.filter(pl.col("kind") == "note")
    assert notes["start_s"].to_list() == [0.0, 2.0, 4.0] and notes["begins"].to_list() == [False, True, True]
    assert found.estimate["start_s"].round(6).to_list() == [0.0, 2.02, 7.0]
    expected = score_events("notes", found.reference, found.estimate.filter("begins"), 10.0)     # not the held note
    assert found.scores["Note F1"] == expected["onset_f1"] == 0.5 and "Beat F1" not in found.scores
    assert found.scores["Frame F1"] == score_events("notes", found.reference, found.estimate, 10.0)["frame_f1"]
    first = clip_events(labelled, f"{0:020x}", prediction="heads")
    assert first.reference.filter(pl.col("kind") == "note")["end_s"].to_list() == [10.0] and len(first.estimate) == 1
    assert first.scores["Note F1"] == 0.0
    assert clip_events(labelled, clip).scores == {}


def test_a_lake_without_events_has_no_clips_to_show(lake):
    lake.clips.add(clip_rows(1, 1))
    assert not len(clips_with_events(lake))


def test_labels_of_several_files_are_shown_together_or_one_by_one(labelled):
    assert reference_names(labelled, RECORDING) == [EVERY_SOURCE, "beats", "lab", "midi"]
    assert prediction_names(labelled) == ["heads"]
    assert set(clip_events(labelled, f"{1:020x}", reference="beats").reference["kind"]) == {"beat", "downbeat"}
    assert clips_with_events(labelled)["clip_id"].to_list() == [f"{0:020x}", f"{1:020x}"]
    missing = clip_events(labelled, "f" * 20, prediction="heads")
    assert missing.reference_name == "" and missing.problem == "heads has no events in this recording."


def test_a_drawing_has_the_notes_beats_and_spans_of_both_sides(labelled, monkeypatch):
    drawn = clip_events(labelled, f"{1:020x}", prediction="heads").drawing()
    own, found = drawn["sides"]
    assert (drawn["low"], drawn["high"]) == (54, 78) and (own["name"], found["name"]) == ("reference", "predicted")
    assert own["notes"] == {"start": [0, 2, 4], "end": [1, 3, 5], "pitch": [60, 64, 67], "words": ["Bass", "", ""]}
    assert own["beats"] == {"time": [0.5, 1.5], "down": [True, False]} and found["beats"] == {"time": [], "down": []}
    assert [span["kind"] for span in own["spans"]] == ["section", "chord"] and own["spans"][0]["words"] == [HOSTILE]
    assert json.dumps(drawn)
    monkeypatch.setattr(shown_events, "MOST_DRAWN", 2)
    cut = clip_events(labelled, f"{1:020x}").drawing()["sides"][0]
    assert cut["notes"]["pitch"] == [60, 64] and cut["count"] == 3


def test_files_hold_the_events_of_the_side_that_is_asked_for(labelled):
    found = clip_events(labelled, f"{1:020x}", prediction="heads")
    midi = mido.MidiFile(file=io.BytesIO(event_file(found, "MIDI", predicted=True)))
    assert [message.note for message in midi if message.type == "note_on"] == [72, 64, 72]
    jams = json.loads(event_file(found, "JAMS", predicted=False))
    assert {part["namespace"] for part in jams["annotations"]} == {"note_midi", "beat", "segment_open", "chord_harte"}
    assert len(pl.read_csv(io.BytesIO(event_file(found, "CSV", predicted=False)))) == len(found.reference)
    name = file_name(found, "MIDI", predicted=True)
    assert name.endswith(".mid") and not set(name) & set('<>/\\"')
    with pytest.raises(InputError, match="has no notes"):
        event_file(clip_events(labelled, f"{1:020x}", reference="beats"), "MIDI", predicted=False)


def test_the_page_shows_the_clip_of_its_address_with_scores_and_names_as_text(labelled, monkeypatch):
    from tonelake.ui import components

    shown = []
    real = components.ROLL
    monkeypatch.setattr(components, "ROLL", lambda **settings: (shown.append(settings["data"]), real(**settings)))
    clip = f"{1:020x}"
    test = page("frames", labelled, monkeypatch, clip=clip)
    expected = clip_events(labelled, clip, prediction="heads")
    assert shown[0]["clip"] == clip and shown[0]["sides"] == expected.drawing()["sides"]
    assert [(metric.label, metric.value) for metric in test.metric] == [("Note F1", "0.50")]
    others = dict(test.dataframe[0].value.itertuples(index=False))
    assert others == {name: value for name, value in expected.scores.items() if name != "Note F1"}
    assert not any("onerror" in part.value for part in (*test.markdown, *test.caption, *test.info, *test.title))
    assert [button.label for button in test.get("download_button")] == ["MIDI", "JAMS", "CSV"] * 2
    alone = page("frames", labelled, monkeypatch, clip=clip, prediction="none", labels="beats")
    assert not alone.metric and [side["name"] for side in shown[-1]["sides"]] == ["reference"]
    assert [button.label for button in alone.get("download_button")] == ["JAMS", "CSV"]
    assert "No clip with events matches." in [part.value for part in page("frames", labelled, monkeypatch, q="xyz").info]


def test_parts_of_the_spectrogram_join_without_a_seam_and_show_pitches(tmp_path):
    time_s = np.arange(round(18 * RATE)) / RATE
    hz = np.where(time_s < 9, 440.0, 523.25)
    sound = 0.5 * np.sin(2 * np.pi * np.cumsum(hz) / RATE)
    write(tmp_path / "music" / "tone.wav", sound.astype(np.float32)[:, None], RATE)
    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingest_folder(tmp_path / "music")
    clip = lake.clips.ids()[0]
    assert part_count(18.0) == 2
    found = np.concatenate([spectrogram_part(lake, clip, part) for part in range(2)])
    assert found.shape == (18 * RATE // 512, BINS) and found.dtype == np.uint8
    whole = np.minimum(*(load_encoder(name).states(lake.audio(clip, RATE), 0) for name in ("cqt", "vqt")))[:, :BINS]
    levels = np.rint((np.concatenate([whole, whole[-1:]])[: 2 * len(found)].reshape(-1, 2, BINS).max(axis=1) + 1) * 127.5)
    seam = slice(PART_COLUMNS - 20, PART_COLUMNS + 20)
    assert np.abs(levels[seam] - found[seam])[levels[seam] > 60].max() <= 1
    middle = [found[round(at / PART_S * PART_COLUMNS)].argmax() for at in (4.0, 13.0)]
    assert middle == [3 * (69 - 21) + 1, 3 * (72 - 21) + 1]           # the middle bins of A4 and C5
    with pytest.raises(InputError, match="has 2 parts"):
        spectrogram_part(lake, clip, 2)


@pytest.mark.slow
def test_a_run_finds_events_in_clips_whose_frames_are_stored_and_has_a_page(tmp_path, monkeypatch):
    lake = tonelake.open(fill_with_notes(tmp_path / "lake", tracks=12).uri, progress=False)
    run = lake.probe_frames(
        "notes", lowest=60, highest=65, layers=("notes",), head="linear", rates=(3e-2,), epochs=4, segment_s=2.0, name="run",
    )
    split = run.table("split")
    for side in ("test", "train"):
        clip = split.filter(pl.col("side") == side)["clip_id"][0]
        found = clip_events(lake, clip, prediction="run")
        assert (found.side, found.problem) == (side, "") and "Note F1" in found.scores
        if side == "test":
            judged = run.table("clips").filter(pl.col("clip_id") == clip)
            assert found.scores["Note F1"] == pytest.approx(judged["onset_f1"][0])
    assert len(clips_with_events(lake, "run")) == 12
    shown = page("frames", lake, monkeypatch, tab="Run", prediction="run")
    scores = shown.dataframe[0].value
    expected = [figure["value"] for figure in run.metrics["figures"].values()]
    assert scores["value"].dropna().to_list() == [value for value in expected if value is not None]
    text = [part.value for part in shown.text]
    assert run.metrics["summary"] in text and any("The interval is" in one for one in text)
    assert len(shown.get("plotly_chart")) >= 2           # losses and validation scores by epoch
