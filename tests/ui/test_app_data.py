"""Data sent to the app's components: points and colours, audio byte ranges, and clips for review."""

from __future__ import annotations

import io
import threading

import numpy as np
import polars as pl
import pytest
from app_encoder import ENCODER, LAYER, OTHER
from fakes import clip_rows, fill
from sounds import melody, write

from tonelake.index import read_points, read_query
from tonelake.ingest import ingest_folder
from tonelake.store import InputError, KeyRows, Lake, SpaceMismatch
from tonelake.ui.points import Colours, load_points
from tonelake.wav_file import BLOCK_S, HEADER, RATE, Sound, parse_range


@pytest.fixture
def mapped(lake):
    """A lake of 360 made-up clips with two mapped layers, and its space."""
    import tonelake

    space = fill(lake, 36, 10, seed=0)
    for layer in ("low", "high"):
        tonelake.open(lake.uri, progress=False).map(layer, method="pca")
    return lake, space


# -- points


def test_points_are_those_of_the_map_and_all_layers_share_one_order(mapped):
    lake, space = mapped
    low, high = (load_points(lake, space, layer) for layer in (0, 1))
    assert low.order == high.order and low.ids.equals(high.ids)
    for points in (low, high):
        stored, _ = read_points(lake, space, points.layer)
        place = {row["clip_id"]: (row["projection_x"], row["projection_y"]) for row in stored.to_dicts()}
        assert [place[clip] for clip in points.ids] == [tuple(xy) for xy in points.xy.tolist()]
    # Shuffled: the first points are not the first clips of the lake.
    assert low.ids.head(40).to_list() != lake.clips.ids().head(40).to_list()
    assert load_points(lake, space, 0) is low


def test_a_rebuilt_map_is_read_again(mapped):
    import tonelake

    lake, space = mapped
    before = load_points(lake, space, 0)
    tonelake.open(lake.uri, progress=False).map("low", method="pca", neighbours=9, again=True)
    assert load_points(lake, space, 0) is not before


def test_a_layer_without_a_map_raises_an_error_naming_the_command(lake):
    space = fill(lake, 6, 10, seed=0)
    with pytest.raises(InputError, match="tonelake map --space fake --layer high"):
        load_points(lake, space, 1)


def test_rows_search_and_polygon_find_the_right_clips(mapped):
    lake, space = mapped
    points = load_points(lake, space, 1)
    wanted = points.ids.gather([5, 0, 77]).to_list()
    assert points.rows_of([*wanted, "ffff"]) == [5, 0, 77, None]
    found = {points.frame["title"][int(row)] for row in points.search("  TITLE 7 ")}
    assert found == {"Title 7"}
    assert not len(points.search("%' OR 1=1"))
    corners = [[-0.3, -0.2], [0.4, -0.3], [0.2, 0.5]]
    inside = set(points.within_polygon(corners))

    def left_of(a, b, p):
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0

    expected = {clip for clip, p in zip(points.ids, points.xy, strict=True)
             if all(left_of(corners[i], corners[(i + 1) % 3], p) for i in range(3))}
    assert inside == expected and inside
    assert not len(points.within_polygon([[0, 0], [1, 1]]))
    assert not len(points.within_polygon([[0, 0], [float("nan"), 1], [1, 0]]))


def test_colours_count_categories_and_scale_numbers(mapped):
    lake, space = mapped
    points = load_points(lake, space, 1)
    by_artist = points.colours("artist")
    counts = points.frame["artist"].value_counts(sort=True)
    assert by_artist.legend["kind"] == "categories" and by_artist.legend["counts"] == sorted(counts["count"], reverse=True)
    names = [by_artist.legend["names"][code - 1] for code in by_artist.codes]
    assert names == points.frame["artist"].to_list()
    years = points.colours("year")                       # 36 distinct integers
    own = lake.clips.take(points.ids.to_list(), ["year"])["year"].to_numpy()
    assert years.legend["kind"] == "scale" and np.corrcoef(years.codes, own)[0, 1] > 0.99
    assert points.colours("tags").legend["names"][0].startswith(("even, ", "odd, "))
    with pytest.raises(InputError, match="no column 'nothing'"):
        points.colours("nothing")


