"""A music library on the command line: two hundred songs of five albums are ingested, found by name, compared, renamed and
forgotten.  The tests share one library, in the order of this file: the last ones change it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from albums import ALBUMS, SONGS, Tune, copy_encoded, copy_exactly, make_albums
from commands import rows, run

from tonelake.store import Lake, read_songs

pytestmark = pytest.mark.slow
COUNT = len(ALBUMS) * SONGS
ENCODER = "fakes:FakeEncoder"


class Library:
    """A folder of albums with its lake; commands are run on the lake."""

    def __init__(self, home: Path) -> None:
        self.home, self.music, self.uri = home, home / "music", home / "lake"
        self.tunes = make_albums(self.music)
        self.twin, self.original = self.music / "Best of" / "5.flac", self.titled("Northern Lighthouse")
        copy_exactly(self.original, self.twin)
        self.encoded, self.again = self.titled("Velvet Quarry"), self.music / "Best of" / "9.wav"
        copy_encoded(self.encoded, self.again)

    @property
    def lake(self) -> Lake:
        return Lake(self.uri, create=False)

    def titled(self, title: str) -> Tune:
        return next(tune for tune in self.tunes if tune.title == title)

    def run(self, *words) -> str:
        """Run a command that succeeds; returns what it says to a person."""
        done = run(*words, lake=self.uri)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def rows(self, *words) -> list[dict]:
        return rows(run(*words, lake=self.uri))

    def ingest(self, *words) -> str:
        return self.run("ingest", "folder", self.music, "--seconds", "1.5", *words)

    def change(self, tune: Tune, changed: Tune) -> None:
        self.tunes[self.tunes.index(tune)] = changed


@pytest.fixture(scope="module", autouse=True)
def fine_times():
    """Trust stamps of files written just now: this file system stores fine times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tonelake.ingest.file_stamps.COARSE_NS", 0)
        yield


@pytest.fixture(scope="module")
def library(tmp_path_factory, fine_times):
    """The library after a quick first pass of two clips a song, which a full ingest completed."""
    made = Library(tmp_path_factory.mktemp("songs"))
    said = made.ingest("--per-track", 2)
    assert "1 files are copies, whose clips are stored once: 07 Northern Lighthouse.flac of 5.flac" in said, said
    assert f"{COUNT + 2} recordings: {2 * (COUNT + 1)} clips new, 0 known, 1 copies of other files" in said
    assert f"space plain: {2 * (COUNT + 1)} clips embedded" in made.run("embed", "--encoder", ENCODER, "--space", "plain")
    first = made.lake.clips.read(["clip_id", "start_s"])
    assert set(first["start_s"].round(3)) == {0.0, 3.0}                 # evenly spread over 4.6 s
    assert f"{COUNT + 1} clips new, {2 * (COUNT + 1)} known" in made.ingest()
    assert set(first["clip_id"]) < set(made.lake.clips.ids())
    assert f"space plain: {COUNT + 1} clips embedded, {2 * (COUNT + 1)} known" in made.run("embed", "--space", "plain")
    return made


def nearest(lake: Lake, title: str) -> pl.DataFrame:
    """The clips of other songs, nearest to a song first, by NumPy."""
    space = lake.spaces.get(None)
    ids, vectors = lake.vectors(space).layer(space.layer_index(None))
    vectors = vectors.astype(np.float64)
    clips = pl.DataFrame({"clip_id": ids, "row": range(len(ids))}).join(lake.clips.read(), on="clip_id", maintain_order="left")
    clips = clips.with_columns(song=read_songs(lake.clips).of(clips["clip_id"]))
    own = clips.filter(title=title)
    query = vectors[own["row"].to_numpy()].mean(axis=0)
    score = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    clips = clips.with_columns(score=score[clips["row"].to_numpy()])
    return clips.filter(~pl.col("song").is_in(own["song"].implode())).sort("score", descending=True)


