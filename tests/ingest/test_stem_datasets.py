"""Slakh, MUSDB and NSynth: stems and notes, each set as a tiny folder in its own layout with real audio."""

from __future__ import annotations

import json

import pytest
from dataset_files import DATA, rows_of, sound, text

from tonelake import ingest
from tonelake.store import InputError


def test_slakh_stems_are_clips_of_the_track_of_their_mix(lake, tmp_path):
    home = tmp_path / "slakh" / "train" / "Track00001"
    sound(home / "mix.flac", 0)
    sound(home / "stems" / "S00.flac", 1)
    sound(home / "stems" / "S01.flac", 2)
    text(
        home / "metadata.yaml", "UUID: 1", "stems:",
        "  S00: {audio_rendered: true, inst_class: Bass, is_drum: false, program_num: 33}",
        "  S01: {audio_rendered: true, inst_class: Drums, is_drum: true, program_num: 128}",
        "  S02: {audio_rendered: false, inst_class: Piano, is_drum: false, program_num: 0}",
    )
    report = ingest.ingest_dataset(lake, "slakh", tmp_path / "slakh", workers=1)
    found = rows_of(lake, "stem")
    assert sorted(found) == ["bass", "drums", "mix"] and {row["track"] for row in found.values()} == {"Track00001"}
    assert (found["bass"]["instrument"], found["bass"]["program"], found["bass"]["is_drum"]) == ("Bass", 33, False)
    assert {row["split"] for row in found.values()} == {"train"}
    assert report.notes == ("left out 1 stems that were never rendered",)


def test_babyslakhs_stems_are_clips_though_its_tables_say_that_they_were_not_rendered(lake):
    report = ingest.ingest_dataset(lake, "slakh", DATA / "babyslakh", workers=1)
    found = rows_of(lake, "stem")
    assert {stem: (row["program"], row["track"]) for stem, row in found.items()} == {
        "mix": (None, "Track00001"), "guitar": (30, "Track00001"), "bass": (33, "Track00001"),
    }
    assert report.notes == ()


def test_musdb_stems_have_the_same_names_as_slakhs(lake, tmp_path):
    for number, name in enumerate(("mixture", "drums", "bass", "other", "vocals")):
        sound(tmp_path / "musdb" / "test" / "Ada - A - Song" / f"{name}.wav", number)
    ingest.ingest_dataset(lake, "musdb", tmp_path / "musdb", workers=1)
    found = rows_of(lake, "stem")
    assert sorted(found) == ["bass", "drums", "mix", "other", "vocals"]
    assert (found["mix"]["artist"], found["mix"]["title"], found["mix"]["split"]) == ("Ada", "A - Song", "test")


def test_the_compressed_edition_of_musdb_is_refused_with_a_remedy(lake, tmp_path):
    (tmp_path / "musdb" / "train").mkdir(parents=True)
    (tmp_path / "musdb" / "train" / "A - B.stem.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="MUSDB18-HQ"):
        ingest.ingest_dataset(lake, "musdb", tmp_path / "musdb")


def test_nsynth_has_notes_with_their_split(lake, tmp_path):
    for side, name, pitch in (("train", "bass_electronic_018-022-100", 22), ("valid", "guitar_acoustic_010-060-075", 60)):
        home = tmp_path / "nsynth" / f"nsynth-{side}"
        sound(home / "audio" / f"{name}.wav", pitch)
        note = {
            "pitch": pitch, "velocity": 100, "instrument_str": name.rsplit("-", 2)[0], "qualities_str": ["dark", "percussive"],
            "instrument_family_str": name.split("_")[0], "instrument_source_str": name.split("_")[1],
        }
        text(home / "examples.json", json.dumps({name: note}))
    ingest.ingest_dataset(lake, "nsynth", tmp_path / "nsynth", workers=1)
    found = rows_of(lake, "pitch")
    assert found[22]["split"] == "train" and found[60]["split"] == "valid" and found[60]["family"] == "guitar"
    assert found[22]["qualities"] == ["dark", "percussive"] and found[22]["track"] == "bass_electronic_018"
