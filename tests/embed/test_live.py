"""Live frames equal those of an offline pass for pieces of any size, without gaps, in constant memory."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading

import numpy as np
import pytest
import soxr
from fakes import FakeEncoder
from sounds import melody, write

import tonelake
from tonelake.embed import Encoder, LiveFrames, load_encoder
from tonelake.index.tokens.live import LiveEncoder
from tonelake.ingest import ingest_folder
from tonelake.listen import listen_to_file, listen_to_stream
from tonelake.store import InputError, SpaceMismatch

RATE = 24_000
WINDOW_S, HOP_S = 1.0, 0.2


@pytest.fixture(scope="module")
def encoder(checkpoints):
    """A tiny random MERT, in float32."""
    return load_encoder(str(checkpoints / "95M-tiny"), device="cpu")


@pytest.fixture(scope="module")
def music_2s():
    return melody(2.9, seed=5, rate=RATE)[:, 0]


def streamed(live: LiveFrames, samples: np.ndarray, piece: int):
    """(time_s, states) of a stream that arrives in pieces."""
    parts = [live.push(samples[i : i + piece]) for i in range(0, len(samples), piece)] + [live.finish()]
    return np.concatenate([p.time_s for p in parts]), np.concatenate([p.states for p in parts])


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_a_single_layer_equals_that_of_a_full_pass(checkpoints, music_2s, layer):
    for name in ("95M-tiny", "330M-tiny"):
        encoder = load_encoder(str(checkpoints / name), device="cpu")
        number = layer % len(encoder.layers)
        calls: list[int] = []

        def count(*_, calls=calls):
            calls.append(1)

        hooks = [block.register_forward_hook(count) for block in encoder.model.encoder.layers]
        alone = encoder.states(music_2s[:RATE], number)
        assert len(calls) <= number                      # the blocks above were not computed
        for hook in hooks:
            hook.remove()
        assert np.abs(alone - encoder.hidden_states(music_2s[:RATE])[number]).max() < 1e-5


def test_several_layers_come_from_one_pass_that_ends_with_the_highest(checkpoints, music_2s):
    for name in ("95M-tiny", "330M-tiny"):
        encoder = load_encoder(str(checkpoints / name), device="cpu")
        calls: list[int] = []
        hooks = [block.register_forward_hook(lambda *_, calls=calls: calls.append(1)) for block in encoder.model.encoder.layers]
        for layers in ((1, 0), (len(encoder.layers) - 1, 1)):
            calls.clear()
            several = encoder.states_of(music_2s[:RATE], layers)
            assert len(calls) <= max(layers)
            for layer, states in zip(layers, several, strict=True):
                assert np.abs(states - encoder.states(music_2s[:RATE], layer)).max() < 1e-5
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("piece_s", [0.001, 0.013, 0.5, 5.0])
def test_frames_do_not_depend_on_the_size_of_the_pieces(encoder, music_2s, piece_s):
    whole = streamed(LiveFrames(encoder, 1, RATE, window_s=WINDOW_S, hop_s=HOP_S), music_2s, len(music_2s))
    pieces = streamed(LiveFrames(encoder, 1, RATE, window_s=WINDOW_S, hop_s=HOP_S), music_2s, round(piece_s * RATE))
    assert np.array_equal(whole[0], pieces[0]) and np.array_equal(whole[1], pieces[1])


@pytest.mark.parametrize("ahead_s", [0.0, 0.1])
def test_frames_equal_those_of_an_offline_pass_over_the_window(encoder, music_2s, ahead_s):
    live = LiveFrames(encoder, 1, RATE, window_s=WINDOW_S, hop_s=HOP_S, ahead_s=ahead_s, drift=0)
    time_s, states = streamed(live, music_2s, 777)
    hop, ahead, window, step, field = 15, round(ahead_s * 75), 75, 320, 400
    assert len(states) == encoder.frames_of(len(music_2s))
    for first in range(0, len(states) - hop - ahead, hop):
        end = first + hop + ahead
        begin = max(0, end - window)
        offline = encoder.hidden_states(music_2s[begin * step : (end - 1) * step + field])[1]
        assert np.abs(states[first : first + hop] - offline[first - begin : first + hop - begin]).max() < 1e-5
    # A stream that fits into one window equals the offline pass over all of it.
    short = music_2s[: 36 * step + field]
    one = streamed(LiveFrames(encoder, 1, RATE, window_s=2.0, hop_s=1.0, drift=0), short, 100)
    assert np.abs(one[1] - encoder.hidden_states(short)[1]).max() < 1e-5
    assert time_s[:3] == pytest.approx([200 / RATE, 520 / RATE, 840 / RATE])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_stream_of_any_rate_gives_the_frames_of_the_resampled_recording(encoder, rate):
    samples = melody(1.3, seed=5, rate=rate)[:, 0]
    time_s, states = streamed(LiveFrames(encoder, 1, rate, window_s=WINDOW_S, hop_s=HOP_S, drift=0), samples, 997)
    offline = soxr.resample(samples, rate, RATE, quality="HQ")
    again = streamed(LiveFrames(encoder, 1, RATE, window_s=WINDOW_S, hop_s=HOP_S, drift=0), offline, 4_000)
    assert abs(len(states) - len(again[1])) <= 1
    both = min(len(states), len(again[1]))
    scale = np.abs(again[1]).max()
    assert np.abs(states[:both] - again[1][:both]).max() < 1e-3 * scale
    assert np.array_equal(time_s[:both], again[0][:both])


def test_an_hour_of_stream_has_no_gap_no_overlap_and_constant_memory(encoder):
    """With the encoder's geometry but without its model, which keeps no state."""
    class Counting(Encoder):
        """Reads the number of each frame from its samples."""

        name, layers, dims, sample_rate, device = "counting", ("0",), (1,), RATE, "cuda"
        frame_samples, frame_offset, frame_field = 320, 200, 400

        def encode(self, windows, keep=None, frames=()):
            pytest.fail("the whole encoder ran")

        def states(self, window, layer):
            count = (len(window) - 400) // 320 + 1
            return window[: (count - 1) * 320 + 1 : 320, None].copy()

    live = LiveFrames(Counting(), 0, RATE, window_s=5.0, hop_s=0.5)
    size = live.stream._buffer.nbytes
    seen, at = 0, 0
    rng = np.random.default_rng(0)
    total = 3_600 * RATE
    while at < total:
        count = min(int(rng.integers(1, 60_000)), total - at)
        numbers = np.arange(at, at + count) // 320 % 65_536
        part = live.push(numbers.astype(np.float32))
        expected = np.arange(seen, seen + len(part.states))
        assert np.array_equal(part.states[:, 0], expected % 65_536)
        assert np.array_equal(part.time_s, (expected * 320 + 200) / RATE)
        seen, at = seen + len(expected), at + count
    seen += len(live.finish().states)
    assert seen == (total - 400) // 320 + 1 and live.stream._buffer.nbytes == size < 2e6


