"""Vocabularies, token sequences and the oracle, against scikit-learn, explicit counts and brute force."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from fakes import clip_rows, fill

import tonelake
from tonelake.index.tokens.factor_oracle import FactorOracle
from tonelake.index.tokens.sequences import PRIOR_FRAMES, longest_shared, read_sequences
from tonelake.index.tokens.vocabulary import find_centres, fit_vocabulary, read_vocabulary, sample_frames
from tonelake.store import FrameStates, InputError, LakeError, SpaceMismatch, TokenSequence


@pytest.fixture
def framed(lake):
    """60 clips with frames of layer `high` near 12 sounds, in an order that depends on the clip's track."""
    space = fill(lake, 12, 5, seed=0)
    rng = np.random.default_rng(1)
    sounds = 3 * rng.standard_normal((12, 6))
    frames = []
    for number, clip_id in enumerate(lake.clips.ids()):
        track = number // 5
        pattern = np.random.default_rng(track).integers(12, size=14)
        states = np.repeat(sounds[pattern], rng.integers(1, 4, size=14), axis=0)
        states = states + 0.05 * rng.standard_normal(states.shape)
        frames.append(FrameStates(clip_id, 1, (0.1 * np.arange(len(states))).astype(np.float32), states.astype(np.float16)))
    lake.frames(space).add(frames)
    return lake


@pytest.fixture
def opened(framed) -> tonelake.Lake:
    found = tonelake.Lake(framed.uri)
    found.fit_vocabulary(k=12, layer="high", name="sounds", seed=3)
    found.apply_vocabulary()
    return found


# -- vocabularies


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_tokens_are_the_nearest_centres_of_scikit_learn(framed, metric):
    from sklearn.metrics import pairwise_distances_argmin

    vocabulary = fit_vocabulary(framed, k=9, layer="high", metric=metric)
    states = np.concatenate([one.states for one in framed.frames().each(None, "high")]).astype(np.float32)
    expected = pairwise_distances_argmin(states, vocabulary.centres, metric=metric)
    assert np.array_equal(vocabulary.tokens_of(states), expected)
    assert vocabulary.tokens_of(states[:0]).shape == (0,)
    if metric == "cosine":
        assert np.allclose(np.linalg.norm(vocabulary.centres, axis=1), 1, atol=1e-5)


def test_figures_of_a_vocabulary_equal_their_definitions(framed):
    vocabulary = fit_vocabulary(framed, k=15, layer="high")
    states = np.concatenate([one.states for one in framed.frames().each(None, "high")]).astype(np.float64)
    assert vocabulary.frames == len(states)
    away = np.square(states[:, None] - vocabulary.centres[None]).sum(axis=2)
    assert vocabulary.distortion == pytest.approx(away.min(axis=1).mean(), rel=1e-4)
    assert vocabulary.explained == pytest.approx(1 - away.min(axis=1).mean() / states.var(axis=0).sum(), rel=1e-4)
    shares = np.bincount(away.argmin(axis=1), minlength=15) / len(states)
    shares = shares[shares > 0]
    assert vocabulary.used == len(shares)
    assert vocabulary.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_k_means_is_as_good_as_scikit_learns_and_reproducible():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    sample = (rng.standard_normal((40, 16))[rng.integers(40, size=6_000)] + 0.3 * rng.standard_normal((6_000, 16)))
    sample = sample.astype(np.float32)
    ours = find_centres(sample, 64, seed=0)
    theirs = KMeans(64, n_init=1, init="random", max_iter=11, random_state=0).fit(sample).cluster_centers_

    def distortion(centres):
        return np.square(sample[:, None] - centres[None]).sum(axis=2).min(axis=1).mean()

    assert distortion(ours) < 1.1 * distortion(theirs)
    assert np.array_equal(find_centres(sample, 64, seed=0), ours)
    assert not np.array_equal(find_centres(sample, 64, seed=1), ours)


def test_a_sample_of_a_stream_is_uniform_and_seeded():
    parts = [np.full((100, 1), i, np.float16) for i in range(50)]
    drawn = np.concatenate([sample_frames(iter(parts), 200, seed=s)[:, 0] for s in range(20)])
    counts = np.bincount(drawn.astype(int), minlength=50)            # 80 expected of each part
    assert counts.sum() == 4_000 and counts.min() > 40 and counts.max() < 125
    assert np.array_equal(sample_frames(iter(parts), 200, 7), sample_frames(iter(parts), 200, 7))
    few = sample_frames(iter(parts[:1]), 200, 0)
    assert len(few) == 100 and sample_frames(iter([]), 10, 0).size == 0


