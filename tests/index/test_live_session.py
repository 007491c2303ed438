"""A session of several vocabularies: each has the frames and tokens of its own encoder, which is loaded and run once."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import CoarseEncoder, FakeEncoder
from sounds import melody, write

import tonelake
from tonelake.embed import LiveFrames, live_spaces, load_encoder
from tonelake.embed.live import LiveLayers
from tonelake.index import LiveEncoder, LiveGestures, LiveSession, find_vocabulary
from tonelake.store import InputError, SpaceMismatch

RATE = 16_000
SETTINGS = {"rate": RATE, "window_s": 1.0, "hop_s": 0.2, "k": 2, "heard_s": 0.5, "every_s": 0.5}


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("session")
    for number in range(4):
        write(folder / "music" / f"{number}.wav", melody(2.0, seed=number, rate=8_000), 8_000)
    return folder


@pytest.fixture(scope="module")
def lake(music):
    """Four clips in two spaces with frames, and three vocabularies: two of the space `fine`, one of `coarse`."""
    made = tonelake.open(music / "lake", progress=False)
    made.ingest_folder(music / "music", seconds=None)
    made.embed("fakes:FakeEncoder", space="fine", window=1.0, frames=[0, 1], workers=1)
    made.embed("fakes:CoarseEncoder", space="coarse", window=1.0, frames=[0], workers=1)
    for space, layer, name in (("fine", 0, "low"), ("fine", 1, "high"), ("coarse", 0, "timbre")):
        made.fit_vocabulary(k=8, space=space, layer=layer, name=name)
        made.apply_vocabulary(name, space=space)
    made.spaces.set_default("fine")
    return made


@pytest.fixture(scope="module")
def sound():
    return melody(3.3, seed=9, rate=RATE)[:, 0]


def played(live, sound, piece=3_000):
    """Every step of a stream that arrives in pieces."""
    return [live.push(sound[i : i + piece]) for i in range(0, len(sound), piece)] + [live.finish()]


def test_a_session_gives_the_steps_of_live_encoders(lake, sound):
    session = LiveSession(lake, ["low", "high", "timbre"], **SETTINGS)
    assert session.vocabularies == ["fine/low", "fine/high", "coarse/timbre"]
    steps = played(session, sound)
    for number, name in enumerate(("low", "high", "timbre")):
        alone = played(LiveEncoder(lake, vocabulary=name, **SETTINGS), sound)
        for one, other in zip((step[number] for step in steps), alone, strict=True):
            assert one.vocabulary == session.vocabularies[number]
            for field in ("time_s", "states", "tokens"):
                np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
            assert (one.hits is None) == (other.hits is None)
            assert one.hits is None or one.hits.equals(other.hits)
        assert any(step[number].hits is not None for step in steps)


def test_each_encoder_is_loaded_once_and_run_once_a_hop(lake, sound, monkeypatch):
    runs, loaded = [], []

    def count(encoder, window, layers):
        runs.append((encoder.name, tuple(layers)))
        return super(type(encoder), encoder).states_of(window, layers)

    class Fine(FakeEncoder):
        states_of = count

    class Coarse(CoarseEncoder):
        states_of = count

    def load(space, device, home):
        loaded.append(space.name)
        return {"fine": Fine, "coarse": Coarse}[space.name]()

    monkeypatch.setattr(live_spaces, "encoder_of", load)
    session = LiveSession(lake, ["high", "coarse/timbre", "low"], **(SETTINGS | {"rate": 8_000}))
    session.push(sound[:8_000])                      # 5 hops
    assert sorted(loaded) == ["coarse", "fine"]
    assert runs.count(("fake", (0, 1))) == 5 and runs.count(("coarse", (0,))) == 5 and len(runs) == 10


@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_layers_of_one_pass_equal_those_of_passes_of_their_own(checkpoints, drift):
    encoder, sound = load_encoder(str(checkpoints / "95M-tiny"), device="cpu"), melody(2.3, seed=3, rate=24_000)[:, 0]
    settings = {"rate": 24_000, "window_s": 1.0, "hop_s": 0.2, "drift": drift}
    top = len(encoder.layers) - 1
    joint = played(LiveLayers(encoder, (0, 1, top), **settings), sound)
    for number, layer in enumerate((0, 1, top)):
        alone = played(LiveFrames(encoder, layer, **settings), sound)
        ours, theirs = (np.concatenate(states) for states in (
            [batch.states[number] for batch in joint], [batch.states for batch in alone],
        ))
        assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-4


def test_vocabularies_of_one_layer_share_its_search(lake, sound):
    lake.fit_vocabulary(k=4, space="fine", layer=1, name="few")
    session = LiveSession(lake, ["high", "few"], **SETTINGS)
    assert session.vocabularies == ["high", "few"]   # of one space
    steps = played(session, sound)
    np.testing.assert_array_equal(steps[3][0].states, steps[3][1].states)
    assert any(step[0].hits is not None for step in steps) and all(step[1].hits is None for step in steps)


def test_without_a_vocabulary_one_layer_is_followed(lake, sound):
    session = LiveSession(lake, space="coarse", **SETTINGS)
    steps = played(session, sound)
    assert session.vocabularies == [] and all(len(step) == 1 and step[0].tokens is None for step in steps)
    assert steps[2][0].states.shape[1] == 5


def test_gestures_of_a_session_are_tagged_and_equal_those_of_each_vocabulary(lake, sound):
    def rows(live):
        cut = LiveGestures(live)
        played(cut, sound)
        return cut.take()

    found = rows(LiveSession(lake, ["high", "timbre"], **SETTINGS))
    for name, tag in (("high", "fine/high"), ("timbre", "coarse/timbre")):
        alone = rows(LiveEncoder(lake, vocabulary=name, **SETTINGS))
        assert [row for row in found if row["vocabulary"] == tag] == [row | {"vocabulary": tag} for row in alone] and alone


def test_a_vocabulary_is_found_by_its_record(lake):
    assert find_vocabulary(lake, "timbre").space == "coarse"         # not the default space
    assert find_vocabulary(lake, "coarse/timbre").layer == "whole"
    assert LiveEncoder(lake, vocabulary="timbre", **SETTINGS).space.name == "coarse"
    lake.fit_vocabulary(k=4, space="coarse", name="low")
    assert find_vocabulary(lake, "low").space == "fine"              # the default space's
    lake.spaces.set_default(None)
    for wrong, message in (
        ({"name": "none"}, "no vocabulary 'none'"), ({"name": "fine/timbre"}, "no vocabulary 'timbre' in space 'fine'"),
        ({"name": "fine/low", "space": "coarse"}, "not in space 'coarse'"), ({"name": None}, "vocabularies in space"),
    ):
        with pytest.raises(InputError, match=message):
            find_vocabulary(lake, **wrong)
    lake.embed("fakes:FakeEncoder", space="third", window=2.0, workers=1)
    lake.spaces.set_default("third")
    with pytest.raises(InputError, match=r"2 spaces have one of this name. Choose (fine/low, coarse/low|coarse/low, fine/low)"):
        find_vocabulary(lake, "low")
    lake.spaces.set_default("fine")


def test_commands_on_tokens_find_a_vocabulary_of_any_space(lake):
    clip = lake.clips.ids()[0]
    lake.spaces.set_default("fine")
    assert lake.apply_vocabulary("timbre")[0].space == "coarse"
    assert lake.compute_gestures("coarse/timbre", workers=1)[1:] == (4, 0) and len(lake.gestures_of_clip(clip, "timbre"))
    assert lake.runs_of_clip(clip, "timbre").equals(lake.runs_of_clip(clip, "timbre", space="coarse"))
    path = lake.continuation(clip, "timbre", steps=3, want=["2: loudness > -200"])
    assert len(path) == 3 and path["held"].to_list() == [[], [], ["2: loudness > -200"]]


@pytest.mark.parametrize("names, settings, error, message", [
    (["high", "fine/high"], {}, InputError, "vocabulary 'high': given twice"),
    (["high", "low"], {"layer": 1}, SpaceMismatch, "vocabulary 'low' is for layer low of space 'fine'"),
    (["timbre"], {"space": "fine"}, InputError, "no vocabulary 'timbre' in space 'fine'"),
    (["high"], {"every_s": 0}, InputError, "times must be positive"),
])
def test_vocabularies_that_do_not_fit_are_refused(lake, names, settings, error, message):
    with pytest.raises(error, match=message):
        LiveSession(lake, names, **(SETTINGS | settings))