def test_invalid_settings_and_samples_are_errors(encoder):
    for settings, message in (
        ({"rate": 100}, "4,000 to 384,000"), ({"rate": RATE, "window_s": 0.05}, "holds no hop"),
        ({"rate": RATE, "hop_s": 0}, "hop"),
    ):
        with pytest.raises(InputError, match=message):
            LiveFrames(encoder, 1, **settings)
    with pytest.raises(InputError, match="no layer 99"):
        LiveFrames(encoder, 99, RATE)
    live = LiveFrames(encoder, 1, RATE)
    with pytest.raises(InputError, match="unusable"):
        live.push(np.array([np.nan]))
    assert not len(live.finish().states) and not len(live.finish().states)
    with pytest.raises(InputError, match="has ended"):
        live.push(np.zeros(10))


# -- with a lake


@pytest.fixture(scope="module")
def played(tmp_path_factory, music, checkpoints):
    """The music, embedded by a tiny MERT with the frames of a layer, and a vocabulary."""
    lake = tonelake.open(tmp_path_factory.mktemp("live") / "lake", progress=False)
    ingest_folder(lake, music, seconds=3.0)
    lake.embed(str(checkpoints / "95M-tiny"), space="tiny", precision="float32", device="cpu", frames=[1])
    lake.fit_vocabulary(k=16, layer=1)
    return lake