def test_a_vocabulary_belongs_to_one_space_and_layer(framed, opened):
    space = framed.spaces.get("fake")
    vocabulary = read_vocabulary(framed, "sounds")
    with pytest.raises(SpaceMismatch, match="frames of layer low of space 'fake'"):
        vocabulary.check(space, "low")
    with pytest.raises(SpaceMismatch, match="6 wide, these have shape"):
        vocabulary.tokens_of(np.zeros((3, 4), np.float32))
    from dataclasses import replace

    with pytest.raises(SpaceMismatch, match="tonelake tokens fit"):
        replace(vocabulary, fingerprint="another").check(space)


@pytest.mark.parametrize("settings, message", [
    ({"k": 1}, "must be 2 to 65,535"), ({"k": 70_000}, "must be 2 to 65,535"), ({"metric": "l1"}, "no metric 'l1'"),
    ({"k": 60_000}, "too few for 60,000 tokens"), ({"name": "../x"}, "cannot name a vocabulary"),
    ({"layer": "low"}, "frames"),
])
def test_invalid_vocabularies_are_refused_with_a_reason(framed, settings, message):
    with pytest.raises(InputError, match=message):
        fit_vocabulary(framed, **({"k": 12, "layer": "high"} | settings))
    with pytest.raises(InputError, match="tonelake tokens fit"):
        read_vocabulary(framed)


def test_a_damaged_vocabulary_is_reported(framed, opened):
    from pathlib import Path

    path = Path(framed.uri) / "vocabularies" / "fake" / "sounds.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LakeError, match="fit it again"):
        read_vocabulary(framed)


# -- sequences


def test_tokens_are_stored_once_and_replaced_after_a_new_fit(framed, opened):
    vocabulary = read_vocabulary(framed)
    stored = {one.clip_id: one for one in framed.tokens().each(vocabulary.digest)}
    assert len(stored) == 60
    for one in framed.frames().each(None, "high"):
        assert np.array_equal(stored[one.clip_id].tokens, vocabulary.tokens_of(one.states))
        assert np.array_equal(stored[one.clip_id].frame_s, one.frame_s)
    assert opened.apply_vocabulary()[1] == 0
    table = framed.tokens().table.read(["tokens", "run_tokens", "run_frames"]).to_pylist()
    assert all(np.repeat(row["run_tokens"], row["run_frames"]).tolist() == row["tokens"] for row in table)
    opened.fit_vocabulary(k=9, layer="high", name="sounds")
    assert opened.apply_vocabulary()[1] == 60 and framed.tokens().table.count() == 60      # the older fit's were deleted
    assert opened.list_vocabularies()["clips"].to_list() == [60]


def test_runs_of_a_clip_have_the_times_of_their_frames(framed, opened):
    clip = framed.clips.ids()[7]
    one = next(iter(framed.tokens().each(read_vocabulary(framed).digest, [clip])))
    runs = opened.runs_of_clip(clip)
    assert np.repeat(runs["token"], runs["frames"]).tolist() == one.tokens.tolist()
    ends = np.cumsum(runs["frames"]) - 1
    assert runs["end_s"].to_list() == pytest.approx(one.frame_s[ends].tolist())


def test_histogram_scores_equal_those_of_scikit_learn(framed, opened):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    found = read_sequences(framed)
    texts = [" ".join(f"t{token}" for token in one.tokens) for one in found.clips]
    expected = cosine_similarity(TfidfVectorizer(sublinear_tf=True).fit_transform(texts))[4]
    clip = found.ids[4]
    hits = opened.similar_by_tokens(clip, by="histogram", k=59)
    by_id = dict(zip(found.ids, expected, strict=True))
    assert hits["score"].to_list() == pytest.approx([by_id[hit] for hit in hits["clip_id"]], abs=1e-5)
    assert hits["score"].is_sorted(descending=True) and clip not in hits["clip_id"]


def test_shared_sequences_find_the_track_and_the_place(framed, opened):
    clip = framed.clips.ids()[12]                         # of track 2
    hits = opened.similar_by_tokens(clip, by="ngrams", n=4, k=4)
    assert set(hits["track"]) == {"track002"} and (hits["shared"] > 3).all()
    others = opened.similar_by_tokens(clip, by="ngrams", n=4, k=10, not_same="track", where="artist != 'Artist 1'")
    assert "track002" not in set(others["track"]) and "Artist 1" not in set(others["artist"])
    with pytest.raises(InputError, match="no measure 'x'"):
        opened.similar_by_tokens(clip, by="x")


