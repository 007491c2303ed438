"""Hybrids: vectors and frames of several spaces side by side, stored, queried and live, against joins written out in NumPy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import rows, run
from fakes import CoarseEncoder, FakeEncoder, TagsEncoder, WordsEncoder, clip_rows
from sounds import melody, write

import tonelake
from tonelake.embed import EmbedSettings, LiveFrames, encoder_of, live_spaces, open_space
from tonelake.embed.settings import describe_space
from tonelake.index import LiveEncoder, LiveSession, align, read_query
from tonelake.store import Failure, InputError, SpaceMismatch, read_hybrid

CLIPS = 240


def joined(parts, weights):
    """[(row, dim) of each part] -> side by side, each of unit length times the root of its weight."""
    weights = np.array(weights) / np.sum(weights)
    return np.concatenate([
        np.sqrt(weight) * part / np.linalg.norm(part, axis=1, keepdims=True)
        for part, weight in zip(parts, weights, strict=True)
    ], axis=1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Clips without audio in spaces `words` and `tags`, which agree on artists."""
    lake = tonelake.open(tmp_path_factory.mktemp("hybrid") / "lake", progress=False)
    clips = clip_rows(CLIPS // 10, 10)
    lake.clips.add(clips)
    rng, artist = np.random.default_rng(5), np.arange(CLIPS) // 40
    for encoder in (WordsEncoder, TagsEncoder):
        space = lake.spaces.make(describe_space(encoder(), encoder.name, 30.0))
        layers = [
            (rng.standard_normal((6, dim))[artist] + 0.6 * rng.standard_normal((CLIPS, dim))).astype(np.float32)
            for dim in space.dims
        ]
        lake.vectors(space).add(clips["clip_id"].to_list(), layers, [2 * one for one in layers], [1] * CLIPS)
    return lake


@pytest.fixture
def own(two, tmp_path):
    """A copy of `two` to write to."""
    shutil.copytree(two.uri, tmp_path / "lake")
    return tonelake.open(tmp_path / "lake", progress=False)


def vectors_of(lake, part, ids, stat="mean"):
    space, layer = part.split("/")
    return lake.vectors(space).take(ids, layer, stat=stat).vectors


# -- vectors


@pytest.mark.parametrize("text, parts, weights", [
    ("words/high,tags/low", ["words/high", "tags/low"], [1, 1]),
    ("words/high:2,tags/low:1", ["words/high", "tags/low"], [2, 1]),
    ("tags/high:0.2,words/low:0.3,tags/low:0.5", ["tags/high", "words/low", "tags/low"], [2, 3, 5]),
])
def test_vectors_are_the_parts_side_by_side(own, text, parts, weights):
    report = own.hybrid(text, name="both")
    assert (report.space, report.new, report.known) == ("both", CLIPS, 0)
    ids = own.clips.ids().to_list()
    for stat in ("mean", "max"):
        expected = joined([vectors_of(own, part, ids, stat) for part in parts], weights)
        found = own.vectors("both").take(ids, stat=stat).vectors
        np.testing.assert_allclose(found, expected, atol=1e-3)       # stored as float16
        assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-3


def test_hits_are_those_of_the_weighted_mean_of_cosines(own):
    own.hybrid("words/high:0.7,tags:0.3")
    ids = own.clips.ids().to_list()
    query, scores = 17, np.zeros(CLIPS)
    for part, weight in (("words/high", 0.7), ("tags/high", 0.3)):
        vectors = vectors_of(own, part, ids).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores += weight * vectors @ vectors[query]
    hits = own.similar(ids[query], space="hybrid", k=CLIPS, clips=True)
    expected = {clip: score for clip, score in zip(ids, scores, strict=True) if clip != ids[query]}
    assert set(hits["clip_id"]) <= set(expected) and len(hits) > CLIPS // 2
    np.testing.assert_allclose(hits["score"], [expected[clip] for clip in hits["clip_id"]], atol=2e-3)
    assert hits["clip_id"][0] == max(expected, key=lambda clip: expected[clip] if clip in set(hits["clip_id"]) else -1)


def test_layers_groups_and_probes_work_on_a_hybrid(own):
    own.hybrid("words/high,tags/high", name="both")
    report = own.layers("artist", space="both")
    assert report.table["name"].to_list() == ["hybrid"] and report.table["map"][0] > 0.5
    assert len(own.groups("artist", "Artist 0", space="both"))
    probed, = own.probe("artist", space="both", rates=(1e-2,), seeds=1, epochs=5)
    assert probed.config.space == "both"


def test_later_clips_are_added_and_lacking_vectors_refused(own):
    assert own.hybrid("words,tags").known == 0
    assert f"0 clips joined from words/high and tags/high, {CLIPS} known" in str(own.hybrid("words,tags"))
    more = clip_rows(CLIPS // 10 + 1, 10).tail(10)
    own.clips.add(more)
    ids, rng = more["clip_id"].to_list(), np.random.default_rng(1)

    def add(space, ids):
        vectors = [rng.standard_normal((len(ids), dim)).astype(np.float32) for dim in (4, 6)]
        own.vectors(space).add(ids, vectors, vectors, [1] * len(ids))

    add("words", ids)
    with pytest.raises(InputError, match=rf"space 'tags': 10 of {CLIPS + 10} clips .* Run `tonelake embed --space tags`"):
        own.hybrid("words,tags")
    with pytest.raises(InputError, match="not embedded"):
        own.hybrid("words:1,tags:2", name="other")
    assert "other" not in {space.name for space in own.spaces.all()}             # nothing is left of what was refused
    own.failures.record([Failure("embed:tags", more["source"][0], "damaged", clip) for clip in ids[:2]])
    add("tags", ids[2:])
    assert own.hybrid("words,tags").new == 8                         # two cannot be embedded
    own.failures.clear(own.failures.table.read(["failure_id"]).column(0).to_pylist())
    add("tags", ids[:2])
    assert own.hybrid("words,tags").new == 2
    expected = joined([vectors_of(own, part, ids) for part in ("words/high", "tags/high")], [1, 1])
    np.testing.assert_allclose(own.vectors("hybrid").take(ids).vectors, expected, atol=1e-3)


def test_an_interrupted_join_resumes(own, monkeypatch):
    monkeypatch.setattr("tonelake.store.hybrid.BLOCK", 30)
    add, calls = type(own.vectors("words")).add, []

    def fails_later(self, ids, *rest):
        if self.space.name == "hybrid":
            calls.append(len(ids))
            if len(calls) == 3:
                raise KeyboardInterrupt
        return add(self, ids, *rest)

    monkeypatch.setattr("tonelake.store.vectors.Vectors.add", fails_later)
    with pytest.raises(KeyboardInterrupt):
        own.hybrid("words,tags")
    assert own.vectors("hybrid").count() == 60
    report = own.hybrid("words,tags")
    assert (report.new, report.known) == (CLIPS - 60, 60)


# -- identity


def test_the_identity_is_that_of_parts_layers_and_weights(own):
    first = own.hybrid("words,tags", name="first").space
    assert own.hybrid("words/high:3,tags/high:3", name="first").new == 0         # the same parts
    assert own.hybrid("words,tags").space == first                               # found again without its name
    for other in ("words,tags/low", "words:2,tags:1", "tags,words"):
        with pytest.raises(SpaceMismatch, match=r"'first': already exists with other settings\. Choose another"):
            own.hybrid(other, name="first")
    assert own.hybrid("words,tags/low").space == "hybrid"
    again = own.hybrid("words:2,tags:1").space
    assert again.startswith("hybrid-") and len(own.spaces.all()) == 5
    assert [part.weight for part in read_hybrid(own, own.spaces.get(again)).parts] == [0.666667, 0.333333]
    assert own.spaces.default(own.spaces.all())[0].name in ("words", "tags")     # a hybrid is not taken unless it is set


def test_a_part_with_other_settings_and_an_edited_file_are_refused(own):
    own.hybrid("words,tags")
    file = Path(own.uri) / "spaces" / "hybrid.json"
    text = file.read_text()
    for old, new, error in (("tags/1:0.5", "tags/0:0.5", SpaceMismatch), ("tags/1:0.5", "tags/9:0.5", SpaceMismatch),
                            ("tags/1:0.5", "tags", tonelake.store.LakeError)):
        file.write_text(text.replace(old, new))
        with pytest.raises(error, match="hybrid"):
            read_hybrid(own, own.spaces.get("hybrid"))
    file.write_text(text)
    space = own.spaces.get("tags")
    (Path(own.uri) / "spaces" / "tags.json").write_text(describe_space(TagsEncoder(), "tags", 10.0).to_json())
    assert own.spaces.get("tags").fingerprint != space.fingerprint
    with pytest.raises(SpaceMismatch, match="was made from spaces tags and words with other settings"):
        read_hybrid(own, own.spaces.get("hybrid"))


@pytest.mark.parametrize("text, message", [
    ("words", "needs two spaces"), ("words,words/high", "words/high is named twice"), ("words,tags/9", "has no layer '9'"),
    ("words:1,tags", "some spaces have no weight"), ("words:1,tags:0", "must be above zero"),
    ("words:1,tags:x", "'x' is not a number"), ("words,none", "no space 'none'"),
])
def test_parts_that_cannot_be_read_are_refused(two, text, message):
    with pytest.raises(tonelake.store.TonelakeError, match=message):
        two.hybrid(text)


def test_no_encoder_fills_a_hybrid(own):
    own.hybrid("words,tags")
    with pytest.raises(InputError, match=r"then run `tonelake embed --hybrid words/1:0\.5,tags/1:0\.5 --space hybrid`"):
        encoder_of(own.spaces.get("hybrid"))
    with pytest.raises(InputError, match="a hybrid of other spaces"):
        open_space(own, EmbedSettings(space="hybrid"))
    refused = run("embed", "--space", "hybrid", "--tags", lake=own.uri)
    assert refused.returncode == 2 and "a hybrid of other spaces" in refused.stderr
    assert own.hybrid("words/1:0.5,tags/1:0.5").space == "hybrid"                # the command that the sentence names


def test_the_command_makes_a_hybrid(own):
    done = run("embed", "--hybrid", "words/high:0.7,tags:0.3", "--space", "both", lake=own.uri)
    assert done.returncode == 0 and "clips joined from words/high (0.7) and tags/high (0.3), 0 known" in done.stderr
    assert "both" in [row["name"] for row in rows(run("spaces", "--json", lake=own.uri))]
    assert rows(run("similar", own.clips.ids()[3], "--space", "both", "-k", "2", "--json", lake=own.uri))
    refused = run("embed", "--hybrid", "words,tags", "--encoder", "small", lake=own.uri)
    assert refused.returncode == 2 and "--hybrid encodes nothing" in refused.stderr


# -- audio: queries, frames and live


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """Five files in spaces `fine` (frames of 100 samples) and `coarse` (160), with frames, and their hybrid."""
    folder = tmp_path_factory.mktemp("heard")
    for number in range(5):
        write(folder / "music" / f"{number}.wav", melody(2.0 + number / 7, seed=number, rate=8_000), 8_000)
    lake = tonelake.open(folder / "lake", progress=False)
    lake.ingest_folder(folder / "music", seconds=None)
    lake.embed("fakes:FakeEncoder", space="fine", window=1.0, frames=[0, 1], workers=1)
    lake.embed("fakes:CoarseEncoder", space="coarse", window=1.0, frames=[0], workers=1)
    report = lake.hybrid("fine/low:2,coarse:1", name="both")
    assert report.framed == 5 and "frames of 5 joined" in str(report)
    return lake


def closest(grid, times, states):
    """The state at the time nearest to each of `grid`, by comparison with every time."""
    return np.stack([states[min(range(len(times)), key=lambda i: (abs(times[i] - at), i))] for at in grid])


def test_frames_are_joined_at_the_slower_rate(heard):
    for clip in heard.clips.ids():
        fine, coarse = heard.frames("fine").read(clip, "low"), heard.frames("coarse").read(clip)
        both = heard.frames("both").read(clip)
        np.testing.assert_array_equal(both.frame_s, coarse.frame_s)
        paired = closest(coarse.frame_s, fine.frame_s, fine.states.astype(np.float32))
        expected = joined([paired, coarse.states.astype(np.float32)], [2, 1])
        np.testing.assert_allclose(both.states, expected, atol=1e-3)
    again = heard.hybrid("fine/low:2,coarse:1", name="both")
    assert again.framed == 0 and str(again).endswith("5 known")
    plain = heard.hybrid("fine/high,coarse", name="high")
    assert plain.framed == 5 and heard.frames("high").read(heard.clips.ids()[0]).states.shape[1] == 11


def test_a_part_without_frames_leaves_the_hybrid_without(heard, tmp_path):
    shutil.copytree(heard.uri, tmp_path / "lake")
    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.embed("fakes:FakeEncoder", space="frameless", window=2.0, workers=1)
    report = lake.hybrid("frameless/low,coarse", name="third")
    assert report.framed == 0 and "no frames, as frameless/low has none stored" in str(report)
    with pytest.raises(InputError, match="no stored frames"):
        lake.fit_vocabulary(k=4, space="third")
    lake.embed(space="frameless", frames=["low"], workers=1)
    assert lake.hybrid("frameless/low,coarse", name="third").framed == 5


def test_a_file_is_encoded_in_every_part(heard, tmp_path, monkeypatch):
    file = tmp_path / "new.wav"
    write(file, melody(1.7, seed=77, rate=8_000), 8_000)
    parts = [read_query(heard, file, space="fine").vectors[0], read_query(heard, file, space="coarse").vectors[0]]
    expected = joined([part[None] for part in parts], [2, 1])[0]
    np.testing.assert_allclose(read_query(heard, file, space="both").vectors[0], expected, atol=1e-6)
    hits = heard.similar(file, space="both", k=5)
    ids = hits["clip_id"].to_list()
    found = heard.vectors("both").take(ids).vectors @ expected
    np.testing.assert_allclose(hits["score"], found, atol=2e-3)
    loaded = []

    def load(space, home):
        loaded.append(space.name)
        return encoder_of(space, home=home)

    monkeypatch.setattr("tonelake.index.search.file_vectors.encoder_of", load)
    heard.hybrid("fine/low,fine/high,coarse", name="three")
    assert len(read_query(heard, file, space="three").vectors[0]) == 15 and sorted(loaded) == ["coarse", "fine"]
    assert align(heard, file, heard.clips.ids()[0], space="both", seconds=0.5).score <= 1.001


def test_a_projection_of_a_hybrid_is_queried_through_it(heard, tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 9)).astype(np.float32), np.zeros(3, np.float32)
    save_file({"weight": weight, "bias": bias}, tmp_path / "head.safetensors")
    heard.project(tmp_path / "head.safetensors", source="both", name="small-both")
    file = tmp_path / "new.wav"
    write(file, melody(1.7, seed=77, rate=8_000), 8_000)
    expected = read_query(heard, file, space="both").vectors[0] @ weight.T
    np.testing.assert_allclose(read_query(heard, file, space="small-both").vectors[0], expected, atol=1e-5)


SOUND = melody(3.1, seed=4, rate=8_000)[:, 0]
LIVE = {"rate": 8_000, "window_s": 1.0, "hop_s": 0.2}


@pytest.mark.parametrize("piece", [333, 4_000])
def test_live_frames_of_a_hybrid_are_joined_as_stored_ones_are(heard, piece):
    def whole(live):
        parts = [live.push(SOUND[i : i + piece]) for i in range(0, len(SOUND), piece)] + [live.finish()]
        return np.concatenate([part.time_s for part in parts]), np.concatenate([part.states for part in parts])

    fine, coarse = whole(LiveFrames(FakeEncoder(), 0, **LIVE)), whole(LiveFrames(CoarseEncoder(), 0, **LIVE))
    live = LiveEncoder(heard, space="both", k=0, **LIVE)
    time_s, states = whole(live)
    np.testing.assert_array_equal(time_s, coarse[0])
    np.testing.assert_allclose(states, joined([closest(coarse[0], *fine), coarse[1]], [2, 1]), atol=1e-5)
    heard_s = {"heard_s": 1.0, "every_s": 1.0}
    step = LiveEncoder(heard, space="both", k=5, **heard_s, **LIVE).push(SOUND[:12_000])
    inside = (time_s > step.hits_at_s - 1) & (time_s <= step.hits_at_s)
    means = [closest(coarse[0], *fine)[inside], coarse[1][inside]]
    means = [(one / np.linalg.norm(one, axis=1, keepdims=True)).mean(axis=0, keepdims=True) for one in means]
    expected = heard.similar(joined(means, [2, 1])[0].astype(np.float32), space="both", k=5)
    assert step.hits["clip_id"].to_list() == expected["clip_id"].to_list()
    np.testing.assert_allclose(step.hits["score"], expected["score"], atol=1e-5)
    assert live.frames.latency_s > LiveEncoder(heard, space="coarse", k=0, **LIVE).frames.latency_s


def test_vocabularies_of_hybrids_are_fitted_and_followed_live(heard, monkeypatch):
    heard.fit_vocabulary(k=8, space="both", name="joint")
    heard.fit_vocabulary(k=8, space="fine", layer="high", name="high")
    assert heard.apply_vocabulary("joint", space="both")[1] == 5
    loaded = []

    def load(space, device, home):
        loaded.append(space.name)
        return encoder_of(space, device, home=home)

    monkeypatch.setattr(live_spaces, "encoder_of", load)
    session = LiveSession(heard, ["joint", "high"], k=1, heard_s=0.5, every_s=0.5, **LIVE)
    assert sorted(loaded) == ["coarse", "fine"]
    steps = [session.push(SOUND), session.finish()]
    for step in steps:
        for one, layer in zip(step, session.layers, strict=True):
            np.testing.assert_array_equal(one.tokens, layer.vocabulary.tokens_of(one.states))
    assert [one.hits is not None for one in steps[0]] == [True, True]


def test_memory_of_a_live_hybrid_is_constant(heard):
    live = LiveEncoder(heard, space="both", k=0, **LIVE)
    (joint,) = live.frames._joints
    for _ in range(40):
        live.push(SOUND[:4_000])
        assert all(len(one.time_s) < 20 for one in joint._kept)


def test_spaces_without_live_frames_are_refused(heard):
    heard.hybrid("both,fine/high", name="nested")
    with pytest.raises(InputError, match="'both' is a hybrid inside a hybrid"):
        LiveEncoder(heard, space="nested", **LIVE)
    hits = heard.similar(heard.clips.ids()[0], space="nested", k=2)
    assert len(hits) and json.loads(heard.spaces.get("nested").to_json())["location"].startswith("hybrid:both/0:0.5,fine/1:")
    assert pl.Series(heard.frames("nested").complete([0])).len() == 5
