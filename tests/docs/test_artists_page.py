"""The study of artists, docs/experiments/artists.md, from a plan to its results on a few short songs."""

from __future__ import annotations

import json

import polars as pl
import pytest
from experiment_pages import run_page
from sounds import melody, write

import tonelake

ARTISTS = ("Nina Simone", "Miles Davis", "Björk", "AC/DC")
ALBUMS, SONGS = 4, 2
TITLES = {("Nina Simone", 0, 0): "Feeling Good", ("Miles Davis", 0, 0): "Blue in Green"}


def make_music(folder) -> None:
    """Write the songs of four artists; each artist has a register of its own."""
    for a, artist in enumerate(ARTISTS):
        for album in range(ALBUMS):
            for number in range(SONGS):
                seed = (a * ALBUMS + album) * SONGS + number
                title = TITLES.get((artist, album, number), f"Song {seed}")
                tags = {"title": title, "artist": artist, "album": f"Album {album} of {a}"}
                path = folder / artist.replace("/", "-") / f"{album}" / f"{number}.flac"
                write(path, melody(5, seed=seed, rate=8_000), 8_000, tags=tags)


@pytest.mark.slow
@pytest.mark.no_cover
def test_the_study_of_artists_runs_from_plan_to_result_by_the_commands_of_its_page(tmp_path):
    make_music(tmp_path / "music")
    for number, name in enumerate(("first.wav", "second.wav")):
        write(tmp_path / name, melody(3, seed=90 + number), 24_000)
    (tmp_path / "listeners.csv").write_text("artist,similar,rank\nnina simone,Miles Davis,1\nBjörk,Nobody,1\nBjörk,ac/dc,2\n")
    commands = run_page("artists", tmp_path, {
        "--artists 50 --tracks 20": "--artists 4 --tracks 3 --track-seconds 4 --seconds 2",
        "tonelake embed": "tonelake embed --encoder spectral",
        "'~/Music' --seconds 30": "music --seconds 2",
        "--layer 7": "--layer mfcc",
        "tonelake probe artist": "tonelake probe artist --epochs 5",
    })
    plan = commands[0].done
    assert "4 artists × 3 tracks of 4.0 s, 24 clips" in plan.stdout and " a track; derived" in plan.stdout

    lake = tonelake.open(tmp_path / "lake", progress=False)
    clips = lake.clips.read()
    assert len(clips) == 2 * ALBUMS * SONGS * len(ARTISTS) and set(clips["artist"]) == set(ARTISTS)
    assert lake.vectors().ids().len() == len(clips)

    def rows(part: str) -> list[dict]:
        (found,) = [command.done for command in commands if part in command.text]
        return [json.loads(line) for line in found.stdout.splitlines()]

    (layers,) = [command.done for command in commands if " layers " in command.text]
    assert "pairs of one album or track are excluded" in layers.stderr
    pairs = rows("--pairs")
    assert len(pairs) == 6 and pairs[0]["rank"] == 1 and pairs[0]["tracks"] == ALBUMS * SONGS
    assert {row["artist"] for row in rows("overlap")} == {"Nina Simone", "Björk"}
    assert {row["kind"] for row in rows("typical")} == {"typical", "unusual"}
    songs, files = rows("feeling good"), rows("first.wav")
    assert len(songs) > 3 and len(files) == 1 and all(0 <= row["percentile"] <= 100 for row in (*songs, *files))
    assert lake.map("mfcc", method="tsne").done == "unchanged"
    assert {"layers.png", "artists.csv", "artists.png", "map.png"} <= {path.name for path in tmp_path.iterdir()}
    sides = lake.probe_run("artists").table("split").join(clips, on="clip_id")
    assert sides.group_by("album").agg(pl.col("side").n_unique())["side"].max() == 1
