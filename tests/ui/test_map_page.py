"""The map without a browser: the page's states, the points of songs, and what its routes answer."""

from __future__ import annotations

import io
import itertools
import re

import numpy as np
import polars as pl
import pytest
from app_encoder import ENCODER, LAYER, OTHER
from app_pages import page, text_of
from fakes import clip_rows, fill

from tonelake.store import read_songs
from tonelake.ui.points import SHOWN, Colours, load_points
from tonelake.ui.serve import APP

ALL = [[-99.0, -99.0], [99.0, -99.0], [99.0, 99.0], [-99.0, 99.0]]
ALL_TEXT = "-99_-99_99_-99_99_99_-99_99"


@pytest.fixture
def asked(songs, monkeypatch):
    """Return the answer of a route of the map of songs, by its last part."""
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from tonelake.ui.routes import routes

    monkeypatch.setenv("TONELAKE_LAKE", songs.uri)
    with TestClient(Starlette(routes=routes())) as client:
        yield lambda path, kind="songs", **by: client.get(f"/tonelake/{kind}/{ENCODER}/{LAYER}/{path}", params=by)


# -- the page


def test_a_first_map_is_made_by_the_method_of_choice(lake, monkeypatch):
    from tonelake.index import METHODS, read_map

    fill(lake, 3, 3, seed=0)
    test = page("map", lake, monkeypatch)
    assert set(METHODS) == {"umap", "tsne", "pca"} and len(test.selectbox[-1].options) == 3
    test.selectbox[-1].set_value("tsne").run()
    assert "tonelake map --space fake --method tsne" in text_of(test)
    test.button[0].click().run()
    assert not test.exception and read_map(lake).settings["method"] == "tsne"


@pytest.mark.parametrize("points", ["songs", "clips"])
def test_the_page_keeps_the_picked_clip_and_the_selection(songs, monkeypatch, points):
    test = page("map", songs, monkeypatch, layer=LAYER, points=points, colour="artist")
    assert test.select_slider(key="layer").value == LAYER and test.radio(key="points").value == points
    assert test.selectbox(key="colour").value == "artist"
    clip = songs.clips.ids()[3]
    test.session_state["map"] = {"pick": clip, "lasso": None}
    test.run()
    assert test.query_params["pick"] == clip
    test.session_state["map"] = {"pick": clip, "lasso": ALL}
    test.run()
    kind = "~songs" if points == "songs" else ""
    assert test.query_params["lasso"] == f"{ENCODER}~{LAYER}~{ALL_TEXT}{kind}"
    test.session_state["map"] = {"pick": None, "lasso": None}
    test.run()
    assert "lasso" not in test.query_params and "pick" not in test.query_params
    # Another page, opened by the same address, offers the selection as a filter.
    offers = page("artists", songs, monkeypatch, lasso=f"{ENCODER}~{LAYER}~{ALL_TEXT}{kind}")
    assert "Only the 18 selected on the map" in [toggle.label for toggle in offers.toggle]
    for nothing in ("-99_-99_-98_-99_-98_-98", "nonsense"):
        offers = page("artists", songs, monkeypatch, lasso=f"{ENCODER}~{LAYER}~{nothing}{kind}")
        assert not any("selected" in toggle.label for toggle in offers.toggle)


def test_the_page_gives_the_map_its_state_and_ignores_invalid_choices(songs, monkeypatch):
    from tonelake.ui import components

    shown: dict[str, dict] = {}
    monkeypatch.setattr(components, "MAP", lambda *, key, data, **_: shown.__setitem__(key, data))
    page("map", songs, monkeypatch, layer=LAYER, beside=OTHER, lasso=f"{ENCODER}~{OTHER}~{ALL_TEXT}~songs")
    assert [shown[key]["layer"] for key in ("map", "map beside")] == [LAYER, OTHER]
    assert shown["map"]["base"] == f"/tonelake/songs/{ENCODER}/{LAYER}" and shown["map"]["points"] == "songs"
    assert shown["map"]["lasso"] is None and shown["map beside"]["lasso"] == ALL
    shown.clear()
    page("map", songs, monkeypatch, layer="none", points="stars", colour="none", beside="none such", not_same="x")
    assert shown["map"]["colour"] == "cluster" and shown["map"]["points"] == "songs" and list(shown) == ["map"]
    # A selection of clips is none of songs.
    page("map", songs, monkeypatch, layer=LAYER, lasso=f"{ENCODER}~{LAYER}~{ALL_TEXT}")
    assert shown["map"]["lasso"] is None


