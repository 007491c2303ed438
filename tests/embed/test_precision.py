"""Precision is chosen by measurement: a lower one is accepted only if it preserves every layer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeEncoder

from tonelake.doctor import diagnose
from tonelake.embed import choose_precision, compare, load_encoder, precision
from tonelake.embed.encoders.base import Pooled
from tonelake.embed.settings import EmbedSettings, open_space
from tonelake.store import InputError


class Lossy(FakeEncoder):
    """An encoder whose lower precision has a given error in one layer, and a given speed."""

    precisions = ("float32", "bfloat16")
    error = 0.0
    delay_s = 0.02

    def at(self, precision):
        other = type(self)()
        other.precision = precision
        other.error, other.delay_s = self.error, self.delay_s
        return other

    def encode(self, windows, *how):
        import time

        pooled = super().encode(windows, *how)
        if (self.precision == "float32") == (self.delay_s > 0):      # a negative delay slows the lower precision instead
            time.sleep(abs(self.delay_s))
        if self.precision == "float32":
            return pooled
        noise = np.random.default_rng(0).standard_normal(pooled.max[1].shape)
        noise *= self.error * np.linalg.norm(pooled.max[1]) / np.linalg.norm(noise)
        return Pooled(pooled.mean, [pooled.max[0], (pooled.max[1] + noise).astype(np.float32)], pooled.n_frames)


def lossy(error: float, delay_s: float = 0.02) -> Lossy:
    encoder = Lossy()
    encoder.error, encoder.delay_s = error, delay_s
    return encoder


@pytest.fixture
def bfloat16_here(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)


@pytest.fixture
def short_sample(monkeypatch):
    """Measure models on three seconds, in one round."""
    monkeypatch.setattr(precision, "SAMPLE_S", 3.0)
    monkeypatch.setattr(precision, "ROUNDS", 1)


def test_a_precision_that_preserves_every_layer_and_is_faster_is_chosen(bfloat16_here):
    choice = choose_precision(lossy(0.01))
    assert choice.encoder.precision == "bfloat16"
    assert choice.reason.startswith("bfloat16: ")
    assert 0.999 < choice.comparison.worst_cosine < 1


def test_one_bad_layer_is_enough_to_refuse_it(bfloat16_here):
    choice = choose_precision(lossy(0.1))
    assert choice.encoder.precision == "float32"
    assert "worst cosine of 0.9" in choice.reason
    assert choice.comparison.table["cosine"][0] > 0.9999
    assert choice.comparison.table["cosine"][1] < 0.999


def test_a_precision_that_is_no_faster_is_not_chosen(bfloat16_here):
    assert choose_precision(lossy(0.0, delay_s=-0.02)).encoder.precision == "float32"


def test_values_that_are_not_finite_are_refused(bfloat16_here):
    assert choose_precision(lossy(np.nan)).encoder.precision == "float32"


def test_a_processor_without_bfloat16_is_not_measured_and_the_doctor_says_so(checkpoints, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(precision, "compare", lambda *_: pytest.fail("measured"))
    choice = choose_precision(lossy(0.0))
    assert (choice.encoder.precision, "no bfloat16 arithmetic" in choice.reason) == ("float32", True)
    monkeypatch.setattr("tonelake.embed.cpu_has_bfloat16", lambda: False)
    found = diagnose(str(checkpoints / "95M-tiny"))
    assert found.verdict.startswith("auto chooses float32: this processor has no bfloat16 arithmetic")
    assert found.facts["processor"].endswith("no bfloat16 arithmetic") and found.table is None


def test_spectral_is_float32_only():
    choice = choose_precision(load_encoder("spectral"))
    assert (choice.encoder.precision, choice.reason, choice.comparison) == ("float32", "", None)
    assert diagnose("spectral").verdict == "auto chooses float32, the only precision of this encoder"


def test_the_comparison_equals_a_calculation_by_hand(bfloat16_here):
    """With an error of 3 % in one layer's maxima."""
    encoder = lossy(0.03)
    table = compare(encoder, "bfloat16").table
    window = precision.sample_music(encoder.sample_rate)[None]
    a, b = encoder.encode(window).max[1][0].astype(float), encoder.at("bfloat16").encode(window).max[1][0].astype(float)
    assert table["cosine"][1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)
    assert table["relative_error"][1] == pytest.approx(0.03, rel=1e-3)
    assert table["relative_error"][0] == 0


def test_the_sample_is_music_with_a_pause_and_reproducible():
    sound = precision.sample_music(24_000)
    assert sound.shape == (240_000,)
    assert 0.79 < np.abs(sound).max() <= 0.8
    assert np.abs(sound[-12_000:]).max() < 0.01
    np.testing.assert_array_equal(precision.sample_music(4_000), precision.sample_music(4_000))


def test_a_space_stores_the_reason_and_keeps_its_precision(lake, checkpoints, short_sample, monkeypatch):
    folder = str(checkpoints / "95M-tiny")
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "MIN_GAIN", 0.0)
    space, encoder = open_space(lake, EmbedSettings(folder, device="cpu"))
    assert (space.name, space.precision, encoder.precision) == ("95m-tiny", "bfloat16", "bfloat16")
    assert "at every layer" in space.precision_reason
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    again, encoder = open_space(lake, EmbedSettings(folder))
    assert (again, encoder.precision) == (space, "bfloat16")
    exact, _ = open_space(lake, EmbedSettings(folder, precision="float32"))
    assert exact.precision == "float32"
    assert exact.name == f"95m-tiny-{exact.fingerprint[:6]}"
    assert replace(exact, precision="bfloat16").fingerprint == space.fingerprint


def test_the_doctor_reports_each_layer_and_fails_if_the_precision_does(checkpoints, short_sample, monkeypatch):
    folder = str(checkpoints / "95M-tiny")
    found = diagnose(folder, precision="bfloat16", device="cpu")
    assert found.healthy
    assert found.table["layer"].to_list() == ["0", "1", "2", "3"]
    assert (found.table["cosine"] > 0.999).all()
    assert "torch 2.13.0" in found.facts["packages"]
    monkeypatch.setattr("tonelake.embed.MIN_COSINE", 1.1)
    assert not diagnose(folder, precision="bfloat16", device="cpu").healthy
    with pytest.raises(InputError, match="int8"):
        diagnose(folder, precision="int8")


def test_the_doctor_is_a_command(checkpoints, short_sample):
    from typer.testing import CliRunner

    from tonelake.cli import app

    folder = str(checkpoints / "95M-tiny")
    done = CliRunner().invoke(app, ["doctor", "--encoder", folder, "--precision", "bfloat16", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["layer"] for line in done.stdout.splitlines()] == ["0", "1", "2", "3"]
    assert "usable" in done.stderr
