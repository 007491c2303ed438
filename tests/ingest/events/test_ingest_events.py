"""`ingest events`: label files of a folder become events of recordings, as a sync, and every file left out is named."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import mido
import polars as pl
import pytest
from commands import rows, run
from dataset_files import sound, text

from tonelake import ingest
from tonelake.ingest import ingest_chorales
from tonelake.ingest.events.reading import fitted
from tonelake.store import InputError, Lake


def midi(path, *spans, channel=0, velocity=90):
    """Write notes (start and end in seconds, pitch) as a MIDI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    track, now = mido.MidiTrack(), 0
    events = [(start, "note_on", pitch) for start, _, pitch in spans] + [(end, "note_off", pitch) for _, end, pitch in spans]
    for time_s, kind, pitch in sorted(events):
        at = round(time_s * 960)                                     # 480 ticks a quarter note of half a second
        track.append(mido.Message(kind, note=pitch, velocity=velocity, channel=channel, time=at - now))
        now = at
    mido.MidiFile(tracks=[track]).save(path)
    return path


@pytest.fixture(scope="module")
def sung(tmp_path_factory):
    """A folder with two songs of two seconds in clips of one, and their lake."""
    home = tmp_path_factory.mktemp("sung")
    sound(home / "music" / "a" / "one.wav", 1)
    sound(home / "music" / "b" / "two.flac", 2)
    ingest.ingest_folder(Lake(home / "pristine"), home / "music", seconds=1.0, workers=1)
    return home, {*home.rglob("*")}