def test_a_lake_without_vectors_says_so_and_not_in_the_closed_drawer(lake, monkeypatch):
    lake.clips.add(clip_rows(2, 1))
    test = page("map", lake, monkeypatch)
    [sentence] = [part for part in test.main.children.values() if part.type == "info"]           # directly on the page
    assert "Nothing is embedded yet" in sentence.value


# -- points of songs


def test_a_point_of_a_song_is_one_of_its_clips_and_all_layers_share_the_order_of_songs(lake):
    import tonelake

    space = fill(lake, 36, 10, seed=0)
    for layer in ("low", "high"):
        tonelake.open(lake.uri, progress=False).map(layer, method="pca")
    low, high = (load_points(lake, space, layer, songs=True) for layer in (0, 1))
    songs = read_songs(lake.clips)
    assert len(low.ids) == 36 and low.order == high.order
    assert songs.of(low.ids).tolist() == songs.of(high.ids).tolist() and not low.ids.equals(high.ids)
    clips = load_points(lake, space, 0)
    assert clips.order != low.order and len(clips.ids) == 360
    place = dict(zip(clips.ids, clips.xy.tolist(), strict=True))
    assert [place[clip] for clip in low.ids] == low.xy.tolist()
    # Every clip has the row of its song, and a selection contains all clips of a song.
    ids = lake.clips.ids()
    rows = low.rows_of([*ids, "ffff"])
    assert rows[-1] is None and songs.of(low.ids.gather(rows[:-1])).tolist() == songs.of(ids).tolist()
    x, y = low.xy[7]
    around = low.within_polygon([[x - 1e-4, y - 1e-4], [x + 1e-4, y - 1e-4], [x, y + 1e-4]])
    assert set(around) == set(ids.filter(pl.Series(songs.of(ids) == songs.of([low.ids[7]])[0])))
    # A confirmed duplicate joins two songs: the map is that of the lake now.
    lake.clips.set_labels(pl.DataFrame({"clip_id": [ids[0], ids[10]], "same_as": [ids[0]] * 2}))
    assert len(load_points(lake, space, 0, songs=True).ids) == 35


def test_at_most_twelve_numbers_are_categories_and_a_rare_value_is_found():
    counts = [60 - n for n in range(30)]
    values = pl.Series("genre", [f"Genre {n}" for n, count in enumerate(counts) for _ in range(count)])
    found = Colours("genre", values)
    assert found.legend["values"] == found.legend["codes"] == 30 and found.legend["points"] == len(values)
    assert found.find("genre 29") == [{"code": 30, "name": "Genre 29", "count": 31}]
    assert [one["code"] for one in found.find("E 1")] == [2, *range(11, 21)]
    assert found.find("%") == []
    assert Colours("n", pl.Series("n", [*range(12)])).legend["kind"] == "categories"
    years = Colours("year", pl.Series("year", [*range(1960, 1973)])).legend
    assert years["kind"] == "scale" and years["whole"] and (years["low"], years["high"]) == pytest.approx((1960.12, 1971.88))


# -- routes


def test_the_routes_answer_with_songs_that_are_shown_by_title_or_file(asked, songs):
    ids = songs.clips.ids()
    points = np.frombuffer(asked("points").content, np.float32)
    assert points.size == 2 * 6 and np.frombuffer(asked("points", "map").content, np.float32).size == 2 * 18
    rows = asked("rows", rows="0,5,3,5").json()
    assert [row["row"] for row in rows] == [0, 5, 3]
    assert set(rows[0]) == {"row", *SHOWN}
    assert not any("/" in row["source"] for row in rows)             # a file's name, not its path
    one = asked("point", clip=ids[4]).json()
    assert one["clip_id"] == ids[4] and asked("point", row=one["row"]).json()["track"] == one["track"]
    near = asked(f"../../../near/{ENCODER}/{LAYER}/{ids[0]}", k=5, points="songs").json()
    assert sorted(hit["row"] for hit in near) == sorted(set(range(6)) - {asked("point", clip=ids[0]).json()["row"]})
    places = asked("places").json()
    assert {place["kind"] for place in places} <= {"cluster", "artist"}
    for path, by, problem in (
        ("rows", {"rows": "6"}, "rows: must be numbers below 6"), ("rows", {"rows": "x"}, "rows: must be"),
        ("point", {"row": "99"}, "row='99'"), ("selected", {"within": "a_b"}, "within='a_b'"),
        ("colours", {"column": "nothing"}, "no column 'nothing'"),
    ):
        answer = asked(path, **by)
        assert answer.status_code == 400 and problem in answer.json()["error"]
    assert asked("point", clip="ffff").status_code == 404


