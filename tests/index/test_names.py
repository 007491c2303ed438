"""Songs by name: folding, ranking and decisions."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import polars as pl
import pytest
from named_songs import SONGS, clip_id, found, lake_of, taken
from rapidfuzz import fuzz

from tonelake import index
from tonelake.index.names.find import match_songs
from tonelake.index.names.folded import FoldedSong, fold_song, shown_texts, stored_text
from tonelake.index.names.normalise import fold, query_forms, title_in_file
from tonelake.index.names.rank import decide, rank
from tonelake.index.names.score import score_songs
from tonelake.index.names.songs import read_song_names
from tonelake.store import ClipNotFound


@pytest.fixture(scope="module")
def sung_names(tmp_path_factory):
    """A lake of SONGS, two clips each.  Do not change it."""
    return lake_of(tmp_path_factory.mktemp("names"), SONGS, clips=2)


@pytest.mark.parametrize(("words", "title"), [
    ("love theme", "Love Theme"), ("LOVE THEME", "Love Theme"), ("lovetheme", "Love Theme"), ("love teme", "Love Theme"),
    ("ada lark love theme", "Love Theme"), ("love theme ada", "Love Theme"), ("01 Love Theme.flac", "Love Theme"),
    ("Ada Lark - First - 01 - Love Theme.mp3", "Love Theme"), ("Love Theme (Official Video)", "Love Theme"),
    ("deja vu", "Déjà Vu"), (unicodedata.normalize("NFD", "Déjà Vu"), "Déjà Vu"), ("beyonce deja vu", "Déjà Vu"),
    ("agaetis byrjun", "Ágætis byrjun"), ("smorrebrod lodz", "Smørrebrød & Łódź"), ("smorrebrod and lodz", "Smørrebrød & Łódź"),
    ("the the", "The The"), ("!!!", "!!!"), ("!!! chik", "!!!"), ("???", "???"), ("❤️", "❤️"), ("❤", "❤️"),
    ("月光", "月光"), ("月", "月"), ("ガラス", "ガラス"), ("カラス", "カラス"), ("사랑의 노래", "사랑의 노래"),
    ("사랑의노래", "사랑의 노래"),
    ("группа крови", "Группа крови"), ("gruppa krovi", "Группа крови"), ("दिल से", "दिल से"),
    ("pink kesha", "P!nk Ke$ha"), ("u", "U"), ("U prix", "U"), ("99", "99"), ("dont stop believin", "Don't Stop Believin'"),
    ("don’t stop believing", "Don't Stop Believin'"), ("hidden valley", "Some Band - Hidden Valley"),
    ("some band hidden valey", "Some Band - Hidden Valley"), ("old harbour", "07_Old_Harbour"), ("bohemian rhapsody in green",
    "Bohemian Rapsody in Green"), ("farewell rho", "Farewell"), ("harvest nell", "Harvest"),
])
def test_a_song_is_found_by_what_people_type(sung_names, words, title):
    assert taken(sung_names, words) == title


@pytest.mark.parametrize("words", [
    "zxqwv", "completely different words", "ガガ", "", "   ", "\x07", "💀", "\udce4\udcf6", "x" * 10_000,
])
def test_a_name_that_is_not_there_finds_nothing(sung_names, words):
    assert decide(match_songs(sung_names, words)) == "none"
    with pytest.raises(ClipNotFound, match=r"neither a file nor a clip id, and no song has such a name\. Look for it with"):
        index.find_named(sung_names, words)


@pytest.mark.parametrize(("words", "expected"), [
    ("farewell", {("Farewell", "Rho"), ("Farewell", "Sigma")}),
    ("intermezzo", {("Intermezzo", "Clara")}), ("clara", {("Intermezzo", "Clara")}),
])
def test_songs_that_are_equally_near_are_listed_not_taken(sung_names, words, expected):
    with pytest.raises(index.SeveralSongs, match=r"2 songs are near\. Give more of the name, or one") as error:
        index.find_named(sung_names, words)
    assert {(song.title, song.artist) for song in error.value.songs} == expected
    for number, song in enumerate(error.value.songs, start=1):
        assert f"{number:3}  {song.clip_id}  {song.title} - {song.artist}" in str(error.value)
        assert sung_names.clips.find(song.clip_id)["title"] == song.title


def test_live_and_remastered_versions_are_one_answer(sung_names):
    best, *others = match_songs(sung_names, "harvest")
    assert (best.title, others) == ("Harvest", [])
    assert set(best.others) == {"Harvest (Live at the Barn)", "Harvest - 2009 Remaster"}
    assert match_songs(sung_names, "harvest live at the barn")[0].title == "Harvest (Live at the Barn)"
    assert index.find_named(sung_names, "harvest 2009 remaster").title == "Harvest - 2009 Remaster"


def test_a_typing_error_between_two_titles_is_asked_about(tmp_path):
    lake = lake_of(tmp_path, [("Stardust", "Ada", None, "1.mp3"), ("Starduet", "Bea", None, "2.mp3")])
    assert taken(lake, "stardust") == "Stardust" and taken(lake, "starduet") == "Starduet"
    assert taken(lake, "stardut") is None and set(found(lake, "stardut")) == {"Stardust", "Starduet"}


def test_accents_that_are_typed_decide_between_titles_that_differ_only_in_them(tmp_path):
    lake = lake_of(tmp_path, [("Resume", "Ada", None, "1.mp3"), ("Résumé", "Bea", None, "2.mp3"), ("Yes", "Ada", None, "3.mp3"),
                              ("Yes!", "Bea", None, "4.mp3")])
    assert taken(lake, "résumé") == "Résumé" and taken(lake, "Yes!") == "Yes!"
    assert taken(lake, "resume") is None and taken(lake, "yes") is None


def test_several_artists_are_searched(tmp_path):
    lake = lake_of(tmp_path, [("Duet", "Ada", None, "1.mp3"), ("Duet", "Cleo", None, "2.mp3")])
    lake.clips.set_labels(pl.DataFrame({"clip_id": [clip_id("1.mp3")], "artists": [["Ada", "Bea Long"]]}))
    for words in ("duet bea long", "bea long duet", "duet ada", "duet ada bea long", "duett ada"):
        assert decide(songs := match_songs(lake, words)) == "one" and songs[0].artist == "Ada, Bea Long"


@pytest.mark.parametrize("typed", ["ftani", "atni", "fatin", "fatnii", "fatmi", "fxtni", "fatn"])
def test_a_short_title_is_found_with_one_typing_error(tmp_path, typed):
    songs = [("Fatni", "Ada", None, "0.mp3"), *((f"{c}atn{d}", "Bea", None, f"{c}{d}.mp3") for c in "bcdrs" for d in "aeou")]
    assert "Fatni" in found(lake_of(tmp_path, songs), typed)


def test_a_word_of_a_title_is_listed_with_a_typing_error_but_not_taken(sung_names):
    assert found(sung_names, "rapsdy") == ["Bohemian Rapsody in Green"] and taken(sung_names, "rapsdy") is None


@pytest.mark.parametrize("title", [
    "$100", "*", "[ ]", "[live] *star* `code`", "<img src=x>", ":red[alarm]", "a\x1b[31mb\x07", "two\nlines",
    "%_'; DROP TABLE x --", '"quoted" OR title:x', "\\N{DC1}\x11", "tab\tbed", "%s {0}", "a" * 20_000, "+", "&", "~",
    "C:\\songs\\new", "\u202egnos", "e\u0301" * 40,
])
def test_hostile_titles_are_found_and_printed_without_control_characters(tmp_path, title):
    lake = lake_of(tmp_path, [(title, "Ada", None, "1.mp3"), ("Other", "Bea", None, "2.mp3"), (title, "Cleo", None, "3.mp3")])
    songs = match_songs(lake, title)
    assert [song.title for song in songs[:2]] == [title, title] and songs[0].score >= 99
    with pytest.raises(index.SeveralSongs) as error:
        index.find_named(lake, title)
    lines = str(error.value).split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


def test_every_title_finds_its_own_song_whatever_it_consists_of(tmp_path):
    draw = random.Random(5)
    letters = "abcdefgé ßøŁİıñ月光がガ사랑ночьमिμάשָׁםؤمไทย!?*$&'’()[]-_./\\\"%#❤️🎵\u200d²ﬁ５"
    titles = dict.fromkeys("".join(draw.choices(letters, k=draw.randint(1, 14))).strip() for _ in range(120))
    titles = [title for title in titles if title.split()]
    lake = lake_of(tmp_path, [(title, f"Artist {n}", None, f"{n}.mp3") for n, title in enumerate(titles)])
    for title in titles:
        assert any(song.title == title for song in match_songs(lake, title) if song.score >= 97), title


def test_candidates_by_grams_give_the_best_of_all_songs(tmp_path):
    """The second opinion ranks every song instead of a hundred candidates."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abeilnorst", k=draw.randint(2, 8))) for _ in range(120)]
    songs = [(" ".join(draw.choices(words, k=draw.randint(1, 4))), draw.choice(words), None, f"{n}.mp3") for n in range(300)]
    lake = lake_of(tmp_path, songs)
    names = read_song_names(lake)
    every = [stored_text(fold_song(row), text) for row, text in zip(names.to_dicts(), shown_texts(names), strict=True)]
    agreed = 0
    for title, artist, _, _ in draw.sample(songs, 40):
        place = draw.randrange(len(title))
        typed = f"{title[:place]}{title[place + 1:]} {artist}"
        best, expected = match_songs(lake, typed), rank(typed, query_forms(typed), every)
        agreed += (best[0].title, best[0].artist, round(best[0].score, 6)) == (
            expected[0].title, expected[0].artist, round(expected[0].score, 6)
        ) or best[0].score == expected[0].score
    assert agreed >= 39