@pytest.fixture
def home(sung):
    """The folder, with a lake that the test may change: everything that it adds is removed."""
    folder, files = sung
    shutil.copytree(folder / "pristine", folder / "lake")
    yield folder
    shutil.rmtree(folder / "lake")
    for path in sorted({*folder.rglob("*")} - files, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def stored(lake, *columns):
    return lake.events.read().sort("kind", "start_s").select(columns or ("kind", "start_s", "end_s", "value", "source")).rows()


def test_files_beside_audio_become_events_and_a_second_run_changes_nothing(home):
    lake = Lake(home / "lake")
    midi(home / "music/a/one.mid", (0.5, 1.5, 60), (1.0, 1.25, 64))
    text(home / "music/b/two.beats", "0.25 1", "0.75 2", "5.0 1")
    report = ingest.ingest_events(lake, home / "music", workers=1)
    assert str(report) == "5 events (2 note, 2 beat, 1 downbeat) of 2 recordings from 2 label files"
    assert report.notes == ("repaired: 2 events after the recording's end left out",)
    assert stored(lake) == [
        ("beat", 0.25, 0.25, "1", "beats"), ("beat", 0.75, 0.75, "2", "beats"), ("downbeat", 0.25, 0.25, "1", "beats"),
        ("note", 0.5, 1.5, None, "midi"), ("note", 1.0, 1.25, None, "midi"),
    ]
    version = lake.events.table.version
    assert str(ingest.ingest_events(lake, home / "music", workers=1)).endswith("from 2 label files, all known")
    assert lake.events.table.version == version
    clips = lake.clips.read(where="source LIKE '%one.wav'")
    parts = lake.events.of_clips(clips, ["note"]).select("start_s", "end_s", "pitch", "begins", "ends").rows()
    assert parts == [(0.5, 1.0, 60.0, True, False), (0.0, 0.5, 60.0, False, True), (0.0, 0.25, 64.0, True, True)]


def test_a_changed_file_replaces_its_events_and_a_deleted_file_keeps_them(home):
    lake = Lake(home / "lake")
    text(home / "music/a/one.jams", json.dumps({"annotations": [
        {"namespace": "beat", "data": [{"time": 0.5, "duration": 0, "value": 1}]},
        {"namespace": "chord", "data": [{"time": 0, "duration": 1, "value": "C"}]},
    ]}))
    text(home / "music/b/two.key", "Eb minor")
    ingest.ingest_events(lake, home / "music", workers=1)
    assert [row[0] for row in stored(lake)] == ["beat", "chord", "downbeat", "key"]
    assert stored(lake)[-1] == ("key", 0.0, 2.0, "D# minor", "lab")               # to the recording's end
    text(home / "music/a/one.jams", json.dumps({"annotations": [
        {"namespace": "beat", "data": [{"time": 0.75, "duration": 0, "value": 2}]},
    ]}))
    (home / "music/b/two.key").unlink()
    report = ingest.ingest_events(lake, home / "music", workers=1)
    assert report.changed and report.events == {"beat": 1}
    assert stored(lake, "kind", "start_s") == [("beat", 0.75), ("key", 0.0)]


def test_labels_in_a_folder_of_their_own_are_matched_and_misfits_are_named(home):
    lake = Lake(home / "lake")
    labels = home / "labels"
    text(labels / "a" / "one_chords.txt", "0 1 A:min", "1 9 G")
    text(labels / "two.lab", "0 1 verse", "1 2 chorus")
    text(labels / "three.beats", "0.5")
    text(labels / "b" / "two.beats", "soon")
    text(labels / "one.onsets", *(str(10 + time) for time in range(9)))
    text(labels / "one.txt", "lyrics")
    report = ingest.ingest_events(lake, home / "music", labels=labels, workers=1)
    assert stored(lake, "kind", "start_s", "end_s", "value") == [
        ("chord", 0.0, 1.0, "A:min"), ("chord", 1.0, 2.0, "G:maj"), ("section", 0.0, 1.0, "verse"),
        ("section", 1.0, 2.0, "chorus"),
    ]
    assert report.failed == 2 and "1 of 5 label files belong to no recording of the lake: three.beats" in report.notes
    errors = sorted(lake.failures.read("events")["error"])
    assert errors[0].startswith("one.onsets: 9 of 9 events are after the recording's end (2.0 s)")
    assert errors[1].startswith("two.beats, row 1: begins with 'soon'")
    text(labels / "b" / "two.beats", "0.5")
    (labels / "one.onsets").unlink()
    assert ingest.ingest_events(lake, labels=labels, workers=1).failed == 0 and not lake.failures.count()


def test_a_kind_is_chosen_and_decides_what_nameless_text_files_hold(home):
    lake = Lake(home / "lake")
    midi(home / "music/a/one.mid", (0.5, 1.5, 60))
    text(home / "music/b/two.txt", "0,25", "0,50")
    text(home / "music/b/two.lab", "0 1 C", "1 2 A")
    assert ingest.ingest_events(lake, home / "music", kinds=["onset"], workers=1).events == {"onset": 2}
    assert stored(lake, "start_s", "source") == [(0.25, "onsets"), (0.5, "onsets")]
    assert ingest.ingest_events(lake, home / "music", kinds=["chord"], workers=1).events == {"chord": 2}
    assert ingest.ingest_events(lake, home / "music", kinds=["note"], workers=1).events == {"note": 1}
    with pytest.raises(InputError, match="kind 'melody': unknown"):
        ingest.ingest_events(lake, home / "music", kinds=["melody"])


def test_copies_with_different_labels_keep_those_of_the_first_file(home):
    lake = Lake(home / "lake")
    shutil.copy(home / "music/a/one.wav", home / "music/b/copy.wav")
    ingest.ingest_folder(lake, home / "music", seconds=1.0, workers=1)
    text(home / "music/a/one.beats", "0.5", "1.0")
    text(home / "music/b/copy.beats", "0.5", "1.0")
    assert not ingest.ingest_events(lake, home / "music", workers=1).notes        # equal labels
    text(home / "music/b/copy.beats", "0.7", "1.2")
    report = ingest.ingest_events(lake, home / "music", workers=1)
    assert report.notes == ("left out events that another file has as well: beat of copy.beats, since one.beats has some",)
    assert stored(lake, "start_s") == [(0.5,), (1.0,)]


def test_nothing_to_read_is_an_error_with_a_remedy(home, tmp_path):
    lake = Lake(home / "lake")
    with pytest.raises(InputError, match="none of its 0 label files belongs"):
        ingest.ingest_events(lake, home / "music")
    with pytest.raises(InputError, match="the lake has no audio of this folder"):
        ingest.ingest_events(lake, home / "lake")
    with pytest.raises(InputError, match=r"--labels .*gone: is not a folder"):
        ingest.ingest_events(lake, labels=tmp_path / "gone")
    assert str(ingest.ingest_events(lake, workers=1)) == "0 events (none) of 0 recordings from 0 label files, all known"


def test_chorales_of_the_lake_are_read_from_their_scores(organ):
    ingest_chorales(organ)
    before = organ.events.read()
    organ.events.drop("chorale")
    report = ingest.ingest_events(organ, workers=1)
    assert report.changed and report.files == 1 and organ.events.read().equals(before)


def test_a_file_of_any_name_and_a_hostile_one_cost_one_failure(home):
    lake = Lake(home / "lake")
    for number, name in enumerate(("x\x1b[31m.wav", "é'\" %#?.wav")):
        sound(home / "music" / name, number + 5)
    ingest.ingest_folder(lake, home / "music", seconds=1.0, workers=1)
    text(home / "music" / "x\x1b[31m.beats", "0.5")
    text(home / "music" / "é'\" %#?.beats", "0.25")
    (home / "music/a/one.mid").write_bytes(b"MThd" + b"\xff" * 100)
    (home / "music/b/two.jams").write_text("[" * 100_000)
    report = ingest.ingest_events(lake, home / "music", workers=1)
    assert report.failed == 2 and report.events == {"beat": 2}


def test_slakhs_tables_name_the_instruments_of_stems_and_the_mix_gets_the_notes_of_all(lake, tmp_path):
    home = tmp_path / "slakh" / "train" / "Track00001"
    for number, name in enumerate(("mix", "stems/S00", "stems/S01")):
        sound(home / f"{name}.flac", number)
    midi(home / "MIDI" / "S00.mid", (0.5, 1.0, 40))
    midi(home / "MIDI" / "S01.mid", (0.25, 0.5, 36), channel=9)
    midi(home / "MIDI" / "S02.mid", (0.25, 0.5, 70))
    midi(home / "all_src.mid", (0.5, 1.0, 40), (0.25, 0.5, 70))
    text(
        home / "metadata.yaml", "stems:",
        "  S00: {audio_rendered: true, inst_class: Bass, is_drum: false, program_num: 33}",
        "  S01: {audio_rendered: true, inst_class: Drums, is_drum: true, program_num: 128}",
        "  S02: {audio_rendered: false, inst_class: Piano, is_drum: false, program_num: 0}",
    )
    report = ingest.ingest_dataset(lake, "slakh", tmp_path / "slakh", workers=1)
    assert any(note.startswith("5 events (2 note, 3 onset) of 3 recordings") for note in report.notes)
    stem_of = dict(lake.clips.read(["recording", "stem"]).iter_rows())
    found = lake.events.read().with_columns(stem=pl.col("recording").replace_strict(stem_of)).sort("stem", "kind", "start_s")
    assert found.select("stem", "kind", "start_s", "value", "pitch").rows() == [
        ("bass", "note", 0.5, "bass", 40.0), ("drums", "onset", 0.25, "drums", None), ("mix", "note", 0.5, "bass", 40.0),
        ("mix", "onset", 0.25, "drums", None), ("mix", "onset", 0.5, "bass", None),
    ]


def test_maestros_tables_name_audio_and_midi_files(lake, tmp_path):
    sound(tmp_path / "maestro" / "2004" / "wav 1.wav", 1)
    ingest.ingest_folder(lake, tmp_path / "maestro", seconds=1.0, workers=1)
    midi(tmp_path / "maestro" / "2004" / "performance.midi", (0.5, 1.0, 60))
    head = "canonical_composer,split,midi_filename,audio_filename"
    text(tmp_path / "maestro/maestro-v3.0.0.csv", head, "Bach,train,2004/performance.midi,2004/wav 1.wav", "Liszt,test,x,y")
    assert ingest.ingest_events(lake, tmp_path / "maestro", workers=1).events == {"note": 1}
    text(tmp_path / "maestro/maestro-v3.0.0.csv", "composer,split", "Bach,train")
    text(tmp_path / "maestro/maestro-v2.json", json.dumps({"midi_filename": {"0": "2004/performance.midi"},
                                                           "audio_filename": {"0": "2004/wav 1.wav"}}))
    report = ingest.ingest_events(lake, tmp_path / "maestro", workers=1)
    assert report.failed == 1 and report.events == {"note": 1}


def test_the_command_counts_lists_and_follows_forget_and_verify(home):
    text(home / "music/b/two.beats", "0.25 1", "1.75 2")
    done = run("ingest", "events", home / "music", "--workers", 1, lake=home / "lake")
    assert done.returncode == 0 and "3 events (2 beat, 1 downbeat) of 1 recordings from 1 label files" in done.stderr
    assert rows(run("events", "--json", lake=home / "lake")) == [
        {"kind": "beat", "source": "beats", "recordings": 1, "events": 2},
        {"kind": "downbeat", "source": "beats", "recordings": 1, "events": 1},
    ]
    assert rows(run("status", "--json", lake=home / "lake"))[0]["events"] == 3
    clip = Lake(home / "lake").clips.read(where="source LIKE '%two.flac' AND start_s = 1.0")["clip_id"][0]
    listed = rows(run("events", clip, "--kind", "beat", "--json", lake=home / "lake"))
    assert [(row["start_s"], row["value"], row["begins"]) for row in listed] == [(0.75, "2", True)]
    assert run("ingest", "events", home / "music", "--kind", "song", lake=home / "lake").returncode == 2
    text(home / "music/a/one.beats", "x")
    failed = run("ingest", "events", home / "music", "--strict", "--workers", 1, lake=home / "lake")
    assert failed.returncode == 1 and "1 files failed" in failed.stderr
    lake = Lake(home / "lake")
    lake.events.replace(pl.DataFrame({
        "recording": ["nobody"], "kind": ["beat"], "start_s": [0.0], "end_s": [0.0], "source": ["beats"],
    }))
    assert run("verify", lake=home / "lake").stdout.count("recordings with events have no clips") == 1
    assert run("verify", "--repair", lake=home / "lake").returncode == 0 and lake.events.count() == 3
    assert run("forget", "--where", "source LIKE '%two.flac'", "--yes", lake=home / "lake").returncode == 0
    assert lake.events.count() == 0 and "events" in run("optimize", "--csv", lake=home / "lake").stdout


def test_spans_are_cut_at_the_recordings_end_and_open_ones_end_there():
    rows = pl.DataFrame({
        "kind": ["key", "chord", "beat"], "start_s": [0.0, 8.0, 10.5], "end_s": [float("inf"), 14.0, 10.5],
        "value": ["C major", "N", "1"], "pitch": [None] * 3, "velocity": [None] * 3,
    })
    found = fitted("x", rows, 10.0, 9.0, Counter())
    assert found.events.select("start_s", "end_s").rows() == [(0.0, 10.0), (8.0, 10.0), (10.5, 10.5)]
    assert found.repairs == {"spans that last beyond the recording's end cut": 1}
    assert fitted("x", rows, None, 9.0, Counter()).events["end_s"].to_list() == [9.0, 14.0, 10.5]