def test_live_audio_retrieves_the_nearest_clips(played, music):
    clips = played.clips.read()
    if "Ada/song0.wav" in clips["track"]:
        clips = clips.filter(track="Ada/song0.wav")
    clip = clips.row(1, named=True)
    sound = played.audio(clip["clip_id"], 48_000)
    live = played.live(rate=48_000, layer=1, vocabulary="", k=3, device="cpu", window_s=3.0)
    answers = [live.push(sound[i : i + 4_800]) for i in range(0, len(sound), 4_800)] + [live.finish()]
    vocabulary = live.vocabulary
    for one in answers:
        assert np.array_equal(one.tokens, vocabulary.tokens_of(one.states))
    hits = [one for one in answers if one.hits is not None]
    assert len(hits) == 2 and all(len(one.hits) == 3 for one in hits)
    assert [round(one.hits_at_s) for one in hits] == [1, 2]
    # The states of the last search's 2 s, searched by hand.
    seen = np.concatenate([one.states for one in answers[: next(i for i, a in enumerate(answers) if a is hits[-1]) + 1]])
    mean = seen.mean(axis=0)
    expected = played.similar(mean.astype(np.float32), layer=1, k=3)
    assert hits[-1].hits["clip_id"].to_list() == expected["clip_id"].to_list()


def test_silence_in_a_stream_is_not_searched_with_and_does_not_end_it(filled, monkeypatch, caplog):
    """Zero vectors have no direction; what a running sum leaves of earlier sound would be one."""
    monkeypatch.setattr("tonelake.embed.live_spaces.encoder_of", lambda space, device, home: FakeEncoder())
    caplog.set_level(logging.INFO, "tonelake")
    live = LiveEncoder(filled, rate=8_000, layer=0, k=2, window_s=1.0, hop_s=0.5, heard_s=1.0, every_s=0.5)
    sound = 0.3 * np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    heard = [live.push(part) for part in (sound, np.zeros(40_000, np.float32), np.zeros(8_000, np.float32), sound)]
    assert [step.hits is not None for step in heard] == [True, False, False, True]
    assert caplog.text.count("are zero in layer low, as of silence") == 1


def test_a_vocabulary_of_another_layer_is_refused(played):
    with pytest.raises(SpaceMismatch, match="layer 1 of space 'tiny'"):
        played.live(rate=RATE, layer=0, vocabulary="")
    with pytest.raises(InputError, match="no vocabulary 'x'"):
        LiveEncoder(played, rate=RATE, vocabulary="x")
    with pytest.raises(InputError, match="must be positive"):
        LiveEncoder(played, rate=RATE, heard_s=0)


def test_a_file_and_its_raw_samples_give_equal_results(played, tmp_path):
    samples = melody(2.2, seed=9, rate=48_000)
    write(tmp_path / "a.wav", samples, 48_000)

    def all_of(pieces):
        pieces = list(pieces)
        return np.concatenate([p.states for p in pieces]), [p.hits["clip_id"].to_list() for p in pieces if p.hits is not None]

    def live():
        return played.live(rate=48_000, layer=1, device="cpu", window_s=1.0, hop_s=0.2)

    states, hits = all_of(listen_to_file(live(), tmp_path / "a.wav", real_time=False))
    raw = (samples.reshape(-1, 1).repeat(2, axis=1)).astype("<f4").tobytes()
    again, hits_again = all_of(listen_to_stream(live(), io.BytesIO(raw), channels=2, form="f32le"))
    assert states.shape == again.shape and np.abs(states - again).max() < 1e-3 * np.abs(states).max()
    assert hits == hits_again and hits
    with pytest.raises(InputError, match="format 'mp3': unknown"):
        list(listen_to_stream(live(), io.BytesIO(raw), form="mp3"))


def test_the_command_reads_from_a_pipe(played, monkeypatch, capsys):
    from tonelake.cli import app

    samples = melody(2.5, seed=9, rate=16_000)
    raw = (samples * 32_767).astype("<i2").tobytes()
    readable, writable = os.pipe()

    def write_all():
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(raw)

    with os.fdopen(readable) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        threading.Thread(target=write_all).start()
        with pytest.raises(SystemExit, match=r"^0$"):
            app([
                "listen", "-", "--lake", played.uri, "--rate", "16000", "--layer", "1", "--vocabulary", "1-16", "--window", "1",
                "--hop", "0.25", "--device", "cpu",
            ])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tokens = [token for line in lines for token in line.get("tokens", [])]
    assert len(tokens) == (2.5 * RATE - 400) // 320 + 1
    assert [line for line in lines if "hits" in line]
