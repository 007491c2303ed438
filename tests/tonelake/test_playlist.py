"""The command `playlist`: which songs are chosen, in which order, and the file that is written."""

from __future__ import annotations

import os
import socket
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import rows, run
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

import tonelake
from tonelake.embed.settings import describe_space
from tonelake.playlists.choose import choose_songs
from tonelake.playlists.files import FilePlayer, write_m3u
from tonelake.playlists.m3u import written_path
from tonelake.playlists.mpd import parse_address
from tonelake.playlists.names import MOST_BYTES, safe_name, shown_name
from tonelake.playlists.request import PlaylistRequest
from tonelake.playlists.targets import make_on_server
from tonelake.store import InputError, file_rows

SONGS = [                                # title, artist; each a step further from the first
    ("Start", "Ada"), ("Start (Live)", "Ada"), ("Second", "Ada"), ("Third", "Ada"), ("Fourth", "Béla"), ("Gone", "Béla"),
    ("Sixth", "Béla"), ("Chorale", None), ("Second", "Cleo"), ("Ninth", "Cleo"), ("Again", "Dora"), ("End", "Dora"),
]
STEP = np.pi / 40


def clip(number: int) -> str:
    return f"{number + 1:020x}"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A lake of songs in a line, with files that are empty but there, except that of `Gone`.  Do not change it."""
    home = tmp_path_factory.mktemp("playlist")
    lake = tonelake.open(home / "lake", progress=False)
    sources = [str(home / "music" / f"{number}.mp3") for number in range(len(SONGS))]
    sources[7] = "chorale:269"
    (home / "music").mkdir()
    for number, (title, _) in enumerate(SONGS):
        if title not in ("Gone", "Chorale"):
            Path(sources[number]).touch()
    lake.clips.add(pl.DataFrame([
        {
            "clip_id": clip(number), "track": f"{number}.mp3", "recording": f"r{number}", "source": sources[number],
            "digest": "0" * 32, "start_s": 0.0, "duration_s": 100.0 + number, "title": title, "artist": artist,
            "same_as": clip(9) if number in (9, 10) else None, "place": number,
        }
        for number, (title, artist) in enumerate(SONGS)
    ], infer_schema_length=None))
    lake.paths.put(file_rows([
        {"source": source, "recording": f"r{number}"} for number, source in enumerate(sources)
    ]))
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    angles = STEP * np.arange(len(SONGS))
    layers = []
    for dim in space.dims:
        vectors = np.zeros((len(SONGS), dim), np.float32)
        vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
        layers.append(vectors)
    lake.vectors(space).add([clip(n) for n in range(len(SONGS))], layers, [v + 1 for v in layers], [750] * len(SONGS))
    return home


@pytest.fixture(scope="module")
def lake(home):
    return tonelake.open(home / "lake", create=False, progress=False)


def chosen(lake, **asked) -> list[int]:
    """The numbers of the songs of a playlist."""
    asked = {"like": (clip(0),), "length": 6} | asked
    return [int(one.clip_id, 16) - 1 for one in choose_songs(lake, PlaylistRequest(**asked), FilePlayer()).entries]


def test_the_seed_comes_first_then_the_nearest_each_song_and_version_once(lake):
    assert chosen(lake) == [0, 2, 3, 4, 6, 8]            # without a live version, an absent file, and a chorale
    found = choose_songs(lake, PlaylistRequest(like=(clip(0),), length=20), FilePlayer())
    assert [int(one.clip_id, 16) - 1 for one in found.entries] == [0, 2, 3, 4, 6, 8, 9, 11]        # 10 is a duplicate of 9
    assert found.unplayable == 2
    assert chosen(lake, seeds=False, length=3) == [2, 3, 4]
    assert chosen(lake, like=(clip(4), clip(2)), length=4)[:2] == [4, 2]
    assert chosen(lake, like=(clip(4), clip(2)), length=1) == [4]
    assert chosen(lake, like=(clip(10), clip(9), clip(10)), length=2)[1:] == [11]        # one song, named three times


def test_a_cap_counts_the_whole_list(lake):
    assert chosen(lake, per=("artist", 1), length=4) == [0, 4, 8, 11]
    assert chosen(lake, per=("artist", 2), length=6) == [0, 2, 4, 6, 8, 9]
    assert chosen(lake, per=("artist", 2), length=4, seeds=False) == [2, 3, 4, 6]
    assert chosen(lake, per=("track", 1), length=4) == [0, 2, 3, 4]


def test_filters_subtraction_and_order(lake):
    assert chosen(lake, where="place > 5", length=3) == [0, 6, 8]            # a seed need not satisfy it
    assert chosen(lake, like=(clip(6),), unlike=(clip(0),), length=3)[1] > 6
    near = chosen(lake, like=(clip(6),), length=7)
    walked = chosen(lake, like=(clip(6),), length=7, order="walk")
    assert set(near[:3]) == {6, 4, 8} and sorted(near) == sorted(walked) and walked[0] == 6
    steps = [sum(abs(a - b) for a, b in pairwise(places[1:])) for places in (walked, near)]
    assert steps[0] < steps[1]


def test_a_path_leads_from_song_to_song_and_keeps_the_rules(lake):
    assert chosen(lake, path_to=clip(11), length=5) == [0, 3, 6, 8, 11]
    assert chosen(lake, path_to=clip(11), length=12) == [0, 2, 3, 4, 6, 8, 9, 11]        # all that may be in it
    capped = chosen(lake, path_to=clip(9), per=("artist", 1), length=5)
    assert capped[0] == 0 and capped[-1] == 9 and len(capped) == 4 and len({SONGS[n][1] for n in capped}) == 4


def test_a_file_that_is_there_is_preferred(lake, home, tmp_path):
    copy = tmp_path / "copy of gone.mp3"
    copy.touch()
    other = tonelake.open(home / "lake", create=False, progress=False)
    other.paths.put(file_rows([{"source": str(copy), "recording": "r5"}]))
    try:
        entries = choose_songs(lake, PlaylistRequest(like=(clip(4),), length=2, where="place = 5"), FilePlayer()).entries
        assert [(one.title, one.source, one.seconds) for one in entries][1] == ("Gone", str(copy), 105.0)
    finally:
        other.paths.remove([str(copy)])


@pytest.mark.parametrize(("asked", "problem"), [
    ({"like": ()}, "nothing that it should be like"), ({"length": 0}, "must be 1 to 1,000"), ({"order": "x"}, "or walk"),
    ({"per": ("artist", 0)}, "at least 1"), ({"per": ("nope", 1)}, "no column 'nope'"),
    ({"path_to": clip(3), "unlike": (clip(2),)}, "one --like"), ({"path_to": clip(3), "length": 2}, "needs 3 songs"),
    ({"path_to": clip(3), "spaces": "a:1"}, "--space instead"), ({"seeds": False, "where": "place > 99"}, "no song satisfies"),
    ({"seeds": False, "where": "place = 5"}, "1 were found, whose files are not on this disk"),
])
def test_what_cannot_be_made_is_a_sentence(lake, asked, problem):
    with pytest.raises(InputError, match=problem):
        chosen(lake, **asked)


def test_the_command_writes_one_file_and_replaces_none(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["playlist", "Late/evening", "--like", "start", "--per", "artist", "1", "--length", "3"]
    done = run(*words, lake=home / "lake")
    assert [row["title"] for row in rows(done)] == ["Start", "Fourth", "Second"]
    assert "Late_evening.m3u8: 3 songs" in done.stderr and "1 songs were left out, whose files are not" in done.stderr
    music = home / "music"
    text = (tmp_path / "Late_evening.m3u8").read_text(encoding="utf-8")
    assert text == (
        f"#EXTM3U\n#PLAYLIST:Late/evening\n#EXTINF:100,Ada - Start\n{music}/0.mp3\n#EXTINF:104,Béla - Fourth\n{music}/4.mp3\n"
        f"#EXTINF:108,Cleo - Second\n{music}/8.mp3\n"
    )
    again = run(*words, "--length", "2", lake=home / "lake")
    assert again.returncode == 2 and "exists. Replace it with --replace" in again.stderr
    assert (tmp_path / "Late_evening.m3u8").read_text(encoding="utf-8") == text
    assert run(*words, "--length", "2", "--replace", "--relative", lake=home / "lake").returncode == 0
    lines = (tmp_path / "Late_evening.m3u8").read_text(encoding="utf-8").splitlines()
    assert lines[3] == os.path.relpath(music / "0.mp3", tmp_path) and len(lines) == 6
    assert [file.name for file in tmp_path.iterdir()] == ["Late_evening.m3u8"]           # nothing beside it
    for words, problem in (
        (["--like", "start", "--user", "ada"], "goes with --to http"),
        (["--like", "start", "--to", "mpd", "--relative"], "a file"),
        (["--like", "start", "--out", str(tmp_path / "no" / "a.m3u8")], "cannot be written"),
        (["--like", "start", "--out", str(tmp_path)], "exists"),
        (["--like", "start", "--out", str(tmp_path), "--replace"], "cannot"),
        (["--like", "nothing like it"], "no song has such a name"),
    ):
        done = run("playlist", "x", *words, lake=home / "lake")
        assert done.returncode == 2 and problem in done.stderr, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["Late_evening.m3u8"]


def test_a_seed_that_the_lake_does_not_have_now_is_not_in_the_list(home, tmp_path):
    import shutil

    shutil.copytree(home / "lake", tmp_path / "lake")
    lake = tonelake.open(tmp_path / "lake", create=False, progress=False)
    lake.clips.update(pl.DataFrame({"clip_id": [clip(3)], "state": ["superseded"]}))
    found = choose_songs(lake, PlaylistRequest(like=(clip(3), clip(4)), length=2), FilePlayer())
    assert found.outside == (clip(3),) and found.entries[0].title == "Fourth"


def test_a_relative_path_is_never_read_as_something_else(tmp_path):
    folder = tmp_path / "lists"
    for name, line in (
        ("../a b.mp3", "../a b.mp3"), ("#1.mp3", "./#1.mp3"), ("ab:c.mp3", "./ab:c.mp3"), (" x/a.mp3", "./ x/a.mp3"),
        ("é.mp3", "é.mp3"),
    ):
        assert written_path(os.path.normpath(folder / name), folder) == line
    assert written_path(f"{folder}/a\n.mp3", folder) == (folder / "a\n.mp3").as_uri()
    assert written_path("file:///%FF.mp3", folder) == "file:///%FF.mp3" and written_path("chorale:1", folder) is None


ODD = "./\\ \0\n:*?\"<>|a\u202eéa\u0301CONaux1\ud800愛"


@given(st.one_of(st.text(max_size=300), st.text(st.sampled_from(ODD), max_size=40)))
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
def test_any_text_gives_a_safe_file_name(text):
    name = safe_name(text)
    assert name and name not in (".", "..") and not set(name) & set('/\\<>:"|?*\0') and name.isprintable()
    assert len(name.encode("utf-8")) <= MOST_BYTES + 1 and name == name.strip() and name[0] != "." and name[-1] not in ". "
    assert name.partition(".")[0].strip().lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert unicodedata.is_normalized("NFC", name) and Path("folder", name).parent == Path("folder")
    assert shown_name(text).isprintable() and shown_name(text).encode("utf-8")


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "list.m3u8"
    write_m3u(file, "a", ())
    before = file.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda self, other: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for name, replace in (("list.m3u8", True), ("other.m3u8", False)):
        with pytest.raises(InputError, match="No space left"):
            write_m3u(tmp_path / name, "b", (), replace=replace)
    assert file.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["list.m3u8"]


def test_addresses_of_mpd(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def parsed(text: str, host: str = "", port: str = "") -> tuple[str, int, str]:
        monkeypatch.setenv("MPD_HOST", host)
        monkeypatch.setenv("MPD_PORT", port)
        found = parse_address(text)
        return found.host, found.port, found.password

    assert parsed("mpd://music.local") == ("music.local", 6600, "") and parsed("mpd://[::1]:6601") == ("::1", 6601, "")
    assert parsed("mpd:///run/my%20mpd.sock") == ("/run/my mpd.sock", 6600, "")
    assert parsed("mpd", "a@b@music.local", "6700") == ("b@music.local", 6700, "a")
    assert parsed("mpd", "@abstract") == ("@abstract", 6600, "")
    assert parsed("mpd", "secret@@abstract") == ("@abstract", 6600, "secret")
    assert parsed("mpd://music.local:6601", "secret@music.local") == ("music.local", 6601, "secret")
    assert parsed("mpd://other:6601", "secret@music.local") == ("other", 6601, "")       # no password for another host
    assert parsed("mpd:///run/mpd", "secret@/run/mpd") == ("/run/mpd", 6600, "secret")
    for wrong in ("mpd://secret@music.local", "mpd://music.local:x", "mpd://music.local:99999"):
        with pytest.raises(InputError) as error:
            parsed(wrong)
        assert "secret" not in str(error.value)
    with pytest.raises(InputError, match="MPD_PORT"):
        parsed("mpd", port="x")
    with socket.socket(socket.AF_UNIX) as one:
        (tmp_path / "mpd").mkdir()
        one.bind(str(tmp_path / "mpd" / "socket"))
        assert parsed("mpd") == (str(tmp_path / "mpd" / "socket"), 6600, "")


def test_a_jellyfin_server_is_refused_before_anything_is_sent(tmp_path):
    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingests.record("jellyfin", "http://localhost:8096", {})
    with pytest.raises(InputError, match=r"is a Jellyfin server, which reads playlists from its music folder.*--out"):
        make_on_server(lake, "Calm", PlaylistRequest(like=("x",)), server="http://localhost:8096/")
