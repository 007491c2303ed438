"""Playlists: one line a file, whatever a name contains, readable by another parser."""

from __future__ import annotations

import random
from pathlib import Path
from urllib.parse import unquote, urlparse

import polars as pl
from fakes import clip_rows, fill
from sounds import melody, write
from typer.testing import CliRunner

import tonelake
from tonelake.cli import app
from tonelake.playlists import playlist
from tonelake.store import Lake


def read_m3u(text: str) -> list[tuple[int, str, str]]:
    """(seconds, name, path) of each entry, as a player reads a playlist: by lines."""
    first, *lines = text.splitlines()
    assert first == "#EXTM3U" and len(lines) % 2 == 0
    entries = []
    for about, place in zip(lines[::2], lines[1::2], strict=True):
        seconds, name = about.removeprefix("#EXTINF:").split(",", 1)
        assert about.startswith("#EXTINF:") and place and not place.startswith("#")
        path = unquote(urlparse(place).path) if place.startswith("file:") else place.strip()
        entries.append((int(seconds), name, path))
    return entries


def lake_of(tmp_path, **columns) -> Lake:
    lake = Lake(tmp_path / "lake")
    count = len(next(iter(columns.values())))
    lake.clips.add(clip_rows(count, 2).with_columns(
        pl.Series(name, [value for value in values for _ in range(2)], dtype=pl.String) for name, values in columns.items()
    ))
    return lake


def test_an_entry_is_a_file_with_its_length_artist_and_title(tmp_path):
    names = {"title": ["Feeling Good", None], "artist": ["Nina, live", None]}
    lake = lake_of(tmp_path, source=["/music/a.flac", "/music/b.mp3"], **names)
    clips = lake.clips.read()
    text, count = playlist(lake, clips.sort("start_s", descending=True))
    assert count == 2                    # of four clips
    expected = [(15, "Nina, live - Feeling Good", "/music/a.flac"), (15, "track001", "/music/b.mp3")]
    assert read_m3u(text) == expected


def test_hostile_names_cannot_break_a_line(tmp_path):
    rng = random.Random(0)
    odd = ["\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", "#EXTM3U", " ", "é", "愛", "%", ",", "\t", "\x1b[31m"]
    names = ["".join(rng.choice(odd) for _ in range(6)) for _ in range(40)]
    paths = [f"/music/{number}{name}.mp3{['', ' ', chr(10)][number % 3]}" for number, name in enumerate(names)]
    lake = lake_of(tmp_path, source=paths, title=names, artist=names[::-1])
    text, count = playlist(lake, lake.clips.read())
    entries = read_m3u(text)
    assert count == len(entries) == 40 and [place for _, _, place in entries] == paths
    assert all(name.isprintable() for _, name, _ in entries)


def test_sources_that_are_not_files_are_left_out(tmp_path):
    lake = lake_of(tmp_path, source=["chorale:269", "file:///music/%FF.mp3", "/music/c.mp3"])
    text, count = playlist(lake, lake.clips.read())
    assert count == 2 and text.splitlines()[2::2] == ["file:///music/%FF.mp3", "/music/c.mp3"]


def test_commands_write_playlists_in_the_order_of_their_lists(tmp_path):
    for number in range(6):
        write(tmp_path / "music" / f"{number}.wav", melody(4, seed=number, rate=24_000), rate=24_000)
    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingest_folder(tmp_path / "music", seconds=2)
    lake.embed("spectral")
    clips = lake.clips.read().sort("track", "start_s")["clip_id"].to_list()
    lake.clips.set_labels(pl.DataFrame({"clip_id": clips, "artist": [f"Artist {row // 4}" for row in range(12)]}))
    file = tmp_path / "list.m3u8"
    for words, frame in (
        (["similar", clips[0], "-k", "4", "--layer", "mfcc"], lake.similar(clips[0], k=4, layer="mfcc")),
        (["similar", clips[0], "-k", "5", "--order", "walk", "--per", "artist", "1", "--layer", "mfcc"],
         lake.similar(clips[0], k=5, layer="mfcc", order="walk", per=("artist", 1))),
        (["path", clips[0], clips[11], "--steps", "3", "--layer", "mfcc"],
         lake.path(clips[0], clips[11], steps=3, layer="mfcc")),
        (["typical", "artist", "--layer", "mfcc"], lake.typical("artist", layer="mfcc")),
    ):
        run = CliRunner().invoke(app, [*words, "--m3u", str(file), "--lake", lake.uri])
        assert run.exit_code == 0, run.output
        entries = read_m3u(file.read_text(encoding="utf-8"))
        assert [Path(place).name for _, _, place in entries] == frame["track"].to_list() and len(entries) > 1
        assert all(seconds == 4 for seconds, _, _ in entries)
        assert f"{file}: {len(entries)} files" in run.stderr
    run = CliRunner().invoke(app, ["clips", "--m3u", str(tmp_path / "no" / "list.m3u"), "--lake", lake.uri])
    assert run.exit_code != 0 and "cannot be written" in str(run.exception)


def test_the_default_space_is_the_newest_learned_one_unless_set(tmp_path, caplog):
    import json
    from dataclasses import replace

    lake = tonelake.open(tmp_path / "lake", progress=False)
    fake = fill(lake, 3, 2, seed=0)
    spaces = lake.spaces
    for year, (name, location) in enumerate([("a", "org/a"), ("b", "org/b"), ("c", "spectral"), ("d", "projection")], 2030):
        spaces.make(replace(
            fake, name=name, revision=name, location=location, learned=location != "spectral",
            created_at=f"{year}-01-01T00:00:00+00:00",
        ))
    caplog.set_level("INFO", "tonelake")
    assert spaces.get().name == spaces.get().name == "b"
    assert caplog.text.count("space b, the newest learned one; choose another with --space: fake, a, b, c, d") == 1
    for name in ("c", "d", "fake"):
        run = CliRunner().invoke(app, ["spaces", "--default", name, "--lake", lake.uri, "--json"])
        assert run.exit_code == 0, run.output
        assert [row["name"] for row in map(json.loads, run.stdout.splitlines()) if row["default"]] == [name]
        assert tonelake.open(lake.uri, progress=False).spaces.get().name == name
    run = CliRunner().invoke(app, ["similar", lake.clips.ids()[0], "--lake", lake.uri])
    assert run.exit_code == 0 and "space fake, the lake's default" in run.stderr
    assert CliRunner().invoke(app, ["spaces", "--default", "x", "--lake", lake.uri]).exit_code != 0
    (Path(lake.uri) / "spaces" / "fake.json").unlink()           # a default that no longer exists is passed over
    assert tonelake.open(lake.uri, progress=False).spaces.get().name == "b"
    assert CliRunner().invoke(app, ["spaces", "--default", "auto", "--lake", lake.uri]).exit_code == 0
    values = json.loads((Path(lake.uri) / "lake.json").read_text())
    assert "default_space" not in values and values["format"] >= 1 and values["identity"]
