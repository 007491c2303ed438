"""basic-pitch's posteriors have right times and outputs; a fake model stands in for the published one."""

from __future__ import annotations

import importlib.util

import numpy as np
import polars as pl
import pytest

from tonelake.probes.frames import basic_pitch
from tonelake.probes.frames.basic_pitch import FRAME_OUTPUT, FRAMES, HOP, INPUT, ONSET_OUTPUT, SAMPLE_RATE, WINDOW, BasicPitch
from tonelake.probes.frames.decode_settings import DecodeSettings
from tonelake.probes.frames.decoding import decode
from tonelake.store import InputError


class Clicks:
    """A model that reports an onset of the key of a click's loudness, in hundredths, at the frame nearest to it."""

    def __init__(self) -> None:
        self.windows = 0

    def run(self, outputs, feeds):
        assert outputs == [FRAME_OUTPUT, ONSET_OUTPUT]
        window = feeds[INPUT]
        assert window.shape == (1, WINDOW, 1) and window.dtype == np.float32
        self.windows += 1
        frames, onsets = np.zeros((1, FRAMES, 88), np.float32), np.zeros((1, FRAMES, 88), np.float32)
        for at in np.flatnonzero(window[0, :, 0]):
            frame, key = round(at / HOP), round(100 * float(window[0, at, 0]))
            onsets[0, frame, key] = 0.9
            frames[0, frame : frame + 20, key] = 0.8
        return frames, onsets


def test_posteriors_become_notes_at_the_right_times_across_windows():
    samples = np.zeros(5 * SAMPLE_RATE, np.float32)
    clicks = {0.3: 10, 1.62: 20, 1.70: 21, 3.3: 39, 4.9: 60}         # 1.64 s and 3.28 s: the second and third window
    for time_s, key in clicks.items():
        samples[round(time_s * SAMPLE_RATE)] = key / 100
    model = BasicPitch(Clicks())
    frame_s, probabilities = model.posteriors(samples)
    assert probabilities.shape == (len(frame_s), 264) and probabilities.dtype == np.float32
    assert (np.diff(frame_s) > 0).all() and frame_s[0] == 0 and 4.98 < frame_s[-1] < 5
    assert not probabilities[:, model.task.groups["offset"]].any()
    notes = decode(model.task, probabilities, frame_s, DecodeSettings(onset_threshold=0.5, frame_threshold=0.3))
    assert notes["pitch"].to_list() == [21 + key for key in clicks.values()]
    np.testing.assert_allclose(notes["start_s"], list(clicks), atol=0.5 * HOP / SAMPLE_RATE + 1e-3)
    assert notes.filter(pl.col("end_s") - pl.col("start_s") < 0.1)["pitch"].to_list() == [81]        # cut by the clip's end


@pytest.mark.parametrize(("count", "windows"), [(0, 1), (100, 1), (WINDOW - 2 * 15 * HOP, 1), (WINDOW - 2 * 15 * HOP + 1, 2)])
def test_short_sounds_take_as_few_windows_as_needed(count, windows):
    fake = Clicks()
    frame_s, probabilities = BasicPitch(fake).posteriors(np.zeros(count, np.float32))
    assert fake.windows == windows and len(frame_s) == len(probabilities) >= 1


def test_without_the_packages_a_sentence_names_the_commands(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(basic_pitch, "find_spec", lambda name: None if name in ("basic_pitch", "onnxruntime") else found(name))
    with pytest.raises(InputError, match=r"basic-pitch: not installed.* pip install --no-deps basic-pitch==0\.4\.0$"):
        BasicPitch()


def test_a_package_without_onnxruntime_is_named(tmp_path, monkeypatch):
    model = tmp_path / "basic_pitch" / basic_pitch.MODEL
    model.parent.mkdir(parents=True)
    model.write_bytes(b"")
    (tmp_path / "basic_pitch" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = importlib.util.find_spec
    monkeypatch.setattr(basic_pitch, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(InputError, match="onnxruntime: not installed"):
        BasicPitch()
