"""Search and labels by words, against explicit sums in NumPy.  The encoders are made up: nothing here is about quality."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from commands import run
from fakes import CollapsedEncoder, FakeEncoder, TagsEncoder, WordsEncoder, fill

import tonelake
from tonelake import index
from tonelake.embed import EncoderError, spaces_with_words, word_kind
from tonelake.store import InputError, Lake


@pytest.fixture(scope="module")
def worded(tmp_path_factory):
    """A lake of 240 clips in a space with tags, one with words, and one with neither, the default.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("words") / "lake")
    for seed, encoder in enumerate((TagsEncoder, WordsEncoder, FakeEncoder)):
        fill(lake, 24, 10, seed, encoder)
    lake.spaces.set_default("fake")
    return lake


def cosines(lake, vector: np.ndarray, space: str = "words", layer: int = 1) -> np.ndarray:
    vectors = lake.vectors(lake.spaces.get(space)).layer(layer).vectors.astype(np.float64)
    return vectors @ vector / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vector)


def of_words(*prompts: str) -> np.ndarray:
    vectors = WordsEncoder().encode_text(prompts)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def expect(lake, hits, scores, space: str = "words", own: str = ""):
    ids = lake.vectors(lake.spaces.get(space)).ids().to_list()
    order = [row for row in np.argsort(-scores, kind="stable") if ids[row] != own][: len(hits)]
    assert hits["clip_id"].to_list() == [ids[row] for row in order]
    np.testing.assert_allclose(hits["score"], scores[order], atol=1e-5)