def test_search_finds_misspelt_songs_and_artists(asked):
    found = asked("find", q="sonng 3").json()
    assert found["songs"][0]["title"] == "Song 3" and found["artists"] == []
    found = asked("find", q="béla").json()
    assert found["artists"] == [{"name": "Béla", "points": 2}]
    assert sorted(song["title"] for song in found["songs"]) == ["Song 1", "Song 4"]
    rows = np.frombuffer(asked("search", q="béla").content, np.uint32)
    assert sorted(song["row"] for song in found["songs"]) == sorted(rows.tolist())
    assert sorted(song["title"] for song in asked("find", "map", q="béla").json()["songs"]) == ["Song 1", "Song 4"]
    assert asked("find", q="  ").json() == asked("find", q="' OR 1=1 --").json() == {"songs": [], "artists": []}
    assert asked("legend", column="artist", find="é").json() == [{"code": 2, "name": "Béla", "count": 2}]


def test_a_selection_is_listed_and_saved(asked, songs):
    for kind, points in (("songs", 6), ("map", 18)):
        listed = asked("selected", kind, within=ALL_TEXT).json()
        assert (listed["songs"], listed["clips"], len(listed["shown"])) == (6, 18, 6)
        rows = [song["row"] for song in listed["shown"]]
        assert len(set(rows)) == 6 and max(rows) < points
    clips = pl.read_csv(io.BytesIO(asked("selected.csv", within=ALL_TEXT).content))
    assert sorted(clips["clip_id"]) == sorted(songs.clips.ids())
    manifest = pl.read_csv(io.BytesIO(asked("manifest.csv", within=ALL_TEXT).content))
    assert manifest.columns[:3] == ["path", "start", "seconds"] and len(manifest) == 18
    answer = asked("selected.m3u8", within=ALL_TEXT)
    assert sorted(answer.text.splitlines()[2::2]) == sorted(songs.clips.read(["source"])["source"].unique())
    assert answer.headers["content-disposition"] == 'attachment; filename="selection.m3u8"'
    assert asked("selected", within="0_0_1_1").json() == {"clips": 0, "songs": 0, "shown": []}


# -- colours


def palettes() -> dict[str, list[str]]:
    script = (APP.parent / "static/colours.js").read_text(encoding="utf-8")
    return {name: re.findall(r"#[0-9a-f]{6}", re.search(rf"const {name} = \[(.*?)\]", script, re.DOTALL)[1])
            for name in ("LIGHT", "DARK", "LIGHT_SCALE", "DARK_SCALE")}


def linear(colours: list[str]) -> np.ndarray:
    """Return (colour, 3) linear RGB."""
    values = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("theme, grounds", [("LIGHT", ["#ffffff"]), ("DARK", ["#0e1117", "#1a1a18"])])
def test_colours_stand_out_from_the_background_and_from_each_other_with_colour_vision_deficiencies(theme, grounds):
    colours = palettes()[theme]
    assert len(set(colours)) == 12
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for name in (theme, f"{theme}_SCALE"):
        for ground in linear(grounds) @ luminance:
            pair = np.stack([linear(palettes()[name]) @ luminance, np.full(len(palettes()[name]), ground)])
            assert ((pair.max(axis=0) + 0.05) / (pair.min(axis=0) + 0.05)).min() >= 3        # WCAG 2.2, 1.4.11
    # Machado, Oliveira and Fernandes 2009, severity 1; distances in OKLab, where 0.02 is just noticeable.
    seen = {
        "all": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    cones = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]])
    lab = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])
    for matrix in seen.values():
        found = np.cbrt(np.clip(linear(colours) @ np.array(matrix).T, 0, 1) @ cones.T) @ lab.T
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(found, 2)) > 0.07