def test_missing_and_non_finite_values_get_code_zero():
    found = Colours("x", pl.Series("x", [1.0, None, float("nan"), 3.0, float("inf"), 2.0]))
    assert found.codes.tolist() == [1, 0, 0, 256, 0, 128] or found.codes.tolist() == [1, 0, 0, 256, 0, 129]
    assert found.legend["missing"] == 3
    assert Colours("x", pl.Series("x", [None, None], dtype=pl.String)).codes.tolist() == [0, 0]
    many = Colours("x", pl.Series("x", [f"v{i}" for i in range(70_000)]))
    assert (many.legend["values"], many.legend["codes"]) == (70_000, 65_535) and many.codes.max() == 65_535


# -- sound


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """A lake with one stereo clip of 25 s at 44.1 kHz that starts 3 s into its file."""
    import tonelake

    folder = tmp_path_factory.mktemp("long")
    write(folder / "m" / "a.wav", melody(28, seed=3, rate=44_100, channels=2), 44_100)
    (folder / "list.csv").write_text(f"path,start,seconds\n{folder / 'm' / 'a.wav'},3,25\n")
    lake = tonelake.open(folder / "lake", progress=False)
    lake.ingest_manifest(folder / "list.csv")
    return lake


def test_the_virtual_file_contains_the_samples_of_the_clip(long_clip):
    import soundfile

    clip = long_clip.clips.read().row(0, named=True)
    sound = Sound(long_clip, clip["clip_id"], clip["duration_s"])
    whole = b"".join(sound.bytes(0, sound.size - 1))
    assert len(whole) == sound.size == HEADER + 2 * 25 * RATE
    heard, rate = soundfile.read(io.BytesIO(whole), dtype="float32")
    direct = long_clip.audio(clip["clip_id"], RATE)
    assert rate == RATE and len(heard) == len(direct)
    # 16 bits, and resampled in overlapping blocks: no seam at 10 s or 20 s.
    assert np.abs(heard - np.clip(direct, -1, 1)).max() < 2e-4


def test_any_byte_range_equals_that_part_of_the_whole_file(long_clip):
    clip = long_clip.clips.read().row(0, named=True)
    sound = Sound(long_clip, clip["clip_id"], clip["duration_s"])
    whole = b"".join(sound.bytes(0, sound.size - 1))
    block = HEADER + round(2 * BLOCK_S * RATE)
    end = sound.size - 1
    for first, last in ((0, 10), (40, 50), (43, 44), (block - 3, block + 3), (block, end), (end, end)):
        assert b"".join(sound.bytes(first, last)) == whole[first : last + 1]


def test_range_headers_are_parsed_as_in_http():
    assert parse_range("bytes=0-", 100) == (0, 99) and parse_range("bytes=5-7", 100) == (5, 7)
    assert parse_range("bytes=90-400", 100) == (90, 99) and parse_range("bytes=-400", 100) == (0, 99)
    for wrong in (None, "", "bytes=-", "bytes=100-", "bytes=7-5", "bytes=1-2,4-5", "items=1-2"):
        assert parse_range(wrong, 100) is None


def test_reading_part_of_a_clip_equals_slicing_the_whole(long_clip):
    clip = long_clip.clips.read()["clip_id"][0]
    whole = long_clip.audio(clip, 44_100)
    assert np.array_equal(long_clip.audio(clip, 44_100, start=2.0, seconds=1.5), whole[2 * 44_100 : int(3.5 * 44_100)])
    assert len(long_clip.audio(clip, 44_100, start=24.0, seconds=9.0)) == 44_100
    for start in (-1.0, 25.0):
        with pytest.raises(InputError, match="25 s long"):
            long_clip.audio(clip, start=start)


