"""The Listen page in Streamlit's test harness: what it finds, how it is narrowed, and its states."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
from app_encoder import ENCODER, LAYER, OTHER
from app_pages import listed, page, text_of
from fakes import TagsEncoder, WordsEncoder, clip_rows, fill

import tonelake
from tonelake.index import song_of_clip
from tonelake.store import InputError
from tonelake.ui.narrow import condition_on


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A lake of twelve songs of three artists, three clips each.  Do not change it."""
    from tonelake.store import Lake

    lake = Lake(tmp_path_factory.mktemp("listen") / "lake")
    fill(lake, 12, 3, seed=0)
    return lake


def carded(monkeypatch) -> list[dict]:
    """Record the data passed to the card of the chosen song."""
    from tonelake.ui.listening import card

    shown: list[dict] = []
    real = card.SONG

    def watched(*, data, **settings):
        shown.append(data)
        return real(data=data, **settings)

    monkeypatch.setattr(card, "SONG", watched)
    return shown


def shown_csv(monkeypatch, lake, clip) -> pl.DataFrame:
    """Return the table of hits that the page of a mixture of two spaces saves."""
    import io

    from tonelake.ui import components
    from tonelake.ui.shared import with_joined_lists

    saved: list[pl.DataFrame] = []
    monkeypatch.setattr(components, "csv_button", lambda table, name, *places, **settings: saved.append(table))
    page("listen", lake, monkeypatch, song=clip, space="fake", layer="low", mix="tags")
    return pl.read_csv(io.StringIO(with_joined_lists(saved[-1]).write_csv()))


def ids_in(shown: dict, name: str) -> list[str]:
    return [row["clip_id"] for row in shown[name]["clips"]]


# -- hits


@pytest.mark.parametrize("part", ["Whole song", "This moment"])
def test_hits_are_those_of_the_command_for_whole_songs_and_for_moments(made, monkeypatch, part):
    opened, ids, shown = tonelake.open(made.uri, progress=False), made.clips.ids(), listed(monkeypatch)
    asked, minus = [ids[0], ids[7]], [ids[20]]
    page("listen", made, monkeypatch, song=",".join(asked), minus=minus[0], layer="low", part=part, profiles="true")

    def whole(some):
        return [song_of_clip(made, one) for one in some] if part == "Whole song" else some

    expected = opened.similar(whole(asked), minus=whole(minus), layer="low", k=12, not_same="track", explain=True)
    rows = shown["hits"]["clips"]
    assert ids_in(shown, "hits") == expected["clip_id"].to_list() and len(rows) == 9             # none of the three songs
    assert [row["score"] for row in rows] == expected["score"].to_list()
    assert [row["moment_s"] for row in rows] == expected["start_s"].to_list()
    assert [row["profile"] for row in rows] == [list(one.values()) for one in expected["by_layer"]]
    assert all("nearest in layer" in row["why"] for row in rows)


def test_the_card_shows_what_the_song_is_and_its_best_moments(made, monkeypatch):
    ids, shown, cards = made.clips.ids(), listed(monkeypatch), carded(monkeypatch)
    page("listen", made, monkeypatch, song=f"{ids[7]},{ids[0]}", minus=ids[20])
    card = cards[-1]
    assert card["song"]["title"] == "Title 2" and card["ids"] == ids[6:9].to_list()
    assert ["Year", "1962"] in card["facts"] and ["Tags", "even, tag2"] in card["facts"]
    assert [(one["title"], one["minus"]) for one in card["asked"]] == [("Title 0", False), ("Title 6", True)]
    page("listen", made, monkeypatch, song=ids[7])
    (moment,) = cards[-1]["moments"]
    assert moment["clip_id"] in card["ids"] and len(shown["hits"]["clips"]) == 11


