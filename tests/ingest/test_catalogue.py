"""A catalogue of songs whose downloads are copies of local files: searches, overrides, lengths, and segments as files."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest
import soundfile
from sounds import encode, melody

from tonelake import ingest
from tonelake.ingest import download
from tonelake.ingest.datasets import wikimeter, wikimeter_segments
from tonelake.ingest.datasets.wikimeter_catalogue import read_catalogue
from tonelake.ingest.datasets.wikimeter_segments import SegmentRule
from tonelake.store import InputError, Lake

LABELS = ("track", "artist", "title", "label", "meter", "alt_meter", "meters", "url", "segment", "split")
SHORT = {"seconds": 6.0, "min_seconds": 2.0, "margin": 1.0}             # of songs of 15 s: 1 to 7 s, 7 to 13 s


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    return {
        name: encode(folder / f"{name}.mp3", melody(15, seed=seed, rate=22_050), rate=22_050)
        for seed, name in enumerate(("one", "two"))
    }


class Site:
    """Takes the place of yt-dlp: downloads copies of files by URL or search, and counts."""

    def __init__(self, files, pages=None):
        self.files, self.pages, self.asked = files, pages or {}, []

    def __call__(self, url, folder, name):
        self.asked.append(url)
        page = self.pages.get(url, url)
        if page not in self.files:
            raise download.FetchError("HTTP Error 404: Not Found")
        path = folder / f"{name}.mp3"
        shutil.copyfile(self.files[page], path)
        return path, {"id": "x", "title": f"Title of {page}", "uploader": "someone", "webpage_url": page}


def listed(tmp_path, *songs, name="wikimeter.json"):
    path = tmp_path / name
    path.write_text(json.dumps(songs))
    return path


def song(title, *urls, meters=None, **more):
    sources = [{"type": "wikimedia", "url": url} for url in urls]
    return {"artist": "Ada", "title": title, "meters": meters or {"5": 1.0}, "sources": sources} | more


def run(lake, path, site, **how):
    how = SHORT | how
    return ingest.ingest_catalogue(lake, path, accept_terms=True, workers=1, sleep=lambda _: None, download=site, **how)


def rows_of(lake, columns=LABELS):
    names = [name for name in columns if name in lake.clips.columns()]
    return lake.clips.read(names).sort("track", "segment").to_dicts()


def test_a_song_without_sources_is_searched_for_once_and_an_override_replaces_what_was_found(lake, tmp_path, sounds):
    path = listed(tmp_path, song("Good"), song("Fine", "https://b.example/2", meters={"3": 1, "4": 0.5}))
    site = Site(
        {"https://a.example/1": sounds["one"], "https://b.example/2": sounds["two"], "https://c.example/3": sounds["one"]},
        {"ytsearch1:Ada Good": "https://a.example/1"},
    )
    with pytest.raises(InputError, match=r"song 1: has no sources.*--search"):
        run(lake, path, site)
    report = run(lake, path, site, search=True)
    assert site.asked == ["ytsearch1:Ada Good", "https://b.example/2"]
    entry = json.loads((tmp_path / "wikimeter-audio" / "ledger.jsonl").read_text().splitlines()[0])
    assert [entry[key] for key in ("url", "page", "title", "uploader")] == [
        "ytsearch1:Ada Good", "https://a.example/1", "Title of https://a.example/1", "someone",
    ]
    assert any("1 songs found by search" in note and "Title of https://a.example/1" in note for note in report.notes)
    assert [row["url"] for row in rows_of(lake)] == ["https://b.example/2"] * 2 + ["https://a.example/1"] * 2

    before = lake.clips.read(["clip_id", "track"])
    table = tmp_path / "right.csv"
    table.write_text("artist,title,url\nAda,Good,https://a.example/1\n")     # what was found, confirmed
    report = run(lake, path, site, override=table)
    assert report.added.known == 4 and len(site.asked) == 2
    site.files["https://c.example/3"] = sounds["two"]
    path = listed(tmp_path, song("Good"), name="other.json")
    table.write_text("artist,title,url\nADA,good,https://c.example/3\n")
    report = run(lake, path, site, override=table, folder=tmp_path / "wikimeter-audio")
    assert site.asked[2:] == ["https://c.example/3"] and report.superseded == 2
    with pytest.raises(InputError, match=r"right\.csv, row 2: its song is not in "):
        read_catalogue(listed(tmp_path, song("Other", "https://d.example/")), override=table)
    now = lake.clips.read(["clip_id", "track"])
    gone = before.filter(~before["clip_id"].is_in(now["clip_id"].implode()))
    assert set(gone["track"]) == {"ada_good"} and len(now) == 2
    report = run(lake, path, site, search=True, folder=tmp_path / "wikimeter-audio")     # without the override: as before
    assert "ada_good" in set(lake.clips.read(["track"])["track"]) and len(site.asked) == 3


def test_an_override_in_the_catalogue_is_used_instead_of_all_sources_and_clears_their_failure(lake, tmp_path, sounds):
    site = Site({"https://b.example/2": sounds["two"]})
    assert run(lake, listed(tmp_path, song("Good", "https://a.example/1")), site).failed == 1
    path = listed(tmp_path, song("Good", "https://a.example/1", override="https://b.example/2"))
    assert run(lake, path, site).failed == 0 and site.asked == ["https://a.example/1", "https://b.example/2"]
    assert len(lake.failures.read()) == 0
    (video,) = read_catalogue(listed(tmp_path, song("x", override="abcdefghijk")))
    assert video.urls == ("https://www.youtube.com/watch?v=abcdefghijk",)


def test_a_search_in_the_catalogue_needs_no_option_and_may_have_its_own_words(tmp_path):
    path = listed(
        tmp_path, song("A") | {"sources": [{"type": "search"}]},
        song("B") | {"sources": [{"type": "youtube", "video_id": "abcdefghijk"}, {"type": "search", "query": "b  live\n1987"}]},
    )
    assert [each.urls for each in read_catalogue(path)] == [
        ("ytsearch1:Ada A",), ("https://www.youtube.com/watch?v=abcdefghijk", "ytsearch1:b live 1987"),
    ]


@pytest.mark.parametrize(("entry", "complaint"), [
    ({"artist": "", "title": None, "meters": {"3": 1}, "sources": []}, "has neither artist nor title"),
    ({"meters": {"3": 1}}, "has no 'artist'"),
    (song("x", "https://a.example/", trim={"start": 20, "end": 10}), "trim"),
    (song("x", "https://a.example/", trim={"start": -1}), "trim"),
    (song("x", "https://a.example/", override="file:///etc/passwd"), "not an http or https URL"),
    (song("x", override={"video_id": "no"}), "video id"),
    (song("\ud800"), "half of a character"),
])
def test_an_entry_that_cannot_be_looked_up_is_named(tmp_path, entry, complaint):
    with pytest.raises(InputError, match=complaint):
        read_catalogue(listed(tmp_path, entry), search=True)


@pytest.mark.parametrize(("text", "complaint"), [
    ("title,url\nx,https://a.example/", "has no column artist"),
    ("artist,title,url\n,,https://a.example/", "row 2: has neither artist nor title"),
    ("artist,title,url\nAda,x,", "row 2: .*video_id"),
    ("artist,title,video_id\nAda,x,../../etc", "row 2: .*video id"),
    ("artist,title,url\nAda,x,https://a.example/\nAda,X,https://b.example/", "row 3: .*listed twice"),
])
def test_an_invalid_override_is_named(tmp_path, text, complaint):
    table = tmp_path / "override.csv"
    table.write_text(text + "\n")
    with pytest.raises(InputError, match=rf"override\.csv.*{complaint}"):
        read_catalogue(listed(tmp_path, song("x")), override=table)


def test_songs_in_other_scripts_are_tracks_of_their_own_and_long_names_fit_into_a_file_name(tmp_path):
    path = listed(tmp_path, *(
        song("Love", f"https://a.example/{number}") | {"artist": artist} for number, artist in enumerate(("歌手", "歌姫"))
    ), song("é" * 400, "https://a.example/3"), song("歌" * 400, "https://a.example/4"))
    songs = read_catalogue(path)
    assert songs[0].stem == "love" and len({each.stem for each in songs}) == 4
    assert all(len(f"{each.stem}_seg00.flac.tmp".encode()) < 255 for each in songs)
    table = tmp_path / "override.json"
    table.write_text(json.dumps([{"artist": "歌姫", "title": "LOVE", "video_id": "abcdefghijk"}]))
    changed = read_catalogue(path, override=table)
    assert [each.urls == now.urls for each, now in zip(songs, changed, strict=True)] == [True, False, True, True]
    with pytest.raises(InputError, match=r"song 2: .*listed twice"):
        read_catalogue(listed(tmp_path, song("Take Five", "https://a.example/"), song("Take-five!", "https://b.example/")))


@pytest.mark.parametrize("lengths", [
    {"seconds": 10, "min_seconds": 15}, {"seconds": 0.5}, {"seconds": float("nan")}, {"min_seconds": 0.0},
    {"margin": -1}, {"margin": float("inf")}, {"max_segments": 0}, {"seconds": 4000.0},
])
def test_lengths_that_contradict_each_other_are_refused_before_anything_is_read(lake, tmp_path, lengths):
    with pytest.raises(InputError):
        ingest.ingest_catalogue(lake, tmp_path / "none.json", accept_terms=True, **lengths)
    assert not lake.clips.count()


def test_segments_follow_any_rule():
    rule = SegmentRule(seconds=7.0, min_seconds=3.0, margin_s=2.0, max_segments=3)
    for duration_s in np.arange(1.0, 60.0, 0.7):
        spans = rule.spans(float(duration_s))
        assert len(spans) <= 3 and all(3 <= length_s <= 7 for _, length_s in spans)
        assert all(start_s >= 2 and start_s + length_s <= duration_s - 2 + 1e-3 for start_s, length_s in spans)
        assert bool(spans) == (duration_s >= 7)


def test_two_songs_in_parts_of_one_recording_are_kept_and_two_that_overlap_are_not(lake, tmp_path, sounds):
    site = Site({"https://a.example/1": sounds["one"]}, {"ytsearch1:Ada Third": "https://a.example/1"})
    path = listed(
        tmp_path, song("First", "https://a.example/1", trim={"end": 7}),
        song("Second", "https://a.example/1", trim={"start": 7}, meters={"7": 1}), song("Third"),
    )
    report = run(lake, path, site, search=True)
    assert [(row["track"], row["meters"], row["segment"]) for row in rows_of(lake)] == [
        ("ada_first", ["5"], 0), ("ada_second", ["7"], 0),
    ]
    assert report.failed == 1 and "Ada - First as well" in lake.failures.read()["error"][0]
    again = run(lake, path, site, search=True)
    assert again.added.known == 2 and again.added.new == 0


def test_the_table_of_a_catalogue_reads_back_as_the_clips_that_it_lists(lake, tmp_path, sounds):
    site = Site({f"https://a.example/{name}": path for name, path in sounds.items()})
    songs = [song("One", "https://a.example/one", meters={"3": 0.8, "4": 0.7}), song("Two, too", "https://a.example/two")]
    run(lake, listed(tmp_path, *songs), site)
    home = tmp_path / "wikimeter-audio"
    report = ingest.ingest_dataset(lake, "wikimeter", home, workers=1)
    assert (report.added.new, report.added.known, report.failed, report.notes) == (0, 4, 0, ())
    other = Lake(tmp_path / "other")
    ingest.ingest_dataset(other, "wikimeter", home, workers=1)
    assert rows_of(other, ("clip_id", "dataset", *LABELS)) == rows_of(lake, ("clip_id", "dataset", *LABELS))
    with pytest.raises(InputError, match="--seconds"):
        ingest.ingest_dataset(other, "wikimeter", home, seconds=5.0)
    origins = home / "segments_wikimeter.json"
    text = origins.read_text()
    name = json.loads(text)[0]["file"]
    for new, complaint in (("../x.mp3", "outside the folder"), ("", "row 1: has no filename or no file")):
        origins.write_text(text.replace(name, new))
        with pytest.raises(InputError, match=complaint):
            ingest.ingest_dataset(other, "wikimeter", home)
    origins.write_text(text.replace('"start_s": 1.0', '"start_s": "x"'))
    with pytest.raises(InputError, match="row 1: start_s and seconds must be numbers"):
        ingest.ingest_dataset(other, "wikimeter", home)


def test_segments_are_written_as_a_folder_that_gives_the_same_tracks_labels_and_samples(lake, tmp_path, sounds):
    site = Site({f"https://a.example/{name}": path for name, path in sounds.items()})
    songs = [song("One", "https://a.example/one", meters={"3": 1, "4": 1}), song("Two: Ünö", "https://a.example/two")]
    path, folder = listed(tmp_path, *songs), tmp_path / "data_wikimeter"
    report = run(lake, path, site, write_segments=folder)
    names = [f"ada_{stem}_seg{number:02d}.flac" for stem in ("one", "two_uno") for number in range(2)]
    assert sorted(file.name for file in folder.iterdir()) == sorted(["data_wikimeter.tab", "segments_wikimeter.json", *names])
    assert any(note.startswith("4 segments written") for note in report.notes)
    table = (folder / "data_wikimeter.tab").read_text().splitlines()
    assert table[:2] == ["filename\tlabel\tmeter\talt_meter", '"/WIKIMETER/ada_one_seg00.flac"\t"three"\t3,4\t6']

    other = Lake(tmp_path / "other")
    ingest.ingest_dataset(other, "wikimeter", folder, workers=1)
    assert rows_of(other) == rows_of(lake)
    clips = {(row["track"], row["segment"]): row for row in lake.clips.read().to_dicts()}
    for row in other.clips.read().to_dicts():
        mine = clips[row["track"], row["segment"]]
        wanted = ingest.read_source(mine["source"], mine["start_s"], mine["duration_s"], 24_000)
        np.testing.assert_allclose(ingest.read_source(row["source"], 0.0, row["duration_s"], 24_000), wanted, atol=1e-6)

    times = {file: file.stat().st_mtime_ns for file in folder.glob("*.flac")}
    (folder / names[0]).unlink()
    (folder / f".{names[1]}.tmp").write_bytes(b"half of a file")             # killed while it wrote
    run(lake, path, site, write_segments=folder)
    assert [file.name for file, at in times.items() if file.stat().st_mtime_ns != at] == names[:1]
    report = run(lake, path, site, write_segments=folder, seconds=4.0, max_segments=1)
    assert sorted(file.name for file in folder.glob("*.flac")) == names[::2]
    assert soundfile.info(folder / names[0]).duration == pytest.approx(4.0)
    assert any("4 clips of these songs were cut by other lengths" in note for note in report.notes)


def test_a_folder_with_other_files_is_refused_before_any_download(lake, tmp_path, sounds):
    site = Site({"https://a.example/1": sounds["one"]})
    path = listed(tmp_path, song("One", "https://a.example/1"))
    for name in ("ada_one_seg00.flac", "data_wikimeter.tab", "notes.txt"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(b"mine")
        with pytest.raises(InputError, match=rf"holds other files, such as {name}"):
            run(lake, path, site, write_segments=folder)
        assert (folder / name).read_bytes() == b"mine" and len(list(folder.iterdir())) == 1
    with pytest.raises(InputError, match="is not a folder"):
        run(lake, path, site, write_segments=path)
    assert site.asked == []


def test_a_full_disk_leaves_no_part_of_a_segment(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a_seg00.flac"
    wikimeter_segments.write_whole(path, b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written"):
        wikimeter_segments.write_whole(path, b"after")
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"before"


class Loader:
    """Takes the place of yt-dlp's loader."""

    def __init__(self, *entries):
        self.entries = entries

    def extract_info(self, search, download, process):
        assert search == "ytsearch1:x" and not download and not process
        return {"entries": iter(self.entries)}


@pytest.mark.parametrize(("entries", "complaint"), [
    ((), "found nothing"), (({"url": ""},), "found nothing"), (({"url": "http://127.0.0.1/x"},), "local network"),
    (({"url": "file:///etc/passwd"},), "not an http"),
])
def test_a_search_is_not_followed_to_a_private_address(entries, complaint):
    with pytest.raises(download.FetchError, match=complaint):
        download.first_hit(Loader(*entries), "ytsearch1:x")


def test_the_default_rule_is_that_of_wikimeter():
    assert wikimeter.segments(110.0) == [(10.0, 35.0), (45.0, 35.0), (80.0, 20.0)]