def test_a_recording_is_served_whole_also_where_no_clip_covers_it(long_clip, music, monkeypatch):
    import soundfile
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from tonelake.ui.routes import routes

    monkeypatch.setenv("TONELAKE_LAKE", long_clip.uri)
    clip, source = long_clip.clips.read(["clip_id", "source"]).row(0)
    whole, rate = soundfile.read(source, dtype="float32")
    assert long_clip.recording_length(clip) == len(whole) / rate == 28.0
    with TestClient(Starlette(routes=routes())) as client:
        answer = client.get(f"/tonelake/recording/{clip}", headers={"Range": "bytes=0-"})
        assert answer.status_code == 206 and len(answer.content) == HEADER + 2 * 28 * RATE
        heard = np.frombuffer(answer.content[HEADER:], "<i2") / 32767
        direct = long_clip.audio(clip, RATE, whole=True)
        assert np.abs(heard - np.clip(direct, -1, 1)).max() < 2e-4
        first, last = HEADER + 6 * RATE, HEADER + 8 * RATE - 1
        part = client.get(f"/tonelake/recording/{clip}", headers={"Range": f"bytes={first}-{last}"})
        assert part.content == answer.content[first : last + 1]
        assert client.get("/tonelake/recording/ffffffffffffffffffff").status_code == 404


def test_the_queue_is_saved_as_a_playlist_and_a_file_that_is_gone_is_named(lake, music, tmp_path, monkeypatch):
    import shutil

    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from tonelake.ui.routes import routes

    shutil.copytree(music / "Ada", tmp_path / "m")
    ingest_folder(lake, tmp_path / "m", seconds=None)
    clips = lake.clips.read(["clip_id", "source"])
    monkeypatch.setenv("TONELAKE_LAKE", lake.uri)
    with TestClient(Starlette(routes=routes())) as client:
        listed = client.post("/tonelake/playlist", json={"clips": clips["clip_id"].to_list()[::-1]})
        assert listed.text.splitlines()[2::2] == clips["source"].to_list()[::-1]
        json = {"Content-Type": "application/json"}
        for body, head in ((b'{"clips": [1]}', json), (b"nothing", json), (b'{"clips": []}', {}), (b" " * (2 << 20), json)):
            answer = client.post("/tonelake/playlist", content=body, headers=head)
            assert answer.status_code == 400 and answer.json()["error"].startswith("playlist: send")
        shutil.rmtree(tmp_path / "m")
        for route in ("recording", "audio"):
            answer = client.get(f"/tonelake/{route}/{clips['clip_id'][0]}", headers={"Range": "bytes=0-99"})
            assert answer.status_code == 404
            assert ": the file is gone. Put it back, or ingest its folder again" in answer.json()["error"]


# -- the lake


def test_a_lake_that_was_replaced_is_opened_again(tmp_path, monkeypatch):
    import shutil

    from tonelake.store import LakeError
    from tonelake.ui.opened import opened_lake

    path = tmp_path / "lake"
    Lake(path).clips.add(clip_rows(2, 1))
    monkeypatch.setenv("TONELAKE_LAKE", str(path))
    first = opened_lake()
    assert first.clips.count() == 2 and opened_lake() is first
    shutil.rmtree(path)
    with pytest.raises(LakeError, match="is not a lake"):
        opened_lake()
    Lake(path).clips.add(clip_rows(3, 1))
    assert opened_lake().clips.count() == 3


def test_a_song_is_named_by_its_title_or_file_never_by_a_path():
    from tonelake.ui.shared import song_title

    assert song_title({"title": "One", "source": "/m/a.mp3", "track": "x"}) == "One"
    assert song_title({"title": "", "source": "/m/Ada/a b.mp3", "track": "Ada/a b.mp3"}) == "a b"
    assert song_title({"title": None, "source": "file:///m/a%20b%ff.MP3"}) == "a b\ufffd"
    assert song_title({"title": None, "track": "Ada/one.mp3"}) == "one"
    assert song_title({"title": None, "source": "/m/Mr. Blue"}) == "Mr. Blue"        # not the suffix of an audio format
    assert song_title({"title": None, "source": None, "track": None}) == "Untitled"