def test_more_like_and_less_like_change_the_address(made, monkeypatch):
    from tonelake.ui.listening import address

    params: dict[str, str] = {"song": "a,b", "minus": "c"}
    monkeypatch.setattr(address.st, "query_params", params)
    address.change_songs(less="b")
    assert params == {"song": "a", "minus": "c,b"}
    address.change_songs(more="c")
    assert params == {"song": "a,c", "minus": "b"}
    address.change_songs(without="a")
    address.change_songs(without="c")
    assert params == {}


def test_at_most_so_many_hits_share_an_artist(made, monkeypatch):
    shown = listed(monkeypatch)
    page("listen", made, monkeypatch, song=made.clips.ids()[0], most="2")
    artists = [row["artist"] for row in shown["hits"]["clips"]]
    assert sorted(artists) == ["Artist 0"] * 2 + ["Artist 1"] * 2 + ["Artist 2"] * 2


def test_hits_name_tags_that_they_share_and_two_spaces_are_mixed(lake, monkeypatch):
    fill(lake, 8, 2, 0, TagsEncoder)
    fill(lake, 8, 2, 1)
    opened, clip, shown = tonelake.open(lake.uri, progress=False), lake.clips.ids()[3], listed(monkeypatch)
    cards = carded(monkeypatch)
    page("listen", lake, monkeypatch, song=clip, space="tags")
    assert cards[-1]["tags"]
    for row in shown["hits"]["clips"]:
        both = row["why"].partition("both ")[2].partition(" ·")[0]
        assert set(filter(None, both.split(", "))) <= set(cards[-1]["tags"])
    assert any("both" in row["why"] for row in shown["hits"]["clips"])
    page("listen", lake, monkeypatch, song=clip, space="tags", tags="false")
    assert not any("tags" in row or "both" in row["why"] for row in shown["hits"]["clips"])
    mixed = {"mix": "tags", "weight": "30", "like": "artist", "k": "12"}
    test = page("listen", lake, monkeypatch, song=clip, space="fake", layer="low", **mixed)
    expected = opened.similar(song_of_clip(lake, clip), spaces={"fake/low": 0.7, "tags": 0.3}, k=12, not_same="track")
    assert ids_in(shown, "hits") == expected["clip_id"].to_list()
    first = expected["cosine"][0]
    note = shown["hits"]["clips"][0]["note"]
    assert note == f"fake {round(first['fake'], 3)}, tags {round(first['tags'], 3)}"
    saved = shown_csv(monkeypatch, lake, clip)
    assert {"cosine_fake", "cosine_tags", "album"} <= set(saved.columns) and len(saved) == len(expected)
    assert "70% fake (layer low) and 30% tags (layer high)" in text_of(test)
    disabled = {box.label for box in (*test.selectbox, *test.text_input, *test.toggle) if box.disabled}
    assert disabled == {"Mixture of layers", "Compare only by", "Ignore differences by", "Correct hubs", "Layer profiles"}


def test_a_lake_of_one_space_says_how_to_add_another_and_which_encoder_names_tags(made, monkeypatch):
    test = page("listen", made, monkeypatch, song=made.clips.ids()[0], mix="tags", walk="false")
    helps = {box.label: box.help for box in (*test.selectbox, *test.toggle) if box.disabled}
    assert "`tonelake embed --encoder NAME` adds another" in helps["Mix with another space"]
    assert "musicnn does: `tonelake embed --encoder musicnn`" in helps["Tags"]


def test_the_best_layer_of_the_report_is_chosen_and_named(lake, monkeypatch):
    fill(lake, 12, 6, seed=0)
    tonelake.open(lake.uri, progress=False).layers("artist")
    test = page("listen", lake, monkeypatch, song=lake.clips.ids()[0])
    assert test.select_slider(key="layer").value == "high" and "separates artist best" in text_of(test)


# -- words and names


