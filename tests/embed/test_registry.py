"""Encoders of other packages: loaded as module:Class or by entry point, in every process, and from a stored space."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tonelake.embed import EmbedSettings, EncoderError, LiveFrames, embed_lake, encoder_names, encoder_of, load_encoder
from tonelake.embed.encoders.base import check_frames
from tonelake.embed.encoders.registry import full_name
from tonelake.ingest import read_clips
from tonelake.store import InputError

HOME = Path(__file__).resolve().parents[2]
LOUDNESS = """
import numpy as np
from tonelake.embed import Encoder, pool_states


class Loudness(Encoder):
    name, revision, sample_rate = "loudness", "1", 8_000
    layers, dims = ("rms",), (1,)
    frame_samples, frame_offset = 100, 50

    def encode(self, windows, keep=None, frames=()):
        framed = windows[:, : windows.shape[1] // 100 * 100].reshape(len(windows), -1, 100)
        return pool_states([np.sqrt((framed**2).mean(axis=2, keepdims=True))], keep, frames)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `loud` with an encoder, importable in this process; returns the folder that contains it."""
    folder = tmp_path / "packages"
    (folder / "loud").mkdir(parents=True)
    (folder / "loud" / "__init__.py").write_text("")
    (folder / "loud" / "encoder.py").write_text(LOUDNESS)
    information = folder / "loud-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[tonelake.encoders]\nloudness = loud.encoder:Loudness\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "loud"]:
        del sys.modules[name]


@pytest.mark.slow
def test_an_encoder_of_another_package_embeds_by_the_command_line_and_in_device_processes(tracks, package):
    command = [sys.executable, "-m", "tonelake", "embed", "--lake", tracks.uri, "--encoder", "loud.encoder:Loudness"]
    command += ["--device", "cpu,cpu", "--frames", "rms", "--window", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=HOME, env=os.environ | {"PYTHONPATH": str(package)}, check=False,
    )
    assert done.returncode == 0, done.stderr
    space = tracks.spaces.get("loudness-w2")
    assert (space.location, space.layers) == ("loud.encoder:Loudness", ("rms",))
    assert tracks.vectors(space).count() == tracks.frames(space).table.count() == 50
    again = embed_lake(tracks, EmbedSettings("loudness", device="cpu", window_s=2.0), read_clips)        # by its entry point
    assert (again.space, again.new, again.known) == (space.name, 0, 50)
    clip = tracks.clips.read().row(7, named=True)
    encoder = encoder_of(space)
    ((_, wave),) = read_clips(tracks.clips.read()[7:8], encoder.sample_rate, 1)
    expected = np.sqrt(np.square(wave.reshape(-1, 100)).mean(axis=1))
    assert tracks.vectors(space).take([clip["clip_id"]], "rms").vectors[0, 0] == pytest.approx(expected.mean(), rel=2e-3)


def test_an_entry_point_names_an_encoder(package):
    assert "loudness" in encoder_names()
    assert full_name("loudness") == "loud.encoder:Loudness"
    encoder = load_encoder("loudness")
    assert (encoder.name, encoder.location) == ("loudness", "loud.encoder:Loudness")


def test_a_short_class_streams_live_through_its_defaults(package):
    """Frames of a stream equal those of one pass, although the class defines `encode` alone."""
    encoder = load_encoder("loudness")
    samples = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    live = LiveFrames(encoder, 0, 8_000, window_s=0.5)
    parts = [live.push(samples[i : i + 700]).states for i in range(0, 8_000, 700)] + [live.finish().states]
    offline = np.sqrt(np.square(samples.reshape(-1, 100)).mean(axis=1))
    np.testing.assert_allclose(np.concatenate(parts)[:, 0], offline, rtol=1e-3)
    assert (encoder.frame_field, encoder.frames_of(8_000), encoder.precisions) == (100, 80, ("float32",))
    for call in (lambda: encoder.encode_text(["slow"]), lambda: encoder.at("bfloat16"), lambda: encoder.adapted(None, "x")):
        with pytest.raises(InputError, match="encoder 'loudness': "):
            call()
    encoder.has_frames = False
    with pytest.raises(InputError, match="has no frames, which live audio needs"):
        LiveFrames(encoder, 0, 8_000)
    with pytest.raises(InputError, match=r"has no frames\. Leave out --frames"):
        check_frames(encoder, ["rms"])


def test_an_encoder_gets_the_device_and_precision_named_by_its_constructor(package):
    (package / "loud" / "more.py").write_text(
        "from loud.encoder import Loudness\n"
        "class Placed(Loudness):\n"
        "    def __init__(self, device, precision='float32'):\n"
        "        self.device, self.precision = device, precision\n"
        "class Coarse(Loudness):\n"
        "    precision = 'bfloat16'\n"
    )
    encoder = load_encoder("loud.more:Placed", device="cuda:3", precision="float16")
    assert (encoder.device, encoder.precision) == ("cuda:3", "float16")
    assert load_encoder("loud.more:Coarse", precision="bfloat16").precision == "bfloat16"
    with pytest.raises(InputError, match=r"computes in bfloat16 only, not float32\. Pass --precision bfloat16"):
        load_encoder("loud.more:Coarse")
    with pytest.raises(InputError, match=r"takes no adapter\. Leave out adapter adapters/x/adapter"):
        load_encoder("loud.encoder:Loudness", adapter="adapters/x/adapter")


@pytest.mark.parametrize(("name", "words"), [
    ("nowhere.encoder:X", "module 'nowhere.encoder': not found. Install its package, or add its folder to .* PYTHONPATH"),
    ("loud.nothing:X", "module 'loud.nothing': not found"),
    ("loud.encoder:Quietness", "loud.encoder has no class Quietness. Check the name"),
    ("loud.encoder:np.float32", "not an encoder class. Derive it from tonelake.embed.Encoder"),
    ("loud.bare:Mute", "has no method encode. Define it as tonelake.embed.Encoder describes"),
    ("loud.bare:Uneven", "has 1 different layer names and 2 widths"),
    ("loud.bare:Flat", "not a positive integer. Correct it"),
    ("loud.bare:Lost", "has no layer 1, its default_layer. Choose 0 to 0"),
    ("loud.bare:Wordy", "has no layer 'words', its text_layer. Choose one of rms"),
    ("loud.bare:Bare", "lacks revision, sample_rate, layers, dims, frame_samples. Declare them"),
    ("loud.needy:Needy", "needs no_such_library, which is not installed"),
    ("loud.broken:Broken", "importing it failed with ZeroDivisionError: division by zero. Correct the module"),
    ("antigravity:X", "module 'antigravity': in the standard library"),
])
def test_a_class_that_cannot_be_loaded_is_an_error_with_a_remedy(package, name, words):
    (package / "loud" / "bare.py").write_text(
        "from loud.encoder import Encoder, Loudness\n"
        "class Bare(Encoder):\n    name = 'bare'\n    def encode(self, windows, keep=None, frames=()): ...\n"
        "class Mute(Encoder):\n    name = 'mute'\n"
        "class Uneven(Loudness):\n    dims = (1, 2)\n"
        "class Flat(Loudness):\n    sample_rate = 8e3\n"
        "class Lost(Loudness):\n    default_layer = 1\n"
        "class Wordy(Loudness):\n    text_layer = 'words'\n"
    )
    (package / "loud" / "needy.py").write_text("import no_such_library\n")
    (package / "loud" / "broken.py").write_text("1 / 0\n")
    with pytest.raises(EncoderError, match=words):
        load_encoder(name)
    assert "antigravity" not in sys.modules


def test_a_stored_location_imports_no_file_of_the_lake(tracks):
    """With a lake from another person: its folder is not on the import path, and a file in it does not run."""
    embed_lake(tracks, EmbedSettings("fakes:FakeEncoder", device="cpu"), read_clips)
    (Path(tracks.uri) / "evil_encoder.py").write_text(f"open({str(Path(tracks.uri) / 'ran')!r}, 'w')\n")
    space = replace(tracks.spaces.get("fake"), location="evil_encoder:Evil")
    with pytest.raises(EncoderError, match="module 'evil_encoder': not found"):
        encoder_of(space, home=tracks.uri)
    assert not (Path(tracks.uri) / "ran").exists()
    space = replace(space, location=f"{tracks.uri}/evil_encoder.py:Evil")
    with pytest.raises(InputError, match="neither a checkpoint folder nor a known name"):
        encoder_of(space, home=tracks.uri)