def score_by_hand(form: str, song: FoldedSong) -> float:
    """Score one form against one song, without parts of names and other scripts."""
    tight, both = form.replace(" ", ""), f"{song.plain} {song.artist}"
    title, plain, artist, album, file = (text.replace(" ", "") for text in song[:5])
    literal = (
        (form == song.title, 100.0), (tight in (plain + artist, artist + plain, title + artist, artist + title), 99.8),
        (tight in (title, plain), 99.5), (tight == artist, 98.0), (tight == file, 97.5),
    )
    ratios = (
        (plain, 0), (title, 0.2), (plain + artist, 0.2), (artist + plain, 0.2), (artist, 2), (album, 6), (file, 3)
    )
    near = [fuzz.ratio(tight, text) - less for text, less in ratios] + [fuzz.token_sort_ratio(form, both) - 1]
    return next((value for holds, value in literal if holds), max(near))


def test_scores_of_all_pairs_equal_those_of_one_by_one():
    draw = random.Random(2)
    words = ["".join(draw.choices("abeilnorst", k=draw.randint(2, 6))) for _ in range(30)]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 3))) for _ in range(120)]
    rows = [{"title": a, "artist": b, "album": c, "file": f"{a}.mp3"} for a, b, c in zip(*[iter(texts)] * 3, strict=True)]
    songs = [fold_song(row) for row in rows]
    forms = [*texts[:20], *(f"{song.title} {song.artist}" for song in songs[:8]), *(text[1:] for text in texts[:9])]
    expected = np.array([[score_by_hand(form, song) for song in songs] for form in forms])
    scores = score_songs(forms, songs)
    certain = expected >= 92             # below, parts of names and other scripts count too
    assert np.array_equal(scores[certain], expected[certain]) and (scores >= expected).all() and certain.sum() > 30


def test_folding_is_stable_and_keeps_scripts_apart():
    for text in ("Beyoncé", "Straße", "İstanbul", "ガ", "한국", "दिल से", "שָׁלוֹם", "A&B & C", "!!!", "½ ²", "ﬁ", "Ⅳ"):
        assert fold(fold(text)) == fold(text) and fold(unicodedata.normalize("NFD", text)) == fold(text)
    assert fold("ガ") != fold("カ") and fold("שָׁלוֹם") == fold("שלום") and fold("μάτια") == fold("ΜΑΤΙΑ")
    assert title_in_file("02 - Song (Live)") == "Song" == title_in_file("Ada - Song") == title_in_file("Song - Live")
