"""Requests to the oracle: conditions, their order of relaxation, and every token from any context."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import fill
from typer.testing import CliRunner

import tonelake
from tonelake.index import Continuer
from tonelake.index.gestures.clips import SCHEMA
from tonelake.index.tokens.joined import read_joined_runs
from tonelake.index.tokens.passages import oracle_path
from tonelake.index.tokens.requests import Request, parse_condition
from tonelake.index.tokens.vocabulary import Vocabulary, write_vocabulary
from tonelake.store import InputError, TokenSequence

TOKENS = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Eight clips: clip n has tokens 8 n to 8 n + 7 twice, as runs and as gestures with features that depend on the token."""
    lake = tonelake.open(tmp_path_factory.mktemp("requests") / "lake")
    space = fill(lake, 8, 1, seed=0)
    vocabulary = Vocabulary(
        name="sounds", space=space.name, fingerprint=space.fingerprint, layer="high", metric="euclidean", seed=0, frames=TOKENS,
        distortion=0.0, explained=1.0, used=TOKENS, perplexity=64.0, made="",
        centres=np.random.default_rng(0).standard_normal((TOKENS, 6)).astype(np.float32),
    )
    write_vocabulary(lake, vocabulary)
    sequences, rows = [], []
    for n, clip_id in enumerate(lake.clips.ids()):
        tokens = np.tile(np.arange(8 * n, 8 * n + 8), 2)
        sequences.append(TokenSequence(clip_id, tokens.astype(np.uint16), (0.5 * np.arange(16) + 0.25).astype(np.float32)))
        length = np.where(np.arange(16) % 4 == 3, 0.25, 0.5)         # every fourth is half as long
        starts = np.concatenate([[0], np.cumsum(length)])
        rows += [{
            "clip_id": clip_id, "number": i, "start_s": starts[i], "end_s": starts[i + 1], "token": int(token),
            "token_share": 1.0, "loudness": -float(token), "centroid": 100.0 * n, "pitch": 60.0 + i if i else None,
            "pitch_classes": [1 / 12] * 12, "consonance": (token % 8) / 10, "ioi_s": length[i] if i < 15 else None,
            "ratio": None, "ratio_numerator": None, "ratio_denominator": None,
        } for i, token in enumerate(tokens)]
    lake.tokens(space).add(vocabulary.digest, sequences)
    lake.gestures(space).replace(vocabulary.digest, "onsets", pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    return lake


# -- conditions


@pytest.mark.parametrize("text, values, met", [
    ("x >= 0.6", [0.5, 0.6, None], [False, True, False]), ("x != 2", [1, 2, None], [True, False, False]),
    ("x < 1:2", [0.4, 0.5, 0.6], [True, False, False]), ("X == -1e1", [-10, 1], [True, False]),
    ("x = Nina S", ["Nina S", "nina s", None], [True, False, False]), ("x = ' a'", [" a", "a"], [True, False]),
    ("x = 12", ["12", "12.0"], [True, False]), ("x = rock", [["rock", "pop"], ["pop"], None], [True, False, False]),
    ("x != rock", [["rock", "pop"], ["pop"], None], [False, True, False]), ("x > 0", [float("nan"), 1.0], [False, True]),
    ("x >= 0.7", pl.Series([0.7, 0.6], dtype=pl.Float32), [True, False]),
    ("x = '; DROP TABLE clips; --'", ["a", "; DROP TABLE clips; --"], [False, True]),
])
def test_conditions_hold_by_their_definition(text, values, met):
    assert parse_condition(text).meets(pl.Series("x", values)).tolist() == met


@pytest.mark.parametrize("text, message", [
    ("consonance", "not a name, a comparison and a value"), ("", "not a name"), ("1 > x", "not a name"), ("x >", "not a name"),
    ("ratio = 0:1", "a ratio has no 0"), ("x > 1 weight 2", "a condition has no weight"),
])
def test_text_that_is_no_condition_is_refused_with_an_example(text, message):
    with pytest.raises(InputError, match=message):
        parse_condition(text)


def test_weights_are_positive_numbers():
    one = parse_condition("loudness > -20 weight 2.5", weighted=True)
    assert (one.text, one.weight, one.number) == ("loudness > -20", 2.5, -20)
    for wrong in ("0", "-1", "much", "nan"):
        with pytest.raises(InputError, match="not a positive number"):
            parse_condition(f"x > 1 weight {wrong}", weighted=True)


def test_conditions_that_cannot_be_compared_are_refused():
    events = pl.DataFrame({"n": [1, 2], "name": ["a", "b"]})
    for text, message in (
        ("n = loud", "'n' holds numbers"), ("name > 3", "holds no numbers"), ("rhythm = 1", "Choose n, name, ratio"),
        ("ratio = fast", "compared with a ratio"),
    ):
        with pytest.raises(InputError, match=message):
            Request([parse_condition(text)], [], events, np.ones(2))


def test_the_order_of_relaxation_is_the_stated_one():
    events = pl.DataFrame({"a": [1, 1, 2, 2, 3], "b": [5, 6, 5, 6, 5]})
    allowed, contexts = np.ones(5, bool), np.array([0, 4, 3, 1, 9])

    def choose(want=(), prefer=(), least=2):
        request = Request(
            [parse_condition(text) for text in want], [parse_condition(text, weighted=True) for text in prefer], events,
            np.ones(5),
        )
        return request.choose(allowed, contexts, least, np.nan).tolist()

    assert choose() == [1, 2, 4]                                     # all with enough context
    assert choose(least=9) == [4]
    assert choose(["b = 5"]) == [2, 4]
    assert choose(["a = 1", "b = 5"]) == [0]                         # both, though without context
    assert choose(["a = 2", "b = 6"], least=2) == [3]                # with as much context as there is
    assert choose(["a = 3", "b = 6"]) == [4]                         # the second cannot hold beside the first
    assert choose(["b = 6", "a = 3"]) == [1]                         # … nor here, and a context of 2 is enough
    assert choose(["a = 9", "b = 6", "a = 2"]) == [3]                # the first holds nowhere, and the others do
    assert choose(prefer=["a = 1", "b = 5"]) == [1, 2, 4]            # a preference never costs context
    assert choose(prefer=["a = 1", "b = 5 weight 2"]) == [2, 4]
    assert choose(["a <= 2"], prefer=["b = 6"]) == [1]


def test_a_rhythm_is_compared_with_the_event_played_before():
    events = pl.DataFrame({"a": [0, 1, 2, 3]})
    request = Request([parse_condition("ratio = 1:2")], [], events, np.array([0.52, 1.0, 2.0, np.nan]))
    choose = [request.choose(np.ones(4, bool), np.zeros(4, int), 1, previous).tolist() for previous in (1.0, 2.0, 4.0)]
    assert choose == [[0], [1], [2]]
    assert request.choose(np.ones(4, bool), np.zeros(4, int), 1, np.nan).tolist() == [0, 1, 2, 3]
    faster = Request([parse_condition("ratio < 1:1")], [], events, np.array([0.52, 1.0, 2.0, np.nan]))
    assert faster.choose(np.ones(4, bool), np.zeros(4, int), 1, 2.0).tolist() == [0, 1]


# -- conditions on steps


@pytest.mark.parametrize("text, steps, shown", [
    ("3: x > 1", (3, 3), "3: x > 1"), ("@3 x > 1", (3, 3), "3: x > 1"), (" @ 2 - 5 : x>1 ", (2, 5), "2-5: x>1"),
    ("4-: x = 1:2", (4, None), "4-: x = 1:2"), ("0:x = a: b", (0, 0), "0: x = a: b"), ("x = 3: y", None, "x = 3: y"),
])
def test_steps_come_before_a_condition(text, steps, shown):
    one = parse_condition(text)
    assert (one.steps, one.text, one.name) == (steps, shown, "x")
    assert [step for step in range(9) if one.applies(step)] == [
        step for step in range(9) if steps is None or steps[0] <= step <= (8 if steps[1] is None else steps[1])
    ]


@pytest.mark.parametrize("text, message", [
    ("5-2: x > 1", "step 2 is before step 5"), ("3 x > 1", "not a name, a comparison"), ("@x > 1", "not a name"),
    ("-3: x > 1", "not a name"), ("3: x", "not a name"), ("3: x > 1 weight 2", "has no weight"),
])
def test_text_that_is_no_condition_on_steps_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_condition(text)


def test_conditions_hold_at_their_steps_only(made):
    path = made.continuation([1, 2], steps=6, want=["3: token = 40", "4-5: loudness > -2"], seed=1)
    assert path["token"][3] == 40 and (path["token"][4:] < 2).all()
    texts = [["3: token = 40"] if step == 3 else ["4-5: loudness > -2"] if step > 3 else [] for step in range(6)]
    assert path["held"].to_list() == texts and path["relaxed"].to_list() == [[]] * 6
    never = made.continuation(
        [1, 2], steps=3, want=["1: token = 99", "2: centroid = 100"], prefer=["@2 token = 9 weight 3", "2: token = 8"]
    )
    assert never["relaxed"].to_list() == [[], ["1: token = 99"], ["2: token = 8"]] and never["token"][2] == 9
    first = made.continuation([1, 2], steps=2, token=7, want=["0: token = 8", "1: token = 9"])
    assert first["token"].to_list() == [7, 9] and first["relaxed"][0].to_list() == ["0: token = 8"]
    with pytest.raises(InputError, match="condition '3: token = 9': the continuation has steps 0 to 2"):
        made.continuation([1, 2], steps=3, want=["3: token = 9"])


def test_answers_of_one_oracle_take_conditions_on_steps(made):
    continuer = Continuer(made, want=["1: token = 40"], prefer=["2-: loudness > -2"])
    path = continuer.path([1, 2], steps=4)
    assert path["token"][1] == 40 and path["held"].to_list()[1] == ["1: token = 40"] and path["held"][0].to_list() == []
    continuer.check_steps(3)
    with pytest.raises(InputError, match=r"condition '2-: loudness > -2': the continuation has steps 0 to 1\. Give earlier"):
        continuer.check_steps(2)


def best_events(numbers, played, want, prefer, least, step, values):
    """The events that the documented order leaves at a step, by explicit comparison of every event with what was played."""
    events = list(range(len(numbers)))
    for name, wanted, steps in want:
        met = [event for event in events if values[name][event] == wanted]
        events = met if step in steps and met else events

    def context(event):
        same = 0
        while same < min(event, len(played)) and numbers[event - 1 - same] == played[-1 - same]:
            same += 1
        return same

    longest = max(context(event) for event in events)
    events = [event for event in events if context(event) >= min(least, longest)]
    score = {
        event: sum(weight for name, wanted, steps, weight in prefer if step in steps and values[name][event] == wanted)
        for event in events
    }
    return {event for event in events if score[event] == max(score.values())}


@pytest.mark.parametrize("seed", range(3))
def test_paths_are_those_of_an_exhaustive_search(seed):
    """Every path of the tiny oracle that obeys the order at each step is found, and no other one."""
    from tonelake.index.tokens.factor_oracle import FactorOracle
    from tonelake.index.tokens.joined import JoinedRuns
    from tonelake.index.tokens.requested_path import requested_path
    from tonelake.index.tokens.sequences import Sequences

    rng = np.random.default_rng(seed)
    numbers = rng.integers(3, size=7)
    values = {"token": numbers, "size": rng.integers(2, size=7)}
    joined = JoinedRuns(
        sequences=Sequences(None, [TokenSequence("clip", numbers, np.arange(7.0))]), numbers=numbers,
        clip=np.zeros(7, int), start_s=np.arange(7.0), end_s=np.arange(7.0) + 1, oracle=FactorOracle(numbers),
    )
    want = [("size", 1, {1, 2}), ("token", 2, {2}), ("token", 9, {0, 1, 2})]
    prefer = [("token", 0, {0}, 2.0), ("size", 0, {0, 1, 2}, 1.0)]
    request = Request(
        [parse_condition(text) for text in ("1-2: size = 1", "@2 token = 2", "token = 9")],
        [parse_condition(text, weighted=True) for text in ("0: token = 0 weight 2", "size = 0")],
        pl.DataFrame(values), np.full(7, np.nan),
    )
    word, least = [0, 1], 1
    expected = {()}
    for step in range(3):
        expected = {
            (*path, event) for path in expected
            for event in best_events(
                numbers, [*word, *(numbers[one] for one in path)], want, prefer, least if step else 7, step, values
            )
        }
    found = set()
    for draw in range(3_000):
        path = requested_path(
            joined, np.ones(7, bool), word, request, token=None, steps=3, least=least, jump=0.6, previous_s=np.nan,
            rng=np.random.default_rng(draw),
        )
        found.add(tuple(path["start_s"].cast(int)))
        assert found <= expected
        if draw > 60 and found == expected:
            break
    assert found == expected


# -- continuations


def test_any_token_can_be_asked_for_from_any_context(made):
    joined = read_joined_runs(made)
    for token in range(TOKENS):
        path = oracle_path(
            joined, np.append(joined.numbers >= 0, False), [16, 17], token=token, steps=1, least=2, jump=0.3,
            rng=np.random.default_rng(0),
        )
        assert path["token"].to_list() == [token] and path["held"].to_list() == [[f"token = {token}"]]
        assert path["context"].to_list() == [2 if token == 18 else 0]
    for token in (5, 60):
        assert made.continuation(made.clips.ids()[2], steps=1, token=token)["token"].to_list() == [token]
        path = made.continuation([1, 2, 3], steps=3, want=[f"token = {token}"], least=4)
        assert path["token"].to_list() == [token] * 3 and path["relaxed"].to_list() == [[]] * 3


def test_a_token_that_no_clip_has_is_relaxed_and_named(made, caplog):
    path = made.continuation([1, 2], steps=2, least=1, token=99)
    assert path["relaxed"].to_list() == [["token = 99"], []] and path["token"][0] == 3
    assert "1 of 1 events do not meet 'token = 99'" in caplog.text
    with pytest.raises(InputError, match="no clip with tokens may be used"):
        made.continuation(made.clips.ids()[0], other_tracks=True, where="track = 'track000'", token=3)


def test_conditions_on_features_and_labels_hold_where_they_can(made):
    path = made.continuation([1, 2], steps=12, want=["consonance >= 0.6", "year > 1963"], seed=3)
    assert (path["token"] % 8 >= 6).all() and (path["token"] >= 32).all()
    assert path["held"].to_list() == [["consonance >= 0.6", "year > 1963"]] * 12
    both = made.continuation([1, 2], steps=6, want=["loudness < -60", "loudness > -2"])
    assert (both["token"] > 60).all() and both["relaxed"].to_list() == [["loudness > -2"]] * 6
    louder = made.continuation([1, 2], steps=6, want=["consonance = 0.7"], prefer=["loudness > -9 weight 3", "loudness < -50"])
    assert louder["token"].to_list() == [7] * 6
    assert made.continuation([1, 2], steps=6, want=["consonance = 0.7"], seed=4).equals(
        made.continuation([1, 2], steps=6, want=["consonance = 0.7"], seed=4)
    )


def test_a_request_that_is_met_anyway_follows_the_clip(made):
    clip = made.clips.ids()[3]
    path = made.continuation([24, 25], steps=5, least=1, jump=0, want=["duration_s > 0", "centroid = 300"])
    assert path["token"].to_list() == [26, 27, 28, 29, 30] and set(path["clip_id"]) == {clip}
    assert path["jumped"].to_list() == [True, *[False] * 4] and path["context"].to_list() == [2, 3, 4, 5, 6]


def test_twice_as_fast_is_a_ratio_to_the_last_event_played(made):
    clip = made.clips.ids()[0]
    path = made.continuation(clip, steps=3, want=["ratio = 1:2"], prefer=["token < 8"])
    times = (path["end_s"] - path["start_s"]).to_list()
    assert times[0] == 0.25 and path["held"][0].to_list() == ["ratio = 1:2", "token < 8"]
    assert path["relaxed"][1].to_list()[0] == "ratio = 1:2"          # no gesture lasts 0.125 s


def test_requests_without_gestures_name_the_command_to_run(made):
    with pytest.raises(InputError, match=r"no clip where track = 'x' has gestures in sounds. Run `tonelake tokens gestures"):
        made.continuation([1, 2], want=["consonance > 0"], where="track = 'x'")
    with pytest.raises(InputError, match="events have no 'colour'"):
        made.continuation([1, 2], want=["colour = red"])


def test_notes_need_gestures(made):
    from tonelake.recombine import notes_of_path

    path = made.continuation([1, 2], steps=2)
    notes = notes_of_path(made, path)
    assert notes["start_s"].to_list() == [0.0, pytest.approx((path["end_s"] - path["start_s"])[0])]
    with pytest.raises(InputError, match="has no gestures in sounds, whose pitches are the notes"):
        notes_of_path(made, path.with_columns(clip_id=pl.lit("f" * 20)))


def test_the_command_takes_requests(made):
    run = CliRunner()
    words = ["oracle", "continue", "1,2", "--steps", "3", "--want", "token = 9", "--prefer", "loudness > -20 weight 2"]
    answer = run.invoke(tonelake.cli.app, [*words, "--json", "--lake", made.uri])
    assert answer.exit_code == 0, answer.output
    assert '"held"' in answer.output and "token = 9" in answer.output
    answer = run.invoke(tonelake.cli.app, [*words, "--want", "token = 99", "--lake", made.uri])
    assert answer.exit_code == 0 and "token = 99" in answer.output
    answer = run.invoke(tonelake.cli.app, [*words, "--want", "token", "--lake", made.uri])
    assert answer.exit_code != 0
