"""The encoder where none is named: of the lake's default space, else the best whose weights are here; nothing is downloaded."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest
from fakes import FakeEncoder

from tonelake.demo import choose_encoder
from tonelake.embed import EmbedSettings, EncoderError, default_encoder, load_encoder
from tonelake.embed.encoders.table import DEFAULT_ENCODER, Entry
from tonelake.embed.settings import describe_space, encoder_location, resolve_device, with_default_encoder


@pytest.fixture
def here(monkeypatch) -> set[str]:
    """Names of the encoders whose weights this machine seems to have; a download fails the test."""
    names: set[str] = {"small", "spectral"}
    monkeypatch.setattr(Entry, "present", lambda entry: entry.name in names)
    monkeypatch.setattr("tonelake.embed.encoders.weights.HubWeights.folder", lambda *_: pytest.fail("downloads"))
    monkeypatch.setattr("tonelake.embed.encoders.musicnn.weights.WheelWeights.folder", lambda *_: pytest.fail("downloads"))
    return names


def add_space(lake, name: str, encoder: type[FakeEncoder] = FakeEncoder, window_s: float = 30.0):
    space = describe_space(encoder(), name, window_s)
    return lake.spaces.make(replace(space, created_at=f"2026-01-0{1 + len(lake.spaces.all())}"))


@pytest.mark.parametrize(("weights", "expected", "reason"), [
    ({DEFAULT_ENCODER, "musicnn"}, DEFAULT_ENCODER, "which has its weights"),
    ({DEFAULT_ENCODER}, DEFAULT_ENCODER, "which has its weights"),
    ({"musicnn", "laion/larger_clap_general"}, "musicnn", f"which has no weights of {DEFAULT_ENCODER}"),
])
def test_a_new_lake_takes_mert_where_its_weights_are_else_musicnn_and_says_why(here, lake, caplog, weights, expected, reason):
    here |= weights
    with caplog.at_level(logging.INFO, "tonelake"):
        settings = with_default_encoder(lake, EmbedSettings(window_s=5.0))
    assert settings == EmbedSettings(expected, window_s=5.0) and encoder_location(lake, EmbedSettings()) == expected
    assert caplog.messages[0] == f"encoder {expected}: the default on this machine, {reason}; choose another with --encoder"


def test_without_any_weights_the_error_names_the_commands_and_nothing_is_downloaded(here, lake):
    for ask in (default_encoder, load_encoder, lambda: with_default_encoder(lake, EmbedSettings())):
        with pytest.raises(EncoderError) as caught:
            ask()
        for remedy in ("tonelake weights musicnn", "tonelake weights mert-95m", "--encoder small", "--encoder spectral"):
            assert remedy in str(caught.value)


def test_a_lake_with_spaces_keeps_its_default_space(here, lake, caplog):
    add_space(lake, "first", window_s=5.0)
    assert with_default_encoder(lake, EmbedSettings(device="cpu")) == EmbedSettings(space="first", device="cpu")
    here.add(DEFAULT_ENCODER)                            # weights that are fetched later change nothing
    add_space(lake, "second")
    assert with_default_encoder(lake, EmbedSettings()).space == "second"
    lake.spaces.set_default("first")
    with caplog.at_level(logging.INFO, "tonelake"):
        assert with_default_encoder(lake, EmbedSettings()) == EmbedSettings(space="first")
    assert "encoder fake, of space first, the lake's default; choose another with --encoder" in caplog.messages


def test_another_window_or_name_makes_a_new_space_of_the_default_spaces_encoder(here, lake):
    add_space(lake, "first")
    for settings in (EmbedSettings(window_s=5.0), EmbedSettings(precision="float32"), EmbedSettings(space="new")):
        assert with_default_encoder(lake, settings) == replace(settings, encoder="fake")


def test_a_projection_that_is_the_default_space_is_not_embedded_into(here, lake):
    space = add_space(lake, "first")
    projection = replace(space, name="projected", location="projection", created_at="2026-02-01")
    lake.spaces.make(projection)
    lake.spaces.set_default("projected")
    assert with_default_encoder(lake, EmbedSettings()).space == "first"


def test_what_is_named_is_kept(here, lake):
    add_space(lake, "first")
    for settings in (EmbedSettings("spectral"), EmbedSettings(space="first"), EmbedSettings(adapter="run")):
        assert with_default_encoder(lake, settings) == settings


@pytest.mark.parametrize(("weights", "expected", "remark"), [
    ({DEFAULT_ENCODER, "musicnn"}, DEFAULT_ENCODER, r"\A\Z"),
    ({"musicnn"}, "musicnn", "the results below do not describe MERT"),
    (set(), "small", r"(?s)comes with tonelake.*do not describe MERT.*tonelake weights musicnn"),
])
def test_the_demo_takes_mert_else_musicnn_else_small_and_says_so(here, weights, expected, remark):
    here |= weights
    encoder, text = choose_encoder()
    assert encoder == expected and re.search(remark, text)


def test_choosing_a_device_needs_no_default_encoder(here):
    assert resolve_device(EmbedSettings(device="cpu"), None) == "cpu"
    assert resolve_device(EmbedSettings("spectral"), None) == "cpu"