def test_a_spectrogram_is_bright_where_the_clip_is_loud():
    from matplotlib.image import imread

    from tonelake.charts import draw_spectrogram

    time_s = np.arange(2 * 24_000) / 24_000
    tone = np.sin(2 * np.pi * 2_000 * time_s) * (time_s > 1)
    picture = imread(io.BytesIO(draw_spectrogram(tone.astype(np.float32), 24_000)))
    light = picture[..., :3].sum(axis=2)
    assert light.shape[0] == 64 and light.shape[1] > 300
    assert light[:, 200:].max() > 2 and light[:, :150].max() < 0.2
    assert draw_spectrogram(np.zeros(100, np.float32), 24_000)           # silence that is shorter than a window


# -- a query embedded once


def test_a_query_embedded_once_gives_the_hits_of_the_file(lake, music, tmp_path):
    import tonelake

    ingest_folder(lake, music, seconds=3.0)
    opened = tonelake.open(lake.uri, progress=False)
    opened.embed(ENCODER, precision="float32")
    write(tmp_path / "new.wav", melody(4, seed=77))
    heard = opened.read_query(tmp_path / "new.wav")
    for settings in ({"layer": OTHER}, {"layers": f"{OTHER}:1,{LAYER}:2"}, {"layer": OTHER, "like": "artist"}):
        assert opened.similar(heard, **settings).equals(opened.similar(str(tmp_path / "new.wav"), **settings))
    (tmp_path / "new.wav").unlink()
    assert len(opened.similar([heard, lake.clips.ids()[0]], layer=OTHER)) == 5           # songs other than that clip's own
    fill(lake, 3, 2, seed=0)
    with pytest.raises(SpaceMismatch, match="encoded in a space other than"):
        opened.similar(heard, space="fake")
    with pytest.raises(Exception, match="cannot be read"):
        read_query(lake, tmp_path / "new.wav", space=ENCODER)


# -- keys and threads


def test_rows_taken_by_row_number_equal_those_of_the_filter(lake):
    rows = clip_rows(30, 20)
    lake.clips.add(rows)
    wanted = [rows["clip_id"][i] for i in (5, 599, 0, 300)]
    by_filter = lake.clips.take(wanted)
    lake.clips.ids()                                     # reads the keys; row numbers are known from here on
    assert lake.clips.take(wanted).equals(by_filter)
    assert lake.clips.take(["unknown", wanted[1]])["clip_id"].to_list() == [wanted[1]]
    other = Lake(lake.uri)                               # another writer: row numbers of an old version are not used
    other.clips.table.delete(f"clip_id = '{wanted[0]}'")
    other.clips.set_flag([wanted[1]], "odd")
    other.clips.table.compact()
    found = lake.clips.take(wanted)
    assert found["clip_id"].to_list() == wanted[1:] and found["flag"].to_list() == ["odd", None, None]
    lake.clips.ids()
    assert lake.clips.take(wanted).equals(found)
    assert lake.clips.find(wanted[2])["clip_id"] == wanted[2]