def test_the_longest_shared_stretch_equals_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        one, other = (
            TokenSequence("x", rng.integers(4, size=size).astype(np.uint16), np.arange(size, dtype=np.float32))
            for size in (25, 31)
        )
        (a, starts), (b, other_starts) = one.runs(), other.runs()
        best = max(
            (next((m for m in range(min(len(a) - i, len(b) - j)) if a[i + m] != b[j + m]), min(len(a) - i, len(b) - j)))
            for i in range(len(a)) for j in range(len(b))
        )
        shared, at, hit_at = longest_shared(one, other, 1)
        i, j = starts.tolist().index(int(at)), other_starts.tolist().index(int(hit_at))
        assert a[i : i + best].tolist() == b[j : j + best].tolist() and shared == len(set(a.tolist()) & set(b.tolist()))


def test_typical_tokens_equal_the_papers_formula(framed, opened):
    table = opened.typical_tokens("track", "track003", k=3)
    assert len(table) and table["z"].is_sorted(descending=True) and (table["share"] > table["share_elsewhere"]).all()
    found = read_sequences(framed)
    mine = set(framed.clips.ids("track = 'track003'"))
    counts = Counter((one.clip_id in mine, int(token)) for one in found.clips for token in one.tokens)
    total = {side: sum(n for (of, _), n in counts.items() if of == side) for side in (True, False)}
    for row in table.iter_rows(named=True):
        assert row["share"] == pytest.approx(counts[True, row["token"]] / total[True])
        assert row["share_elsewhere"] == pytest.approx(counts[False, row["token"]] / total[False])
        (a, b), prior = (counts[side, row["token"]] for side in (True, False)), PRIOR_FRAMES / sum(total.values())
        prior *= a + b                                               # Monroe et al. 2008, section 3.5.1
        odds = [(y + prior) / (n + PRIOR_FRAMES - y - prior) for y, n in ((a, total[True]), (b, total[False]))]
        assert row["z"] == pytest.approx(math.log(odds[0] / odds[1]) / math.sqrt(1 / (a + prior) + 1 / (b + prior)))
    for row in table.iter_rows(named=True):
        clip = next(one for one in found.clips if one.clip_id == row["clip_id"])
        at = clip.frame_s.tolist().index(pytest.approx(row["at_s"]))
        assert clip.tokens[at] == row["token"]
    everywhere = opened.typical_tokens("artist", k=2)
    assert set(everywhere["artist"]) <= {"Artist 0", "Artist 1", "Artist 2"} and len(everywhere) <= 6
    with pytest.raises(InputError, match="no artist 'Nobody'"):
        opened.typical_tokens("artist", "Nobody")
    with pytest.raises(InputError, match="holds lists"):
        opened.typical_tokens("tags")


# -- the oracle


@pytest.mark.parametrize("seed", range(12))
def test_the_oracle_accepts_every_factor_and_knows_every_repeat(seed):
    rng = np.random.default_rng(seed)
    text = rng.integers(2 + seed % 4, size=int(rng.integers(1, 60))).tolist()
    oracle = FactorOracle(text)
    assert all(oracle.accepts(text[i:j]) for i in range(len(text)) for j in range(i, len(text) + 1))
    assert sum(map(len, oracle.forward)) <= 2 * len(text)            # at most twice as many transitions as numbers
    for i in range(1, len(text) + 1):
        best, end = 0, 0
        for length in range(1, i):
            ends = [j for j in range(length, i) if text[j - length : j] == text[i - length : i]]
            if ends:
                best, end = length, ends[0]
        assert (oracle.repeated[i], oracle.link[i]) == (best, end)
    word = rng.integers(2 + seed % 4, size=5).tolist()
    expected = [next((n for n in range(min(5, i), 0, -1) if text[i - n : i] == word[5 - n :]), 0) for i in range(len(text) + 1)]
    assert oracle.contexts(word).tolist() == expected
    for state in range(1, len(text) + 1):
        for other, context in oracle.similar_states(state, 1):
            assert text[other - context : other] == text[state - context : state]


def test_repeats_are_maximal():
    text = [1, 2, 3, 4, 9, 1, 2, 3, 4, 8, 2, 3]
    assert FactorOracle(text).repeats(2) == [(9, 4, 4), (12, 3, 2)]
    assert FactorOracle([]).repeats(2) == [] and FactorOracle([5]).repeated.tolist() == [0, 0]


