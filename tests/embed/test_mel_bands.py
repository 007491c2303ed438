"""Mel bands equal those of transformers, and encoders whose models are ours do without its import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank

from tonelake.embed.encoders.mel_bands import mel_bands

HOME = Path(__file__).parents[2]


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("equal_area", [False, True])
@pytest.mark.parametrize(("fft", "bands", "low", "high", "rate"), [
    (2048, 128, 0.0, 12_000.0, 24_000), (512, 96, 0.0, 8_000.0, 16_000), (1024, 64, 50.0, 14_000.0, 48_000),
    (2048, 229, 30.0, 11_025.0, 22_051),
])
@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
def test_bands_equal_those_of_transformers(fft, bands, low, high, rate, scale, equal_area):
    expected = mel_filter_bank(
        fft // 2 + 1, bands, low, high, rate, norm="slaney" if equal_area else None, mel_scale=scale
    )
    found = mel_bands(fft // 2 + 1, bands, low, high, rate, scale=scale, equal_area=equal_area)
    assert found.shape == expected.shape == (fft // 2 + 1, bands)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    assert np.array_equal(found.astype(np.float32), expected.astype(np.float32)) or abs(found - expected).max() < 1e-12


def test_encoders_of_our_own_load_no_transformers(tmp_path):
    code = """
import sys
import numpy as np
from tonelake.embed.encoders import mel, mel_bands
from tonelake.embed.encoders.musicnn.mel import constants
from tonelake.embed.encoders.spectral_frames.mel import constants as other_constants
constants("cpu"), other_constants(), mel.htk_bands(128, 2048, 24_000)
print("transformers" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME)
    assert found.stdout.strip() == "False"