def z(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / scores.std()


# -- a space with a text side


def test_a_prompt_is_compared_with_the_clips_of_the_layer_that_words_share(worded, caplog):
    caplog.set_level("INFO", "tonelake")
    expect(worded, index.similar(worded, text="slow  piano ", k=9, clips=True), cosines(worded, of_words("slow piano")[0]))
    assert "space words answers words" in caplog.text                # the default space does not
    named = index.similar(worded, text="+slow piano", k=9, clips=True, space="words", layer="high")
    assert named["clip_id"].to_list() == index.similar(worded, text=["slow piano"], k=9, clips=True)["clip_id"].to_list()


def test_several_prompts_are_added_and_subtracted_as_clips_are(worded):
    plus, minus = of_words("piano", "slow"), of_words("vocals")
    query = plus.mean(axis=0) - minus.mean(axis=0)
    hits = index.similar(worded, text=["piano", "+slow", "-vocals"], k=9, clips=True)
    expect(worded, hits, cosines(worded, query))


def test_words_and_clips_are_standardised_and_averaged(worded):
    clip = worded.vectors(worded.spaces.get("words")).ids()[57]
    vector = worded.vectors(worded.spaces.get("words")).layer(1).vectors[57].astype(np.float64)
    sounds, words = cosines(worded, vector), cosines(worded, of_words("piano")[0])
    scores = (z(sounds) + z(words)) / 2
    expect(worded, index.similar(worded, clip, text="piano", k=9, clips=True), scores, own=clip)
    scores = (z(words) - z(sounds)) / 2
    expect(worded, index.similar(worded, minus=[clip], text="piano", k=9, clips=True), scores, own=clip)
    scores = (z(sounds) - z(words)) / 2
    expect(worded, index.similar(worded, clip, text="-piano", k=9, clips=True), scores, own=clip)


def test_filters_songs_caps_and_walks_apply_to_words(worded):
    clip = worded.vectors(worded.spaces.get("words")).ids()[57]
    for query in ((), clip):
        hits = index.similar(worded, query, text="piano", k=6, where="year > 1970", per=("artist", 2), order="walk")
        assert hits["track"].n_unique() == len(hits) == 6 and hits["artist"].value_counts()["count"].max() <= 2
        assert all(int(track[-3:]) > 10 for track in hits["track"])
    assert len(index.similar(worded, text="piano", k=5, hubs="corrected")) == 5


# -- a space with tags


def tag_scores(lake) -> np.ndarray:
    return 1 / (1 + np.exp(-lake.vectors(lake.spaces.get("tags")).layer(0).vectors.astype(np.float64)))


def test_tags_answer_what_they_can(worded):
    scores = tag_scores(worded)
    expected = np.sqrt(scores[:, 1] * scores[:, 0])
    for text in ("piano, slow", "Slow piano", ["piano", "slow"]):
        expect(worded, index.similar(worded, text=text, space="tags", k=9, clips=True), expected, "tags")
    expected = np.sqrt(scores[:, 1] * (1 - scores[:, 3]))
    expect(worded, index.similar(worded, text=["piano", "-vocals"], space="tags", k=9, clips=True), expected, "tags")
    expect(worded, index.similar(worded, text="no vocals", space="tags", k=9, clips=True), scores[:, 2], "tags")
    clip = worded.vectors(worded.spaces.get("tags")).ids()[3]
    sounds = cosines(worded, worded.vectors(worded.spaces.get("tags")).layer(0).vectors[3].astype(np.float64), "tags", 0)
    hits = index.similar(worded, clip, text="piano", space="tags", layer="low", k=9, clips=True)
    expect(worded, hits, (z(sounds) + z(np.log(scores[:, 1]))) / 2, "tags", own=clip)


def test_spaces_that_answer_words_come_before_those_with_tags(worded):
    assert [(space.name, kind) for space, kind in spaces_with_words(worded)] == [("words", "words"), ("tags", "tags")]
    kinds = {space.name: word_kind(space) for space in worded.spaces.all()}
    assert kinds == {"words": "words", "tags": "tags", "fake": None}
    assert index.answers_words(worded.spaces.get("words"), "anything at all")
    assert index.answers_words(worded.spaces.get("tags"), "slow piano")
    assert not index.answers_words(worded.spaces.get("tags"), "love theme")
    assert not index.answers_words(worded.spaces.get("fake"), "slow piano")


# -- other searches


def test_many_prompts_each_have_the_hits_of_a_search(worded):
    for space in ("words", "tags"):
        found = index.similar_many(worded, text=["piano", ["slow", "-vocals"]], k=5, space=space, where="year > 1970")
        assert found["query"].to_list() == ["piano"] * 5 + ["slow, -vocals"] * 5
        for text, hits in (("piano", found[:5]), (["slow", "-vocals"], found[5:])):
            alone = index.similar(worded, text=text, k=5, space=space, where="year > 1970", clips=True)
            assert hits["clip_id"].to_list() == alone["clip_id"].to_list() and hits["rank"].to_list() == [1, 2, 3, 4, 5]
            np.testing.assert_allclose(hits["score"], alone["score"], atol=1e-5)
    assert index.similar_many(worded, text="piano", k=3)["query"].to_list() == ["piano"] * 3


def test_the_cosine_with_words_is_compared_with_that_of_other_songs_with_the_same_words(worded, caplog):
    caplog.set_level("INFO", "tonelake")
    (ids, vectors), word = worded.vectors(worded.spaces.get("words")).layer(1), of_words("slow piano")[0]
    vectors = vectors.astype(np.float64)
    found = index.cosine(worded, "Title 3", text="slow piano").row(0, named=True)
    means = vectors.reshape(24, 10, -1).mean(axis=1)                 # clips are in the order of songs
    assert ids.to_list() == sorted(ids)
    values = means @ word / np.linalg.norm(means, axis=1)
    others = np.delete(values, 3)
    assert (found["name"], found["pairs"], found["cosine"]) == ("high", 23, pytest.approx(values[3], abs=1e-5))
    assert found["percentile"] == pytest.approx(100 * (others < values[3]).mean())
    assert found["usual"] == pytest.approx(others.mean(), abs=1e-5)
    assert "percentiles: among 23 songs of this lake, drawn at random, each compared with the same words" in caplog.text
    clip = index.cosine(worded, ids[57], text=["slow piano"], layer="high")
    assert clip["cosine"][0] == pytest.approx(cosines(worded, word)[57], abs=1e-5)


@pytest.mark.parametrize("space", ["words", "tags"])
def test_a_path_begins_and_ends_at_the_songs_that_answer_words_best(worded, space):
    first, second = (index.similar(worded, text=text, space=space, k=1)["clip_id"][0] for text in ("piano", "vocals"))
    found = index.path(worded, start_text="piano", end_text="vocals", space=space, steps=3)
    assert found.equals(index.path(worded, first, second, space=space, steps=3))
    mixed = index.path(worded, "Title 3", end_text=["piano"], space=space, layer="low", steps=2)
    assert mixed.equals(index.path(worded, "Title 3", first, space=space, layer="low", steps=2))
    again = index.path(worded, first, end_text="piano", space=space, steps=1)        # not from a song to itself
    assert again["track"].n_unique() == 3
    narrow = index.path(worded, "Title 3", end_text="piano", where="year > 1980", space=space, steps=1)
    assert narrow["track"][-1] > "track020"


# -- bad input


@pytest.mark.parametrize(("options", "problem"), [
    ({"text": ""}, "prompt '': is empty"),
    ({"text": ["piano", "  "]}, "is empty"),
    ({"text": "-"}, "has no words"),
    ({"text": "?!"}, "has no words"),
    ({"text": "pia\x1bno"}, r"control character '\\x1b'"),
    ({"text": "pia\ud800no"}, "control character"),
    ({"text": [3]}, "prompt 3: not text"),
    ({"text": "x " * 6_000}, "11,999 characters are too many"),
    ({"text": ["-piano"]}, "everything in it is subtracted"),
    ({"text": ["piano", "-piano"]}, "what is subtracted equals the rest"),
    ({"text": "piano", "space": "fake"}, "encoder fake does not understand words. Choose --space words or tags"),
    ({"text": "piano", "layer": "low"}, "words are compared with layer high of space 'words'. Leave out --layer"),
    ({"text": "piano", "layers": "all"}, "--layers: compares sounds with sounds"),
    ({"text": "piano", "explain": True}, "--explain"),
    ({"text": "piano", "like": "artist"}, "--like"),
    ({"text": "piano", "metric": "l2"}, "words are compared by cosine"),
    ({"text": "pianos", "space": "tags"}, "'pianos' is not among the tags of encoder 'tags'.* 'piano'"),
    ({"text": "piano", "space": "tags", "hubs": "corrected"}, "hubs: cannot be corrected"),
    ({}, "needs at least one clip"),
])
def test_words_that_cannot_be_answered_are_refused_with_a_sentence(worded, options, problem):
    with pytest.raises(InputError, match=problem):
        index.similar(worded, **options)


@pytest.mark.parametrize(("search", "parts", "options", "problem"), [
    ("cosine", ["Title 3"], {}, r"Give one of the two"),
    ("cosine", ["Title 3", "Title 4"], {"text": "piano"}, r"Give one of the two"),
    ("cosine", ["Title 3"], {"text": ""}, "is empty"),
    ("cosine", ["Title 3"], {"text": "piano", "layers": "all"}, "--layers: compares sounds with sounds"),
    ("cosine", ["Title 3"], {"text": "piano", "layer": "low"}, "words are compared with layer high"),
    ("cosine", ["Title 3"], {"text": "piano", "space": "tags"}, "'tags': its encoder tags scores tags"),
    ("cosine", ["Title 3"], {"text": "piano", "space": "fake"}, "does not understand words. Choose --space words"),
    ("path", ["Title 3"], {}, "end of the path: must be"),
    ("path", ["Title 3", "Title 4"], {"start_text": "piano"}, "start of the path: must be"),
    ("path", ["Title 3"], {"end_text": "  "}, "is empty"),
    ("path", ["Title 3"], {"end_text": "pianos", "space": "tags"}, "'pianos' is not among the tags"),
    ("path", ["Title 3"], {"end_text": "piano", "space": "fake"}, "does not understand words"),
    ("path", ["Title 3"], {"end_text": "piano", "where": "year = 1963"}, "no other song satisfies the filter"),
    ("similar_many", [["0" * 20]], {"text": "piano"}, "cannot be given with text"),
    ("similar_many", [], {"text": ["piano", ""]}, "is empty"),
    ("similar_many", [], {"text": "piano", "metric": "ip"}, "words are compared by cosine"),
    ("similar_many", [], {"text": ["-piano"]}, "everything in it is subtracted"),
])
def test_words_of_other_searches_are_refused_with_a_sentence(worded, search, parts, options, problem):
    with pytest.raises(InputError, match=problem):
        getattr(index, search)(worded, *parts, **options)


def test_a_lake_without_words_names_the_encoders_that_have_them(filled):
    with pytest.raises(InputError, match=r"embed --encoder laion/larger_clap_general.*embed --encoder musicnn --tags"):
        index.similar(filled, text="piano")


def test_a_text_side_that_answers_every_prompt_alike_is_refused(lake):
    fill(lake, 4, 2, 0, CollapsedEncoder)
    with pytest.raises(EncoderError, match=r"nearly the same vector to unlike prompts \('.*' and '.*': cosine 0.99"):
        index.similar(lake, text="piano")
    assert len(index.similar(lake, lake.vectors().ids()[0], k=2)) == 2           # sounds are found as before


# -- labels by words


def test_labels_have_the_cosines_of_their_prompts_and_a_softmax_of_them(worded):
    table = index.label_by_words(worded, "happy, sad,calm", template="a {} song")
    vectors = of_words("a happy song", "a sad song", "a calm song")
    scores = np.stack([cosines(worded, vector) for vector in vectors], axis=1)
    order = np.argsort(-scores, axis=1)
    names = np.array(["happy", "sad", "calm"])
    assert table["predicted"].to_list() == names[order[:, 0]].tolist()
    assert table["likeliest"].to_list() == names[order].tolist()
    np.testing.assert_allclose(np.stack(table["scores"]), np.take_along_axis(scores, order, 1), atol=1e-5)
    powers = np.exp(5 * scores)
    shares = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(table["shares"]), np.take_along_axis(shares, order, 1), atol=1e-5)
    assert table["share"].to_list() == [row[0] for row in table["shares"]]
    some = index.label_by_words(worded, ["happy", "sad"], where="year > 1970")
    assert len(some) == 130