def test_repeated_passages_have_equal_tokens_and_the_right_times(framed, opened):
    table = opened.repeats(least=4, k=400)
    digest = read_vocabulary(framed).digest
    clips = {one.clip_id: one for one in framed.tokens().each(digest)}
    assert len(table) and table["runs"].is_sorted(descending=True)
    for row in table.iter_rows(named=True):
        for clip, start in ((row["clip_id"], row["start_s"]), (row["first_clip_id"], row["first_start_s"])):
            tokens, starts = clips[clip].runs()
            at = next(i for i, s in enumerate(starts) if clips[clip].frame_s[s] == pytest.approx(start))
            assert tokens[at : at + row["runs"]].tolist() == row["tokens"]
    tracks = dict(framed.clips.read(["clip_id", "track"]).iter_rows())
    across = opened.repeats(least=3, across=True, k=400)
    assert all(tracks[a] != tracks[b] for a, b in across.select("clip_id", "first_clip_id").iter_rows())
    within = opened.repeats(least=2, across=False, k=400)
    assert (within["clip_id"] == within["first_clip_id"]).all()
    clip = framed.clips.ids()[9]
    assert all(clip in pair for pair in opened.repeats(clip=clip, least=3).select("clip_id", "first_clip_id").iter_rows())


def test_continuations_respect_their_arguments(framed, opened):
    clip = framed.clips.ids()[3]
    path = opened.continuation(clip, steps=40, least=2, jump=0.5, seed=1)
    assert path.equals(opened.continuation(clip, steps=40, least=2, jump=0.5, seed=1))
    digest = read_vocabulary(framed).digest
    clips = {one.clip_id: one for one in framed.tokens().each(digest)}
    word = clips[clip].runs()[0].tolist()
    rows = path.to_dicts()
    # At the start and at each jump, the runs before that place equal the last ones played.
    for row in rows:
        tokens, starts = clips[row["clip_id"]].runs()
        at = next(i for i, s in enumerate(starts) if clips[row["clip_id"]].frame_s[s] == pytest.approx(row["start_s"]))
        assert tokens[at] == row["token"]
        if row["jumped"]:
            assert tokens[at - min(at, row["context"]) : at].tolist() == word[len(word) - min(at, row["context"]) :]
            assert at >= min(2, row["context"])
        word.append(row["token"])
    artists = dict(framed.clips.read(["clip_id", "artist"]).iter_rows())
    only = opened.continuation([3, 4], steps=10, least=1, where="artist = 'Artist 2' AND year BETWEEN 1966 AND 1990")
    assert {artists[c] for c in only["clip_id"]} == {"Artist 2"}
    begins = opened.continuation(clip, steps=3, least=1, token=rows[0]["token"])
    assert begins["token"][0] == rows[0]["token"]
    tracks = dict(framed.clips.read(["clip_id", "track"]).iter_rows())
    middle = next(c for c in tracks if tracks[c] == sorted(set(tracks.values()))[len(set(tracks.values())) // 2])
    other = opened.continuation(middle, steps=60, least=1, jump=0.9, other_tracks=True)
    reached = {tracks[c] for c in other["clip_id"]}
    assert tracks[middle] not in reached and min(reached) < tracks[middle] < max(reached)
    with pytest.raises(InputError, match="no allowed place"):
        opened.continuation([60_000, 60_001], least=2)
    with pytest.raises(InputError, match="must be 1 or more"):
        opened.continuation(clip, steps=0)


def test_a_clip_without_tokens_names_the_command_to_run(framed, opened):
    framed.clips.add(clip_rows(13, 1).tail(1))
    new = framed.clips.ids()[-1]
    with pytest.raises(InputError, match="tonelake tokens apply sounds"):
        opened.similar_by_tokens(new)
    with pytest.raises(InputError, match="tonelake tokens apply sounds"):
        opened.continuation(new)


def test_the_commands_answer(framed, opened, capsys):
    from typer.testing import CliRunner

    from tonelake.cli import app

    run = CliRunner()
    clip = framed.clips.ids()[0]
    for words in (
        ["tokens", "list"], ["tokens", "show", clip], ["tokens", "similar", clip], ["tokens", "typical", "artist"],
        ["tokens", "apply"], ["oracle", "repeats", "--across"], ["oracle", "continue", clip], ["oracle", "continue", "3,4",
                                                                                             "--context", "1"],
        ["tokens", "fit", "--layer", "high", "--k", "5"],
    ):
        answer = run.invoke(app, [*words, "--lake", framed.uri])
        assert answer.exit_code == 0, (words, answer.output, answer.exception)
    assert run.invoke(app, ["oracle", "continue", "3,x", "--lake", framed.uri]).exit_code == 2