def test_row_lookup_is_right_when_hashes_collide(monkeypatch):
    keys = pl.Series([f"k{i}" for i in range(50)])
    places = KeyRows(keys)
    hashes = (np.arange(50) // 5).astype(np.uint64)
    places._hashes = (hashes, np.arange(50))
    monkeypatch.setattr(pl.Series, "hash", lambda self, *_: pl.Series([int(k[1:]) // 5 for k in self], dtype=pl.UInt64))
    assert places.of(["k7", "k49", "k0", "k77"]).tolist() == [7, 49, 0, -1]


def test_concurrent_searches_read_a_layer_once(lake, monkeypatch):
    from tonelake import index

    fill(lake, 30, 10, seed=0)
    reads = []
    real = type(lake.vectors("fake")).layer

    def counted(self, *arguments, **settings):
        reads.append(1)
        return real(self, *arguments, **settings)

    monkeypatch.setattr(type(lake.vectors("fake")), "layer", counted)
    index.search.exact._cache.clear()
    answers: list = [None] * 8

    def work(i: int) -> None:
        answers[i] = index.similar(lake, lake_ids[i % 3], layer="low", k=5)

    lake_ids = lake.clips.ids().to_list()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert all(answers[i].equals(answers[i % 3]) for i in range(8))


# -- clips for review


def check_training_clips(opened, run):
    """Training clips are listed by side, as `predict` predicts them, and never counted as test clips."""
    split, everything = run.table("split"), opened.review(run.name, side="all", k=None)
    predicted = next(name for name in everything.columns if name.startswith("predicted"))
    as_now = {row["clip_id"]: row[predicted] for row in opened.predict(run.name).table.iter_rows(named=True)}
    for side in ("train", "valid", "test"):
        found, same = opened.review(run.name, side=side, k=None), everything.filter(side=side).drop("side")
        assert sorted(found["clip_id"]) == sorted(split.filter(side=side)["clip_id"]) == sorted(same["clip_id"])
        assert found["loss"].is_sorted(descending=True)
        for clip, value in found.select("clip_id", predicted).iter_rows():
            assert value == (as_now[clip] if isinstance(value, str | list) else pytest.approx(as_now[clip], rel=1e-4))
    assert everything["loss"].is_sorted(descending=True)
    with pytest.raises(InputError, match="Choose train, valid, test, all"):
        opened.review(run.name, side="learn")
    run.files.remove("training_predictions.parquet")
    with pytest.raises(InputError, match="an earlier release trained it"):
        opened.review(run.name, side="train")


@pytest.mark.parametrize("column, kind", [("artist", "multiclass"), ("tags", "multilabel"), ("year", "regression")])
def test_review_lists_the_worst_clips_first(lake, column, kind):
    import tonelake
    from tonelake import probes
    from tonelake.probes.outputs import clip_losses

    fill(lake, 24, 10, seed=0)
    opened = tonelake.open(lake.uri, progress=False)
    run = opened.probe(column, layers=("low",), epochs=3, seeds=1, split="random", rates=(1e-2,), decays=(0.0,), task=kind)[0]
    predictions = run.table("predictions")
    found = opened.review(run.name, k=5)
    assert found["loss"].to_list() == sorted(predictions["loss"], reverse=True)[:5]
    check_training_clips(opened, run)
    if kind == "regression":
        with pytest.raises(InputError, match="Choose loss"):
            opened.review(run.name, by="confidence")
        with pytest.raises(InputError, match="no classes to filter by"):
            opened.review(run.name, target="x")
        return
    by_confidence = opened.review(run.name, by="confidence", k=None)
    assert set(by_confidence["clip_id"]) == set(predictions["clip_id"])
    if kind == "multiclass":
        # The loss is the cross-entropy of the label, if the label is among the stored classes.
        first = predictions.row(0, named=True)
        if first["target"] in first["likeliest"]:
            share = first["probabilities"][first["likeliest"].index(first["target"])]
            assert first["loss"] == pytest.approx(-np.log(share), rel=1e-4)
        assert by_confidence["probability"].to_list() == sorted(predictions["probability"])
        cell = predictions.row(3, named=True)
        only = opened.review(run.name, target=cell["target"], predicted=cell["predicted"], k=None)
        assert set(only["target"]) == {cell["target"]} and set(only["predicted"]) == {cell["predicted"]}
        assert cell["clip_id"] in only["clip_id"]
    else:
        assert all("even" in tags for tags in opened.review(run.name, target="even", k=None)["target"])
        first = predictions.row(0, named=True)
        names = sorted({tag for tags in lake.clips.read(["tags"])["tags"] for tag in tags})
        truth = np.array([[float(name in first["target"]) for name in names]])
        assert first["loss"] == pytest.approx(clip_losses(kind, truth, np.array([first["probabilities"]]))[0], rel=1e-5)
    lake.clips.table.delete(f"clip_id = '{found['clip_id'][0]}'")
    assert opened.review(run.name, k=4)["clip_id"].to_list() == found["clip_id"].to_list()[1:]
    with pytest.raises(InputError, match="no run 'nothing'"):
        opened.review("nothing")
    assert probes.sort_orders(predictions.drop("loss"), kind).keys() == {"confidence"}
