"""Live passes that compute new audio alone: equal to offline passes over the same windows within bounds, in constant memory."""

from __future__ import annotations

import numpy as np
import pytest
from musicnn_files import write_random_weights
from sounds import melody

from tonelake.embed import LiveFrames, load_encoder
from tonelake.embed.encoders.hubert_live import HubertLivePass
from tonelake.embed.encoders.live_pass import LivePass, LocalPass
from tonelake.embed.encoders.musicnn.encoder import MusicnnEncoder
from tonelake.embed.encoders.musicnn.live import MusicnnLivePass
from tonelake.embed.encoders.musicnn.weights import WheelWeights
from tonelake.embed.live import LiveLayers
from tonelake.store import InputError

RATE = 24_000
DRIFT = 0.1


@pytest.fixture(scope="module", params=["95M-tiny", "330M-tiny", "small"])
def hubert(request, checkpoints):
    name = request.param
    return load_encoder(name if name == "small" else str(checkpoints / name), device="cpu")


@pytest.fixture(scope="module")
def music():
    return melody(5.0, seed=5, rate=RATE)[:, 0] + 0.01 * np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32)


def swelling():
    """Silence, then music that grows by 60 dB in two seconds, stops for a second, and begins again at full loudness."""
    sound = melody(7.0, seed=3, rate=RATE)[:, 0]
    time_s = np.arange(len(sound)) / RATE
    loudness = np.where(time_s < 1, 0, 10 ** (-3 + 1.5 * np.clip(time_s - 1, 0, 2)))
    loudness[(time_s > 4) & (time_s < 5)] = 0
    return (sound * loudness + 0.05).astype(np.float32)              # with an offset, which no layer hears


def differences(encoder, layers, sound, **settings):
    """Push a sound; yield (layer, live states, those of an offline pass over the same window) of each hop, and the stream."""
    live = LiveLayers(encoder, layers, encoder.sample_rate, **settings)
    step, field, hop, ahead, size = live._step, live._field, live._hop, live._ahead, live._window
    done = 0
    for at in range(0, len(sound), 3_333):
        batch = live.push(sound[at : at + 3_333])
        for first in range(0, len(batch.time_s), hop):
            end = done + hop + ahead
            begin = max(0, end - size)
            window = sound[begin * step : (end - 1) * step + field]
            for number, offline in enumerate(encoder.states_of(window, layers)):
                yield live, layers[number], batch.states[number][first : first + hop], offline[done - begin :][:hop]
            done += hop


def relative(found, expected):
    """Length of the difference, relative; layer 0 of `small` is zero for digital silence."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-3))


@pytest.mark.parametrize(("window_s", "hop_s", "ahead_s"), [(2.0, 0.5, 0.0), (1.1, 0.1, 0.3), (0.4, 0.4, 0.0)])
def test_hubert_without_drift_equals_the_offline_pass(hubert, music, window_s, hop_s, ahead_s):
    """To rounding in float32, whatever the window: layers together, their last one with the norm after the last block."""
    layers = (1, 0, len(hubert.layers) - 1)
    sound = music[: 3 * RATE]
    for live, _, found, offline in differences(hubert, layers, sound, window_s=window_s, hop_s=hop_s, ahead_s=ahead_s, drift=0):
        assert isinstance(live._pass, HubertLivePass)
        assert relative(found, offline) < 1e-5


def test_hubert_with_drift_stays_near_the_offline_pass_where_loudness_changes(hubert):
    """Errors stay near `drift`, which bounds the change of the norm's outputs; without a limit they reach 0.4 to 0.9."""
    sound, top = swelling(), len(hubert.layers) - 1
    settings = {"window_s": 2.0, "hop_s": 0.25}
    errors = []
    computed = {}
    for live, _, found, offline in differences(hubert, (0, top), sound, drift=DRIFT, **settings):
        errors.append(relative(found, offline))
        computed[DRIFT] = live._pass.computed
    assert max(errors) < 1.2 * DRIFT
    for live, *_ in differences(hubert, (0,), sound, drift=0, **settings):
        computed[0] = live._pass.computed
    assert computed[DRIFT] < 0.75 * computed[0], "frames are used again, though loudness changes by 60 dB"
    careless = [relative(found, offline) for *_, found, offline in differences(hubert, (top,), sound, drift=1e9, **settings)]
    assert max(careless) > 3 * max(errors)


@pytest.mark.parametrize("name", ["95M-tiny", "small"])
def test_hubert_in_bfloat16_is_as_near_as_rounding_allows(checkpoints, music, name):
    """Two computations of bfloat16, whose products have 8 bits, in another order."""
    encoder = load_encoder(name if name == "small" else str(checkpoints / name), device="cpu").at("bfloat16")
    top = len(encoder.layers) - 1
    for live, _, found, offline in differences(encoder, (0, 2, top), music[: 3 * RATE], window_s=1.0, hop_s=0.5, drift=0):
        assert isinstance(live._pass, HubertLivePass)
        assert relative(found, offline) < 0.02


def test_steady_sound_is_computed_once(hubert):
    noise = 0.1 * np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32)
    live = LiveFrames(hubert, 0, RATE, window_s=2.0, hop_s=0.5)
    frames = len(live.push(noise).states)
    assert live.stream._pass.computed <= 1.1 * frames


def kept_bytes(live_pass):
    """Bytes of all tensors and arrays that a pass keeps."""
    import torch

    def sizes(value):
        if isinstance(value, torch.Tensor | np.ndarray):
            yield value.nbytes
        elif isinstance(value, dict):
            for one in value.values():
                yield from sizes(one)

    return sum(size for value in vars(live_pass).values() for size in sizes(value))