def test_names_come_first_and_then_songs_that_sound_like_the_words(lake, monkeypatch):
    fill(lake, 8, 2, 0, WordsEncoder)
    fill(lake, 8, 2, 1)                  # the newer space, which does not understand words
    shown = listed(monkeypatch)
    test = page("listen", lake, monkeypatch, q="title 3", like="artist")
    assert shown["named songs"]["clips"][0]["title"] == "Title 3"
    expected = tonelake.open(lake.uri, progress=False).similar(text="title 3", space="words", k=12)
    assert ids_in(shown, "hits") == expected["clip_id"].to_list()
    assert "Songs that sound like these words" in [part.value for part in test.header]


def test_words_that_no_space_understands_find_names_or_say_what_would_help(made, monkeypatch):
    shown = listed(monkeypatch)
    test = page("listen", made, monkeypatch, q="title 3")
    assert ids_in(shown, "named songs")[0] == made.clips.ids()[9] and "only names were searched" in text_of(test)
    test = page("listen", made, monkeypatch, q="' OR 1=1 --")
    assert "No song of this lake has such a name" in text_of(test) and "tonelake embed --encoder clap" in text_of(test)


# -- narrowing


def test_chips_narrow_the_hits_and_the_shelf_without_sql(made, monkeypatch):
    shown, ids = listed(monkeypatch), made.clips.ids()
    page("listen", made, monkeypatch, song=ids[0], artist="Artist 1")
    assert {row["artist"] for row in shown["hits"]["clips"]} == {"Artist 1"} and len(shown["hits"]["clips"]) == 4
    narrowed = page("listen", made, monkeypatch, **{"year": "1962-1968", "label.tags": "even"})
    assert [row["title"] for row in shown["songs"]["clips"]] == ["Title 2", "Title 4", "Title 6", "Title 8"]
    assert "4 songs" in [part.value for part in narrowed.header]
    assert "No song matches" in text_of(page("listen", made, monkeypatch, artist="'; DROP TABLE clips"))


@pytest.mark.parametrize(("column", "chosen", "kept"), [
    ("artist", ["Ada", "O'Neil"], 2), ("year", ["1961-1962"], 2), ("year", ["-1961"], 2), ("year", ["1962-"], 2),
    ("year", ["1961", "x"], 1), ("year", ["nonsense"], 4), ("tags", ["even"], 2), ("live", ["true"], 1), ("live", ["maybe"], 4),
    ("artist", ["Guest"], 1),
])
def test_chosen_values_are_literals_of_their_columns(lake, column, chosen, kept):
    lake.clips.add(clip_rows(4, 1).with_columns(
        artist=pl.Series(["Ada", "O'Neil", "Ada; Guest", "Cleo"]), live=pl.Series([True, False, None, False]),
        artists=pl.Series([["Ada"], ["O'Neil"], ["Guest", "Cleo"], None]),
    ))
    assert lake.clips.count(condition_on(lake, column, chosen)) == kept


def test_an_invalid_filter_is_explained_and_the_hits_before_it_stay(made, monkeypatch):
    shown = listed(monkeypatch)
    test = page("listen", made, monkeypatch, song=made.clips.ids()[0], where="artist = 'Artist 1'")
    before = ids_in(shown, "hits")
    assert {row["artist"] for row in shown["hits"]["clips"]} == {"Artist 1"}
    for wrong in ("artist = 'Cleo'; DROP TABLE clips", "nonsense = 3", "1 +"):
        test.text_input(key="where").set_value(wrong).run()
        assert not test.exception and "filter" in text_of(test) and ids_in(shown, "hits") == before
    assert made.clips.count() == 36


def test_an_invalid_mixture_is_explained_and_hits_are_shown(made, monkeypatch):
    shown = listed(monkeypatch)
    test = page("listen", made, monkeypatch, song=made.clips.ids()[0], layers="nonsense:1")
    assert "nonsense" in text_of(test) and "without mixtures and facets" in text_of(test)
    plain = ids_in(shown, "hits")
    test.text_input(key="layers").set_value("low:0.5,high:0.5").run()
    mixed = ids_in(shown, "hits")
    test.text_input(key="layers").set_value("low:0.5,").run()
    assert ids_in(shown, "hits") == mixed and len(plain) == len(mixed) == 11 and "before this change" in text_of(test)