def entries(playlist: Path) -> list[str]:
    return [line for line in playlist.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def test_unchanged_files_are_not_read_again(library, monkeypatch):
    monkeypatch.setattr("tonelake.ingest.decoder_pool.DecoderPool._ask", None)
    assert f"0 clips new, {3 * (COUNT + 1)} known, 1 copies" in library.ingest()
    assert library.rows("status", "--json")[0]["tracks"] == COUNT + 1


def test_tags_are_columns_with_every_artist(library):
    tune = library.titled("Été Café")
    clip = library.rows("clips", "--where", "title = 'Été Café'")[0]
    assert (clip["artist"], clip["artists"]) == (tune.artists[0], list(tune.artists)) and len(tune.artists) == 2
    assert (clip["album"], clip["track_number"], clip["year"]) == ("Déjà Vu", tune.number, 1999)
    assert {row["title"] for row in library.rows("clips", "--where", "array_has(artists, 'Björk Ólafs') AND start_s = 0")} == {
        one.title for one in library.tunes if "Björk Ólafs" in one.artists
    }
    tracks = {row["artists"]: row["tracks"] for row in library.rows("groups", "artists")}
    assert tracks == Counter([*(artist for one in library.tunes for artist in one.artists), library.encoded.artists[0]])


@pytest.mark.parametrize(("words", "title"), [
    ("crimson lighthouse", "Crimson Lighthouse"), ("Crimsn Lighthous", "Crimson Lighthouse"), ("ete cafe", "Été Café"),
    ("los faroles - wandering fandnago", "Wandering Fandango"), ("northern jubilee nina marlow", "Northern Jubilee"),
    ("26 hollow waltz.mp3", "Hollow Waltz"), ("silverferryman", "Silver Ferryman"),
    ("bjork olafs velvet almanac", "Velvet Almanac"),
])
def test_songs_are_found_by_name_with_errors_and_without_accents(library, words, title):
    found = library.rows("find", words, "-k", 3)
    assert found[0]["title"] == title and found[0]["artist"].startswith(library.titled(title).artists[0])
    said = library.run("similar", words, "-k", 1, "--json")
    assert f"taking '{title}' by {library.titled(title).artists[0]}" in said


def test_a_name_that_is_near_several_songs_lists_them_and_an_unknown_one_is_an_error(library):
    done = run("similar", "quarry", lake=library.uri)
    lines = done.stderr.splitlines()[1:]
    assert done.returncode == 2 and "songs are near" in done.stderr and len(lines) >= 8
    assert all("Quarry - Nina Marlowe" in line for line in lines)
    done = run("similar", "zyzzyva bopomofo", lake=library.uri)
    assert done.returncode == 2 and "no song has such a name" in done.stderr


def test_hits_are_the_nearest_songs_with_their_best_moments(library):
    """The encoded copy of a song is its nearest one; every other hit is as a search by hand says."""
    expected = nearest(library.lake, "Hollow Orchard")
    hits = library.rows("similar", "hollow orchrd", "-k", 12)
    songs = expected.unique("song", keep="first", maintain_order=True).head(12)
    assert [hit["clip_id"] for hit in hits] == songs["clip_id"].to_list()
    near = expected.filter(pl.col("score") >= songs["score"][-1] - 1e-6)
    assert [hit["clips"] for hit in hits] == [near.filter(song=song).height for song in songs["song"]]
    clips = library.rows("similar", "hollow orchrd", "-k", 25, "--clips")
    own = {clip["clip_id"] for clip in library.rows("clips", "--where", "title = 'Hollow Orchard'")}
    assert [clip["clip_id"] for clip in clips] == expected["clip_id"].to_list()[:25] and not own & {
        clip["clip_id"] for clip in clips
    }


def test_at_most_two_hits_share_an_artist(library):
    counts: Counter[str] = Counter()
    expected = []
    for song in nearest(library.lake, "Paper Mirador").unique("song", keep="first", maintain_order=True).iter_rows(named=True):
        if counts[song["artist"]] < 2 and len(expected) < 8:
            counts[song["artist"]] += 1
            expected.append(song["clip_id"])
    hits = library.rows("similar", "paper mirador", "--per", "artist", 2, "-k", 8)
    assert [hit["clip_id"] for hit in hits] == expected and max(Counter(hit["artist"] for hit in hits).values()) == 2
    others = library.rows("similar", "paper mirador", "--not-same", "artist", "-k", 200)
    assert len(others) > 100 and "Los Faroles" not in {hit["artist"] for hit in others}


def test_lists_become_playlists(library):
    file = library.home / "like.m3u8"
    hits = library.rows("similar", "silver meridian", "-k", 6, "--order", "walk", "--m3u", file)
    assert entries(file) == [hit["source"] for hit in hits] and all(Path(line).is_file() for line in entries(file))
    first = hits[0]
    assert file.read_text(encoding="utf-8").startswith(f"#EXTM3U\n#EXTINF:4,{first['artist']} - {first['title']}\n")
    stations = library.rows("path", "silver meridian", "silver glaceir", "--steps", 4, "--m3u", file)
    assert [station["title"] for station in stations][:: len(stations) - 1] == ["Silver Meridian", "Silver Glacier"]
    assert len({station["track"] for station in stations}) == 6 and len(entries(file)) == 6
    found = library.rows("find", "velvet", "-k", 5, "--m3u", file)
    assert len(entries(file)) == 5 and all("Velvet" in song["title"] for song in found)


def test_typical_songs_belong_to_the_artist(library):
    listed = library.rows("typical", "artist", "Los Faroles", "-k", 3)
    assert Counter(song["kind"] for song in listed) == {"typical": 3, "unusual": 3}
    songs = {tune.title for tune in library.tunes if tune.artists[0] == "Los Faroles"}
    assert {song["title"] for song in listed} <= songs and len({song["track"] for song in listed}) == 6


def test_the_default_space_is_used_and_named(library):
    library.run("embed", "--encoder", ENCODER, "--space", "short", "--window", 1)
    said = library.run("similar", "velvet espejo", "-k", 1)
    assert "space short, the newest learned one; choose another with --space: plain, short" in said
    assert [space["name"] for space in library.rows("spaces", "--default", "plain") if space["default"]] == ["plain"]
    assert "space plain, the lake's default" in library.run("similar", "velvet espejo", "-k", 1)
    named, default = (
        library.rows("similar", "velvet espejo", "-k", 5, *words) for words in (("--space", "plain"), ())
    )
    assert named == default


def test_copies_are_found_and_become_one_song(library):
    title = library.encoded.title
    clip = library.rows("clips", "--where", f"source = '{library.encoded.path}'")[1]
    assert library.rows("similar", clip["clip_id"], "-k", 1)[0]["source"] == str(library.again)
    listed = library.rows("duplicates", "--save", "--cosine", 0.99, "--correlation", 0.95)
    assert {song["source"] for song in listed} == {str(library.encoded.path), str(library.again)}
    assert all(song["clips"] == 3 for song in listed)
    hits = library.rows("similar", title, "-k", COUNT)
    assert len(hits) == COUNT - 1 and title not in {hit["title"] for hit in hits}
    assert len(library.rows("find", title, "-k", 5)) >= 1 and library.rows("status", "--json")[0]["tracks"] == COUNT
    said = library.run("similar", library.twin, "-k", 1)
    assert f"5.flac: this file is in the lake as '{library.original.title}'" in said


def test_renamed_and_retagged_songs_keep_their_clips(library):
    before = {clip["clip_id"]: clip for clip in library.rows("clips")}
    retagged, moved, *swapped = (library.titled(title) for title in (
        "Silver Sparrow", "Paper Harbour", "Crimson Thunder", "Hollow Thunder"
    ))
    library.change(retagged, retagged.retag("Golden Sparrow"))
    library.change(moved, moved.moved(library.music / "Singles" / "Paper Harbour.flac"))
    one, other = swapped
    kept = one.path.with_suffix(".kept")
    one.path.rename(kept), other.path.rename(one.path), kept.rename(other.path)
    library.change(one, replace(one, path=other.path)), library.change(other, replace(other, path=one.path))
    said = library.ingest()
    assert f"0 clips new, {3 * (COUNT + 1) - 12} known, 12 changed" in said and "missing" not in said
    after = {clip["clip_id"]: clip for clip in library.rows("clips")}
    assert after.keys() == before.keys() and "0 clips embedded" in library.run("embed", "--space", "plain")
    for tune in (library.titled(title) for title in ("Golden Sparrow", "Paper Harbour", "Crimson Thunder", "Hollow Thunder")):
        of_song = [clip for clip in after.values() if clip["source"] == str(tune.path)]
        assert {clip["title"] for clip in of_song} == {tune.title} and len(of_song) == 3
    assert library.rows("find", "goldn sparrow")[0]["title"] == "Golden Sparrow"
    assert "Silver Sparrow" not in {song["title"] for song in library.rows("find", "silver sparrow")}
    assert library.rows("find", "hollow thunder", "-k", 1)[0]["file"] == one.path.name


def test_missing_songs_stay_marked_until_they_are_forgotten(library):
    gone = [library.titled(title) for title in ("Velvet Almanac", "Wandering Lluvia", "Northern Lighthouse")]
    for tune in gone:
        tune.path.unlink()               # of the last one a copy is left
    assert "2 files are missing" in library.ingest()
    missing = library.rows("clips", "--where", "state = 'missing'")
    assert {clip["title"] for clip in missing} == {"Velvet Almanac", "Wandering Lluvia"} and len(missing) == 6
    assert library.rows("clips", "--where", "title = 'Northern Lighthouse'")[0]["source"] == str(library.twin)
    hits = library.rows("similar", "paper meridian", "-k", COUNT)
    assert {hit["title"] for hit in hits if hit["state"] == "missing"} == {"Velvet Almanac", "Wandering Lluvia"}
    embedded = library.rows("spaces")[0]["embedded"]
    assert "deleted 2 songs with 6 clips" in library.run("forget", "--missing", "--yes")
    assert library.rows("clips", "--where", "title = 'Velvet Almanac'") == []
    assert library.rows("spaces")[0]["embedded"] == embedded - 6
    assert "Velvet Almanac" not in {song["title"] for song in library.rows("find", "velvet almanac")}
    done = run("similar", "wandering lluvia", "-k", 1, lake=library.uri)
    assert done.returncode == 2 and "Wandering Lluvia" not in done.stderr
    assert run("verify", lake=library.uri).returncode == 0
