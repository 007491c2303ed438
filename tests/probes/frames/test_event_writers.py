"""MIDI, JAMS and CSV files of events: what is written is read back."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pretty_midi
import pytest
from event_tables import instants, notes, random_notes, spans

from tonelake.ingest.events.jams import read_jams
from tonelake.ingest.events.midi import read_midi
from tonelake.probes.frames.writers import event_file_name, write_event_csv, write_jams, write_midi, write_whole


def band() -> pl.DataFrame:
    """Two instruments and notes without one; repeated notes, a chord, velocities."""
    rows = [notes((0.0, 1.0, 60), (1.0, 1.5, 60), (1.0, 2.25, 64), (3.0, 3.0, 67), value="piano"),
            notes((0.5, 2.0, 36), (600.0, 600.5, 38), value="bass"), random_notes(1, 40)]
    table = pl.concat(rows)
    return table.with_columns(velocity=pl.Series([None if i % 3 == 0 else i + 20 for i in range(len(table))], dtype=pl.Int32))


def test_midi_is_read_back_by_pretty_midi_to_half_a_millisecond(tmp_path):
    table = band()
    assert write_midi(table, tmp_path / "band.mid", programs={"bass": 33}) == len(table)
    read = pretty_midi.PrettyMIDI(str(tmp_path / "band.mid"))
    assert sorted(one.name for one in read.instruments) == ["", "bass", "piano"]
    assert {one.name: one.program for one in read.instruments} == {"": 0, "bass": 33, "piano": 0}
    for instrument in read.instruments:
        wanted = table.filter(pl.col("value").fill_null("") == instrument.name).sort("start_s", "pitch")
        found = sorted(instrument.notes, key=lambda note: (round(note.start, 4), note.pitch))
        assert [note.pitch for note in found] == wanted["pitch"].to_list()
        assert [note.start for note in found] == pytest.approx(wanted["start_s"].to_list(), abs=2.6e-4)
        assert [note.end for note in found] == pytest.approx(wanted["end_s"].to_list(), abs=5.1e-4)
        assert [note.velocity for note in found] == wanted["velocity"].fill_null(80).to_list()


def test_midi_is_read_back_as_events(tmp_path):
    table = band().filter(pl.col("value").is_not_null())
    write_midi(table, tmp_path / "band.mid")
    found = read_midi(tmp_path / "band.mid").events
    columns = ("kind", "value", "pitch", "start_s")
    assert sorted(found.select(columns).rows()) == sorted(table.select(columns).rows())


def test_every_note_is_ended_after_it_begins(tmp_path):
    import mido

    overlapping = notes((0, 4, 60), (1, 2, 60), (1, 3, 60), (2, 2, 60), (2, 2.00001, 61))
    assert write_midi(overlapping, tmp_path / "x.mid") == 4  # of two that begin together, one
    sounding, time = {}, 0.0
    for message in mido.MidiFile(tmp_path / "x.mid"):
        time += message.time
        if message.type == "note_on":
            assert message.note not in sounding
            sounding[message.note] = time
        elif message.type == "note_off":
            assert time > sounding.pop(message.note)
    assert not sounding


def test_silence_and_seventeen_instruments_are_written(tmp_path):
    assert write_midi(notes(), tmp_path / "silence.mid") == 0
    assert pretty_midi.PrettyMIDI(str(tmp_path / "silence.mid")).instruments == []
    many = pl.concat([notes((0, 1, 60), value=f"voice {i}") for i in range(17)])
    write_midi(many, tmp_path / "many.mid")
    read = pretty_midi.PrettyMIDI(str(tmp_path / "many.mid"))
    assert sum(len(one.notes) for one in read.instruments) == 17 and not any(one.is_drum for one in read.instruments)


def test_jams_has_the_fields_of_its_schema_and_is_read_back(tmp_path):
    table = pl.concat([
        notes((0.25, 1.0, 60.5), value="flute"), notes((0.5, 1.0, 40), value="bass"), instants("onset", [0.25]),
        instants("beat", [0.0, 0.5, 1.0]).with_columns(value=pl.Series(["1", "2", "3"])),
        instants("downbeat", [0.0]).with_columns(value=pl.lit("1")),
        spans("chord", (0, 1, "C:maj"), (1, 2, "N")), spans("key", (0, 2, "F# minor")), spans("section", (0, 2, "verse")),
    ])
    path = tmp_path / "clip.jams"
    assert write_jams(table, path, duration_s=2.0, title="Ein Titel: 'ü'", annotator="run") == 10
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() == {"annotations", "file_metadata", "sandbox"}
    assert content["file_metadata"]["duration"] == 2.0 and content["file_metadata"]["title"] == "Ein Titel: 'ü'"
    assert {one["namespace"] for one in content["annotations"]} == {
        "note_midi", "beat", "onset", "chord_harte", "key_mode", "segment_open",
    }
    for one in content["annotations"]:
        assert one.keys() == {"annotation_metadata", "namespace", "data", "sandbox", "time", "duration"}
        for row in one["data"]:
            assert row.keys() == {"time", "duration", "value", "confidence"}
            assert row["time"] >= 0 and row["duration"] >= 0
            if one["namespace"] == "key_mode":
                assert re.fullmatch(r"N|[A-G][b#]?(:(major|minor))?", row["value"])
    columns = ("kind", "start_s", "end_s", "value", "pitch")
    assert set(read_jams(path).events.select(columns).rows()) == set(table.select(columns).rows())


def test_csv_holds_every_event(tmp_path):
    table = pl.concat([band(), spans("chord", (0, 1, 'C:maj, "quoted"\nline'))])
    assert write_event_csv(table, tmp_path / "events.csv") == len(table)
    read = pl.read_csv(tmp_path / "events.csv", schema_overrides={"pitch": pl.Float32, "velocity": pl.Int32})
    wanted = table.select(read.columns).sort("start_s", "kind", "pitch", maintain_order=True)
    assert read["start_s"].to_list() == pytest.approx(wanted["start_s"].to_list(), abs=1e-6)
    assert read.select("kind", "value", "pitch", "velocity").equals(wanted.select("kind", "value", "pitch", "velocity"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")

    def half(beside):
        beside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, half)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jams(notes((0, 1, 60)), path, duration_s=float("nan"))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("title", [
    "../../etc/passwd", "a/b\\c", "..", "", "CON", "nul.mid", "x" * 500, "\u0000\n\x1b[31m", "ü" * 300, "日本" * 200, "-rf",
    "a:b?c*", "\ud800 lone", "100%d",
])
def test_any_title_makes_a_file_name_that_every_system_takes(tmp_path, title):
    name = event_file_name(title, "clip-1", ".mid")
    assert len(name.encode()) < 200 and not re.search(r'[<>:"/\\|?*%\x00-\x1f]', name) and name[0] not in ". "
    path = tmp_path / name
    write_midi(notes((0, 1, 60), value=title.encode("utf-8", "replace").decode() or None), path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert name != event_file_name(title, "clip-2", ".mid")


def test_times_of_a_long_recording_are_exact(tmp_path):
    times = np.arange(20) * 450.123
    table = notes(*((t, t + 0.5, 60) for t in times))
    write_midi(table, tmp_path / "long.mid")
    read = pretty_midi.PrettyMIDI(str(tmp_path / "long.mid"))
    assert [note.start for note in read.instruments[0].notes] == pytest.approx(times.tolist(), abs=5.1e-4)
