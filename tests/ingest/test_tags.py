"""Tags are read as they were meant, whatever their encoding, or left out: never as undecoded bytes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tagged import NIGHT, NORTH, SITUATIONS, ape_of, frames_of, id3, id3v1, sound

from tonelake.ingest import ingest_folder
from tonelake.ingest.tags import clean, read_tags

DATA = Path(__file__).parents[1] / "data" / "tags"


@pytest.mark.parametrize("name", SITUATIONS)
def test_tags_are_read_right_in_every_container_and_encoding(tmp_path, name):
    make, expected = SITUATIONS[name]
    (tmp_path / name).write_bytes(make())
    assert read_tags(tmp_path / name) == expected


@pytest.mark.parametrize(
    "name, title, artist, album",
    [
        ("id3-unsynchronised/one.mp3", "Night Crossing", "The Long Winters", "Vide Noir"),
        ("id3-unsynchronised/two.mp3", "Ancient Names", "Somebody Else", "Other"),
        ("id3-unsynchronised/v23.mp3", "Night Crossing", "The Long Winters", "Vide Noir"),
    ],
)
def test_unsynchronised_tags_of_other_programs_are_read(name, title, artist, album):
    """Expected values as mutagen 1.48 reads them."""
    assert read_tags(DATA / name) == {"title": title, "artist": artist, "album": album}


def test_an_artist_spelled_with_a_joiner_is_one_artist_in_tags_and_tables(lake):
    folder = DATA / "joiners"
    ingest_folder(lake, folder / "music", seconds=None, labels=folder / "labels.csv")
    clips = lake.clips.read(["artist", "album"])
    assert clips["artist"].to_list() == ["گروه\u200cها"] * 2
    assert "👨\u200d👩\u200d👧" in clips["album"].drop_nulls().item()


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",
        "👨\u200d👩\u200d👧",
        "Godspeed\u00a0You",
        "10\u202f000",
        "夜\u3000空",
        "\U0001f3f4\U000e0067\U000e0062",
        "co\u00adop",
        "\U000105c0",
    ],
)
def test_joiners_and_special_spaces_are_kept(text):
    assert clean(f" {text}\n") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u202eb", "ab"),
        ("\ufeffa", "a"),
        ("a\u2028b", "a b"),
        ("a\x85b\x1b[1m", "a b [1m"),
        ("a \x00\t b", "a b"),
        ("a\ufffe\ue000b", "a b"),
        ("\u00a0a\u3000", "a"),
    ],
)
def test_control_characters_are_removed(text, expected):
    assert clean(text) == expected


def test_a_tag_cut_short_or_of_random_bytes_is_never_an_error(tmp_path):
    rng = np.random.default_rng(0)
    whole = id3(frames_of(NORTH, 4, 1, ["unsynchronised"]), 4, True) + sound(".mp3")[:400] + ape_of(NORTH) + id3v1(NIGHT)
    path = tmp_path / "a.mp3"
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        assert set(read_tags(path).values()) <= {*NORTH.values(), *NIGHT.values()}
    for name in ("id3.wav", "id3.aiff", "big.flac", "ilst.m4a", "v23-cover-unsync.mp3", "ape-cover.mp3"):
        data = bytearray(SITUATIONS[name][0]())
        for _ in range(30):
            for place in rng.integers(0, min(len(data), 600), 40).tolist():
                data[place] = int(rng.integers(256))
            path.write_bytes(data)
            assert all(clean(text) == text for text in read_tags(path).values())


@given(
    st.sampled_from(
        [b"ID3\x04\0\x80", b"ID3\x03\0\xc0", b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"fLaC", b"OggS", b"\0\0\0\x08ftyp", b""]
    ),
    st.binary(max_size=400),
    st.sampled_from(
        [b"", b"APETAGEX" + b"\xd0\x07\0\0" + b"\xff" * 20, b"LYRICSEND", b"999999LYRICS200", b"3DI\x04\0\0\0\0\0\x09"]
    ),
)
@settings(
    max_examples=200, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_bytes_give_tags_or_none(tmp_path_factory, head, body, tail):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(head + body + tail)
    assert set(read_tags(path)) <= {"title", "artist", "album"}


def test_a_large_claimed_size_reads_only_what_is_there(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"ID3\x04\0\0\x7f\x7f\x7f\x7fTPE1\x7f\x7f\x7f\x7f\0\0\x03x")
    assert read_tags(tmp_path / "a.mp3") == {}
    (tmp_path / "b.mp3").write_bytes((b"TAG" + bytes(125)) * 50_000)
    assert read_tags(tmp_path / "b.mp3") == {}


def test_titles_in_either_normal_form_are_one(lake, tmp_path):
    for number, form in enumerate(("NFC", "NFD")):
        tags = {"artist": unicodedata.normalize(form, "Béla"), "title": str(number)}
        (tmp_path / f"{number}.mp3").write_bytes(id3(frames_of(tags)) + sound(".mp3"))
    ingest_folder(lake, tmp_path, seconds=None)
    assert set(lake.clips.read()["artist"]) == {"Béla"}
