"""Tags are read as they were meant, whatever their encoding, or left out: never as undecoded bytes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tagged import (
    NIGHT,
    NORTH,
    SITUATIONS,
    ape,
    ape_of,
    comments,
    frame,
    frames_of,
    id3,
    id3v1,
    sound,
    text_body,
    with_flac_comments,
)

from tonelake.ingest import ingest_folder
from tonelake.ingest.tags import clean, read_all_tags, read_tags

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


@pytest.mark.parametrize("name", ["a.mp3", "b.mp3", "c.mp3", "d.flac"])
def test_all_artists_and_further_fields_are_read(tmp_path, name):
    artists, path = ["Björk", "Thom Yorke"], tmp_path / name
    texts = {"TIT2": "T", "TPE2": "Various", "TRCK": "3/12", "TDRC": "1997-05-21", "TCON": "(17)"}
    if name == "a.mp3":                                   # ID3v2.4: values are separated by a null
        body = b"".join(frame(k.encode(), text_body(v)) for k, v in {**texts, "TPE1": "\0".join(artists)}.items())
        path.write_bytes(id3(body) + sound(".mp3"))
    elif name == "b.mp3":                                 # ID3v2.3
        body = b"".join(
            frame(k.encode(), text_body(v, 1), 3) for k, v in {**texts, "TPE1": "\0".join(artists), "TYER": "1997"}.items()
            if k != "TDRC"
        )
        path.write_bytes(id3(body, 3) + sound(".mp3"))
    elif name == "c.mp3":
        items = {"Title": "T", "Artist": "\0".join(artists), "Album Artist": "Various", "Track": "3", "Year": "1997"}
        items["Genre"] = "Rock"
        path.write_bytes(sound(".mp3") + ape([(k, v.encode(), 0) for k, v in items.items()]))
    else:
        pairs = [("TITLE", b"T"), *(("ARTIST", one.encode()) for one in artists), ("ALBUMARTIST", b"Various")]
        pairs += [("TRACKNUMBER", b"03"), ("DATE", b"1997"), ("GENRE", b"Rock")]
        path.write_bytes(with_flac_comments(sound(".flac"), comments(pairs)))
    assert read_all_tags(path) == {
        "title": "T", "artist": "Björk", "artists": artists, "album_artist": "Various", "track_number": 3, "year": 1997,
        "genre": "Rock",
    }


@pytest.mark.parametrize(
    ("artist", "expected"),
    [("AC/DC", ["AC/DC"]), ("Björk feat. Thom Yorke", ["Björk feat. Thom Yorke"]), ("<Unknown>", None),
     ("Unknown Artist", None), ("http://example.org/x", None), ("www.example.org", None), (" ", None),
     ("The Unknown", ["The Unknown"])],
)
def test_names_with_a_slash_or_guest_stay_whole_and_placeholders_are_no_artists(tmp_path, artist, expected):
    (tmp_path / "a.mp3").write_bytes(id3(frame(b"TPE1", text_body(artist))) + sound(".mp3"))
    assert read_all_tags(tmp_path / "a.mp3").get("artists") == expected
