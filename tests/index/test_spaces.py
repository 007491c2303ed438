"""Search in several spaces at once, against z-scores of brute-force cosines in NumPy."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from commands import run
from fakes import TagsEncoder, WordsEncoder, clip_rows
from sounds import melody, write

from tonelake import index
from tonelake.embed.settings import describe_space
from tonelake.index.search import space_mixture, spaces, stored_index
from tonelake.index.search.space_mixture import formula, parse_spaces, shared_clips
from tonelake.store import InputError, Lake, SpaceNotFound

CLIPS, LACKING = 1_200, 60               # of the lake, and of these not embedded in space `tags`


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A lake in spaces `words` and `tags` of layers low and high, which agree on artists.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("spaces") / "lake")
    rows = clip_rows(CLIPS // 10, 10)
    lake.clips.add(rows)
    rng, ids = np.random.default_rng(5), rows["clip_id"].to_list()
    artist = np.arange(CLIPS) // 40
    for encoder, embedded in ((WordsEncoder, CLIPS), (TagsEncoder, CLIPS - LACKING)):
        space = lake.spaces.make(describe_space(encoder(), encoder.name, 30.0))
        layers = [
            (rng.standard_normal((artist.max() + 1, dim))[artist] + 0.6 * rng.standard_normal((CLIPS, dim)) + shift)
            .astype(np.float32)[:embedded] for dim, shift in ((4, 0.0), (6, 1.0))
        ]
        lake.vectors(space).add(ids[:embedded][::-1], [one[::-1] for one in layers], layers, [1] * embedded)
    return lake


def embedded(lake):
    """Ids of the clips that are in both spaces."""
    return lake.clips.ids().to_list()[: CLIPS - LACKING]


def unit(lake, space, layer, ids):
    found = lake.vectors(lake.spaces.get(space)).take(ids, layer).vectors.astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def z(cosines):
    return (cosines - cosines.mean()) / cosines.std()


def expected(lake, query, weights):
    """(clip,) scores of the shared clips for a query of clip ids, by definition."""
    ids, total = embedded(lake), 0.0
    for (space, layer), weight in weights.items():
        vectors = unit(lake, space, layer, ids)
        direction = unit(lake, space, layer, query).mean(axis=0)
        total = total + weight * z(vectors @ (direction / np.linalg.norm(direction)))
    return total


def expect(lake, hits, scores, allowed, k):
    ids = embedded(lake)
    order = [row for row in np.argsort(-scores, kind="stable") if allowed(ids[row])][:k]
    assert hits["clip_id"].to_list() == [ids[row] for row in order]
    np.testing.assert_allclose(hits["score"], scores[order], atol=2e-5)


@pytest.mark.parametrize(
    ("text", "weights"),
    [("words:0.7,tags:0.3", {("words", 0): 0.7, ("tags", 0): 0.3}),
     ("words/low, tags/high", {("words", 0): 0.5, ("tags", 1): 0.5}),
     ({"words/low": 3, "words/1": -1, "tags": 4}, {("words", 0): 3 / 8, ("words", 1): -1 / 8, ("tags", 0): 0.5})],
)
def test_the_score_is_the_weighted_sum_of_standardised_cosines(two, text, weights, caplog):
    default = two.spaces.get("words").default_layer
    weights = {(space, layer if "/" in str(text) else default): weight for (space, layer), weight in weights.items()}
    if isinstance(text, dict):
        weights[("tags", default)] = weights.pop(("tags", 0))
    caplog.set_level("INFO", "tonelake")
    ids = embedded(two)
    hits = index.similar(two, ids[7], spaces=text, k=20, clips=True)
    expect(two, hits, expected(two, [ids[7]], weights), lambda clip: clip != ids[7], 20)
    assert "1,140 of 1,200 clips are compared; 60 are left out" in caplog.text and "60 in tags" in caplog.text
    assert formula(parse_spaces(two, text)) in caplog.text
    first = parse_spaces(two, text)[0]
    cosine = unit(two, "words", first.layer, hits["clip_id"].to_list()) @ unit(two, "words", first.layer, [ids[7]])[0]
    np.testing.assert_allclose([next(iter(one.values())) for one in hits["cosine"]], cosine, atol=1e-6)


def test_filters_songs_caps_and_subtraction_hold(two):
    ids, default = embedded(two), two.spaces.get("words").default_layer
    weights = {("words", default): 0.5, ("tags", default): 0.5}
    scores = expected(two, [ids[100]], weights)
    kept = set(two.clips.ids("year > 2000").to_list())
    hits = index.similar(two, ids[100], spaces="words,tags", k=15, where="year > 2000", not_same="artist", clips=True)
    expect(two, hits, scores, lambda clip: clip in kept and ids.index(clip) // 40 != 2, 15)
    songs = index.similar(two, ids[100], spaces="words,tags", k=12, per=("artist", 2))
    best = [max(scores[track * 10 : track * 10 + 10]) for track in range(len(ids) // 10)]
    order, counts = [], {}
    for track in np.argsort(-np.array(best), kind="stable"):
        if track != 10 and counts.get(track // 4, 0) < 2 and len(order) < 12:
            counts[track // 4] = counts.get(track // 4, 0) + 1
            order.append(track)
    assert songs["track"].to_list() == [f"track{track:03d}" for track in order]
    np.testing.assert_allclose(songs["score"], [best[track] for track in order], atol=2e-5)
    walked = index.similar(two, ids[100], spaces="words,tags", k=12, order="walk", clips=True)
    plain = index.similar(two, ids[100], spaces="words,tags", k=12, clips=True)
    assert set(walked["clip_id"]) == set(plain["clip_id"]) and walked["clip_id"][0] == plain["clip_id"][0]
    less = index.similar(two, [ids[0], ids[3]], minus=[ids[500]], spaces="words,tags", k=5, clips=True)
    assert not {ids[0], ids[3], ids[500]} & set(less["clip_id"])
    named = index.similar(two, "Title 3", spaces="words,tags", k=3)
    assert "track003" not in named["track"].to_list()


def test_indexes_find_what_a_scan_finds(two, tmp_path, monkeypatch):
    """The union of what the indexes find is scored exactly: recall@10 of 25 queries against brute-force NumPy."""
    shutil.copytree(two.uri, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    for name in ("words", "tags"):
        stored_index.build_indexes(lake, space=name, recall=0.99)
    monkeypatch.setattr(spaces, "MOST_SEARCHED", 0.9)
    monkeypatch.setattr(spaces, "scan", lambda *_: pytest.fail("scanned"))
    ids, default = embedded(lake), lake.spaces.get("words").default_layer
    weights, found = {("words", default): 0.6, ("tags", default): 0.4}, 0
    for row in range(0, 1_100, 44):
        hits = index.similar(lake, ids[row], spaces="words:0.6,tags:0.4", k=10, clips=True)
        scores = expected(lake, [ids[row]], weights)
        true = [ids[other] for other in np.argsort(-scores) if other != row][:10]
        found += len(set(true) & set(hits["clip_id"]))
        np.testing.assert_allclose(hits["score"], [scores[ids.index(clip)] for clip in hits["clip_id"]], atol=2e-3)
    assert found / 250 >= 0.97
    songs = index.similar(lake, ids[7], spaces="words:0.6,tags:0.4", k=10, where="year > 1965")
    monkeypatch.undo()
    monkeypatch.setattr(spaces, "find_index", lambda *_, **__: None)
    scanned = index.similar(lake, ids[7], spaces="words:0.6,tags:0.4", k=10, where="year > 1965")
    assert songs.select("clip_id", "clips").equals(scanned.select("clip_id", "clips"))
    np.testing.assert_allclose(songs["score"], scanned["score"], atol=2e-3)


def test_the_sample_is_fixed_whatever_the_order(two, monkeypatch):
    monkeypatch.setattr(space_mixture, "SAMPLE", 100)
    monkeypatch.setattr(space_mixture, "_shared", {})
    ids = two.clips.ids()
    assert space_mixture.sample_ids(ids) == space_mixture.sample_ids(ids.reverse())
    parts = parse_spaces(two, "words,tags")
    sample = space_mixture.sample_ids(shared_clips(two, parts).ids)
    cosines = unit(two, "words", parts[0].layer, sample) @ unit(two, "words", parts[0].layer, [ids[4]])[0]
    query = two.vectors(parts[0].space).take([ids[4]], parts[0].layer).vectors[0]
    assert shared_clips(two, parts).standards(0, query) == pytest.approx((cosines.mean(), cosines.std()), rel=1e-4)
    assert len(sample) == 100


def test_a_file_outside_the_lake_is_encoded_in_every_space(two, tmp_path):
    write(tmp_path / "new.wav", melody(2.0, seed=3, rate=8_000), 8_000)
    hits = index.similar(two, tmp_path / "new.wav", spaces="words/low:0.7,tags/high:0.3", k=5, clips=True)
    ids, total = embedded(two), 0.0
    for space, layer, weight in (("words", 0, 0.7), ("tags", 1, 0.3)):
        vector = index.read_query(two, tmp_path / "new.wav", space=space).vectors[layer].astype(np.float64)
        total = total + weight * z(unit(two, space, layer, ids) @ vector / np.linalg.norm(vector))
    expect(two, hits, total, lambda clip: True, 5)
    encoded = [index.read_query(two, tmp_path / "new.wav", space=space) for space in ("tags", "words")]
    assert index.similar(two, encoded, spaces="words/low:0.7,tags/high:0.3", k=5, clips=True).equals(hits)
    with pytest.raises(InputError, match="Encode every file in words and tags"):
        index.similar(two, [encoded[0]], spaces="words,tags")


@pytest.mark.parametrize(
    ("text", "error"),
    [("words:0.7", "needs two spaces"), ("words:0.7,tags:0", "needs two spaces"), ("words:1,words:2", "named twice"),
     ("words:x,tags:1", "not a number"), ("words:nan,tags:1", "not a number"), ("words:-1,tags:-2", "above zero"),
     ("words:0.5,tags", "have no weight"), ("words/9,tags", "has no layer"), ("", "not a valid name"),
     ("words:0,tags:0", "above zero"), ({"words": float("inf"), "tags": 1}, "not a number")],
)
def test_bad_mixtures_are_refused(two, text, error):
    with pytest.raises(InputError, match=error):
        index.similar(two, embedded(two)[0], spaces=text)


def test_unknown_spaces_vectors_and_options_of_one_space_are_refused(two):
    clip = embedded(two)[0]
    with pytest.raises(SpaceNotFound, match="no space 'nothing'"):
        index.similar(two, clip, spaces="words,nothing")
    with pytest.raises(InputError, match="a vector belongs to one space"):
        index.similar(two, np.ones(6), spaces="words,tags")
    for option in ({"space": "words"}, {"layer": 0}, {"layers": "all"}, {"metric": "l2"}, {"like": "artist"}, {"explain": True},
                   {"hubs": "corrected"}, {"text": "piano"}):
        with pytest.raises(InputError, match=f"--{next(iter(option))}: belongs to a search in one space"):
            index.similar(two, clip, spaces="words,tags", **option)
    with pytest.raises(InputError, match=r"not embedded.*--space tags"):
        index.similar(two, two.clips.ids()[-1], spaces="words,tags")


def test_the_command_prints_the_score_and_each_cosine(two):
    clip = embedded(two)[0]
    done = run("similar", clip, "--spaces", "words/low:0.7,tags:0.3", "-k", "2", lake=two.uri)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[0])
    assert set(row["cosine"]) == {"words", "tags"} and "z-scores" in done.stderr and "60 are left out" in done.stderr
    done = run("similar", clip, "--spaces", "words,tags", "--csv", lake=two.uri)
    assert {"score", "cosine_words", "cosine_tags"} <= set(done.stdout.splitlines()[0].split(","))