# -- the shelf and its states


def test_the_shelf_offers_songs_to_start_from_and_those_added_last(made, monkeypatch):
    shown = listed(monkeypatch)
    page("listen", made, monkeypatch)
    assert len(shown["start songs"]["clips"]) == 6 and shown["recent songs"]["clips"][0]["title"] == "Title 11"


def test_a_lake_without_vectors_shows_the_song_and_the_command(lake, monkeypatch):
    lake.clips.add(clip_rows(3, 2))
    shown, cards = listed(monkeypatch), carded(monkeypatch)
    page("listen", lake, monkeypatch)
    assert len(shown["start songs"]["clips"]) == 3
    test = page("listen", lake, monkeypatch, song=lake.clips.ids()[2])
    assert cards[-1]["song"]["title"] == "Title 1" and test.code[0].value == "tonelake embed"


def test_a_lake_of_one_song_says_that_there_is_none_to_compare_with(lake, monkeypatch):
    fill(lake, 1, 1, seed=0)
    test = page("listen", lake, monkeypatch, song=lake.clips.ids()[0])
    assert "This is the only song here" in text_of(test)


def test_unknown_songs_and_uploads_in_the_address_lead_to_the_shelf(made, monkeypatch):
    shown = listed(monkeypatch)
    for state, sentence in (({"song": "<b>no</b>"}, "not in this lake"), ({"heard": "gone"}, "no longer known")):
        assert sentence in text_of(page("listen", made, monkeypatch, **state)) and "start songs" in shown
        shown.clear()
    clip = made.clips.ids()[0]
    assert "not in this lake" in text_of(page("listen", made, monkeypatch, song=f"{clip},zzz", minus="yyy"))
    assert len(shown["hits"]["clips"]) == 11


def test_a_song_whose_file_is_missing_keeps_its_hits_and_says_so(lake, tmp_path, music, monkeypatch):
    shutil.copytree(music / "Ada", tmp_path / "m")
    opened = tonelake.open(lake.uri, progress=False)
    opened.ingest_folder(tmp_path / "m", seconds=3.0)
    opened.embed(ENCODER, precision="float32")
    (tmp_path / "m" / "song0.wav").unlink()
    opened.ingest_folder(tmp_path / "m", seconds=3.0)
    gone = lake.clips.ids("state = 'missing'")[0]
    shown, cards = listed(monkeypatch), carded(monkeypatch)
    page("listen", lake, monkeypatch, song=gone, differ="anything")
    assert "is missing" in cards[-1]["trouble"] and [hit["title"] for hit in shown["hits"]["clips"]] == ["Song 3"]
    other = lake.clips.ids("title = 'Song 3'")[0]
    page("listen", lake, monkeypatch, song=other)
    assert shown["hits"]["clips"][0]["note"] == "its file is missing" and not cards[-1]["trouble"]


def test_an_upload_is_known_by_its_token_in_the_space_that_heard_it(lake, music, monkeypatch):
    from tonelake.ui.listening.heard import hear

    opened = tonelake.open(lake.uri, progress=False)
    opened.ingest_folder(music, seconds=3.0)
    opened.embed(ENCODER, precision="float32")
    fill(lake, 2, 1, 0)
    token = hear(opened, music / "Ada" / "song0.wav", "song0.wav", [ENCODER])
    shown = listed(monkeypatch)
    test = page("listen", lake, monkeypatch, heard=token, space=ENCODER, layer=LAYER if LAYER != OTHER else OTHER)
    assert "this file is in the lake as 'Song 0' by Ada" in text_of(test) and len(shown["hits"]["clips"]) == 5
    shown.clear()
    assert "Drop it again to compare it there" in text_of(page("listen", lake, monkeypatch, heard=token, space="fake"))
    with pytest.raises(InputError, match="no longer known"):
        from tonelake.ui.listening.heard import heard_file

        heard_file("other")