def test_memory_of_streams_is_constant(checkpoints, folder):
    """Whatever comes, once the window is full."""
    rng = np.random.default_rng(0)
    encoders = {load_encoder(str(checkpoints / "95M-tiny"), device="cpu"): 0, MusicnnEncoder(folder): 1}
    for encoder, layer in encoders.items():
        live = LiveFrames(encoder, layer, encoder.sample_rate, window_s=0.5, hop_s=0.1)
        second = encoder.sample_rate
        sizes = set()
        for number in range(12):
            live.push((rng.uniform(0, 0.3) * rng.standard_normal(second)).astype(np.float32))
            if number:
                sizes.add(kept_bytes(live.stream._pass))
                assert len(getattr(live.stream._pass, "_runs", ())) <= 6, "no more than hops in a window"
        assert len(sizes) == 1 and sizes.pop() > 0


def test_an_hour_of_statistics_neither_grows_nor_drifts(checkpoints, monkeypatch):
    """With MERT's geometry, without its convolutions and blocks, which keep nothing."""
    monkeypatch.setattr(HubertLivePass, "_compute", lambda self, samples, run: None)
    encoder = load_encoder(str(checkpoints / "95M-tiny"), device="cpu")
    live = LiveFrames(encoder, 0, RATE, window_s=10.0, hop_s=5.0)
    live.stream._pass._blocks = lambda projected, wanted: [projected[wanted]]
    rng = np.random.default_rng(0)
    minute = (0.3 + 0.1 * rng.standard_normal(60 * RATE)).astype(np.float32)
    sizes, frames = [], 0
    for _ in range(60):
        frames += len(live.push(minute * rng.uniform(0, 1)).states)
        sizes.append(kept_bytes(live.stream._pass))
        assert len(live.stream._pass._runs) <= 3
    assert len(set(sizes[1:])) == 1 and sizes[-1] < 2e6
    assert frames == (3_600 * 75 - 2) // 375 * 375
    begin, end = live.stream._emitted - 750, live.stream._emitted
    buffer = live.stream._buffer[live.stream._begin :]
    window = buffer[begin * 320 - live.stream._origin :][: 749 * 320 + 400].astype(np.float64)
    last = live.stream._pass._runs[-1].norm
    assert end == live.stream._pass._end
    assert last.offset == pytest.approx(window.mean(), rel=1e-12)
    assert last.scale == pytest.approx(np.sqrt(window.var() + 1e-7), rel=1e-9)


def test_a_negative_drift_is_an_error(hubert):
    for drift in (-0.1, float("nan")):
        with pytest.raises(InputError, match="Choose 0 for exact frames"):
            LiveFrames(hubert, 0, RATE, drift=drift)


def test_accelerators_and_other_precisions_keep_the_plain_pass(checkpoints):
    encoder = load_encoder(str(checkpoints / "95M-tiny"), device="cpu").at("float16")
    assert type(encoder.live_pass((1,), DRIFT)) is LivePass


# -- musicnn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_weights(tmp_path_factory.mktemp("musicnn"))


@pytest.mark.parametrize(("window_s", "hop_s", "ahead_s"), [(2.0, 0.5, 0.0), (5.0, 0.3, 0.2), (3.3, 0.7, 0.0), (0.1, 0.1, 0.0)])
def test_musicnn_equals_the_offline_pass(folder, window_s, hop_s, ahead_s):
    """Both round to float16 after products in another order: a difference of one unit in the last place."""
    encoder = MusicnnEncoder(folder)
    layers = (0, 1, 13, len(encoder.layers) - 1)
    sound = melody(3 * hop_s + window_s, seed=5, rate=16_000)[:, 0]
    for live, _, found, offline in differences(encoder, layers, sound, window_s=window_s, hop_s=hop_s, ahead_s=ahead_s):
        assert isinstance(live._pass, MusicnnLivePass)
        assert np.abs(found - offline).max() <= 1e-3 * np.abs(offline).max()


def test_published_musicnn_equals_the_offline_pass():
    if not WheelWeights().present():
        pytest.skip("needs the weights of musicnn: run `tonelake weights musicnn`")
    encoder = load_encoder("musicnn", device="cpu")
    sound = melody(5.0, seed=5, rate=16_000)[:, 0]
    for *_, found, offline in differences(encoder, (0, 7, len(encoder.layers) - 1), sound, window_s=3.5, hop_s=0.5):
        assert np.abs(found - offline).max() <= 1e-3 * np.abs(offline).max()


# -- spectra


@pytest.mark.parametrize(("name", "bound"), [("logmel", 1e-6), ("vqt", 0.003), ("cqt", 0.0)])
def test_spectra_equal_the_offline_pass(name, bound):
    """`logmel` to rounding; the decimation of `vqt` rings, as `VQT_REACH` says; `cqt` sees the whole window."""
    encoder = load_encoder(name)
    rng = np.random.default_rng(0)
    sound = melody(5.0, seed=5, rate=22_050)[:, 0] + 0.003 * rng.standard_normal(5 * 22_050).astype(np.float32)
    for live, _, found, offline in differences(encoder, (0,), sound, window_s=2.0, hop_s=0.5, ahead_s=0.1):
        assert isinstance(live._pass, LocalPass) == (name != "cqt")
        assert np.abs(found - offline).max() <= bound


def test_without_drift_a_spectrum_that_rings_is_computed_whole():
    assert type(load_encoder("vqt").live_pass((0,), 0.0)) is LivePass
    assert type(load_encoder("logmel").live_pass((0,), 0.0)) is LocalPass
