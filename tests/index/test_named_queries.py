"""Songs by name as queries, in Python and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder
from named_songs import SONGS, clip_id, lake_of, rows_of
from typer.testing import CliRunner

import tonelake
from tonelake import index
from tonelake.cli import app
from tonelake.embed.settings import describe_space
from tonelake.store import ClipNotFound, InputError, Lake


@pytest.fixture(scope="module")
def embedded_songs(tmp_path_factory):
    """A lake of SONGS with two clips each, embedded in space `fake` except for the last two songs.  Do not change it."""
    lake = lake_of(tmp_path_factory.mktemp("embedded"), SONGS, clips=2)
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    ids = [clip_id(file, clip) for *_, file in SONGS[:-2] for clip in range(2)]
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((len(ids), dim)).astype(np.float32) for dim in space.dims]
    lake.vectors(space).add(ids, layers, layers, [10] * len(ids))
    return tonelake.open(lake.uri, create=False)


def test_a_name_is_searched_by_the_mean_of_its_songs_clips(embedded_songs, caplog):
    lake = embedded_songs
    ids = [clip_id(SONGS[0][3], clip) for clip in range(2)]
    mean = lake.vectors().take(ids, 1).vectors.mean(axis=0)
    with caplog.at_level("INFO", logger="tonelake.index"):
        hits = lake.similar("love teme", k=5, clips=True)
    assert "taking 'Love Theme' by Ada Lark (First)" in caplog.text
    expected = [clip for clip in lake.similar(mean, layer=1, k=7, clips=True)["clip_id"] if clip not in ids][:5]
    assert hits["clip_id"].to_list() == expected
    assert lake.path("love theme", "deja vu", steps=2)["clip_id"].n_unique() == len(lake.path("love theme", "deja vu", steps=2))


def test_an_id_is_a_clip_even_where_a_name_resembles_it(embedded_songs):
    one = clip_id(SONGS[0][3], 1)
    for digits in (one, one[:7], one[:16]):
        assert index.find_named(embedded_songs, digits)["clip_id"] == one
    assert index.find_clip(embedded_songs, "love theme")["clip_id"] == clip_id(SONGS[0][3], 0)
    with pytest.raises(ClipNotFound, match="clip 'fffffffffffff': not in this lake"):
        index.find_named(embedded_songs, "f" * 13)


def test_digits_that_are_both_an_id_and_a_title_are_asked_about(tmp_path):
    lake = Lake(tmp_path / "lake")
    rows = rows_of([("Song", "Ada", None, "1.mp3"), ("Face", "Bea", None, "2.mp3"), ("1984", "Cleo", None, "3.mp3"),
                    (None, None, None, "2112.mp3"), ("Other", "Ada", None, "4.mp3")])
    rows = rows.with_columns(clip_id=pl.Series([f"face{0:016x}", f"{1:020x}", f"{2:020x}", f"{3:020x}", f"2112{0:016x}"]))
    lake.clips.add(rows)
    for digits, titles in (("face", {"Song", "Face"}), ("2112", {"Other", "2112"})):
        with pytest.raises(index.SeveralSongs) as error:
            index.find_named(lake, digits)
        assert {song.title for song in error.value.songs} == titles
    assert index.find_named(lake, "1984").title == "1984"          # no id begins with it
    assert index.find_named(lake, "face0000")["title"] == "Song"
    with pytest.raises(ClipNotFound, match="clip '0000': 3 ids begin with it"):
        index.find_named(lake, "0000")


def test_the_path_of_a_file_that_is_gone_finds_its_song_and_no_other(tmp_path):
    songs = [("Song", "Ada", None, "kick2.wav"), ("Song", "Bea", None, "01.wav"), ("AC/DC", "AC/DC", None, "5.mp3")]
    lake = lake_of(tmp_path, songs)
    assert index.find_named(lake, "/music/kick2.wav").artist == "Ada"
    assert index.find_named(lake, "elsewhere/kick2.wav").artist == "Ada" and index.find_named(lake, "01.wav").artist == "Bea"
    with pytest.raises(index.SeveralSongs, match="only resembles a song"):
        index.find_named(lake, "kick3.wav")
    assert index.find_named(lake, "ac/dc").title == "AC/DC"
    for path in ("~nobody-here/kick2.wav", "~/kick2.wav", "../kick2.wav"):
        assert index.find_named(lake, path).artist == "Ada"


def test_a_song_without_vectors_is_named_with_the_remedy(embedded_songs):
    with pytest.raises(InputError, match="'Harvest - 2009 Remaster' by Nell: none of its clips is embedded in space 'fake'"):
        embedded_songs.similar("harvest 2009 remaster")


def run(*words: str, **more):
    return CliRunner().invoke(app, list(words), **more)


def test_find_lists_songs_as_json_and_csv(embedded_songs):
    lines = run("find", "love", "letrs", "--lake", embedded_songs.uri, "-k", "3").stdout.splitlines()
    first = json.loads(lines[0])
    assert first["title"] == "Love Letters" and first["clip_id"] == clip_id("02 Love Letters.flac") and len(lines) <= 3
    csv = run("find", "harvest", "--lake", embedded_songs.uri, "--csv").stdout.splitlines()
    assert csv[0].startswith("rank,score,clip_id,title") and "|Harvest (Live at the Barn)," in csv[1]
    nothing = run("find", "zxqwv", "--lake", embedded_songs.uri)
    assert nothing.exit_code == 0 and "no song has a name like 'zxqwv'. Try fewer words" in nothing.output


def test_commands_take_names_and_list_songs_that_are_near(embedded_songs, monkeypatch):
    uri = embedded_songs.uri
    hits = run("similar", "love theme", "--lake", uri, "-k", "3", "--clips")
    assert hits.exit_code == 0, hits.output
    by_name = [json.loads(line)["clip_id"] for line in hits.stdout.splitlines() if line.startswith("{")]
    assert by_name == embedded_songs.similar("love theme", k=3, clips=True)["clip_id"].to_list()
    asked = run("similar", "farewell", "--lake", uri)
    assert isinstance(asked.exception, index.SeveralSongs) and not asked.stdout
    monkeypatch.setattr("tonelake.cli.names.at_terminal", lambda: True)
    songs = asked.exception.songs
    for number in (1, 2):
        chosen = run("similar", "farewell", "--lake", uri, "-k", "3", "--clips", input=f"7\n{number}\n")
        assert chosen.exit_code == 0 and "several songs are near 'farewell'" in chosen.output
        found = [json.loads(line)["clip_id"] for line in chosen.stdout.splitlines() if line.startswith("{")]
        assert found == embedded_songs.similar(songs[number - 1], k=3, clips=True)["clip_id"].to_list()
    led = run("path", "love theme", "deja vu", "--lake", uri)
    assert led.exit_code == 0, led.output


@pytest.mark.slow
def test_the_command_exits_with_2_and_the_list(embedded_songs):
    done = subprocess.run(
        [sys.executable, "-m", "tonelake", "similar", "farewell", "--lake", embedded_songs.uri], capture_output=True, text=True,
    )
    assert done.returncode == 2 and "error: name 'farewell': 2 songs are near" in done.stderr
    assert clip_id("26.mp3") in done.stderr and clip_id("27.mp3") in done.stderr


@pytest.mark.slow
def test_stored_frames_are_aligned_by_name(sung):
    lake = tonelake.open(sung.uri, create=False)
    clips = lake.clips.read(["clip_id", "track", "start_s"]).sort("track", "start_s")
    one, two = clips.unique("track", keep="first", maintain_order=True).rows()[:2]
    file = lake.clips.find(one[0])["source"].rsplit("/")[-1]
    assert lake.align(file, two[0], seconds=1) == lake.align(one[0], two[0], seconds=1)
    answer = run("align", file, two[0], "--seconds", "1", "--lake", lake.uri)
    assert answer.exit_code == 0 and json.loads(answer.stdout.splitlines()[-1]) == vars(lake.align(one[0], two[0], seconds=1))