def test_labels_by_tags_have_the_scores_of_the_tags(worded):
    table = index.label_by_words(worded, "piano,vocals", space="tags")
    scores = tag_scores(worded)[:, [1, 3]]
    np.testing.assert_allclose(table["score"], scores.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(table["share"], scores.max(axis=1) / scores.sum(axis=1), atol=1e-5)


@pytest.mark.parametrize(("labels", "options", "problem"), [
    ("happy,Happy", {}, "'happy' is named twice"),
    ("happy", {}, "Name two or more"),
    ("happy,,sad", {}, "is empty"),
    (["happy", "s\x00ad"], {}, "control character"),
    ("happy,sad", {"template": "a song"}, "has 0 places for a label"),
    ("happy,sad", {"where": "year > 3000"}, "no clip where year > 3000"),
    ("piano,slow", {"space": "tags", "template": "a {} song"}, "reads no sentences"),
    ("piano,slow vocals", {"space": "tags"}, "names several tags"),
    ("happy,sad", {"space": "fake"}, "does not understand words"),
])
def test_labels_that_cannot_be_scored_are_refused_with_a_sentence(worded, labels, options, problem):
    with pytest.raises(InputError, match=problem):
        index.label_by_words(worded, labels, **options)


# -- the command line


def test_the_commands_take_words(worded, tmp_path):
    found = run("similar", "--text", "slow piano", "--text", "-vocals", "-k", 4, "--json", lake=worded.uri)
    assert found.returncode == 0, found.stderr
    expected = index.similar(worded, text=["slow piano", "-vocals"], k=4)
    assert [json.loads(line)["clip_id"] for line in found.stdout.splitlines()] == expected["clip_id"].to_list()
    clip = expected["clip_id"][0]
    mixed = run("similar", "-", clip, "--text", "piano", "-k", 2, "--csv", lake=worded.uri)
    rows = list(csv.DictReader(io.StringIO(mixed.stdout)))
    assert [row["clip_id"] for row in rows] == index.similar(worded, minus=[clip], text="piano", k=2)["clip_id"].to_list()
    assert run("similar", lake=worded.uri).returncode == 2
    found = run("cosine", "Title 3", "--text", "piano", "--json", lake=worded.uri)
    assert json.loads(found.stdout)["cosine"] == pytest.approx(index.cosine(worded, "Title 3", text="piano")["cosine"][0])
    path = run("path", "--start-text", "piano", "Title 3", "--steps", "1", "--json", lake=worded.uri)
    expected = index.path(worded, end="Title 3", start_text="piano", steps=1)["clip_id"].to_list()
    assert [json.loads(line)["clip_id"] for line in path.stdout.splitlines()] == expected
    assert run("path", "Title 3", lake=worded.uri).returncode == run("cosine", "Title 3", lake=worded.uri).returncode == 2


def test_labels_are_stored_as_columns_on_request(lake):
    fill(lake, 4, 2, 0, WordsEncoder)
    opened = tonelake.open(lake.uri, progress=False)
    expected = opened.label_by_words("happy,sad")
    shown = run("predict", "--text", "happy,sad", "--column", "mood", lake=lake.uri)
    assert shown.returncode == 0, shown.stderr
    stored = lake.clips.take(expected["clip_id"].to_list(), ["mood_predicted", "mood_predicted_by"])
    assert stored["mood_predicted"].to_list() == expected["predicted"].to_list()
    assert set(stored["mood_predicted_by"]) == {"words in space words"}
    assert run("predict", lake=lake.uri).returncode == 2
    assert run("predict", "artist", "--text", "happy,sad", lake=lake.uri).returncode == 2
    assert run("predict", "artist", "--column", "mood", lake=lake.uri).returncode == 2
